"""Writing checkpoints so that a file is either the whole new one or the whole old one.

Lightning stages a checkpoint in memory and in the system's temporary folder before it moves it, which is neither
atomic across devices nor possible when that folder is small. Here it is written beside its target, flushed to the
disk and renamed.
Loading never unpickles objects (``weights_only=True``): a checkpoint holds tensors and plain values only.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from graft.errors import CheckpointError


@final
class AtomicCheckpointIO(CheckpointIO):
    """Reads and writes checkpoints for Lightning."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint atomically.

        Args:
            checkpoint: Tensors and plain values.
            path: Where to.
            storage_options: Not used; Lightning passes it.
        """
        del storage_options
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Args:
            path: Where from.
            map_location: As ``torch.load`` takes it.
            weights_only: Not used: nothing else is allowed.

        Returns:
            What was saved.

        Raises:
            CheckpointError: If it is missing, damaged, or holds pickled objects.
        """
        del weights_only
        return read_checkpoint(path, map_location=map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint if it exists."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path, *, map_location: Any | None = "cpu") -> dict[str, Any]:
    """Read a checkpoint without unpickling objects.

    Args:
        path: Where from.
        map_location: As ``torch.load`` takes it.

    Returns:
        What was saved.

    Raises:
        CheckpointError: If it is missing, damaged, or holds pickled objects.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint. Choose another with which=last or which=<file>.")
    try:
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds objects that only unpickling could read, which may run any code, so it is refused. "
            "Checkpoints of this project hold tensors and plain values only."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); it is probably cut off. Use another, for example which=last."
        ) from error
    return loaded


def _sync_folder(folder: Path) -> None:
    # The rename itself must reach the disk, or a power cut can bring the old name back.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
