"""``graft predict``: stream rows through a finished run; the input may be larger than memory.

Rows are read in windows, sorted by length inside a window exactly as evaluation does, and written in their own order,
so a file gives the same numbers here as it gave when training reported them.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, final

import pyarrow as pa
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from graft.commands.app import run_command
from graft.data.columns import features_only
from graft.data.encoded import EncodedRows
from graft.data.sampling import WINDOW, windowed_order
from graft.data.sources import stream
from graft.errors import ConfigError, DataError
from graft.runs.load import LoadedRun, load_run
from graft.step import Prediction


def predict(cfg: DictConfig) -> int:
    """Predict every row of a file or of standard input.

    Args:
        cfg: The configuration of ``conf/predict.yaml``.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: If the output's format is not known, or it is the input.
    """
    source, output = str(cfg.input), str(cfg.output)
    _check_output(source, output)
    loaded = load_run(
        str(cfg.run),
        which=cfg.which,
        logs=Path(cfg.paths.logs),
        trust=list(cfg.trust),
        offline=cfg.offline,
        accelerator=cfg.accelerator,
    )
    count = 0
    chunks = stream(source, format=cfg.format, chunk=loaded.run.data.eval_batch_size * WINDOW)
    written = _written(loaded, chunks, device=_device(cfg.accelerator))
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


def _written(loaded: LoadedRun, chunks: Iterable[pa.Table], *, device: torch.device) -> Iterator[list[dict[str, Any]]]:
    """Yield what is written for each chunk: the columns of the input, then what is predicted."""
    run = loaded.run
    assert run.module.model is not None
    model = run.module.model.to(device)
    for chunk in chunks:
        table = features_only(chunk, run.task.schema, columns=run.data.columns)
        encoded = EncodedRows.build([run.task.encode(table.to_pydict())] if table.num_rows else [])
        predictions: list[Prediction] = [{}] * len(encoded)
        order = windowed_order(encoded.lengths, batch_size=run.data.eval_batch_size, window=WINDOW)
        for start in range(0, len(order), run.data.eval_batch_size):
            rows = order[start : start + run.data.eval_batch_size].tolist()
            batch = run.task.collate([encoded[index] for index in rows])
            moved = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
            with torch.inference_mode(), run.trainer.strategy.precision_plugin.forward_context():
                for index, prediction in zip(rows, run.task.predict(model, moved), strict=True):
                    predictions[index] = prediction
        given = chunk.to_pylist() if chunk.column_names else []
        yield [_beside(row, prediction) for row, prediction in zip(given, predictions, strict=True)]


def _beside(row: dict[str, Any], prediction: Prediction) -> dict[str, Any]:
    """Put a prediction beside its row; a column of the same name is kept as ``input_<name>``."""
    kept = {f"input_{name}" if name in prediction else name: value for name, value in row.items()}
    return kept | prediction


def _device(accelerator: str) -> torch.device:
    use_cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def _check_output(source: str, output: str) -> None:
    if output != "-" and not output.endswith((".jsonl", ".csv")):
        raise ConfigError(
            f"output: '{output}' ends in no known format. Use a name in .jsonl or .csv, or - for standard output."
        )
    if output != "-" and source != "-" and Path(source).expanduser().absolute() == Path(output).expanduser().absolute():
        raise ConfigError(f"output: '{output}' is the input too, and would be overwritten. Give another name.")


@final
class _JsonLines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


@final
class _Csv:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer: csv.DictWriter[str] | None = None

    def write(self, row: dict[str, Any]) -> None:
        flat = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in row.items()}
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
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8", newline="")


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
    count = predict(cfg)
    if str(cfg.output) != "-":
        Console(stderr=True).print(f"{count} rows written to {cfg.output}", soft_wrap=True)
