"""``graft predict``: stream rows through a finished run; the input may be larger than memory.

Rows are read in windows, sorted by length inside a window exactly as evaluation does, and written in their own order,
so a file gives the same numbers here as it gave when training reported them.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, final

import pyarrow as pa
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from graft.commands.app import run_command
from graft.config.check import check_given
from graft.data.sampling import WINDOW
from graft.data.sources import stream
from graft.errors import ConfigError, DataError
from graft.runs.load import LoadedRun, load_run
from graft.runs.predict import predict_table
from graft.step import Prediction


def predict(cfg: DictConfig) -> int:
    """Predict every row of a file or of standard input.

    Args:
        cfg: The configuration of ``conf/predict.yaml``.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: If the run or the input is not given, or the output is of no known format, is the input too, or
            cannot be written.
    """
    check_given(cfg, run="<folder or id of a run>", input="<file>, or input=- for standard input")
    source, output = str(cfg.input), str(cfg.output)
    _check_output(source, output)
    loaded = load_run(
        str(cfg.run),
        which=str(cfg.which),
        logs=Path(cfg.paths.logs),
        trust=list(cfg.trust),
        offline=cfg.offline,
        accelerator=cfg.accelerator,
    )
    count = 0
    chunks = stream(source, format=cfg.format, chunk=loaded.run.data.eval_batch_size * WINDOW)
    written = _written(loaded, chunks)
    first = next(written)  # bad input is refused before the output is touched
    with _open(output) as file, _progress(to_terminal=output == "-") as progress:
        bar = progress.add_task("rows", total=None)
        writer = _Csv(file) if output.endswith(".csv") else _JsonLines(file)
        for records in chain([first], written):
            for record in records:
                writer.write(record)
            file.flush()
            count += len(records)
            progress.update(bar, completed=count)
    return count


def _written(loaded: LoadedRun, chunks: Iterable[pa.Table]) -> Iterator[list[dict[str, Any]]]:
    """Yield what is written for each chunk: the columns of the input, then what is predicted."""
    for chunk in chunks:
        predictions = predict_table(loaded, chunk)
        yield [_beside(row, prediction) for row, prediction in zip(chunk.to_pylist(), predictions, strict=True)]


def _beside(row: dict[str, Any], prediction: Prediction) -> dict[str, Any]:
    """Put a prediction beside its row; a column of the same name is kept as ``input_<name>``."""
    kept: dict[str, Any] = {}
    for name, value in row.items():
        free = name
        while free in prediction or (free != name and free in row):
            free = f"input_{free}"
        kept[free] = value
    return kept | prediction


def _check_output(source: str, output: str) -> None:
    if output != "-" and not output.endswith((".jsonl", ".csv")):
        raise ConfigError(
            f"output: '{output}' ends in no known format. Use a name in .jsonl or .csv, or - for standard output."
        )
    if output != "-" and source != "-" and Path(source).expanduser().resolve() == Path(output).expanduser().resolve():
        raise ConfigError(f"output: '{output}' is the input too, and would be overwritten. Give another name.")


@final
class _JsonLines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(_text(row) + "\n")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


@final
class _Csv:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer: csv.DictWriter[str] | None = None

    def write(self, row: dict[str, Any]) -> None:
        flat = {name: _text(value) if isinstance(value, dict | list) else value for name, value in row.items()}
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, fieldnames=list(flat))
            self._writer.writeheader()
        if missing := flat.keys() - set(self._writer.fieldnames):
            raise DataError(
                f"output: a later row has the further columns {', '.join(sorted(missing))}, for which a csv file has "
                "no place. Write to a name in .jsonl."
            )
        self._writer.writerow(flat)


def _open(output: str) -> Any:
    if output == "-":
        return _Standard()
    path = Path(output).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"output: '{output}' cannot be written ({error.strerror}). Give another name.") from None


@final
class _Standard:
    """Standard output, which is not ours to close."""

    def __enter__(self) -> TextIO:
        return sys.stdout

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()


def _progress(*, to_terminal: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.completed} rows"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=to_terminal,
    )


def main() -> None:
    """Run the command line's ``predict``."""
    run_command("predict", _task)


def _task(cfg: DictConfig) -> None:
    try:
        count = predict(cfg)
    except BrokenPipeError:  # the reader has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit complains again
        return
    if str(cfg.output) != "-":
        Console(stderr=True).print(f"{count} rows written to {cfg.output}", soft_wrap=True)
