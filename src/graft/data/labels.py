"""Labels as they are written become indices into a list of names, by whole columns.

A value that is a name is that name's index. Where no value of the training split is a name but all are whole
numbers, they count into the names from 0, as data sets with integer labels and a separate list of names have
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from graft.data.cells import Column, as_words, flags
from graft.errors import did_you_mean

_WHOLE = re.compile(r"-?\d+")
_SHOWN = 5  # different bad labels that are reported per split
_LISTED = 30  # label names that a message lists


@dataclass(frozen=True)
class _Words:
    """The labels of a split as text.

    Attributes:
        column: Where they are.
        flat: All labels below each other; null where a row lacks the one label it must have.
        rows: The row of each label.
    """

    column: Column
    flat: pa.Array
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Legend:
    """The names that indices count into.

    Attributes:
        names: In the order of the indices.
        unknown: What is said of a label that is none of them.
        remedy: What to do about it.
    """

    names: tuple[str, ...]
    unknown: str
    remedy: str


def index_labels(
    columns: Mapping[str, Column],
    *,
    many: bool,
    names: Sequence[str] | None,
    outputs: Sequence[str] | None,
    separator: str | None,
    problems: list[str],
) -> tuple[dict[str, pa.Array], tuple[str, ...] | None]:
    """Convert the label column of every split.

    Args:
        columns: The label column by split.
        many: Whether a row has any number of labels instead of exactly one.
        names: The data's label names where they are given; else those that a table declares, else ``outputs``, else
            the training split's different values, sorted, as numbers if all are whole numbers.
        outputs: The names to count into where they are not the data's own: those of a model that is trained already.
        separator: What separates labels in a cell of text; None is one label a cell.
        problems: Takes what is wrong.

    Returns:
        Indices by split, int64 or lists of int64, for the splits that could be read, and the names they count into.
    """
    words: dict[str, _Words] = {}
    for split, column in columns.items():
        read = _read_many(column, separator) if many else _read_one(column)
        if read is None:
            problems.append(column.wrong_type("labels" if many else "single labels; a multi-label task reads lists"))
        else:
            words[split] = read
    given = names or _declared(columns, problems) or outputs
    own = _given(given, problems) if given else _derived(words, problems)
    if own is None:
        return {}, None
    if outputs is not None:
        legend = _Legend(tuple(outputs), "is no output of the model", "leave these rows out")
    elif given:
        legend = _Legend(own, "is none of the label names", "name all labels in data.label_names")
    else:
        legend = _Legend(own, "was never seen in training", "name all labels in data.label_names")
    written = _written(words, own)
    values = pa.array([written.get(name) for name in legend.names], pa.large_string())
    indices: dict[str, pa.Array] = {}
    for split, read in words.items():
        found = pc.index_in(read.flat, value_set=values, skip_nulls=True).cast(pa.int64())
        problems.extend(_problems(read, found, legend, {value: name for name, value in written.items()}))
        indices[split] = _listed(found, read) if many else found
    return indices, legend.names


def _read_one(column: Column) -> _Words | None:
    flat = as_words(column.values())
    return None if flat is None else _Words(column, flat, np.arange(len(flat)))


def _read_many(column: Column, separator: str | None) -> _Words | None:
    """Split cells into labels; a row without any is a row without labels."""
    array = column.values()
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        cells = as_words(array)
        if cells is None:
            return None
        array = pc.split_pattern(cells, separator or "\0")
    flat = as_words(pc.list_flatten(array))
    if flat is None:
        return None
    there = flags(pc.is_valid(flat))
    rows = pc.list_parent_indices(array).to_numpy().astype(np.int64)[there]
    return _Words(column, flat.drop_null(), rows)


def _listed(indices: pa.Array, words: _Words) -> pa.Array:
    counts = np.bincount(words.rows, minlength=words.column.table.num_rows)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), indices)


def _declared(columns: Mapping[str, Column], problems: list[str]) -> tuple[str, ...] | None:
    """Return the names that ``datasets`` notes for an integer column, in tables and parquet files."""
    found: dict[tuple[str, ...], str] = {}
    for split, column in columns.items():
        noted = json.loads((column.table.schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = noted.get("info", {}).get("features", {}).get(column.name, {})
        feature = feature.get("feature", feature) if isinstance(feature, dict) else feature[0]
        if feature.get("_type") == "ClassLabel":
            found.setdefault(tuple(feature["names"]), split)
    if len(found) > 1:
        listed = "; ".join(f"{split}: {', '.join(names)}" for names, split in found.items())
        problems.append(
            f"data.label_names: the splits number their labels differently ({listed}). Write them again with one "
            "list of names."
        )
    return next(iter(found), None)


def _given(names: Sequence[str], problems: list[str]) -> tuple[str, ...]:
    given = tuple(str(name).strip() for name in names)
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        problems.append(f"data.label_names: {', '.join(map(repr, twice))} is given more than once. Remove one.")
    return given


def _derived(words: Mapping[str, _Words], problems: list[str]) -> tuple[str, ...] | None:
    if not words:
        return None
    if "train" not in words:
        problems.append(
            "data.label_names: without a training split the names of the labels and their order are not known. Set "
            "data.label_names=[...] in the order of the model's outputs."
        )
        return None
    names = pc.unique(words["train"].flat).drop_null().to_pylist()
    if len(names) < 2:
        only = f"the label '{names[0]}'" if names else "no label"
        problems.append(
            f"train split: every row has {only}, so there is nothing to learn. Check data.columns, or set "
            "data.label_names=[...]."
        )
    whole = all(_WHOLE.fullmatch(name) for name in names)
    return tuple(sorted(names, key=int) if whole else sorted(names))


def _written(words: Mapping[str, _Words], names: tuple[str, ...]) -> dict[str, str]:
    """Return what stands for each name in the data: the name, or its number."""
    learned = [words["train"]] if "train" in words else list(words.values())
    seen = {word for read in learned for word in pc.unique(read.flat).drop_null().to_pylist()}
    counted = bool(seen) and seen.isdisjoint(names) and all(_WHOLE.fullmatch(word) for word in seen)
    return {name: str(number) if counted else name for number, name in enumerate(names)}


def _problems(words: _Words, indices: pa.Array, legend: _Legend, called: Mapping[str, str]) -> list[str]:
    column, flat = words.column, words.flat
    problems: list[str] = []
    missing = flags(pc.is_null(flat))
    if missing.any():
        problems.append(
            f"{column.places(missing)}: there is no label. Fill these rows in, or leave the {column.split} split out."
        )
    bad = flags(pc.and_(pc.is_null(indices), pc.is_valid(flat)))
    values = pc.unique(flat.filter(pa.array(bad))).to_pylist()
    listed = ", ".join(legend.names[:_LISTED])
    more = f" and {len(legend.names) - _LISTED} more" if len(legend.names) > _LISTED else ""
    for value in values[:_SHOWN]:
        rows = np.unique(words.rows[flags(pc.equal(flat, value))])
        mask = np.isin(np.arange(column.table.num_rows), rows)
        label = called.get(value, value)
        remedy = (
            f"-1 often marks rows that have none; then leave the {column.split} split out."
            if value == "-1"
            else f"Correct it, or {legend.remedy}."
        )
        problems.append(
            f"{column.places(mask)}: the label '{label}' {legend.unknown}.{did_you_mean(label, legend.names)}\n"
            f"Labels: {listed}{more}. {remedy}"
        )
    if len(values) > _SHOWN:
        problems.append(f"{column.split} split: {len(values) - _SHOWN} more different labels like these.")
    return problems
