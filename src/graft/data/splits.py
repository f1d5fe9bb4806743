"""Which rows train, which choose the checkpoint, which test.

Each function is one option of ``data/split`` and is used as a partial: it takes the tables as they were read
and returns those to use. The seed is its own, not the run's, so that runs of different seeds are compared on
the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from graft.data.cells import Column
from graft.data.origin import ROW, pick
from graft.errors import ConfigError, DataError, did_you_mean
from graft.log import get_logger

log = get_logger(__name__)

Indices = npt.NDArray[np.int64]


def keep(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the splits as they come."""
    return dict(tables)


def holdout(
    tables: Mapping[str, pa.Table],
    *,
    seed: int = 0,
    validation: float = 0.1,
    test: float = 0.0,
    stratify: str | None = None,
) -> dict[str, pa.Table]:
    """Cut the splits that are missing from the training rows.

    Args:
        tables: Rows by split; ``train`` must be there, a split that exists is kept as it is.
        seed: Seed of the choice.
        validation: Fraction of the training rows to cut when there is no validation split.
        test: The same for the test split.
        stratify: A column, as it is called in the data, whose values keep their shares in every part.

    Returns:
        The tables with ``train`` made smaller; rows keep their order.

    Raises:
        ConfigError: If a fraction is not from 0 to 1, or together they leave nothing to train on.
        DataError: If there is no training split, the column is missing, or a part would be empty.
    """
    cut = {
        split: fraction
        for split, fraction in (("validation", validation), ("test", test))
        if split not in tables and fraction != 0
    }
    for split, fraction in cut.items():
        if not 0 < fraction < 1:
            raise ConfigError(f"data.split.{split}: a fraction is from 0 to 1, not {fraction}.")
    if sum(cut.values()) >= 1:
        raise ConfigError(f"data.split: {validation} for validation and {test} for test leave nothing to train on.")
    train = _train(tables)
    left = _order(train, seed, stratify)
    parts: dict[str, pa.Table] = {}
    for split, fraction in cut.items():
        count = round(fraction * train.num_rows)
        if count == 0:
            raise DataError(
                f"data.split.{split}: {fraction} of {train.num_rows} training rows is no row. Raise the fraction."
            )
        chosen = _evenly(left, count)
        left = left[~np.isin(left, chosen)]
        parts[split] = pick(train, np.sort(chosen))
    if not len(left):
        raise DataError(f"data.split: of {train.num_rows} training rows none is left to train on. Lower the fractions.")
    return {**tables, **parts, "train": pick(train, np.sort(left))} if parts else dict(tables)


def kfold(
    tables: Mapping[str, pa.Table], *, fold: int, seed: int = 0, folds: int = 5, stratify: str | None = None
) -> dict[str, pa.Table]:
    """Validate on one of several equal parts of the training rows and train on the others.

    Args:
        tables: Rows by split; ``train`` must be there. A validation split that exists is replaced, a test
            split kept.
        fold: Which part validates, from 0 to ``folds - 1``; over all of them every row validates exactly
            once.
        seed: Seed of the parts, the same for all folds.
        folds: Number of parts, at least 2.
        stratify: A column, as it is called in the data, whose values keep their shares in every part.

    Returns:
        The tables with new ``train`` and ``validation``; rows keep their order.

    Raises:
        ConfigError: If there is no such fold.
        DataError: If there is no training split, the column is missing, or there are fewer rows than folds.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ConfigError(
            f"data.split.fold: there is no fold {fold} of {folds}. Set data.split.folds to 2 or more and "
            f"data.split.fold from 0 to {max(folds, 2) - 1}."
        )
    train = _train(tables)
    if train.num_rows < folds:
        raise DataError(f"data.split.folds: {train.num_rows} training rows make no {folds} folds. Lower it.")
    if "validation" in tables:
        log.info("the validation split is replaced by fold %d of %d of the training rows", fold, folds)
    order = _order(train, seed, stratify)
    chosen = np.arange(train.num_rows) % folds == fold
    parts = {"train": pick(train, np.sort(order[~chosen])), "validation": pick(train, np.sort(order[chosen]))}
    return {**tables, **parts}


def subsample(table: pa.Table, *, limit: int | float | None, seed: int = 0) -> pa.Table:
    """Take some rows of a table, chosen by a seed and not the first ones.

    Args:
        table: Any table.
        limit: A number of rows (an integer), a fraction of them (a float up to 1.0), or None for all. With
            the same seed a smaller sample is part of a larger one.
        seed: Seed of the choice.

    Returns:
        The rows in their order; all of them when there are no more than ``limit``.

    Raises:
        ConfigError: If ``limit`` is neither.
    """
    if limit is None:
        return table
    number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if not number or not (limit >= 1 if isinstance(limit, int) else 0 < limit <= 1):
        raise ConfigError(
            f"data.limit: {limit!r} is neither a number of rows from 1 nor a fraction up to 1.0. Write data.limit=100 "
            "for 100 rows, data.limit=0.1 for a tenth."
        )
    count = limit if isinstance(limit, int) else max(1, round(limit * table.num_rows))
    if count >= table.num_rows:
        return table
    chosen = np.random.default_rng(seed).permutation(table.num_rows)[:count]
    return table.take(pa.array(np.sort(chosen)))


def _train(tables: Mapping[str, pa.Table]) -> pa.Table:
    if "train" not in tables:
        raise DataError(
            f"data.split: there is no training split to cut from, only {', '.join(tables) or 'nothing'}. "
            "Set data/split=keep, or name the training rows."
        )
    return tables["train"]


def _order(table: pa.Table, seed: int, stratify: str | None) -> Indices:
    """Return the rows shuffled, equal values of ``stratify`` together: every n-th row then has its share."""
    order = np.random.default_rng(seed).permutation(table.num_rows)
    if stratify is None:
        return order
    if stratify not in table.column_names:
        present = [column for column in table.column_names if column != ROW]
        raise DataError(
            f"data.split.stratify: there is no column '{stratify}'.{did_you_mean(stratify, present)} "
            f"Columns: {', '.join(present)}."
        )
    values = Column("train", table, stratify).values()
    if pa.types.is_nested(values.type):
        raise DataError(
            f"data.split.stratify: the column '{stratify}' holds lists or objects, whose shares cannot be kept. "
            "Name a column of single values, or set it to null."
        )
    groups = values.dictionary_encode(null_encoding="encode").indices.to_numpy()
    return order[np.argsort(groups[order], kind="stable")]


def _evenly(order: Indices, count: int) -> Indices:
    """Return ``count`` rows at equal distances in ``order``."""
    return order[((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)]
