"""Reads one file as tables of rows: csv, tsv, json, json lines, parquet or plain text, plain or gzipped.

Everything is read through one door that checks the encoding and counts lines, so that a bad file is answered
with its name, the line, and what to do. Cells of csv and tsv files are text; ``data/columns.py`` gives them
their kind.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from graft.data.origin import shown, with_files
from graft.errors import ConfigError, DataError, did_you_mean

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
}
_FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
_SHOWN = 5  # bad lines that one message names
_LONGEST_CELL = 2**26  # characters; the csv module's own limit of 2**17 is less than a long document has


@dataclass(frozen=True)
class Form:
    """How a file is written.

    Attributes:
        format: ``csv``, ``tsv``, ``json`` (a list of objects), ``jsonl``, ``parquet`` or ``text`` (one row a
            line); None reads it off the file's name.
        quoting: Whether cells may be quoted as in RFC 4180, with line breaks inside; None is yes for csv, no
            for tsv.
        delimiter: What separates cells; None is a comma for csv, a tab for tsv.
        column_names: Names of the columns of a csv or tsv file that has no header.

    Raises:
        ConfigError: If the format is not one of these.
    """

    format: str | None = None
    quoting: bool | None = None
    delimiter: str | None = None
    column_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in _FORMATS:
            raise ConfigError(
                f"format: no file format is called '{self.format}'.{did_you_mean(self.format, _FORMATS)} "
                f"Choose one of {', '.join(_FORMATS)}."
            )


def format_of(path: Path) -> str:
    """Return the format that a file's name tells.

    Args:
        path: A file, with or without ``.gz``.

    Returns:
        One of the formats of ``Form``.

    Raises:
        DataError: If the suffix is not known.
    """
    if (guess := guess_format(path)) is not None:
        return guess
    raise DataError(
        f"{shown(path)}: the name does not tell the format; known are {', '.join(SUFFIXES)}, each also with .gz. "
        f"Set the format to one of {', '.join(_FORMATS)}."
    )


def guess_format(path: Path) -> str | None:
    """Return the format that a file's name tells, or None where it tells none."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def read(path: Path, form: Form, *, chunk: int) -> Iterator[pa.Table]:
    """Read a file in chunks.

    Args:
        path: The file.
        form: How it is written.
        chunk: Rows a table at most; json files come as one table.

    Yields:
        Tables that know where their rows came from; at least one, which may be empty.

    Raises:
        DataError: If the file is missing, damaged, not UTF-8, or holds a row that cannot be read.
    """
    form = replace(form, format=form.format or format_of(path))
    first = 1
    for table in _read(path, form, chunk):
        yield with_files(table, [(str(path), table.num_rows, first)])
        first += table.num_rows


def stream(
    path: str, *, format: str | None = None, chunk: int = 1024, quoting: bool | None = None
) -> Iterator[pa.Table]:
    """Read a file, or standard input, in constant memory.

    Args:
        path: A file, or ``-`` for standard input.
        format: As in ``Form``; for standard input None is ``jsonl`` when the first line starts with ``{``,
            else ``text``.
        chunk: Rows a table at most.
        quoting: As in ``Form``.

    Yields:
        Tables of at most ``chunk`` rows (json files come as one table); lines of text in the column ``text``.

    Raises:
        DataError: As ``read``.
    """
    form = Form(format=format, quoting=quoting)
    if path != "-":
        yield from read(Path(path).expanduser().absolute(), form, chunk=chunk)
        return
    raw = iter(sys.stdin.buffer)
    head = list(islice(raw, 1))
    guess = "jsonl" if head and head[0].lstrip(b"\xef\xbb\xbf \t").startswith(b"{") else "text"
    form = replace(form, format=format or guess)
    first = 1
    name = "standard input"
    if form.format == "parquet":
        tables = _parquet(BytesIO(b"".join(chain(head, raw))), name, chunk)
    else:
        tables = _tables(_decoded(chain(head, raw), name), name, form, chunk)
    for table in tables:
        yield with_files(table, [(name, table.num_rows, first)])
        first += table.num_rows


def table_of(rows: Sequence[Mapping[str, Any]], name: str) -> pa.Table:
    """Make a table of rows given as dictionaries.

    A column whose values are of several kinds is read as text, so that ``1`` and ``"1"`` are the same label;
    a row that lacks a key holds null there.

    Args:
        rows: The rows; their keys may differ.
        name: What they are called in an error.

    Returns:
        A table of ``len(rows)`` rows.

    Raises:
        DataError: If a text cannot be written as UTF-8.
    """
    names = dict.fromkeys(chain.from_iterable(rows))
    return pa.table({column: _array([row.get(column) for row in rows], name) for column in names})


def as_text(values: Iterable[Any]) -> pa.Array:
    """Return values of any kind as text: texts as they are, others as JSON."""
    return pa.array(
        [
            value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            for value in values
        ],
        pa.string(),
    )


def _read(path: Path, form: Form, chunk: int) -> Iterator[pa.Table]:
    name = shown(path)
    try:
        with _opened(path) as file:
            if form.format == "parquet":
                # a gzipped parquet file cannot be read from the middle, which the format asks for
                yield from _parquet(BytesIO(file.read()) if _is_gzip(path) else file, name, chunk)
            else:
                yield from _tables(_decoded(file, name), name, form, chunk)
    except FileNotFoundError:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{name}: there is no such file.{did_you_mean(path.name, siblings)}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: is no complete gzip file ({error}). Copy or download it again.") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from None


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path) if _is_gzip(path) else path.open("rb")  # type: ignore[return-value]


def _decoded(raw_lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield lines as text, each with its line end, without a byte-order mark."""
    offset = 0
    for number, raw in enumerate(raw_lines, start=1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            utf16 = number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff")
            source = "utf-16" if utf16 else "windows-1252"
            raise DataError(
                f"{name}: byte {offset + error.start} (line {number}) is 0x{raw[error.start]:02x}, which is not "
                f"UTF-8. Convert the file, for example from {source}: iconv -f {source} -t utf-8."
            ) from None
        yield line.removeprefix("\ufeff") if number == 1 else line
        offset += len(raw)


def _tables(lines: Iterator[str], name: str, form: Form, chunk: int) -> Iterator[pa.Table]:
    match form.format:
        case "text":
            return _text(lines, chunk)
        case "json":
            return iter([table_of(_json_list("".join(lines), name), name)])
        case "jsonl":
            return _json_lines(lines, name, chunk)
        case _:
            return _cells(lines, name, form, chunk)


def _text(lines: Iterator[str], chunk: int) -> Iterator[pa.Table]:
    block = [line.rstrip("\r\n") for line in islice(lines, chunk)]
    yield pa.table({"text": pa.array(block, pa.string())})
    while block := [line.rstrip("\r\n") for line in islice(lines, chunk)]:
        yield pa.table({"text": pa.array(block, pa.string())})


def _json_list(text: str, name: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        lines_of_json = error.msg == "Extra data" and text.lstrip().startswith("{")
        remedy = " It looks like one object a line: set the format to jsonl." if lines_of_json else ""
        raise DataError(
            f"{name}: line {error.lineno}, column {error.colno} is no valid JSON ({error.msg}).{remedy}"
        ) from None
    if not isinstance(rows, list):
        raise DataError(f"{name}: holds {_kind(rows)} where a list of objects is needed, [{{...}}, {{...}}].")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{name}: row {number} is {_kind(row)} where an object {{...}} is needed.")
    return rows


def _json_lines(lines: Iterator[str], name: str, chunk: int) -> Iterator[pa.Table]:
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
    done = False
    while block := list(islice(numbered, chunk)):
        rows, problems = [], []
        for number, line in block:
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                problems.append(f"{name}: line {number} is no valid JSON ({error.msg}, column {error.colno}).")
                continue
            if isinstance(row, dict):
                rows.append(row)
            else:
                problems.append(f"{name}: line {number} is {_kind(row)} where an object {{...}} is needed.")
        _refuse(problems, name)
        yield table_of(rows, name)
        done = True
    if not done:
        yield pa.table({})


def _cells(lines: Iterator[str], name: str, form: Form, chunk: int) -> Iterator[pa.Table]:
    delimiter = form.delimiter or ("\t" if form.format == "tsv" else ",")
    quoted = form.quoting if form.quoting is not None else form.format == "csv"
    records = _quoted(lines, name, delimiter) if quoted else _plain(lines, delimiter)
    header = _header(records, name, form, delimiter)
    done = False
    while block := list(islice(records, chunk)):
        _refuse(
            [
                f"{name}: line {line} has {len(cells)} cells where there are {len(header)} columns "
                f"({', '.join(header)})."
                for line, cells in block
                if len(cells) != len(header)
            ],
            name,
        )
        columns = zip(*(cells for _, cells in block), strict=True)
        yield pa.table({column: pa.array(values, pa.string()) for column, values in zip(header, columns, strict=True)})
        done = True
    if not done:
        yield pa.table({column: pa.array([], pa.string()) for column in header})


def _header(records: Iterator[tuple[int, list[str]]], name: str, form: Form, delimiter: str) -> list[str]:
    if form.column_names is not None:
        header = list(form.column_names)
    else:
        first = next(records, None)
        if first is None:
            raise DataError(f"{name}: is empty, not even a header.")
        header = [cell.strip() for cell in first[1]]
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise DataError(
            f"{name}: several columns are called {', '.join(map(repr, twice))}. Rename them, or give column_names."
        )
    if len(header) == 1 and form.column_names is None:
        for other, word in ((";", "semicolon"), ("\t", "tab"), (",", "comma")):
            if other != delimiter and other in header[0]:
                raise DataError(
                    f"{name}: the header is one cell, {header[0]!r}. If the cells are separated by a {word}, "
                    f"set the delimiter to {other!r}."
                )
    return header


def _plain(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if row := line.rstrip("\r\n"):
            yield number, row.split(delimiter)


def _quoted(lines: Iterator[str], name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = _next_row(reader)
        except csv.Error as error:
            raise DataError(
                f"{name}: the row that starts in line {start} cannot be read ({error}). Look for a quote that is "
                'never closed, or is not doubled inside a quoted cell (""); or set quoting to false if quotes mean '
                "nothing."
            ) from None
        if cells is None:
            return
        if cells:
            yield start, cells


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next row, or None at the end; the csv module knows the longest cell only as a global setting."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _parquet(file: BinaryIO, name: str, chunk: int) -> Iterator[pa.Table]:
    try:
        parquet = pq.ParquetFile(file)
        if parquet.metadata.num_rows == 0:
            yield parquet.schema_arrow.empty_table()
        for batch in parquet.iter_batches(batch_size=chunk):
            yield pa.Table.from_batches([batch], parquet.schema_arrow)
    except pa.ArrowException as error:
        raise DataError(f"{name}: is no parquet file that can be read ({str(error).splitlines()[0]}).") from None


def _array(values: list[Any], name: str) -> pa.Array:
    try:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return as_text(values)
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: the text {error.object[:40]!a} holds half a character and is no UTF-8.") from None


def _kind(value: Any) -> str:
    words = {dict: "one object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return words.get(type(value), "a number")


def _refuse(problems: list[str], name: str) -> None:
    if len(problems) > _SHOWN:
        problems = [*problems[:_SHOWN], f"{name}: {len(problems) - _SHOWN} more lines like these."]
    if problems:
        raise DataError(problems)
