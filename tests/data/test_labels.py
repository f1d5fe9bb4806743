from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from graft.data.cells import Column
from graft.data.labels import index_labels


def indexed(
    splits: dict[str, Any],
    *,
    many: bool = False,
    names: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    separator: str | None = None,
    declared: Mapping[str, Sequence[str]] | None = None,
) -> tuple[dict[str, list[Any]], tuple[str, ...] | None, list[str]]:
    """Return the indices, the names and the problems."""
    columns = {}
    for split, values in splits.items():
        table = pa.table({"y": values})
        if declared and split in declared:
            feature: dict[str, Any] = {"names": list(declared[split]), "_type": "ClassLabel"}
            features = {"y": {"feature": feature, "_type": "List"} if many else feature}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        columns[split] = Column(split, table, "y")
    problems: list[str] = []
    found, label_names = index_labels(
        columns, many=many, names=names, outputs=outputs, separator=separator, problems=problems
    )
    return {split: array.to_pylist() for split, array in found.items()}, label_names, problems


def problems(splits: dict[str, Any], **settings: Any) -> list[str]:
    return indexed(splits, **settings)[2]


# ---- names ----


@pytest.mark.parametrize(
    ("values", "names", "indices"),
    [
        (["pos", "neg", " pos "], ("neg", "pos"), [1, 0, 1]),
        (["10", "9", "-1"], ("-1", "9", "10"), [2, 1, 0]),  # whole numbers are sorted as numbers
        ([3, 1, 2, 1], ("1", "2", "3"), [2, 0, 1, 0]),
        ([1.0, 0.0, 1.0], ("0", "1"), [1, 0, 1]),
        ([True, False], ("false", "true"), [1, 0]),
        (["10", "9", "x"], ("10", "9", "x"), [0, 1, 2]),
    ],
)
def test_names_are_the_sorted_values_of_the_training_rows(
    values: list[Any], names: tuple[str, ...], indices: list[int]
) -> None:
    assert indexed({"train": values}) == ({"train": indices}, names, [])


def test_given_names_fix_the_order_whether_or_not_they_occur() -> None:
    found, names, wrong = indexed({"train": ["pos", "neg"], "test": ["mixed"]}, names=["pos", "mixed", "neg"])
    assert (found, names, wrong) == ({"train": [0, 2], "test": [1]}, ("pos", "mixed", "neg"), [])


@pytest.mark.parametrize("values", [[0, 2, 1], ["0", "2", "1"], [0.0, 2.0, 1.0]])
def test_whole_numbers_count_into_given_names(values: list[Any]) -> None:
    assert indexed({"train": values}, names=["a", "b", "c"])[0] == {"train": [0, 2, 1]}


def test_numbers_that_are_names_are_names() -> None:
    # "1" is the second name, although it would count to the third
    assert indexed({"train": ["5", "1"]}, names=["0", "1", "5"])[0] == {"train": [2, 1]}


def test_whether_labels_are_numbers_is_settled_by_the_training_rows() -> None:
    assert indexed({"train": [0, 1], "test": [1]}, names=["a", "b"])[0]["test"] == [1]
    assert problems({"train": ["a", "b"], "test": ["0"]}, names=["a", "b"])[0].startswith(
        "test split, row 1: the label '0' is none of the label names."
    )


def test_given_names_may_be_numbers_or_have_blanks_around_them() -> None:
    assert indexed({"train": [1, 5]}, names=[5, " 1 "])[:2] == ({"train": [1, 0]}, ("5", "1"))  # type: ignore[list-item]


def test_declared_names_are_used_where_none_are_given() -> None:
    declared = {"train": ["zebra", "ant"], "test": ["zebra", "ant"]}
    found, names, wrong = indexed({"train": [0, 1], "test": [1]}, declared=declared)
    assert (found, names, wrong) == ({"train": [0, 1], "test": [1]}, ("zebra", "ant"), [])
    assert indexed({"train": [0, 1]}, declared=declared, names=["x", "y"])[1] == ("x", "y")


def test_a_feature_that_only_looks_like_names_declares_nothing() -> None:
    metadata = {"huggingface": json.dumps({"info": {"features": {"y": {"names": {"_type": "Value"}}}}})}
    column = Column("train", pa.table({"y": ["b", "a"]}).replace_schema_metadata(metadata), "y")
    found = index_labels({"train": column}, many=False, names=None, outputs=None, separator=None, problems=[])
    assert found[1] == ("a", "b")


def test_splits_that_number_their_labels_differently_are_refused() -> None:
    declared = {"train": ["a", "b"], "test": ["b", "a"]}
    assert problems({"train": [0, 1], "test": [0]}, declared=declared) == [
        "data.label_names: the splits number their labels differently (train: a, b; test: b, a). Write them again "
        "with one list of names."
    ]


def test_a_name_given_twice_is_refused() -> None:
    assert problems({"train": ["a", "b"]}, names=["a", "b", "a"]) == [
        "data.label_names: 'a' is given more than once. Remove one."
    ]


def test_without_training_rows_names_must_be_given() -> None:
    found, names, wrong = indexed({"test": ["a", "b"]})
    assert (found, names) == ({}, None)
    assert wrong == [
        "data.label_names: without a training split the names of the labels and their order are not known. Set "
        "data.label_names=[...] in the order of the model's outputs."
    ]
    assert indexed({"test": ["a", "b"]}, names=["b", "a"])[0] == {"test": [1, 0]}


def test_a_single_label_is_nothing_to_learn() -> None:
    assert problems({"train": ["a", "a"]})[0].startswith("train split: every row has the label 'a',")


# ---- outputs of a model that is trained already ----


def test_names_in_another_order_count_into_the_outputs_of_the_model() -> None:
    outputs = ["neg", "neutral", "pos"]
    assert indexed({"test": ["pos", "neg"]}, outputs=outputs) == ({"test": [2, 0]}, tuple(outputs), [])
    assert indexed({"test": [0, 1]}, names=["pos", "neg"], outputs=outputs)[0] == {"test": [2, 0]}
    assert indexed({"test": ["pos", "neg"]}, names=["pos", "neg"], outputs=outputs)[0] == {"test": [2, 0]}


def test_declared_names_count_into_the_outputs_of_the_model() -> None:
    # without their names the numbers would be taken for outputs, and every label be wrong
    declared = {"test": ["pos", "neg"]}
    assert indexed({"test": [0, 1, 1]}, declared=declared, outputs=["neg", "pos"])[0] == {"test": [1, 0, 0]}


def test_numbers_without_names_count_into_the_outputs_of_the_model() -> None:
    assert indexed({"test": [1, 0]}, outputs=["neg", "pos"])[0] == {"test": [1, 0]}


def test_many_labels_count_into_the_outputs_of_the_model() -> None:
    found = indexed({"test": [["x", "y"], [], ["y"]]}, many=True, names=["y", "x"], outputs=["x", "z", "y"])
    assert found == ({"test": [[0, 2], [], [2]]}, ("x", "z", "y"), [])


@pytest.mark.parametrize("values", [["poss", "neg"], [0, 1]])
def test_a_label_that_is_no_output_of_the_model_is_named(values: list[Any]) -> None:
    assert problems({"test": values}, names=["poss", "neg"], outputs=["neg", "pos"]) == [
        "test split, row 1: the label 'poss' is no output of the model. Did you mean 'pos'?\n"
        "Labels: neg, pos. Correct it, or leave these rows out."
    ]


def test_a_name_that_does_not_occur_need_not_be_an_output() -> None:
    assert problems({"test": ["neg"]}, names=["neg", "unknown"], outputs=["neg", "pos"]) == []


# ---- many labels ----


def test_a_row_may_have_any_number_of_labels() -> None:
    found, names, wrong = indexed({"train": [["b", "a"], [], None, ["c"]]}, many=True)
    assert (found, names, wrong) == ({"train": [[1, 0], [], [], [2]]}, ("a", "b", "c"), [])


@pytest.mark.parametrize("separator", [",", "|", ".", " and "])
def test_a_cell_is_split_at_the_separator_as_it_is_written(separator: str) -> None:
    cells = [f"3{separator}7", "", f" 7 {separator}{separator} 12", None]
    assert indexed({"train": cells}, many=True, separator=separator)[:2] == (
        {"train": [[0, 1], [], [1, 2], []]},
        ("3", "7", "12"),
    )


@pytest.mark.parametrize("separator", [None, ""])
def test_without_a_separator_a_cell_is_one_label(separator: str | None) -> None:
    assert indexed({"train": ["a,b", "c"]}, many=True, separator=separator)[0] == {"train": [[0], [1]]}


def test_whole_numbers_in_cells_count_into_given_names() -> None:
    found = indexed({"train": ["2,0", ""], "test": ["1"]}, many=True, separator=",", names=["a", "b", "c"])
    assert found == ({"train": [[2, 0], []], "test": [[1]]}, ("a", "b", "c"), [])


def test_names_hold_for_later_splits_when_no_training_row_has_a_label() -> None:
    assert indexed({"train": [[], []], "test": [["b"]]}, many=True, names=["a", "b"])[0]["test"] == [[1]]


def test_declared_names_of_lists_are_used() -> None:
    assert indexed({"train": [[1], [0, 1]]}, many=True, declared={"train": ["x", "y"]})[:2] == (
        {"train": [[1], [0, 1]]},
        ("x", "y"),
    )


def test_lists_are_no_single_labels() -> None:
    assert problems({"train": [["a"], ["b"]]}) == [
        "train split: the column 'y' of the rows holds values of type list<item: string>, which are no single labels; "
        "a multi-label task reads lists."
    ]


# ---- bad labels ----


def test_a_label_never_seen_in_training_is_named_with_its_rows() -> None:
    assert problems({"train": ["positive", "negative"], "test": ["positive", "posit", "posit"]}) == [
        "test split, rows 2, 3: the label 'posit' was never seen in training. Did you mean 'positive'?\n"
        "Labels: negative, positive. Correct it, or name all labels in data.label_names."
    ]


def test_a_label_in_a_cell_of_several_is_named_with_its_row() -> None:
    wrong = problems({"train": ["a|b", "b"], "test": ["a", "b|x|x"]}, many=True, separator="|")
    assert wrong[0].startswith("test split, row 2: the label 'x' was never seen in training.")


def test_a_number_beyond_the_names_is_none_of_them() -> None:
    assert problems({"train": [0, 1, 2]}, names=["a", "b"]) == [
        "train split, row 3: the label '2' is none of the label names.\n"
        "Labels: a, b. Correct it, or name all labels in data.label_names."
    ]


@pytest.mark.parametrize("values", [["a", "", "b", None], [1, None, 2, None], [1.0, float("nan"), 2.0, None]])
def test_a_missing_label_is_named_with_its_rows(values: list[Any]) -> None:
    assert problems({"train": values})[0].startswith("train split, row")
    wrong = problems({"train": ["a", "b"], "test": ["a", " "]})
    assert wrong == ["test split, row 2: there is no label. Fill these rows in, or leave the test split out."]


def test_minus_one_is_known_to_mark_rows_without_a_label() -> None:
    wrong = problems({"train": [0, 1], "test": [-1, -1]}, declared={"train": ["a", "b"], "test": ["a", "b"]})
    assert wrong == [
        "test split, rows 1, 2: the label '-1' is none of the label names.\n"
        "Labels: a, b. -1 often marks rows that have none; then leave the test split out."
    ]


def test_at_most_five_bad_labels_and_thirty_names_are_listed() -> None:
    wrong = problems({"train": [f"n{index:02}" for index in range(40)], "test": [f"x{index}" for index in range(8)]})
    assert len(wrong) == 6
    assert ", n29 and 10 more. Correct it" in wrong[0]
    assert "n30" not in wrong[0]
    assert wrong[5] == "test split: 3 more different labels like these."


def test_problems_of_all_splits_are_found_together() -> None:
    wrong = problems({"train": ["a", "b", None], "validation": ["c"], "test": ["d", None]})
    assert [problem.partition(":")[0] for problem in wrong] == [
        "train split, row 3",
        "validation split, row 1",
        "test split, row 2",
        "test split, row 1",
    ]
