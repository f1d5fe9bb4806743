from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graft.data.origin import ROW, pick
from graft.data.splits import holdout, keep, kfold, subsample
from graft.errors import ConfigError, DataError


def numbered(count: int, classes: int = 2) -> pa.Table:
    """Rows that know their number; one row in ``classes`` is rare, the others are common."""
    return pa.table(
        {"id": list(range(count)), "label": ["rare" if index % classes == 0 else "common" for index in range(count)]}
    )


def ids(table: pa.Table) -> list[int]:
    return list(table.column("id").to_pylist())


def shares(table: pa.Table) -> dict[str, int]:
    return dict(Counter(table.column("label").to_pylist()))


def test_keep_changes_nothing() -> None:
    tables = {"train": numbered(3), "other": numbered(2)}
    assert keep(tables) == tables


# ---- holdout ----


@pytest.mark.parametrize("stratify", [None, "label"])
@pytest.mark.parametrize("count", [10, 11, 37, 100, 1003])
def test_the_parts_hold_every_row_once_in_order(count: int, stratify: str | None) -> None:
    parts = holdout({"train": numbered(count)}, validation=0.1, test=0.2, stratify=stratify)
    assert parts["validation"].num_rows == round(0.1 * count)
    assert parts["test"].num_rows == round(0.2 * count)
    assert sorted(ids(parts["train"]) + ids(parts["validation"]) + ids(parts["test"])) == list(range(count))
    assert all(ids(part) == sorted(ids(part)) for part in parts.values())


def test_the_choice_depends_on_the_seed_alone_and_zero_is_one() -> None:
    def chosen(seed: int) -> list[int]:
        return ids(holdout({"train": numbered(100)}, seed=seed)["validation"])

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) == 5
    assert chosen(0) != list(range(10))


@pytest.mark.parametrize("seed", range(5))
def test_a_stratified_part_has_its_share_of_every_class(seed: int) -> None:
    parts = holdout({"train": numbered(1000, classes=10)}, seed=seed, validation=0.2, test=0.1, stratify="label")
    # 100 rare rows in 1000: 20 in a fifth, 10 in a tenth, 70 are left; one may fall on either side of a border
    for split, rare, size in (("validation", 20, 200), ("test", 10, 100), ("train", 70, 700)):
        assert parts[split].num_rows == size
        assert abs(shares(parts[split])["rare"] - rare) <= 1


def test_splits_that_exist_are_kept() -> None:
    tables = {"train": numbered(10), "validation": numbered(3), "extra": numbered(1)}
    parts = holdout(tables, validation=0.5, test=0.2)
    assert parts["validation"] is tables["validation"]
    assert parts["extra"] is tables["extra"]
    assert (parts["train"].num_rows, parts["test"].num_rows) == (8, 2)
    assert holdout(tables, test=0.0) == tables


def test_cut_rows_keep_their_original_numbers() -> None:
    parts = holdout({"train": numbered(10)}, validation=0.3)
    for part in parts.values():
        assert part.column(ROW).to_pylist() == [number + 1 for number in ids(part)]


@pytest.mark.parametrize("values", [["a", None] * 5, [1.5, 2.5] * 5, pa.array(["a", "b"] * 5).dictionary_encode()])
def test_rows_may_be_stratified_by_any_single_values(values: Any) -> None:
    parts = holdout({"train": pa.table({"id": list(range(10)), "label": values})}, validation=0.4, stratify="label")
    assert sorted(shares(parts["validation"]).values()) == [2, 2]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5])
def test_a_fraction_is_below_one(fraction: float) -> None:
    with pytest.raises(ConfigError, match=f"data.split.validation: a fraction is from 0 to 1, not {fraction}"):
        holdout({"train": numbered(10)}, validation=fraction)


def test_fractions_must_leave_something_to_train_on() -> None:
    with pytest.raises(ConfigError, match=r"0\.6 for validation and 0\.4 for test leave nothing to train on"):
        holdout({"train": numbered(10)}, validation=0.6, test=0.4)
    with pytest.raises(DataError, match="of 1 training rows none is left to train on"):
        holdout({"train": numbered(1)}, validation=0.6)


def test_a_part_without_a_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.split.validation: 0\.1 of 4 training rows is no row"):
        holdout({"train": numbered(4)}, validation=0.1)


def test_a_cut_needs_training_rows() -> None:
    with pytest.raises(DataError, match="there is no training split to cut from, only test"):
        holdout({"test": numbered(4)})


def test_an_unknown_column_names_the_nearest_of_the_data() -> None:
    tables = {"train": pick(numbered(10), np.arange(10))}
    with pytest.raises(DataError) as caught:
        holdout(tables, stratify="labels")
    assert str(caught.value) == (
        "data.split.stratify: there is no column 'labels'. Did you mean 'label'? Columns: id, label."
    )


def test_lists_have_no_shares_to_keep() -> None:
    tables = {"train": pa.table({"labels": [["a"], ["b"]] * 5})}
    with pytest.raises(DataError, match="'labels' holds lists or objects, whose shares cannot be kept"):
        holdout(tables, stratify="labels")


# ---- k folds ----


@pytest.mark.parametrize("stratify", [None, "label"])
@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("count", [10, 23, 101])
def test_every_row_validates_exactly_once(count: int, folds: int, stratify: str | None) -> None:
    seen: list[int] = []
    for fold in range(folds):
        parts = kfold({"train": numbered(count)}, fold=fold, folds=folds, stratify=stratify)
        assert sorted(ids(parts["train"]) + ids(parts["validation"])) == list(range(count))
        assert parts["validation"].num_rows in (count // folds, count // folds + 1)
        assert ids(parts["validation"]) == sorted(ids(parts["validation"]))
        seen += ids(parts["validation"])
    assert sorted(seen) == list(range(count))


def test_stratified_folds_have_their_share_of_every_class() -> None:
    for fold in range(5):
        part = kfold({"train": numbered(103, classes=4)}, fold=fold, stratify="label")["validation"]
        # 26 rare rows in 5 folds
        assert shares(part)["rare"] in (5, 6)


def test_folds_depend_on_their_own_seed() -> None:
    def chosen(seed: int) -> list[int]:
        return ids(kfold({"train": numbered(50)}, fold=0, seed=seed)["validation"])

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)


def test_a_fold_replaces_the_validation_split_and_says_so(logged: pytest.LogCaptureFixture) -> None:
    tables = {"train": numbered(10), "validation": numbered(3), "test": numbered(2)}
    parts = kfold(tables, fold=1)
    assert parts["validation"].num_rows == 2
    assert parts["test"] is tables["test"]
    assert "the validation split is replaced by fold 1 of 5 of the training rows" in logged.text


@pytest.mark.parametrize(("fold", "folds"), [(5, 5), (-1, 5), (0, 1)])
def test_a_fold_that_does_not_exist_is_refused(fold: int, folds: int) -> None:
    with pytest.raises(ConfigError, match=rf"data.split.fold: there is no fold {fold} of {folds}"):
        kfold({"train": numbered(10)}, fold=fold, folds=folds)


def test_there_are_no_more_folds_than_rows() -> None:
    with pytest.raises(DataError, match="3 training rows make no 5 folds"):
        kfold({"train": numbered(3)}, fold=0)


# ---- limit ----


@pytest.mark.parametrize(
    ("limit", "count"),
    [(None, 200), (1, 1), (50, 50), (200, 200), (999, 200), (0.1, 20), (0.5, 100), (1.0, 200), (0.001, 1)],
)
def test_a_limit_is_a_number_of_rows_or_a_fraction(limit: float | None, count: int) -> None:
    taken = ids(subsample(numbered(200), limit=limit))
    assert len(taken) == len(set(taken)) == count
    assert taken == sorted(taken)


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    for seed in range(5):
        samples = [set(ids(subsample(numbered(200), limit=limit, seed=seed))) for limit in (5, 0.1, 60, 0.7)]
        assert all(small < large for small, large in pairwise(samples))


def test_a_sample_is_chosen_by_its_seed_and_not_the_first_rows() -> None:
    taken = [ids(subsample(numbered(200), limit=20, seed=seed)) for seed in range(4)]
    assert taken[0] == ids(subsample(numbered(200), limit=20, seed=0))
    assert len({tuple(sample) for sample in taken}) == 4
    assert all(max(sample) > 100 for sample in taken)


@pytest.mark.parametrize("limit", [0, -3, 0.0, 1.5, float("nan"), True, "all"])
def test_any_other_limit_is_refused_with_both_ways(limit: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        subsample(numbered(10), limit=limit)
    assert str(caught.value) == (
        f"data.limit: {limit!r} is neither a number of rows from 1 nor a fraction up to 1.0. Write data.limit=100 "
        "for 100 rows, data.limit=0.1 for a tenth."
    )
