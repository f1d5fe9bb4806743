"""The predictions of the test split as JSON lines, and which of them were most wrong.

Chosen with ``callbacks=[predictions,...]``. Costs no forward pass: the task reads them off what the test step
returned. Memory stays constant in the number of rows but for one line's place each.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, final, runtime_checkable

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from graft.atomic import replacing
from graft.callbacks.counting import rows_of
from graft.step import Batch, Prediction, StepOutput

Record = dict[str, Any]
"""``row``, texts where known, the prediction, ``target``, and ``target_probability`` or ``error``."""


@runtime_checkable
class HasTargets(Protocol):
    """A task that can say the targets of a batch as its predictions say theirs."""

    def targets(self, batch: Batch) -> list[Any]:
        """Return one target a row."""
        ...


@final
class Predictions(Callback):
    """Writes ``predictions/test.jsonl``, one line a row, in the order of the data.

    Args:
        run_dir: The run's folder.
        rows: From a split's name to its table, to write the texts beside the predictions; only positions are
            written without it.
    """

    def __init__(self, run_dir: Path, *, rows: Callable[[str], Any] | None = None) -> None:
        super().__init__()
        self.path = Path(run_dir) / "predictions" / "test.jsonl"
        self._rows = rows
        self._texts: dict[str, Any] = {}
        self._seen = 0
        self._part: IO[bytes] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's part of the file."""
        del pl_module
        self._seen = 0
        self._texts = _text_columns(self._rows("test")) if self._rows else {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self._part_of(trainer.global_rank).open("wb")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the predictions of a batch."""
        del trainer, batch_idx, dataloader_idx
        if self._part is None or not isinstance(outputs, StepOutput):
            return
        task: Any = pl_module.task
        said: list[Prediction] = task.predict(pl_module.model, batch, outputs)
        targets = task.targets(batch) if isinstance(task, HasTargets) else None
        numbers = _row_numbers(batch, start=self._seen)
        self._seen += len(numbers)
        texts = {name: column.take(numbers).to_pylist() for name, column in self._texts.items()}
        for index, number in enumerate(numbers):
            record: Record = {
                "row": number,
                **{name: values[index] for name, values in texts.items()},
                **said[index],
            }
            if targets is not None:
                record["target"] = targets[index]
                record.update(_fit(said[index], targets[index]))
            self._part.write(json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sort the parts of all processes into one file."""
        del pl_module
        self._close()
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            parts = [self._part_of(rank) for rank in range(trainer.world_size)]
            _merge([part for part in parts if part.is_file()], self.path)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no half-written part behind."""
        del pl_module, exception
        self._close()
        self._part_of(trainer.global_rank).unlink(missing_ok=True)

    def _part_of(self, rank: int) -> Path:
        return self.path.with_name(f".{self.path.stem}.rank{rank}.part")

    def _close(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None


def read_predictions(path: Path) -> Iterator[Record]:
    """Read a file of predictions line by line.

    Args:
        path: A ``predictions/test.jsonl``.

    Yields:
        One record a row.
    """
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def how_wrong(record: Mapping[str, Any]) -> float | None:
    """Return how far a prediction is from its target; larger is worse.

    Args:
        record: A line of the file.

    Returns:
        One minus the probability given to the target, or the absolute error; None where neither is known, and
        for a prediction that equals its target.
    """
    if "error" in record:
        return float(record["error"])
    if "target_probability" not in record or _said(record) == _canonical(record["target"]):
        return None
    return 1.0 - float(record["target_probability"])


def most_wrong(path: Path, limit: int = 100) -> list[Record]:
    """Return the most wrong predictions, the worst first.

    Args:
        path: A ``predictions/test.jsonl``.
        limit: At most so many.

    Returns:
        Records whose prediction is not their target.
    """
    scored = ((wrong, -record["row"], record) for record in read_predictions(path) if (wrong := how_wrong(record)))
    return [record for _, _, record in heapq.nlargest(limit, scored, key=lambda item: item[:2])]


def _said(record: Mapping[str, Any]) -> Any:
    return _canonical(record["label"] if "label" in record else record.get("labels"))


def _canonical(value: Any) -> Any:
    return frozenset(value) if isinstance(value, list) else value


def _fit(said: Mapping[str, Any], target: Any) -> dict[str, float]:
    """Say how well a prediction fits: the probability it gave to the target, or its absolute error."""
    probabilities = said.get("probabilities")
    if isinstance(probabilities, Mapping) and isinstance(target, str):
        return {"target_probability": probabilities[target]}
    if isinstance(probabilities, Mapping) and isinstance(target, list):  # labels taken as independent
        return {"target_probability": _probability_of(target, probabilities)}
    if isinstance(said.get("score"), float) and isinstance(target, float):
        return {"error": abs(said["score"] - target)}
    return {}


def _probability_of(target: Sequence[str], probabilities: Mapping[str, float]) -> float:
    return math.prod(p if name in target else 1.0 - p for name, p in probabilities.items())


def _row_numbers(batch: Batch, *, start: int) -> list[int]:
    rows = batch.get("row")
    if isinstance(rows, Tensor):
        return [int(row) for row in rows.tolist()]
    return list(range(start, start + rows_of(batch)))


def _text_columns(table: Any) -> dict[str, Any]:
    return {
        name: table.column(name)
        for name in table.column_names
        if str(table.schema.field(name).type) in ("string", "large_string")
    }


def _merge(parts: Sequence[Path], target: Path) -> None:
    places: list[tuple[int, int, int]] = []  # row, part, where its line begins
    files = [part.open("rb") for part in parts]
    try:
        for index, file in enumerate(files):
            start = 0
            for line in file:
                places.append((_row_of(line), index, start))
                start += len(line)
        with replacing(target) as merged:
            for _, index, start in sorted(places):
                files[index].seek(start)
                merged.write(files[index].readline())
    finally:
        for file in files:
            file.close()
    for part in parts:
        part.unlink()


def _row_of(line: bytes) -> int:
    return int(line[len(b'{"row": ') : line.find(b",") if b"," in line else line.find(b"}")])
