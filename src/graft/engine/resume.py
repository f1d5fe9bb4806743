"""What a resumed run needs to equal an unbroken one, and Lightning does not keep: random states, the place in the data.

A checkpoint of Lightning holds neither the state of any random generator nor the batch of the epoch that comes next, so
a resumed run repeats dropout masks, rows, or both. This callback puts both into every checkpoint, for each process,
and sets them back right before the first batch. The engine adds it to every run; there is nothing to choose.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

_KEY = "graft_resume"


@runtime_checkable
class Skips(Protocol):
    """A loader that can begin an epoch in its middle."""

    def skip(self, batches: int) -> None:
        """Leave out the first batches of the next pass, and of that one only."""


@final
class ExactResume(Callback):
    """Keeps random states and the place in the data in checkpoints, and sets them back."""

    def __init__(self) -> None:
        super().__init__()
        self._states: Sequence[Mapping[str, Any]] | None = None
        self._done = 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the state of every process's generators and the place in the epoch into a checkpoint."""
        del pl_module
        own = random_state()
        states = [own]
        if trainer.world_size > 1:
            states = [{}] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        # Saved within a step's last hook, the batch is processed and not yet counted as completed.
        done = max(progress.processed, progress.completed)
        checkpoint[_KEY] = {"random": states, "batches": done if done < trainer.num_training_batches else 0}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the states out of a checkpoint."""
        del trainer, pl_module
        if (kept := checkpoint.get(_KEY)) is not None:
            self._states, self._done = kept["random"], kept["batches"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set back what the checkpoint held; nothing random happens between here and the first batch."""
        del pl_module
        if self._states is None:
            return
        if self._done and isinstance(trainer.train_dataloader, Skips):
            trainer.train_dataloader.skip(self._done)
        # Steps are cut alike for any number of processes, so the place is right for another number too; their random
        # states are not all known then.
        set_random_state(self._states[trainer.global_rank % len(self._states)])
        self._states, self._done = None, 0


def random_state() -> dict[str, Any]:
    """Return the state of this process's global generators as tensors and plain values.

    Returns:
        By library: ``python``, ``numpy``, ``torch``, and ``cuda`` where there are devices.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set this process's global generators.

    Args:
        state: What ``random_state`` returned.
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
