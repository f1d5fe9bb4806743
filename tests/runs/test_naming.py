from __future__ import annotations

import re
from typing import Any

import pytest

from graft.config.overrides import check_overrides
from graft.runs.naming import content_hash, group_hash, option_text, run_name, safe_name

CONFIG: dict[str, Any] = {
    "seed": 0,
    "optimizer": {"lr": 1e-3, "betas": [0.9, 0.99]},
    "run": {"name": None, "tags": []},
    "paths": {"logs": "/a"},
    "logger": {"csv": {}},
    "resume": None,
    "ckpt_path": None,
    "offline": False,
}


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"name": "other", "tags": ["x"]}},
        {"paths": {"logs": "/b"}},
        {"logger": None},
        {"resume": True},
        {"ckpt_path": "/a/last.ckpt"},
        {"offline": True},
    ],
)
def test_names_places_and_loggers_do_not_change_the_hash(change: dict[str, Any]) -> None:
    assert content_hash({**CONFIG, **change}) == content_hash(CONFIG)


@pytest.mark.parametrize("change", [{"seed": 1}, {"optimizer": {"lr": 2e-3, "betas": [0.9, 0.99]}}, {"extra": 1}])
def test_what_determines_the_result_changes_the_hash(change: dict[str, Any]) -> None:
    assert content_hash({**CONFIG, **change}) != content_hash(CONFIG)


def test_hash_does_not_depend_on_the_order_of_keys_but_on_that_of_lists() -> None:
    assert content_hash(dict(reversed(CONFIG.items()))) == content_hash(CONFIG)
    swapped = {**CONFIG, "optimizer": {"lr": 1e-3, "betas": [0.99, 0.9]}}
    assert content_hash(swapped) != content_hash(CONFIG)


def test_seeds_share_a_group_and_learning_rates_do_not() -> None:
    other_seed = {**CONFIG, "seed": 7}
    other_lr = {**CONFIG, "optimizer": {"lr": 2e-3, "betas": [0.9, 0.99]}}
    assert group_hash(other_seed) == group_hash(CONFIG)
    assert group_hash(other_lr) != group_hash(CONFIG)


def test_no_hash_is_read_as_a_number_on_a_command_line() -> None:
    hashes = [content_hash({"seed": seed}) for seed in range(2000)]
    assert len(set(hashes)) == 2000
    for one in hashes:
        assert re.fullmatch("[a-f][0-9a-f]{7}", one)
    check_overrides("evaluate", [f"run={hashes[0]}"])


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("sst2_lora", "sst2_lora"),
        ("a b", "a_b"),
        ('a"b', "a_b"),
        ("a'b", "a_b"),
        ("a=b,c", "a_b_c"),
        ("org/name", "org_name"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("caf\u00e9 \u00fcber", "caf_ber"),
        ("x" * 400, "x" * 80),
        ("v1.2-rc", "v1.2-rc"),
    ],
)
def test_name_becomes_one_plain_folder(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["", "..", "/", "\u65e5\u672c\u8a9e", "'\""])
def test_name_of_which_nothing_is_left_is_called_by_its_hash(name: str) -> None:
    assert re.fullmatch("run_[a-f][0-9a-f]{7}", safe_name(name))
    assert safe_name(name) == safe_name(name)
    assert safe_name(name) != safe_name(f"{name}\u00e9")


def test_run_is_named_by_what_the_command_line_chose_and_changed() -> None:
    choices = {"peft": "full", "model": "tiny_bert", "data": "sst2", "trainer": "cpu", "experiment": None}
    overrides = ["peft=full", "model=tiny_bert", "optimizer.lr=3e-4", "peft.config.r=16", "seed=1", "trainer=cpu"]
    assert run_name(choices, overrides) == "full tiny_bert lr=3e-4 r=16 seed=1"


def test_run_without_changes_is_called_default() -> None:
    assert run_name({"peft": "lora", "experiment": None}, []) == "default"
    assert run_name({"peft": "lora"}, ["run.name=x", "paths.logs=/y", "logger=[csv]", "offline=true"]) == "default"


def test_experiment_stands_for_the_options_it_chose() -> None:
    choices = {"experiment": "sst2_lora", "peft": "lora", "data": "sst2"}
    assert run_name(choices, ["experiment=sst2_lora", "seed=3"]) == "sst2_lora seed=3"


def test_equal_last_parts_of_keys_are_told_apart() -> None:
    name = run_name({}, ["optimizer.weight_decay=0.1", "param_groups.weight_decay=0"])
    assert name == "optimizer.weight_decay=0.1 param_groups.weight_decay=0"


def test_path_is_said_by_its_last_part() -> None:
    assert run_name({}, ["data.source.train=/data/a b/train.csv", "model.name=org/name"]) == "train=train.csv name=name"


def test_long_name_loses_its_longest_parts_and_says_so() -> None:
    name = run_name({}, [f"a.key{number}=value{number}" for number in range(20)], longest=40)
    assert name == "key0=value0 key1=value1 key2=value2 ..."
    lists = ["callbacks_of_mine=[a,b]", "data.names=[one,two,three,four]", "optimizer.lr=3e-4", "seed=1"]
    assert run_name({}, lists, longest=45) == "callbacks_of_mine=[a,b] lr=3e-4 seed=1 ..."
    assert len(run_name({}, ["a.b=" + "x" * 200], longest=40)) == 40


def test_quotes_of_the_shell_are_no_part_of_a_name() -> None:
    assert run_name({}, ["data.name='a b'"]) == "name=a b"


def test_option_is_said_in_one_word() -> None:
    assert [option_text(one) for one in (None, "null", "lora", ["rdrop", "fgm"])] == ["", "", "lora", "rdrop+fgm"]
