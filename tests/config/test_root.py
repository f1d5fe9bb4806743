"""The closed list of keys."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from graft.config.catalog import list_options
from graft.config.root import GROUPS, PARTS, SEVERAL, Root, key_meanings, top_level_keys, wrong_kind


def test_every_key_and_every_shipped_group_says_in_a_sentence_what_it_is() -> None:
    meanings = key_meanings()
    for name in {*top_level_keys(), *list_options()}:
        assert meanings[name][0] not in " \n", name
        assert meanings[name].endswith("."), name


def test_parts_and_several_are_keys_and_groups_are_not() -> None:
    assert {*PARTS, *SEVERAL} <= set(top_level_keys())
    assert not set(GROUPS) & set(top_level_keys())


@pytest.mark.parametrize(
    ("value", "default"),
    [(0, 0), (2**32 - 1, 0), (True, False), (None, False), ([], []), (["a"], []), ("x", None), ("x", {})],
)
def test_a_value_of_the_kind_of_its_default_is_right(value: Any, default: Any) -> None:
    assert wrong_kind(value, default) is None


@pytest.mark.parametrize(
    ("value", "default", "problem"),
    [
        ("", 0, "is no whole number from 0 to 4294967295"),
        (-1, 0, "is no whole number from 0 to 4294967295"),
        (2**32, 0, "is no whole number from 0 to 4294967295"),
        (1.0, 0, "is no whole number from 0 to 4294967295"),
        (True, 0, "is no whole number from 0 to 4294967295"),
        (None, 0, "is no whole number from 0 to 4294967295"),
        ("no", False, "is neither true nor false"),
        (1, False, "is neither true nor false"),
        ("my_lab", [], "is no list. Write [my_lab]"),
    ],
)
def test_a_value_of_another_kind_is_wrong(value: Any, default: Any, problem: str) -> None:
    assert wrong_kind(value, default) == problem


def test_the_defaults_of_all_keys_are_of_their_own_kind() -> None:
    for field in dataclasses.fields(Root):
        default = getattr(Root(), field.name)
        assert wrong_kind(default, default) is None
