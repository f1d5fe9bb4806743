from __future__ import annotations

import gc
import pickle
from typing import Any

import numpy as np
import pytest

from graft.data.encoded import EncodedRows


def test_rows_come_back_as_they_were_encoded() -> None:
    rows = EncodedRows.build(
        [
            {"input_ids": [[1, 2], []], "label": [0, 2], "score": [0.5, 1.0], "weights": [[0.25], [0.5, 0.75]]},
            {"input_ids": [[3, 4, 5]], "label": [1], "score": [-1.0], "weights": [[]]},
        ]
    )
    assert len(rows) == 3
    found = [{name: np.asarray(value).tolist() for name, value in rows[index].items()} for index in range(3)]
    assert found == [
        {"input_ids": [1, 2], "label": 0, "score": 0.5, "weights": [0.25], "row": 0},
        {"input_ids": [], "label": 2, "score": 1.0, "weights": [0.5, 0.75], "row": 1},
        {"input_ids": [3, 4, 5], "label": 1, "score": -1.0, "weights": [], "row": 2},
    ]


def test_numbers_are_kept_in_small_types() -> None:
    row = EncodedRows.build([{"input_ids": [[1]], "floats": [[0.5]], "label": [1], "score": [0.5], "flag": [True]}])[0]
    assert {name: np.asarray(value).dtype for name, value in row.items()} == {
        "input_ids": np.int32,
        "floats": np.float32,
        "label": np.int64,
        "score": np.float32,
        "flag": np.bool_,
        "row": np.int64,
    }


def test_whole_numbers_that_need_eight_bytes_get_them() -> None:
    rows = EncodedRows.build([{"input_ids": [[1]]}, {"input_ids": [[2**40]]}])
    assert [rows[index]["input_ids"].tolist() for index in range(2)] == [[1], [2**40]]


def test_arrays_are_taken_as_lists_are() -> None:
    rows = EncodedRows.build([{"input_ids": [np.array([1, 2], dtype=np.uint8), np.array([3], dtype=np.uint8)]}])
    assert [rows[index]["input_ids"].tolist() for index in range(2)] == [[1, 2], [3]]


def test_a_chunk_of_empty_sequences_does_not_change_the_type_of_the_others() -> None:
    rows = EncodedRows.build([{"weights": [[], []]}, {"weights": [[0.5]]}, {"weights": [[]]}])
    assert rows[2]["weights"].tolist() == [0.5]
    assert rows[3]["weights"].tolist() == []
    assert rows[0]["weights"].dtype == np.float32


def test_the_length_of_a_row_is_that_of_its_input_ids() -> None:
    assert EncodedRows.build([{"input_ids": [[1, 2], []]}, {"input_ids": [[3]]}]).lengths.tolist() == [2, 0, 1]
    assert EncodedRows.build([{"pixels": [[1, 2], [3, 4]]}]).lengths.tolist() == [1, 1]


def test_nothing_encoded_is_no_row() -> None:
    rows = EncodedRows.build([])
    assert len(rows) == 0
    assert rows.lengths.tolist() == []


def test_a_million_rows_are_a_few_objects() -> None:
    gc.collect()
    before = len(gc.get_objects())
    ids = [[1, 2, 3]] * 1000
    rows = EncodedRows.build({"input_ids": ids, "label": [0] * 1000} for _ in range(1000))
    assert len(rows) == 1_000_000
    assert len(gc.get_objects()) - before < 1000
    # 12 bytes of ids, 8 of an offset, 8 of the label and 8 of the position a row
    assert rows.nbytes == 1_000_000 * (12 + 8 + 8 + 8) + 8


def test_a_row_is_a_view_and_no_copy() -> None:
    rows = EncodedRows.build([{"input_ids": [[1, 2], [3]]}])
    assert np.shares_memory(rows[0]["input_ids"], rows[0]["input_ids"])


def test_rows_survive_the_way_to_another_process() -> None:
    rows = pickle.loads(pickle.dumps(EncodedRows.build([{"input_ids": [[1, 2], [3]], "label": [0, 1]}])))
    assert rows[1]["input_ids"].tolist() == [3]
    assert rows.lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([{"a": [1]}, {"b": [1]}], r"chunk 1 has the features \['b'\], those before \['a'\]"),
        ([{"a": [1]}, {"a": [[1]]}], "'a' is a sequence in some rows and a number in others"),
        ([{"a": ["word"]}], "'a' is neither a number nor a flat sequence of numbers"),
        ([{"a": [None]}], "'a' is neither a number nor a flat sequence of numbers"),
        ([{"a": [[[1, 2]]]}], "'a' is neither a number nor a flat sequence of numbers"),
        ([{"a": [1, 2], "b": [1]}], "different numbers of rows: {'a': 2, 'b': 1}"),
    ],
)
def test_features_that_do_not_match_are_refused(chunks: list[dict[str, list[Any]]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EncodedRows.build(chunks)
