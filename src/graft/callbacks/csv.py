"""The history of a run as one table, ``metrics.csv`` in its folder.

Chosen with ``logger=[csv,...]``. Every line is on the disk as soon as it is logged. A resumed run continues
the table: what was logged after the checkpoint that it resumed from is replaced, so each step stands there
once. (Lightning's own CSV logger deletes the earlier table.)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, final

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from graft.atomic import write_text

_STEP = "step"
_EPOCH = "epoch"


@final
class MetricsCsv(Logger):
    """Appends logged metrics to a table with one column a metric.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._seen: set[str] = set()

    @property
    def name(self) -> str:
        """The name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """The run's folder, the same on every rank."""
        return self.path.parent.name

    @property
    def save_dir(self) -> str:
        """Where the table lies."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration stands in ``config.yaml`` beside the table."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line.

        Args:
            metrics: Values by name.
            step: The training step they belong to.
        """
        row: dict[str, Any] = {_STEP: 0 if step is None else step, **metrics}
        fresh = row.keys() - self._seen
        if fresh:
            self._seen |= fresh
            self._begin(row, fresh - {_STEP, _EPOCH})
        with self.path.open("a", newline="", encoding="utf-8") as file:
            self._writer(file).writerow(row)

    def _writer(self, file: TextIO) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self._columns, restval="", lineterminator="\n")

    def _begin(self, row: Mapping[str, Any], fresh: set[str]) -> None:
        """Rewrite the table for metrics that this process logs for the first time."""
        rows = [old for old in read_metrics(self.path) if not _superseded(old, row[_STEP], fresh)]
        known = {name: None for old in rows[:1] for name in old}
        self._columns = list(dict.fromkeys([_STEP, *known, *self._columns, *row]))
        text = io.StringIO(newline="")
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read a table of metrics.

    Args:
        path: A ``metrics.csv``; it may be missing, and its last line cut off.

    Returns:
        One dict a line, cells as text, an empty text where nothing was logged.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # a killed process may leave half a line
    return list(csv.DictReader(io.StringIO(whole, newline="")))


def _superseded(old: Mapping[str, str], step: int, fresh: set[str]) -> bool:
    return int(old[_STEP]) >= step and any(old.get(name) for name in fresh)
