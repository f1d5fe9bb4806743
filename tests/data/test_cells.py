from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graft.data import cells
from graft.data.cells import Column, as_words, flags, is_text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a", " b\t", "", "  ", None], ["a", "b", None, None, None]),
        ([1, -2, None], ["1", "-2", None]),
        ([1.0, 2.0, None], ["1", "2", None]),
        ([1.0, 2.5], ["1", "2.5"]),
        ([1.0, float("nan")], ["1", None]),
        ([float("inf"), 1.0], ["inf", "1"]),
        ([True, False], ["true", "false"]),
        ([None, None], [None, None]),
    ],
)
def test_single_values_become_words(values: list[Any], words: list[str | None]) -> None:
    found = as_words(pa.array(values))
    assert found is not None
    assert found.to_pylist() == words


@pytest.mark.parametrize("values", [[["a"]], [{"a": 1}]])
def test_lists_and_objects_are_no_words(values: list[Any]) -> None:
    assert as_words(pa.array(values)) is None


def column(array: Any) -> Column:
    return Column("train", pa.table({"text": array}), "text")


def test_values_come_in_one_piece_without_dictionary() -> None:
    pieces = pa.chunked_array([["a", "b"], ["a"]]).dictionary_encode()
    values = column(pieces).values()
    assert isinstance(values, pa.StringArray)
    assert values.to_pylist() == ["a", "b", "a"]


def test_text_that_is_too_long_for_one_array_gets_long_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    # an array of ordinary strings holds 2 GiB, and joining more of them is an error of pyarrow's
    monkeypatch.setattr(cells, "_SHORT", 20)
    values = column(pa.chunked_array([["a" * 10], ["b" * 10]])).values()
    assert values.type == pa.large_string()
    assert values.to_pylist() == ["a" * 10, "b" * 10]


def test_places_are_those_of_the_mask() -> None:
    assert column(["a", "b", "c"]).places(np.array([True, False, True])) == "train split, rows 1, 3"


def test_a_wrong_type_names_the_column_and_the_type() -> None:
    assert column([["a"]]).wrong_type("texts") == (
        "train split: the column 'text' of the rows holds values of type list<item: string>, which are no texts."
    )


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_every_kind_of_string_is_text(kind: pa.DataType) -> None:
    assert is_text(kind)
    assert not is_text(pa.int64())


def test_a_mask_is_false_where_it_is_null() -> None:
    assert flags(pa.array([True, None, False])).tolist() == [True, False, False]
