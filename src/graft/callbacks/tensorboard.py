"""TensorBoard event files in the run's folder, chosen with ``logger=[tensorboard,...]``."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

from graft.errors import require


def tensorboard(run_dir: Path) -> TensorBoardLogger:
    """Return a logger that writes to ``<run>/tensorboard``.

    Args:
        run_dir: The run's folder.

    Returns:
        Lightning's logger. See all runs with ``tensorboard --logdir logs``.

    Raises:
        MissingDependencyError: If tensorboard is not installed.
    """
    require("tensorboard", extra="tensorboard", what="logger=[tensorboard]")
    return TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="", default_hp_metric=False)
