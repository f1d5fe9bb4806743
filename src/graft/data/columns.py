"""A data set's columns become a schema's columns: renamed, checked, labels as numbers.

All splits and columns are checked before anything is raised, so that one run shows every problem of the data.
Values are converted by whole columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from graft.data.cells import Column, as_words, flags, is_text
from graft.data.labels import index_labels
from graft.data.origin import ROW, file_names
from graft.data.schemas import ClassificationRow, Field, MultiLabelRow, RegressionRow, fields
from graft.errors import DataError, did_you_mean


def to_schema(
    tables: Mapping[str, pa.Table],
    schema: type,
    *,
    columns: Mapping[str, str | None] | None = None,
    label_names: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    separator: str | None = None,
) -> tuple[dict[str, pa.Table], tuple[str, ...] | None]:
    """Convert the tables of all splits to the columns of a schema.

    The label names are those given, else those that the table itself declares (as ``datasets`` writes it),
    else those of a model that is trained already, else the different values of the training split, sorted, as
    numbers if all are whole numbers. Where no value is a name but all are whole numbers, they count into the
    names from 0. White space around a label does not matter.

    Args:
        tables: Rows as they were read, by split.
        schema: One of ``data/schemas.py``, or a TypedDict like them.
        columns: From the schema's column names to the tables'; a name that is missing or None is the same in
            both.
        label_names: Names of the labels, in the order of the model's outputs.
        outputs: The label names of a model that is trained already, in the order of its outputs; labels count into
            them, whatever the order of the data's own names.
        separator: What separates the labels in a cell of text, such as ``,`` in ``3,7``; None is one label a
            cell.

    Returns:
        Tables with the schema's columns (text as strings, label as int64, labels as lists of int64, score as
        float64), and the label names, None when the schema has no labels.

    Raises:
        DataError: With every missing column, empty text, missing or unknown label, label that is no output, score
            that is no finite number, and empty split.
    """
    wanted = fields(schema)
    problems = _unknown_fields(columns, schema, wanted)
    for split, table in tables.items():
        if table.num_rows == 0:
            problems.append(f"{split} split: {file_names(table)} held no row. Check the file, or leave the split out.")
    filled = {split: table for split, table in tables.items() if table.num_rows > 0}
    names: tuple[str, ...] | None = None
    done: dict[str, dict[str, pa.Array]] = {split: {} for split in tables}
    for name, field in wanted.items():
        found = _found(filled, name, field, columns, problems)
        if field.kind == "text":
            values = {split: _texts(column, problems) for split, column in found.items()}
        elif field.kind == "score":
            values = {split: _scores(column, problems) for split, column in found.items()}
        else:
            many = field.kind == "labels"
            values, names = index_labels(
                found, many=many, names=label_names, outputs=outputs, separator=separator, problems=problems
            )
        for split, array in values.items():
            done[split][name] = array
    if problems:
        raise DataError(problems)
    return {split: pa.table(arrays) for split, arrays in done.items()}, names


def features_only(table: pa.Table, schema: type, *, columns: Mapping[str, str | None] | None = None) -> pa.Table:
    """Convert rows to predict for: the text columns of a schema, without what is learned.

    Args:
        table: Rows as they were read.
        schema: As in ``to_schema``.
        columns: As in ``to_schema``; a column that already has the schema's name is found too.

    Returns:
        A table with the schema's text columns, of the same number of rows.

    Raises:
        DataError: If a text column is missing, or a text is empty.
    """
    problems: list[str] = []
    done: dict[str, pa.Array] = {}
    for name, field in fields(schema).items():
        if field.target:
            continue
        theirs = (columns or {}).get(name)
        own = theirs is None or (theirs not in table.column_names and name in table.column_names)
        found = _found({"input": table}, name, field, {name: None if own else theirs}, problems)
        for column in found.values():
            done[name] = _texts(column, problems)
    if problems:
        raise DataError(problems)
    return pa.table(done)


def _unknown_fields(columns: Mapping[str, str | None] | None, schema: type, wanted: Mapping[str, Field]) -> list[str]:
    """Name what is no field; a data set may name columns for several tasks, so those of ours are fine."""
    known = {*wanted, *fields(ClassificationRow), *fields(MultiLabelRow), *fields(RegressionRow)}
    return [
        f"data.columns.{name}: a {schema.__name__} has no '{name}'.{did_you_mean(name, wanted)} "
        f"It has: {', '.join(wanted)}."
        for name in columns or {}
        if name not in known
    ]


def _found(
    tables: Mapping[str, pa.Table],
    name: str,
    field: Field,
    columns: Mapping[str, str | None] | None,
    problems: list[str],
) -> dict[str, Column]:
    """Return a field's column per split; one that is neither required nor named may be missing everywhere."""
    given = (columns or {}).get(name)
    theirs = given or name
    found = {split: Column(split, table, theirs) for split, table in tables.items() if theirs in table.column_names}
    if found or given is not None or field.required:
        for split, table in tables.items():
            if split not in found:
                problems.append(_missing(split, table, name, theirs))
    return found


def _missing(split: str, table: pa.Table, name: str, theirs: str) -> str:
    present = [column for column in table.column_names if column != ROW]
    near = did_you_mean(theirs, present)
    choice = near.split("'")[1] if near else "<one of them>"
    listed = ", ".join(present) or "none"
    return (
        f"data.columns.{name}: {split} split: {file_names(table)} held no column '{theirs}'.{near}\n"
        f"Columns: {listed}. Set data.columns.{name}={choice}."
    )


def _texts(column: Column, problems: list[str]) -> pa.Array:
    values = column.values()
    words = as_words(values)
    if words is None:
        problems.append(column.wrong_type("texts"))
        return values
    empty = flags(pc.is_null(words))
    if empty.any():
        problems.append(
            f"{column.places(empty)}: the text '{column.name}' is empty. Fill these rows in, or remove them."
        )
    return values if is_text(values.type) else words  # a text keeps its white space; a number is read as its text


def _scores(column: Column, problems: list[str]) -> pa.Array:
    values = column.values()
    words = as_words(values)
    if words is None:
        problems.append(column.wrong_type("numbers"))
        return values
    try:
        numbers = (words if is_text(values.type) else values).cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = pa.array([_number(word) for word in words.to_pylist()], pa.float64())
    bad = ~flags(pc.is_finite(numbers))
    if bad.any():
        first = values[int(bad.argmax())].as_py()
        problems.append(
            f"{column.places(bad)}: the score '{column.name}' is no finite number, but {first!r}. Correct these rows, "
            "or remove them."
        )
    return numbers


def _number(word: str | None) -> float | None:
    try:
        return None if word is None else float(word)
    except ValueError:
        return None
