"""Where a row came from, so that an error can name the file and the row that a person can go and look at.

Tables carry the files they were read from in their schema's metadata, and, once rows were picked out of them,
the original row numbers in a column. Rows count from 1, without the header.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ROW = "__row__"
"""Column that holds the original row numbers of a table whose rows were picked from another."""

_FILES = b"graft.files"


def with_files(table: pa.Table, files: Sequence[tuple[str, int, int]]) -> pa.Table:
    """Note on a table which files its rows came from.

    Args:
        table: Rows of one or more files, in the order of ``files``.
        files: Path, number of rows and number of the first row, per file.

    Returns:
        The same table with the note.
    """
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _FILES: json.dumps(list(files)).encode()})


def pick(table: pa.Table, indices: npt.NDArray[np.int64]) -> pa.Table:
    """Take some rows of a table and keep their original numbers.

    Args:
        table: Any table.
        indices: Positions of the rows, from 0.

    Returns:
        A table of ``len(indices)`` rows with the column ``ROW``.
    """
    if ROW not in table.column_names:
        table = table.append_column(ROW, pa.array(np.arange(1, table.num_rows + 1)))
    return table.take(pa.array(indices, pa.int64()))


def shown(path: str | Path) -> str:
    """Return a path as a person would write it: relative to the current folder when it is inside it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def places(split: str, table: pa.Table, indices: npt.NDArray[np.int64], *, most: int = 5) -> str:
    """Say where rows are.

    Args:
        split: Name of the split.
        table: The table they are in.
        indices: Positions of the rows in the table, from 0.
        most: How many to name.

    Returns:
        For example ``train split, reviews.csv, rows 3, 9 and 4 more``.
    """
    located = [_locate(table, int(index)) for index in indices[:most]]
    parts = []
    for file, group in groupby(located, key=lambda place: place[0]):
        numbers = [str(row) for _, row in group]
        word = "row" if len(numbers) == 1 else "rows"
        parts.append(f"{file + ', ' if file else ''}{word} {', '.join(numbers)}")
    rest = f" and {len(indices) - most} more" if len(indices) > most else ""
    return f"{split} split, {'; '.join(parts)}{rest}"


def file_names(table: pa.Table) -> str:
    """Return a table's files for a message: ``the file a.csv``, ``the files a.csv and 3 more``."""
    paths = [shown(path) for path, _, _ in files_of(table)]
    if not paths:
        return "the rows"
    return f"the file {paths[0]}" if len(paths) == 1 else f"the files {paths[0]} and {len(paths) - 1} more"


def files_of(table: pa.Table) -> list[tuple[str, int, int]]:
    """Return the note of ``with_files``: path, number of rows and number of the first row, per file."""
    noted = (table.schema.metadata or {}).get(_FILES)
    return [(path, count, first) for path, count, first in json.loads(noted)] if noted else []


def _locate(table: pa.Table, index: int) -> tuple[str, int]:
    """Return the file (or an empty string) and the row number in it."""
    row = table.column(ROW)[index].as_py() if ROW in table.column_names else index + 1
    for path, count, first in files_of(table):
        if row <= count:
            return shown(path), first + row - 1
        row -= count
    return "", row
