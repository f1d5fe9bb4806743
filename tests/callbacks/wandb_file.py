"""Reads a ``.wandb`` file: LevelDB's log format around protobuf records."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
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
                    self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
                case "history":
                    row: dict[str, Any] = {}
                    for item in record.history.item:
                        _put(row, list(item.nested_key) or [item.key], json.loads(item.value_json))
                    self.history.append(row)
                case "summary":
                    for item in record.summary.update:
                        _put(self.summary, list(item.nested_key) or [item.key], json.loads(item.value_json))
                case "metric":
                    self.metrics[record.metric.name or record.metric.glob_name] = record.metric
                case "exit":
                    self.exit_code = record.exit.exit_code


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def offline_runs(run_dir: Path) -> list[Path]:
    """The ``.wandb`` files of a run's folder."""
    return sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"))
