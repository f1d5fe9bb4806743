"""What stands behind a verb, sorted into flags, overrides and folders."""

from __future__ import annotations

import pytest

from graft.commands.arguments import read_arguments, words_behind
from graft.config.process import command_line


def test_words_are_sorted() -> None:
    arguments = read_arguments(
        ["peft=lora", "-m", "--config-dir", "a", "seed=0,1", "-cd", "b", "--config-dir=c", "--cfg", "job", "--resolve"]
    )
    assert arguments.overrides == ["peft=lora", "seed=0,1"]
    assert arguments.config_dirs == ["a", "b", "c"]
    assert arguments.flags == ["--multirun", "--cfg", "job", "--resolve"]
    assert arguments.problems == []


@pytest.mark.parametrize("words", [["--config-name", "mine"], ["-cn", "mine.yaml"], ["--config-name=mine"]])
def test_another_primary_config_is_noticed(words: list[str]) -> None:
    assert read_arguments(words).config_name == "mine"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--frobnicate"], "--frobnicate: there is no such flag."),
        (["--mutlirun"], "--mutlirun: there is no such flag. Did you mean '--multirun'?"),
        (["--multi"], "--multi: there is no such flag. Did you mean '--multirun'?"),
        (["--lr=0.1"], "--lr=0.1: there is no such flag. A setting is written without dashes: lr=0.1"),
        (["--config-dir"], "--config-dir: this flag needs a value behind it."),
        (["--config-dir", "-m"], "--config-dir: this flag needs a value behind it."),
        (["--config-dir="], "--config-dir=: this flag needs a value behind it."),
        (["-cn"], "-cn: this flag needs a value behind it."),
        (["--cfg"], "--cfg: this flag needs a value behind it. One of: job, hydra, all."),
        (["-c", "jbo"], "-c: 'jbo' is no value of this flag. Did you mean 'job'? One of: job, hydra, all."),
        (["-m=3"], "-m=3: this flag takes no value. Write --multirun."),
    ],
)
def test_a_flag_that_cannot_be_read_is_a_problem(words: list[str], problem: str) -> None:
    assert read_arguments(words).problems == [problem]


def test_all_problems_are_found() -> None:
    assert len(read_arguments(["--nope", "peft=lora", "-z", "--cfg"]).problems) == 3


@pytest.mark.parametrize(("words", "flags"), [(["-i"], []), (["--info", "config"], ["config"]), (["-i", "x=1"], [])])
def test_what_info_is_wanted_may_be_left_out(words: list[str], flags: list[str]) -> None:
    arguments = read_arguments(words)
    assert arguments.flags == ["--info", *flags]
    assert arguments.problems == []
    assert arguments.shows_only


@pytest.mark.parametrize(
    ("words", "multirun"),
    [
        (["-m"], True),
        (["--multirun", "seed=1"], True),
        (["sweep=seeds"], True),
        (["+sweep=seeds"], True),
        (["hydra.mode=MULTIRUN"], True),
        (["hydra.mode=RUN"], False),
        (["seed=0,1"], False),
    ],
)
def test_a_sweep_is_recognised(words: list[str], multirun: bool) -> None:
    assert read_arguments(words).multirun is multirun


@pytest.mark.parametrize(
    ("words", "full_error", "wanted"),
    [
        (["debug=fast"], None, True),
        (["+debug=fast"], None, True),
        (["debug=null"], None, False),
        (["seed=1"], None, False),
        (["seed=1"], "1", True),
        (["seed=1"], "0", False),
    ],
)
def test_a_traceback_is_wanted_when_debugging(
    words: list[str], full_error: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if full_error is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", full_error)
    assert read_arguments(words).wants_traceback is wanted


def test_the_words_behind_a_verb_are_found_with_and_without_it() -> None:
    with command_line(["graft", "train", "peft=lora"]):
        assert words_behind("train") == ["peft=lora"]
        assert words_behind("predict") == ["train", "peft=lora"]
    with command_line(["python -m graft.commands.train", "peft=lora"]):
        assert words_behind("train") == ["peft=lora"]
