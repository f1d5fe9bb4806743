"""Runs that are cut off at a chosen batch, resumed to their end, and compared with an unbroken one."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pytorch_lightning as pl
import torch

from graft.commands.train import train
from graft.config.compose import compose_config
from graft.engine.checkpoint import read_checkpoint

SETTING = (
    *("model=tiny_bert", "data=financial_news", "data.limit=50", "data.batch_size=8", "trainer.max_epochs=2"),
    *("trainer.accelerator=cpu", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"),
    *("trainer.log_every_n_steps=1", "logger=[csv]", "callbacks=[checkpoint,lr_monitor]"),
    *("callbacks.checkpoint.every_n_steps=2", "optimizer.lr=1e-2"),
    "+callbacks.guillotine={_target_: tests.engine.crash.Guillotine}",
)
"""13 batches of 8 or fewer rows over two epochs, the last of each epoch with two rows; dropout is on."""


class CutOff(BaseException):
    """Ends a run as a kill would: nothing is saved on the way out."""


@final
class Guillotine(pl.Callback):
    """Ends a run before the batch that it is set to, counted over the life of this process."""

    at: int | None = None
    seen = 0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if Guillotine.seen == Guillotine.at:
            raise CutOff
        Guillotine.seen += 1


@contextmanager
def falling(at: int | None) -> Iterator[None]:
    Guillotine.at, Guillotine.seen = at, 0
    try:
        yield
    finally:
        Guillotine.at = None


@dataclass(frozen=True)
class End:
    """What a run ended with, as far as an unbroken run must agree."""

    last: Mapping[str, Any]
    best: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, str]]


def run_to_end(logs: Path, overrides: Sequence[str], *, cut_at: Sequence[int] = ()) -> End:
    """Train; cut the run off before these batches (each counted from where it went on), and go on each time."""
    setting = [*SETTING, *overrides, f"paths.logs={logs}"]
    cuts: list[int | None] = [*cut_at, None]
    for number, at in enumerate(cuts):
        asked = setting
        if number:
            (folder,) = logs.glob("*/*")
            asked = [f"run={folder}", "resume=true", "trust=[tests]"]
        with falling(at):
            try:
                train(compose_config("train", asked))
            except CutOff:
                assert at is not None
            else:
                assert at is None, "the run ended before it was to be cut off"
    (folder,) = logs.glob("*/*")
    kept = folder / "checkpoints"
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    return End(
        last=read_checkpoint(kept / "last.ckpt"),
        best=read_checkpoint(kept / json.loads((kept / "scores.json").read_text())["best"]),
        metrics=json.loads((folder / "metrics.json").read_text()),
        history=history,
    )


def assert_same_end(one: End, other: End) -> None:
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "graft", "graft_resume"):
        assert _plain(one.last[name]) == _plain(other.last[name]), f"last.ckpt differs in {name}"
    assert _plain(one.best["state_dict"]) == _plain(other.best["state_dict"])
    assert one.best["global_step"] == other.best["global_step"]
    assert one.metrics == other.metrics
    assert one.history == other.history


def _plain(value: Any) -> Any:
    """Return nested values that compare bit for bit."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
