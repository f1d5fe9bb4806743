"""Reads a ``.wandb`` file: LevelDB's log format around protobuf records."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32768
_FIRST, _FULL, _LAST = 2, 1, 4


def records(path: Path) -> Iterator[Any]:
    """Yield the records of a file."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, whole = 7, b""
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        body = data[position + 7 : position + 7 + size]
        position += 7 + size
        whole = body if kind in (_FULL, _FIRST) else whole + body
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


class WandbFile:
    """What a run's file says in the end.

    Attributes:
        run: The run's record: id, name, group, tags ...
        config: The configuration as it was given.
        history: One dict a logged row.
        summary: The last summary, nested.
        metrics: What ``define_metric`` said, by name.
        exit_code: How the run ended; None when it was never finished.
    """

    def __init__(self, path: Path) -> None:
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.exit_code: int | None = None
        for record in records(path):
            match record.WhichOneof("record_type"):
                case "run":
                    self.run = record.run
                    _update(self.config, record.run.config.update)
                case "config":
                    _update(self.config, record.config.update)
                case "history":
                    self.history.append({})
                    _update(self.history[-1], record.history.item)
                case "summary":
                    _update(self.summary, record.summary.update)
                case "metric":
                    self.metrics[record.metric.name or record.metric.glob_name] = record.metric
                case "exit":
                    self.exit_code = record.exit.exit_code


def read_finished(path: Path, *, seconds: float = 30.0) -> WandbFile:
    """Read a run's file once its last record is there: wandb's own process writes it, perhaps a moment after us."""
    end = time.monotonic() + seconds
    while (file := WandbFile(path)).exit_code is None and time.monotonic() < end:
        time.sleep(0.05)
    return file


def _update(tree: dict[str, Any], items: Iterable[Any]) -> None:
    for item in items:
        *above, key = list(item.nested_key) or [item.key]
        place = tree
        for name in above:
            place = place.setdefault(name, {})
        place[key] = json.loads(item.value_json)


def offline_runs(run_dir: Path) -> list[Path]:
    """The ``.wandb`` files of a run's folder."""
    return sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"))
