"""Where a run is: one rich bar on a terminal, now and then one line in a log file.

Chosen with ``callbacks=[progress,...]``. A step costs one comparison of clocks. Redrawing waits at least a
hundred times as long as the last redrawing took, so it never takes more than one per cent of a run.
"""

from __future__ import annotations

import math
import time
from typing import Any, final

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from torch import Tensor

from graft.callbacks.counting import Count
from graft.log import get_logger
from graft.step import Batch

log = get_logger(__name__)

_SHARE = 100  # a redraw may take one part in this many of the time
_SMOOTHING = 0.4  # weight of the newest speed in the one shown


@final
class RichProgress(ProgressBar):
    """Shows batches, rows and tokens a second, the loss, and the time left.

    Speeds are over all processes, taken from this one. The time left counts training only.

    Args:
        refresh: Least number of seconds between two redrawings on a terminal.
        log_every: Seconds between two lines where there is no terminal.
        console: Where to draw; standard error by default, so that standard output holds results only.
    """

    def __init__(self, *, refresh: float = 0.5, log_every: float = 30.0, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console(stderr=True)
        self._refresh = refresh
        self._log_every = log_every
        self._enabled = True
        self._bar: Progress | None = None
        self._line = TaskID(0)
        self._speed = _Speed()
        self._done = 0
        self._total: float = 0
        self._title = ""
        self._due = 0.0
        self._aside: tuple[str, float, int, _Speed] | None = None  # the training bar, during a validation

    # ---- what Lightning asks of a progress bar --------------------------------------------------------

    def disable(self) -> None:
        """Show nothing, on the other processes."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        del kwargs
        self._say(" ".join(str(arg) for arg in args))

    # ---- training -------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch's bar."""
        del pl_module
        epochs = trainer.max_epochs or 0
        of = f"/{epochs}" if epochs > 0 else ""
        self._begin(trainer, f"epoch {trainer.current_epoch + 1}{of}", self.total_train_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch; show it if it is time to."""
        del pl_module, outputs
        self._advance(trainer, batch, done=batch_idx + 1, training=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the epoch's end."""
        del pl_module
        self._show(trainer, training=True)
        self._stop()

    # ---- evaluation -----------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the training bar aside."""
        del pl_module
        if trainer.sanity_checking:
            return
        self._speed.look()
        self._aside = (self._title, self._total, self._done, self._speed)
        if self._bar is not None:
            self._bar.live.transient = True  # it is drawn anew after the validation
        self._begin(trainer, "validation", _total(trainer.num_val_batches))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        del pl_module, outputs, batch_idx, dataloader_idx
        if not trainer.sanity_checking:
            self._advance(trainer, batch, done=self._done + 1, training=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the metrics, and take up the training bar."""
        del pl_module
        if trainer.sanity_checking or not self._enabled:
            return
        self._stop()
        self._say(f"step {trainer.global_step}: {_metrics(trainer, 'val/')}")
        if self._aside is not None and self._aside[0]:
            title, total, done, speed = self._aside
            speed.skip()
            self._begin(trainer, title, total, done=done, speed=speed)
        self._aside = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the test's bar."""
        del pl_module
        self._begin(trainer, "test", _total(trainer.num_test_batches))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        del pl_module, outputs, batch_idx, dataloader_idx
        self._advance(trainer, batch, done=self._done + 1, training=False)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the end."""
        del pl_module
        self._show(trainer, training=False)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        del trainer, pl_module, exception
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        del trainer, pl_module, stage
        self._stop()

    # ---- drawing --------------------------------------------------------------------------------------

    def _begin(self, trainer: Trainer, title: str, total: float, *, done: int = 0, speed: _Speed | None = None) -> None:
        if not self._enabled:
            return
        self._stop()
        self._title, self._total, self._done = title, total, done
        self._speed = speed or _Speed(trainer.world_size)
        self._due = time.perf_counter() + (self._refresh if self._console.is_terminal else self._log_every)
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                console=self._console,
                auto_refresh=False,  # no second thread; drawn from the hooks only
                transient=title == "validation",
            )
            known = total if math.isfinite(total) else None
            self._line = self._bar.add_task(title, total=known, completed=done, speed="")
            self._bar.start()

    def _advance(self, trainer: Trainer, batch: Batch, *, done: int, training: bool) -> None:
        if not self._enabled:
            return
        self._done = done
        self._speed.count.add(batch)
        if time.perf_counter() >= self._due:
            self._show(trainer, training=training)

    def _show(self, trainer: Trainer, *, training: bool) -> None:
        if not self._enabled or not self._title:
            return
        begin = time.perf_counter()
        speed = self._describe(trainer, training=training)
        if self._bar is not None:
            self._bar.update(self._line, completed=self._done, speed=speed, refresh=True)
        elif not self._console.is_terminal:
            of = f"/{self._total:.0f}" if math.isfinite(self._total) else ""
            log.info("%s, batch %d%s, %s", self._title, self._done, of, speed)
        end = time.perf_counter()
        least = self._refresh if self._console.is_terminal else self._log_every
        self._due = end + max(least, _SHARE * (end - begin))

    def _describe(self, trainer: Trainer, *, training: bool) -> str:
        parts = self._speed.parts()
        if training:
            loss = trainer.progress_bar_metrics.get("train/loss")
            if isinstance(loss, int | float):
                parts.append(f"loss {loss:.4f}")
            left = _batches_left(trainer, self._done, self._total)
            if self._speed.batches and math.isfinite(left):
                parts.append(f"{_clock(left / self._speed.batches)} left")
        return ", ".join(parts)

    def _say(self, text: str) -> None:
        if not self._enabled:
            return
        if self._console.is_terminal:
            self._console.print(text, highlight=False, markup=False)
        else:
            log.info("%s", text)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._title = ""


class _Speed:
    """Rows, tokens and batches a second since the last look, smoothed over looks."""

    def __init__(self, processes: int = 1) -> None:
        self.count = Count()
        self.rows = self.tokens = self.batches = 0.0
        self._processes = processes
        self._seen = (0, 0, 0)
        self._since = time.perf_counter()

    def look(self) -> None:
        """Take in what was counted since the last look."""
        now = time.perf_counter()
        seen = (self.count.rows, self.count.tokens or 0, self.count.batches)
        if seen[2] > self._seen[2]:
            passed = max(now - self._since, 1e-9)
            rates = [(new - old) / passed for new, old in zip(seen, self._seen, strict=True)]
            weight = _SMOOTHING if self.batches else 1.0
            self.rows += weight * (rates[0] * self._processes - self.rows)
            self.tokens += weight * (rates[1] * self._processes - self.tokens)
            self.batches += weight * (rates[2] - self.batches)
            self._seen, self._since = seen, now

    def skip(self) -> None:
        """Leave out the time since the last look."""
        self._since = time.perf_counter()

    def parts(self) -> list[str]:
        """Say rows and tokens a second."""
        self.look()
        said = {"rows/s": self.rows, "tokens/s": self.tokens}
        return [f"{value:,.0f} {unit}" for unit, value in said.items() if value]


def _total(batches: Any) -> float:
    return float(sum(batches)) if isinstance(batches, list) else float(batches)


def _batches_left(trainer: Trainer, done: int, of_epoch: float) -> float:
    """Count the training batches until the last epoch or the last step, whichever comes first."""
    left = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        left = of_epoch - done + of_epoch * (trainer.max_epochs - trainer.current_epoch - 1)
    if trainer.max_steps > 0:
        left = min(left, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
    return max(left, 0)


def _metrics(trainer: Trainer, prefix: str) -> str:
    known = trainer.callback_metrics.items()
    found = {name: value for name, value in known if name.startswith(prefix) and isinstance(value, Tensor)}
    return ", ".join(f"{name} {float(value):.4f}" for name, value in found.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
