"""Keeping the best checkpoints by the task's metric, and always the last.

Chosen with ``callbacks=[checkpoint,...]``. Around Lightning's ``ModelCheckpoint``, with these differences:

- ``last.ckpt`` is the state after the last validation. Lightning writes it only when a best one was written
  too, so a resumed run would repeat everything since the last improvement.
- A metric that is not finite is never the best; Lightning keeps NaN as long as nothing better comes.
- A resumed run that selects by another metric is refused; Lightning forgets the earlier best without a word.
- A run's folder may be moved or copied and resumed there.
- ``last.ckpt`` is also written within an epoch, every so many minutes or optimizer steps, and when the run is told to
  stop (SIGTERM); the one before it stays as ``previous.ckpt``, should the newest turn out to be damaged.
- File names hold no metric (a metric's name holds a slash); the scores are in ``scores.json`` beside them.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any, Literal, final

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from graft.atomic import write_json
from graft.engine.checkpoint import link_checkpoint
from graft.errors import CheckpointError

_LAST, _PREVIOUS = "last.ckpt", "previous.ckpt"
_ASK_EVERY = 20  # optimizer steps


@final
class BestCheckpoint(ModelCheckpoint):
    """Saves after every validation: ``best.ckpt`` when the metric improved, ``last.ckpt`` always.

    Args:
        dirpath: Folder of the checkpoints.
        monitor: Metric to select by, such as ``val/accuracy``.
        mode: Whether more or less of it is better.
        save_top_k: How many of the best to keep; further ones are called ``best-v1.ckpt`` and so on.
        save_last: Whether to keep ``last.ckpt``, which a run is resumed from.
        every_minutes: How long to train at most without writing ``last.ckpt``; None writes it with validations only.
        every_n_steps: The same in optimizer steps, besides.
    """

    def __init__(
        self,
        dirpath: str,
        *,
        monitor: str,
        mode: Literal["max", "min"],
        save_top_k: int = 1,
        save_last: bool = True,
        every_minutes: float | None = 10.0,
        every_n_steps: int | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            auto_insert_metric_name=False,
        )
        self._keeps_last = save_last
        self._last_step: int | None = None
        self._every_seconds = None if every_minutes is None else 60.0 * every_minutes
        self._every_n_steps = every_n_steps
        self._saved_at = time.monotonic()

    @property
    def state_key(self) -> str:
        """One key whatever the metric, so that a resumed run can notice that it changed."""
        return "graft.callbacks.checkpoint.BestCheckpoint"

    def file_exists(self, filepath: str | Path, trainer: Trainer) -> bool:
        """Say whether a name is taken: what a killed run left beyond the checkpoint it resumed from is replaced."""
        del trainer
        return str(filepath) in self.best_k_models

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Say whether a score is among the best.

        Args:
            trainer: The trainer.
            current: The score, the same on every rank.

        Returns:
            False for a score that is not finite.
        """
        if current is not None and not bool(torch.isfinite(current)):
            warnings.warn(
                f"{self.monitor} is {float(current)} at step {trainer.global_step}; this state is not kept "
                "as the best. A smaller optimizer.lr or trainer.gradient_clip_val often helps.",
                stacklevel=2,
            )
            return False
        return super().check_monitor_top_k(trainer, current)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch when it is time to, after an optimizer step that no validation follows."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        loop = trainer.fit_loop
        if loop._should_accumulate() or not self._is_due(trainer):
            return
        assert loop._data_fetcher is not None
        # Resumed from before a validation, Lightning takes it for done; after it, there is a checkpoint anyway.
        if not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            self._save_last(trainer, None)

    def _is_due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        if not self._keeps_last or step in (0, self._last_step):
            return False
        if self._every_n_steps is not None and step % self._every_n_steps == 0:
            return True
        # Processes must agree on the time, which costs a message, so several ask for it now and then only.
        if self._every_seconds is None or (trainer.world_size > 1 and step % _ASK_EVERY):
            return False
        late = time.monotonic() - self._saved_at >= self._every_seconds
        return bool(trainer.strategy.broadcast(late)) if trainer.world_size > 1 else late

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where a run that was told to stop has got to; Lightning stops it between two batches."""
        super().on_exception(trainer, pl_module, exception)
        stepped = trainer.training and not trainer.fit_loop._should_accumulate()
        if isinstance(exception, SIGTERMException) and stepped and self._keeps_last and trainer.global_step:
            self._save_last(trainer, None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation within an epoch."""
        before = dict(self.best_k_models)
        super().on_validation_end(trainer, pl_module)
        # After an epoch's only validation Lightning saves at the epoch's end, from where a run resumes with the
        # next epoch; saved here, it would resume before the end of the old one.
        if not self._should_save_on_train_epoch_end(trainer):
            self._after_saving(trainer, before)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of an epoch."""
        before = dict(self.best_k_models)
        super().on_train_epoch_end(trainer, pl_module)
        self._after_saving(trainer, before)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of training, where no validation did."""
        super().on_train_end(trainer, pl_module)
        self._after_saving(trainer, dict(self.best_k_models))

    def _after_saving(self, trainer: Trainer, before: dict[str, Tensor]) -> None:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        saved = [path for path, score in self.best_k_models.items() if before.get(path) is not score]
        if self._keeps_last and trainer.global_step not in (0, self._last_step):
            self._save_last(trainer, saved[-1] if saved else None)
        if saved and trainer.is_global_zero:
            self._write_scores()

    def _save_last(self, trainer: Trainer, same: str | None) -> None:
        self._last_step, self._saved_at = trainer.global_step, time.monotonic()
        assert self.dirpath is not None
        last = Path(self.dirpath) / _LAST
        self.last_model_path = str(last)
        if trainer.is_global_zero and last.is_file():
            link_checkpoint(last, last.with_name(_PREVIOUS))
        # What was saved as the best a moment ago is the same state, so the second copy costs nothing. Safe
        # because checkpoints are replaced, never written into.
        linked = trainer.is_global_zero and same is not None and link_checkpoint(Path(same), last)
        if not trainer.strategy.broadcast(linked):
            trainer.save_checkpoint(self.last_model_path, weights_only=False)  # unsaid, it logs a line

    def _write_scores(self) -> None:
        assert self.dirpath is not None
        write_json(
            Path(self.dirpath) / "scores.json",
            {
                "monitor": self.monitor,
                "mode": self.mode,
                "best": Path(self.best_model_path).name,
                "scores": {Path(path).name: float(score) for path, score in self.best_k_models.items()},
            },
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {**super().state_dict(), "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best checkpoints of the run that is resumed.

        Args:
            state_dict: What :meth:`state_dict` returned.

        Raises:
            CheckpointError: If that run selected by another metric.
        """
        selected = (state_dict["monitor"], state_dict["mode"])
        if selected != (self.monitor, self.mode):
            raise CheckpointError(
                f"callbacks.checkpoint: the run to resume selects its best checkpoint by {selected[0]} "
                f"({selected[1]}), not by {self.monitor} ({self.mode}), so the best of both cannot be told. "
                "Resume it with its own task.monitor, or start a new run."
            )
        assert self.dirpath is not None
        here = Path(self.dirpath)
        kept = {
            str(here / Path(path).name): score
            for path, score in state_dict["best_k_models"].items()
            if (here / Path(path).name).is_file()
        }
        choose_best, choose_worst = (max, min) if self.mode == "max" else (min, max)
        self.best_k_models = kept
        if kept:
            self.best_model_path = choose_best(kept, key=lambda path: float(kept[path]))
            self.best_model_score = kept[self.best_model_path]
        if len(kept) == self.save_top_k and kept:
            self.kth_best_model_path = choose_worst(kept, key=lambda path: float(kept[path]))
            self.kth_value = kept[self.kth_best_model_path]
        if (here / _LAST).is_file():
            self.last_model_path = str(here / _LAST)
