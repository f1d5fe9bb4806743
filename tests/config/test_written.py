"""Overrides as text: what Hydra is given, and what is read from them."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from graft.config.written import clean_overrides, first_point, leaves, option_names, rewrite_overrides, shown


def parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("peft.config.lora_dropout=0.1", "++peft.config.lora_dropout=0.1"),
        ("  optimizer.lr = 1e-3", "++optimizer.lr = 1e-3"),
        ("run={name: a}", "++run={name: a}"),
        ("callbacks.early_stopping.patience=3", "++callbacks.early_stopping.patience=3"),
    ],
)
def test_what_lies_below_a_key_is_force_added(written: str, given: str) -> None:
    assert rewrite_overrides([written]) == [given]


@pytest.mark.parametrize(
    "written",
    ["seed=1", "peft=lora", "task/loss=focal", "callbacks=[checkpoint,progress]", "+a.b=1", "++a.b=1", "~a.b"],
)
def test_keys_groups_and_what_has_a_sign_of_its_own_stay(written: str) -> None:
    assert rewrite_overrides([written]) == [written]


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("input=rows (1).csv", 'input="rows (1).csv"'),
        ("paths.data=~/sets", '++paths.data="~/sets"'),
        ("run.name=a=b", '++run.name="a=b"'),
        ("model.name=C:/models (old)", '++model.name="C:/models (old)"'),
    ],
)
def test_a_text_that_hydra_cannot_read_is_quoted(written: str, given: str) -> None:
    assert rewrite_overrides([written]) == [given]
    assert parsed(given).value() == written.partition("=")[2]


@pytest.mark.parametrize("written", ["x=[a", "x=choice(a,", "x='a", 'x="a', "lr", ""])
def test_a_list_a_mapping_or_a_sweep_that_went_wrong_is_not_taken_for_a_text(written: str) -> None:
    assert rewrite_overrides([written]) == [written]


def test_a_path_with_dots_in_a_value_is_no_dotted_key() -> None:
    assert rewrite_overrides(["run=logs/a.b/c"]) == ["run=logs/a.b/c"]


def test_hydras_own_keys_are_left_to_hydra() -> None:
    assert rewrite_overrides(["hydra.sweep.dir=x", "hydra/launcher=joblib"]) == [
        "hydra.sweep.dir=x",
        "hydra/launcher=joblib",
    ]


def test_cleaning_undoes_rewriting_and_keeps_deletions() -> None:
    words = ["peft=lora", "optimizer.lr=1e-3", "run={name: a}", "~data.limit"]
    assert clean_overrides(rewrite_overrides(words)) == words


def test_an_override_is_shown_as_it_was_written() -> None:
    assert shown(parsed(rewrite_overrides(["optimizer.lr=1e-3"])[0])) == "optimizer.lr=1e-3"


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("peft=lora", ["lora"]),
        ("callbacks=[checkpoint,'progress']", ["checkpoint", "progress"]),
        ("peft=lora,full", ["lora", "full"]),
        ("callbacks=[checkpoint],[progress,report]", ["checkpoint", "progress", "report"]),
        ("peft=null", [None]),
        ("model=3", ["3"]),
        ("peft=glob(*)", []),
    ],
)
def test_the_options_that_an_override_chooses(written: str, names: list[str | None]) -> None:
    assert option_names(parsed(written)) == names


def test_a_mapping_sets_every_key_in_it() -> None:
    assert list(leaves(parsed("++run={name: a, about: {by: me, tags: []}}"))) == [
        (["run", "name"], "a"),
        (["run", "about", "by"], "me"),
        (["run", "about", "tags"], []),
    ]


def test_a_plain_value_sets_its_own_key() -> None:
    assert list(leaves(parsed("++optimizer.lr=0.1"))) == [(["optimizer", "lr"], 0.1)]


def test_the_first_point_of_a_sweep_stands_for_it() -> None:
    assert first_point(parsed("peft=lora,full")) == "peft=lora"
    assert first_point(parsed("peft=lora")) == "peft=lora"
