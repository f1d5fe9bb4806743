"""The help of a verb, in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from graft.commands.help import verb_help
from graft.config.catalog import list_options
from graft.config.root import PARTS
from graft.errors import ConfigError


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "130")


def test_training_names_every_option_of_every_group_with_its_description() -> None:
    words = " ".join(verb_help("train").split())
    for group, options in list_options().items():
        if group == "hydra":
            continue
        for name, option in options.items():
            assert f"{name} {' '.join(option.summary.split())}" in words, option.path


def test_defaults_are_marked_and_nothing_else() -> None:
    lines = verb_help("train").splitlines()
    marked = [line.split()[1] for line in lines if line.startswith("    * ")]
    assert {"lora", "minilm", "financial_news", "cross_entropy", "checkpoint", "wandb"} <= set(marked)
    assert not {"full", "focal", "mlflow", "fast", "seeds"} & set(marked)


def test_every_group_says_what_it_chooses_and_how_several_are_written() -> None:
    text = verb_help("train")
    for group in PARTS:
        assert f"\n  {group}: " in text
    assert "\n  peft: What of the model is trained: everything, its head, or an adapter.\n" in text
    assert "Several are written callbacks=[a,b]." in text


def test_keys_come_with_their_defaults_and_meanings() -> None:
    lines = [line.strip() for line in verb_help("train").partition("\nKeys\n")[2].splitlines()]
    assert any(line.startswith("seed=0 ") and "Seed of everything random" in line for line in lines)
    assert any(line.startswith("resume=false ") and "run=<folder or id>" in line for line in lines)
    assert any(line.startswith("offline=false ") for line in lines)
    assert not any(line.startswith(("peft", "objective", "paths")) for line in lines[:8])


def test_what_must_be_given_is_said_to_be_required() -> None:
    text = verb_help("predict")
    assert "    run (required)" in text
    assert "    input (required)" in text
    assert "    output=- " in text
    assert "What can be chosen" in text  # paths


def test_examples_and_flags_are_shown() -> None:
    text = verb_help("train")
    assert "\nExamples\n  graft train\n  graft train data=sst2 peft=full" in text
    for flag in ("-m", "--cfg job", "--info defaults", "--config-dir DIR", "--config-name NAME"):
        assert f"\n    {flag} " in text


def test_the_users_options_are_marked_as_theirs(tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "mine.yaml").write_text("# A method of mine.\n", encoding="utf-8")
    text = verb_help("train", [str(tmp_path)])
    assert "mine         A method of mine. (yours)\n" in text
    assert "(yours)" not in verb_help("train")


def test_the_plain_words_are_ascii_and_no_line_is_empty_handed() -> None:
    for verb in ("train", "evaluate", "predict"):
        text = verb_help(verb)
        assert text.isascii()
        assert "None" not in text
        assert all(line == line.rstrip() for line in text.splitlines())


def test_a_verb_without_a_primary_config_is_answered() -> None:
    with pytest.raises(ConfigError, match=r"there is no primary config trian\.yaml in .*Did you mean 'train'"):
        verb_help("trian")
