from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graft.data.columns import features_only, to_schema
from graft.data.origin import with_files
from graft.data.schemas import ClassificationRow, MultiLabelRow, RegressionRow
from graft.errors import DataError


def table(**columns: Any) -> pa.Table:
    return pa.table(columns)


def problems(tables: dict[str, pa.Table], schema: type = ClassificationRow, **settings: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        to_schema(tables, schema, **settings)
    return caught.value.problems


# ---- good data ----


def test_columns_are_renamed_and_labels_counted() -> None:
    made, names = to_schema(
        {"train": table(review=["one", "two"], stars=["bad", "good"], id=[1, 2])},
        ClassificationRow,
        columns={"text": "review", "label": "stars"},
    )
    assert made["train"].to_pydict() == {"text": ["one", "two"], "label": [0, 1]}
    assert names == ("bad", "good")


def test_a_column_that_is_not_named_has_the_name_of_the_schema() -> None:
    train = table(text=["one", "two"], y=["a", "b"])
    made, _ = to_schema({"train": train}, ClassificationRow, columns={"text": None, "label": "y"})
    assert made["train"].column_names == ["text", "label"]


def test_a_pair_is_read_where_there_is_one() -> None:
    train = table(a=["one"], b=["two"], score=[0.5])
    made, names = to_schema({"train": train}, RegressionRow, columns={"text": "a", "text_pair": "b"})
    assert made["train"].to_pydict() == {"text": ["one"], "text_pair": ["two"], "score": [0.5]}
    assert names is None


def test_names_for_other_tasks_are_no_problem() -> None:
    train = table(text=["one", "two"], label=["a", "b"])
    columns = {"labels": "topics", "score": "points", "text_pair": None}
    assert to_schema({"train": train}, ClassificationRow, columns=columns)[0]["train"].num_rows == 2


def test_every_kind_has_its_type() -> None:
    made, _ = to_schema({"train": table(text=["a", "b"], label=["x", "y"])}, ClassificationRow)
    assert made["train"].schema.types == [pa.string(), pa.int64()]
    made, _ = to_schema({"train": table(text=["a", "b"], labels=[["x"], ["y"]])}, MultiLabelRow)
    assert made["train"].schema.types == [pa.string(), pa.list_(pa.int64())]
    made, _ = to_schema({"train": table(text=["a", "b"], score=[1, 2])}, RegressionRow)
    assert made["train"].schema.types == [pa.string(), pa.float64()]


def test_a_text_keeps_its_blanks_and_a_number_is_read_as_text() -> None:
    made, _ = to_schema({"train": table(text=[" a ", "b"], label=["x", "y"])}, ClassificationRow)
    assert made["train"].column("text").to_pylist() == [" a ", "b"]
    made, _ = to_schema({"train": table(text=[1, 22], label=["x", "y"])}, ClassificationRow)
    assert made["train"].column("text").to_pylist() == ["1", "22"]


@pytest.mark.parametrize(
    "values",
    [["0.5", " 1 ", "-2e1"], [0.5, 1.0, -20.0], pa.array([0.5, 1.0, -20.0], pa.float32()), ["0.5", "1_0e-1", "-20"]],
)
def test_scores_are_numbers_or_their_text(values: Any) -> None:
    made, _ = to_schema({"train": table(text=["a", "b", "c"], score=values)}, RegressionRow)
    assert made["train"].column("score").to_pylist() == [0.5, 1.0, -20.0]


# ---- bad data ----


def test_a_missing_column_shows_those_present_and_the_override_that_helps(here: Path) -> None:
    train = with_files(table(id=["1"], texts=["one"], rating=["5"]), [(str(here / "reviews.csv"), 1, 1)])
    assert problems({"train": train}, columns={"label": "stars"}) == (
        "data.columns.text: train split: the file reviews.csv held no column 'text'. Did you mean 'texts'?\n"
        "Columns: id, texts, rating. Set data.columns.text=texts.",
        "data.columns.label: train split: the file reviews.csv held no column 'stars'.\n"
        "Columns: id, texts, rating. Set data.columns.label=<one of them>.",
    )


def test_a_column_that_only_some_splits_have_is_missing_from_the_others() -> None:
    tables = {
        "train": table(text=["a", "b"], text_pair=["x", "y"], label=["0", "1"]),
        "test": table(text=["c"], label=["1"]),
    }
    (problem,) = problems(tables)
    assert problem.startswith("data.columns.text_pair: test split: the rows held no column 'text_pair'.")


def test_a_pair_that_was_asked_for_must_be_there() -> None:
    (problem,) = problems({"train": table(text=["a", "b"], label=["0", "1"])}, columns={"text_pair": "second"})
    assert problem.startswith("data.columns.text_pair: train split: the rows held no column 'second'.")


def test_a_name_that_no_schema_has_is_refused() -> None:
    (problem,) = problems({"train": table(text=["a", "b"], label=["0", "1"])}, columns={"labl": "y"})
    assert problem == (
        "data.columns.labl: a ClassificationRow has no 'labl'. Did you mean 'label'? It has: text, text_pair, label."
    )


@pytest.mark.parametrize("empty", ["", "  \t", None])
def test_an_empty_text_is_named_with_its_row(here: Path, empty: str | None) -> None:
    train = with_files(
        table(text=["one", empty, "two", empty], label=["a", "b", "a", "b"]),
        [(str(here / "a.csv"), 3, 1), (str(here / "b.csv"), 1, 1)],
    )
    assert problems({"train": train}) == (
        "train split, a.csv, row 2; b.csv, row 1: the text 'text' is empty. Fill these rows in, or remove them.",
    )


def test_lists_are_no_texts() -> None:
    (problem,) = problems({"train": table(text=[["a"], ["b"]], label=["x", "y"])})
    assert problem.startswith("train split: the column 'text' of the rows holds values of type list<item: string>,")


@pytest.mark.parametrize(
    ("values", "row", "said"),
    [
        (["1", "high", "2"], 2, "'high'"),
        (["1", "2", ""], 3, "''"),
        ([1.0, None, 2.0], 2, "None"),
        ([1.0, float("nan"), 2.0], 2, "nan"),
        (["inf", "1", "2"], 1, "'inf'"),
    ],
)
def test_a_score_that_is_no_finite_number_is_named(values: list[Any], row: int, said: str) -> None:
    assert problems({"train": table(text=["a", "b", "c"], score=values)}, RegressionRow) == (
        f"train split, row {row}: the score 'score' is no finite number, but {said}. Correct these rows, or remove "
        "them.",
    )


def test_lists_are_no_scores() -> None:
    (problem,) = problems({"train": table(text=["a"], score=[[1.0]])}, RegressionRow)
    assert problem.endswith("which are no numbers.")


def test_an_empty_split_is_refused(here: Path) -> None:
    empty = with_files(
        table(text=pa.array([], pa.string()), label=pa.array([], pa.string())), [(str(here / "dev.csv"), 0, 1)]
    )
    assert problems({"train": table(text=["a", "b"], label=["x", "y"]), "validation": empty}) == (
        "validation split: the file dev.csv held no row. Check the file, or leave the split out.",
    )


def test_all_problems_of_all_splits_are_reported_at_once() -> None:
    tables = {
        "train": table(text=["a", "", "c"], label=["x", "y", None]),
        "validation": table(text=["a"], stars=["x"]),
        "test": table(text=["a"], label=["z"]),
    }
    found = problems(tables, columns={"labl": "y"})
    assert [problem.split(":")[0] for problem in found] == [
        "data.columns.labl",
        "train split, row 2",
        "data.columns.label",
        "train split, row 3",
        "test split, row 1",
    ]
    with pytest.raises(DataError, match=r"^5 problems:\n\n  data"):
        to_schema(tables, ClassificationRow, columns={"labl": "y"})


# ---- rows to predict ----


def test_only_texts_are_needed_to_predict() -> None:
    given = table(review=["one"], label=["x"], more=[1])
    assert features_only(given, ClassificationRow, columns={"text": "review", "label": "stars"}).to_pydict() == {
        "text": ["one"]
    }


def test_lines_of_text_are_found_whatever_training_called_its_column() -> None:
    assert features_only(table(text=["one"]), ClassificationRow, columns={"text": "review"}).num_rows == 1


def test_both_texts_of_a_pair_are_needed_to_predict() -> None:
    columns = {"text": "a", "text_pair": "b"}
    assert features_only(table(a=["x"], b=["y"]), RegressionRow, columns=columns).to_pydict() == {
        "text": ["x"],
        "text_pair": ["y"],
    }
    with pytest.raises(DataError, match=r"^data.columns.text_pair: input split: the rows held no column 'b'"):
        features_only(table(a=["x"]), RegressionRow, columns=columns)


def test_an_empty_text_to_predict_is_named() -> None:
    with pytest.raises(DataError, match="input split, row 2: the text 'text' is empty"):
        features_only(table(text=["one", " "]), ClassificationRow)
