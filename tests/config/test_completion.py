"""What the shell offers behind a verb, asked of Hydra in this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from graft.config.completion import complete_overrides, shell_script


def test_groups_are_offered_by_their_beginning() -> None:
    assert complete_overrides("train", [], "pe") == ["peft.", "peft="]


def test_options_are_offered_behind_their_group() -> None:
    assert complete_overrides("train", [], "peft=l") == ["peft=last_blocks", "peft=lora"]


def test_nested_groups_are_offered() -> None:
    assert "task/loss=focal" in complete_overrides("train", [], "task/loss=f")


def test_keys_are_offered_with_what_was_chosen_before() -> None:
    assert complete_overrides("train", ["scheduler=polynomial"], "scheduler.p") == ["scheduler.power="]
    assert complete_overrides("train", [], "scheduler.p") == []


def test_keys_set_before_that_no_yaml_lists_do_not_hinder() -> None:
    before = ["peft.config.lora_dropout=0.1", "trainer=cpu"]
    assert complete_overrides("train", before, "peft=f") == ["peft=full"]


def test_the_users_options_are_offered(tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "mine.yaml").write_text("# Mine.\n", encoding="utf-8")
    assert complete_overrides("train", [], "peft=m", config_dirs=[str(tmp_path)]) == ["peft=mine"]


def test_other_verbs_offer_their_own() -> None:
    assert complete_overrides("predict", [], "inp") == ["input="]
    assert complete_overrides("predict", [], "pef") == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_is_for_the_command_graft(shell: str) -> None:
    before = (list(sys.argv), dict(os.environ))
    script = shell_script("install", shell)
    assert "complete" in script
    assert script.rstrip().endswith("graft")
    assert (list(sys.argv), dict(os.environ)) == before
