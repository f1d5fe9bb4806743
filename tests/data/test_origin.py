from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from graft.data.origin import ROW, file_names, files_of, pick, places, shown, with_files


def table(count: int, *files: tuple[str, int, int]) -> pa.Table:
    made = pa.table({"text": [f"t{index}" for index in range(count)]})
    return with_files(made, files) if files else made


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        ([2], "train split, row 3"),
        ([0, 2], "train split, rows 1, 3"),
        ([0, 1, 2, 3, 4], "train split, rows 1, 2, 3, 4, 5"),
        ([0, 1, 2, 3, 4, 5, 6], "train split, rows 1, 2, 3, 4, 5 and 2 more"),
    ],
)
def test_rows_count_from_one_and_at_most_five_are_named(indices: list[int], said: str) -> None:
    assert places("train", table(7), np.array(indices)) == said


def test_rows_are_those_of_their_own_file() -> None:
    joined = table(7, ("a.csv", 3, 1), ("b.csv", 4, 1))
    assert places("test", joined, np.array([0, 2, 3, 6])) == "test split, a.csv, rows 1, 3; b.csv, rows 1, 4"


def test_rows_of_a_later_chunk_keep_their_numbers() -> None:
    assert places("train", table(2, ("a.csv", 2, 101)), np.array([1])) == "train split, a.csv, row 102"


def test_picked_rows_keep_the_numbers_they_had_however_often_they_are_picked() -> None:
    whole = table(7, ("a.csv", 3, 1), ("b.csv", 4, 1))
    once = pick(whole, np.array([1, 2, 3, 6]))
    twice = pick(once, np.array([3, 0]))
    assert twice.column("text").to_pylist() == ["t6", "t1"]
    assert twice.column(ROW).to_pylist() == [7, 2]
    assert places("train", twice, np.array([0, 1])) == "train split, b.csv, row 4; a.csv, row 2"


def test_the_note_of_files_leaves_other_metadata_alone() -> None:
    noted = with_files(table(2).replace_schema_metadata({"other": "kept"}), [("a.csv", 2, 1)])
    assert noted.schema.metadata[b"other"] == b"kept"
    assert files_of(noted) == [("a.csv", 2, 1)]
    assert files_of(table(2)) == []


def test_paths_are_shown_from_the_current_folder(here: Path) -> None:
    assert shown(here / "data" / "a.csv") == "data/a.csv"
    assert shown(here.parent / "a.csv") == str(here.parent / "a.csv")
    assert shown("data/a.csv") == "data/a.csv"


def test_files_are_named_for_a_message(here: Path) -> None:
    assert file_names(table(2)) == "the rows"
    assert file_names(table(2, (str(here / "a.csv"), 2, 1))) == "the file a.csv"
    assert file_names(table(2, ("a.csv", 1, 1), ("b.csv", 1, 1))) == "the files a.csv and 1 more"
