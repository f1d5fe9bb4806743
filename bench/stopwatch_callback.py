"""Times graft's steps exactly as the other contenders', through a callback of graft's user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final

from pytorch_lightning import Callback, LightningModule, Trainer

from measure import Stopwatch


@final
class StopwatchCallback(Callback):
    """Writes ``stopwatch.json``: what :meth:`Stopwatch.report` says of the training steps.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._path = Path(run_dir) / "stopwatch.json"
        self._watch = Stopwatch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the end of a step."""
        del trainer, pl_module, outputs, batch_idx
        self._watch.step(len(batch["input_ids"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was measured."""
        del trainer, pl_module
        self._path.write_text(json.dumps(self._watch.report()), encoding="utf-8")
