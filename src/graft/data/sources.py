"""Where rows come from: files, a saved ``datasets`` folder, the configuration itself, or a hub.

A source gives tables by split name and knows nothing of tasks; names of columns and labels are settled later,
in ``data/columns.py``. Chosen with ``data=csv|tsv|json|jsonl|parquet|saved|in_memory|hub`` or a data set's
own YAML.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import glob
from itertools import chain
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol, final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graft.data.cells import Column, as_words, flags
from graft.data.files import SUFFIXES, Form, as_text, guess_format, read, stream, table_of
from graft.data.origin import files_of, pick, shown, with_files
from graft.errors import ConfigError, DataError, did_you_mean
from graft.log import get_logger

__all__ = ["Files", "Hub", "InMemory", "SavedDataset", "Source", "stream"]

log = get_logger(__name__)

_CHUNK = 65_536  # rows that are text in Python before they become a table
_OTHER_NAMES = {"dev": "validation", "val": "validation", "valid": "validation"}
_PROBE_SECONDS = 3.0


class Source(Protocol):
    """Anything with rows."""

    def load(self) -> Mapping[str, pa.Table]:
        """Return the rows by split name, ``train``, ``validation`` and ``test`` as far as they exist."""
        ...


@final
class Files:
    """Rows in csv, tsv, json, json lines, parquet or text files, plain or gzipped.

    Args:
        train: A file, a folder of files, a glob such as ``parts/*.csv``, or a list of these.
        validation: The same, for choosing checkpoints.
        test: The same, for the final metrics.
        format: ``csv``, ``tsv``, ``json`` (a list of objects), ``jsonl``, ``parquet`` or ``text`` (one row a
            line, in the column ``text``); None reads it off each file's name.
        quoting: Whether cells may be quoted, with line breaks inside; None is yes for csv and no for tsv.
        delimiter: What separates cells; None is a comma for csv, a tab for tsv.
        column_names: Names of the columns of files that have no header.
        split_column: Name of a column of ``train``'s file that says which split each row belongs to; ``dev``,
            ``val`` and ``valid`` are ``validation``.
        directory: Folder that relative paths start from; None is the folder the program was started in,
            looked up once, when this object is made.

    Raises:
        ConfigError: If ``split_column`` is given together with ``validation`` or ``test``, or no file is
            given.
    """

    def __init__(
        self,
        train: str | Sequence[str] | None = None,
        validation: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        *,
        format: str | None = None,
        quoting: bool | None = None,
        delimiter: str | None = None,
        column_names: Sequence[str] | None = None,
        split_column: str | None = None,
        directory: str | None = None,
    ) -> None:
        given = {"train": train, "validation": validation, "test": test}
        self.paths = {
            split: [paths] if isinstance(paths, str) else list(paths) for split, paths in given.items() if paths
        }
        if not self.paths:
            raise ConfigError("data.source: no file is given. Set data.source.train=<file, folder or glob>.")
        if split_column is not None and list(self.paths) != ["train"]:
            raise ConfigError(
                f"data.source.split_column: the splits are read from the column {split_column!r} of data.source.train, "
                "so data.source.validation and data.source.test must be null."
            )
        names = None if column_names is None else tuple(column_names)
        self.form = Form(format=format, quoting=quoting, delimiter=delimiter, column_names=names)
        self.split_column = split_column
        self.directory = Path(directory or ".").expanduser().absolute()

    def load(self) -> dict[str, pa.Table]:
        """Read all files.

        Returns:
            A table per split that was given.

        Raises:
            DataError: With the problems of all files together.
        """
        problems: list[str] = []
        tables: dict[str, pa.Table] = {}
        for split, given in self.paths.items():
            parts: list[pa.Table] = []
            for path in self._found(given, split, problems):
                try:
                    parts.extend(read(path, self.form, chunk=_CHUNK))
                except DataError as error:
                    problems.extend(error.problems)
            if parts:
                tables[split] = _joined(parts)
        if problems:
            raise DataError(problems)
        return tables if self.split_column is None else _by_column(tables["train"], self.split_column)

    def _found(self, given: Sequence[str], split: str, problems: list[str]) -> list[Path]:
        found: list[Path] = []
        for text in given:
            path = self.directory / Path(text).expanduser()
            if path.is_dir():
                found.extend(self._in_folder(path, split, problems))
            elif path.exists():
                found.append(path)
            elif any(sign in text for sign in "*?["):
                # relative to the folder, whose own name may hold such signs
                names = glob(str(Path(text).expanduser()), root_dir=self.directory, recursive=True)
                matches = sorted(match for match in map(self.directory.joinpath, names) if match.is_file())
                if not matches:
                    problems.append(f"data.source.{split}: no file matches {shown(path)}.")
                found.extend(matches)
            else:
                siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
                near = did_you_mean(path.name, siblings)
                folder = "" if path.parent.is_dir() else f" The folder {shown(path.parent)} does not exist either."
                problems.append(f"data.source.{split}: there is no file {shown(path)}.{near}{folder}")
        return found

    def _in_folder(self, folder: Path, split: str, problems: list[str]) -> list[Path]:
        """Return the files of the format by their names; all of them where the format is given and no name tells it."""
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        formats = {path: guess_format(path) for path in files}
        wanted = self.form.format
        chosen = [path for path in files if formats[path] is not None and wanted in (None, formats[path])]
        if not chosen and wanted is not None and not any(formats.values()):
            chosen = files
        if not chosen:
            suffixes = [suffix for suffix, format in SUFFIXES.items() if wanted in (None, format)]
            problems.append(
                f"data.source.{split}: the folder {shown(folder)} holds no data file "
                f"({', '.join(suffixes)}, also with .gz)."
            )
        return chosen


@final
class InMemory:
    """Rows given in the configuration or in Python.

    Args:
        splits: Rows as dictionaries, by split name.
    """

    def __init__(self, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.splits = splits

    def load(self) -> dict[str, pa.Table]:
        """Return the rows as tables.

        Returns:
            A table per split.

        Raises:
            DataError: If a row is no mapping.
        """
        problems = [
            f"data.source.splits.{split}: row {number} is {row!r} where an object {{text: ..., label: ...}} is needed."
            for split, rows in self.splits.items()
            for number, row in enumerate(rows, start=1)
            if not isinstance(row, Mapping)
        ]
        if problems:
            raise DataError(problems)
        return {split: table_of(rows, f"the {split} rows") for split, rows in self.splits.items()}


@final
class SavedDataset:
    """A folder that ``datasets.Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote.

    Args:
        path: The folder; relative paths start from the folder the program was started in.
        splits: Our split names to the folder's; None takes them as they are. A single ``Dataset`` is
            ``train``.
    """

    def __init__(self, path: str, *, splits: Mapping[str, str] | None = None) -> None:
        self.path = Path(path).expanduser().absolute()
        self.splits = splits

    def load(self) -> dict[str, pa.Table]:
        """Read the folder.

        Returns:
            A table per split.

        Raises:
            DataError: If it holds no saved data set.
        """
        from datasets import load_from_disk

        try:
            found = load_from_disk(str(self.path))
        except (FileNotFoundError, pa.ArrowException, ValueError) as error:
            raise DataError(
                f"data.source.path: {shown(self.path)} holds no data set saved with save_to_disk "
                f"({str(error).partition(chr(10))[0]}). For other files choose data=csv, tsv, json, jsonl or parquet."
            ) from None
        return _of_datasets(found, self.splits, shown(self.path))


@final
class Hub:
    """A data set of the Hugging Face hub, or a local folder laid out like one.

    The hub is probed once, for at most three seconds. When it does not answer, or ``offline`` is set, only
    what was downloaded before is used.

    Args:
        name: ``owner/name`` on the hub, or a local folder.
        config: Which of the data set's configurations, where it has several.
        revision: Branch, tag or commit.
        splits: Our split names to the hub's, such as ``{train: train, validation: validation_matched}``; None
            takes all of them as they are.
        offline: Whether to stay away from the network.
    """

    def __init__(
        self,
        name: str,
        *,
        config: str | None = None,
        revision: str | None = None,
        splits: Mapping[str, str] | None = None,
        offline: bool = False,
    ) -> None:
        folder = Path(name).expanduser().absolute()
        self.local = folder.is_dir()
        self.name = str(folder) if self.local else name
        self.config = config
        self.revision = revision
        self.splits = splits
        self.offline = offline

    def load(self) -> dict[str, pa.Table]:
        """Download the data set, or take it from the cache.

        Returns:
            A table per split.

        Raises:
            DataError: If the hub cannot be reached and the data set was not downloaded before, or it does not
                exist.
        """
        from huggingface_hub import constants
        from huggingface_hub.errors import HfHubHTTPError

        offline = self.offline or constants.HF_HUB_OFFLINE
        reached = self.local or offline or _answers(constants.ENDPOINT)
        if not reached:
            log.warning("the hub %s does not answer; looking for %s in the cache", constants.ENDPOINT, self.name)
        # imported after the probe, because it takes a second
        import datasets

        # a data set with a loading script is a RuntimeError; the bases are the HTTP library's errors, whichever it is
        refused: tuple[type[Exception], ...] = (
            *(OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError),
            *HfHubHTTPError.__bases__,
        )
        with _offline_mode(offline or not reached):
            try:
                found = datasets.load_dataset(self.name, self.config, revision=self.revision)
            except ConnectionError:
                why = "offline is set" if offline else f"the hub {constants.ENDPOINT} does not answer"
                raise DataError(
                    f"data.source.name: '{self.name}' was not downloaded before and {why}. Connect once, or give a "
                    "local folder as data.source.name, or choose data=csv, jsonl or parquet with files of your own."
                ) from None
            except refused as error:
                raise DataError(f"data.source.name: '{self.name}': {error}") from None
        return _of_datasets(found, self.splits, self.name)


def _joined(parts: list[pa.Table]) -> pa.Table:
    """Put tables of several files below each other; a column of different types becomes text."""
    files: list[tuple[str, int, int]] = []
    for path, count, first in chain.from_iterable(map(files_of, parts)):
        if files and files[-1][0] == path and files[-1][2] + files[-1][1] == first:
            files[-1] = (path, files[-1][1] + count, files[-1][2])
        else:
            files.append((path, count, first))
    try:
        table = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException:
        table = pa.concat_tables(_of_like_types(parts), promote_options="permissive")
    return with_files(table, files)


def _of_like_types(parts: list[pa.Table]) -> list[pa.Table]:
    """Turn the columns into text that are of different types in different tables."""
    types: dict[str, set[pa.DataType]] = {}
    for field in chain.from_iterable(part.schema for part in parts):
        types.setdefault(field.name, set()).add(field.type)
    mixed = {name for name, found in types.items() if len(found) > 1}
    return [
        pa.table(
            {
                name: as_text(part.column(name).to_pylist()) if name in mixed else part.column(name)
                for name in part.column_names
            },
            metadata=part.schema.metadata,
        )
        for part in parts
    ]


def _by_column(table: pa.Table, column: str) -> dict[str, pa.Table]:
    if column not in table.column_names:
        near = did_you_mean(column, table.column_names)
        raise DataError(
            f"data.source.split_column: there is no column '{column}'.{near} Columns: {', '.join(table.column_names)}."
        )
    written = as_words(Column("train", table, column).values())
    if written is None:
        raise DataError(f"data.source.split_column: the column '{column}' holds lists or objects, no names of splits.")
    if written.null_count:
        log.info("%d rows say no split in the column %s and are not used", written.null_count, column)
    splits: dict[str, list[str]] = {}
    for name in pc.unique(written).drop_null().to_pylist():
        splits.setdefault(_OTHER_NAMES.get(name, name), []).append(name)
    return {
        split: pick(table, np.flatnonzero(flags(pc.is_in(written, pa.array(names, written.type)))))
        for split, names in splits.items()
    }


def _of_datasets(found: Any, splits: Mapping[str, str] | None, name: str) -> dict[str, pa.Table]:
    """Turn a ``Dataset`` or a ``DatasetDict`` into tables; label names stay in the schema's metadata."""
    from datasets import Dataset

    present = {"train": found} if isinstance(found, Dataset) else found
    wanted = dict(splits) if splits is not None else {split: split for split in present}
    missing = [theirs for theirs in wanted.values() if theirs not in present]
    if missing:
        raise DataError(
            f"data.source.splits: {name} has no split {', '.join(map(repr, missing))}."
            f"{did_you_mean(missing[0], present)} Splits: {', '.join(present)}."
        )
    return {ours: present[theirs].with_format("arrow")[:] for ours, theirs in wanted.items()}


def _answers(endpoint: str) -> bool:
    """Whether a server accepts connections; True behind a proxy, which only a real request can tell."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connected = Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((host, port), _PROBE_SECONDS):
            connected.set()

    # in a thread, since the time that a name server takes to answer has no limit of its own
    probe = Thread(target=connect, daemon=True)
    probe.start()
    probe.join(_PROBE_SECONDS)
    return connected.is_set()


@contextmanager
def _offline_mode(offline: bool) -> Iterator[None]:
    """Keep the two libraries off the network inside the block; they read these flags at every request."""
    import datasets
    from huggingface_hub import constants

    before = (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
