from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pytest

from graft.data.info import DataInfo, describe
from graft.data.schemas import ClassificationRow, MultiLabelRow, RegressionRow

NAMES = ("no", "yes")


def tables(**changes: Any) -> dict[str, pa.Table]:
    train = {"text": ["one", "two", "three"], "label": pa.array([0, 1, 1], pa.int64()), **changes}
    return {"train": pa.table(train), "test": pa.table({"text": ["four"], "label": pa.array([0], pa.int64())})}


def fingerprint(made: dict[str, pa.Table], names: tuple[str, ...] | None = NAMES) -> str:
    return describe(made, ClassificationRow, names, "made").fingerprint


def test_the_facts_are_those_of_the_tables() -> None:
    info = describe(tables(), ClassificationRow, NAMES, "made")
    assert info.label_names == NAMES
    assert info.label_counts == (1, 2)
    assert info.sizes == {"train": 3, "test": 1}
    assert info.name == "made"


def test_a_label_that_training_never_has_counts_zero() -> None:
    assert describe(tables(), ClassificationRow, (*NAMES, "perhaps"), "made").label_counts == (1, 2, 0)


def test_many_labels_are_counted_over_all_rows() -> None:
    labels = pa.array([[0, 2], [], [2]], pa.list_(pa.int64()))
    made = {"train": pa.table({"text": ["a", "b", "c"], "labels": labels})}
    assert describe(made, MultiLabelRow, ("x", "y", "z"), "made").label_counts == (1, 0, 2)


def test_scores_have_neither_names_nor_counts() -> None:
    info = describe({"train": pa.table({"text": ["a"], "score": [0.5]})}, RegressionRow, None, "made")
    assert (info.label_names, info.label_counts) == (None, None)


def test_without_a_training_split_nothing_is_counted() -> None:
    made = tables()
    del made["train"]
    assert describe(made, ClassificationRow, NAMES, "made").label_counts is None


@pytest.mark.parametrize("names", [NAMES, None])
def test_facts_come_back_from_json(names: tuple[str, ...] | None) -> None:
    info = describe(tables(), ClassificationRow, names, "d\u00e9j\u00e0")
    assert DataInfo.from_json(info.to_json()) == info


def test_the_fingerprint_is_one_of_sha_256_and_the_same_for_the_same_data() -> None:
    assert len(fingerprint(tables())) == hashlib.sha256().digest_size * 2
    assert fingerprint(tables()) == fingerprint(tables())


def test_the_fingerprint_does_not_depend_on_how_the_data_is_held() -> None:
    expected = fingerprint(tables())
    chunked = pa.chunked_array([["one"], ["two", "three"]])
    sliced = pa.array(["zero", "one", "two", "three"]).slice(1)
    long = pa.array(["one", "two", "three"], pa.large_string())
    for text in (chunked, sliced, long, chunked.dictionary_encode()):
        assert fingerprint(tables(text=text)) == expected
    backwards = {split: table.select(["label", "text"]) for split, table in reversed(tables().items())}
    assert fingerprint(backwards) == expected


def test_the_fingerprint_of_lists_does_not_depend_on_how_they_are_held() -> None:
    def of(labels: Any) -> str:
        return describe(
            {"train": pa.table({"text": ["a", "b"], "labels": labels})}, MultiLabelRow, NAMES, "m"
        ).fingerprint

    plain = pa.array([[0, 1], [1]], pa.list_(pa.int64()))
    assert of(pa.array([[1], [0, 1], [1]], pa.list_(pa.int64())).slice(1)) == of(plain)
    assert of(pa.array([[0], [1, 1]], pa.list_(pa.int64()))) != of(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"text": ["one", "two", "threE"]},
        {"text": ["onet", "wo", "three"]},
        {"text": ["two", "one", "three"]},
        {"label": pa.array([1, 0, 1], pa.int64())},
        {"text_pair": ["x", "y", "z"]},
    ],
)
def test_any_change_of_the_rows_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(tables(**change)) != fingerprint(tables())


def test_names_splits_and_sizes_are_part_of_the_fingerprint() -> None:
    made = tables()
    others = [
        fingerprint(made, ("yes", "no")),
        fingerprint({"train": made["train"]}),
        fingerprint({"train": made["train"].slice(0, 2), "test": made["test"]}),
        fingerprint({"train": made["train"], "validation": made["test"]}),
        fingerprint({"train": made["test"], "test": made["train"]}),
    ]
    assert len({fingerprint(made), *others}) == 6
