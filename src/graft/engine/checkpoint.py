"""Writing checkpoints so that a file is either the whole new one or the whole old one, and damage is noticed.

Lightning stages a checkpoint in memory and in the system's temporary folder before it moves it, which is neither
atomic across devices nor possible when that folder is small. Here it is written beside its target, flushed to the
disk, read back, and renamed; its SHA-256 lies beside it (``sha256sum -c last.ckpt.sha256``). Loading never unpickles
objects (``weights_only=True``): a checkpoint holds tensors and plain values only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, final

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor

from graft.atomic import write_text
from graft.errors import CheckpointError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@final
class AtomicCheckpointIO(CheckpointIO):
    """Reads and writes checkpoints for Lightning."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint atomically, with its checksum beside it.

        Args:
            checkpoint: Tensors and plain values.
            path: Where to.
            storage_options: Not used; Lightning passes it.

        Raises:
            CheckpointError: If the disk is full, or did not keep what was written. What was there before is untouched.
        """
        del storage_options
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            digest = _write(checkpoint, temporary, target)
            if _digest(temporary) != digest:
                raise CheckpointError(
                    f"{target}: what was read back is not what was written, so it was not kept. Check the disk."
                )
            _put_in_place(temporary, target, digest)
        finally:
            temporary.unlink(missing_ok=True)

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
        """Delete a checkpoint and its checksum if they exist."""
        Path(path).unlink(missing_ok=True)
        checksum_of(Path(path)).unlink(missing_ok=True)


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
    if (known := _known_digests(Path(path))) and _digest(Path(path)) not in known:
        raise CheckpointError(
            f"{path}: it is damaged: its content is not what was written. Use another, for example which=last."
        )
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


def newest_intact(candidates: Sequence[Path]) -> tuple[Path | None, list[str]]:
    """Choose the first checkpoint that can be read.

    Args:
        candidates: Files, the preferred first; those that do not exist are passed over.

    Returns:
        The file, None when none is intact; and what is wrong with those before it, a sentence each.
    """
    notes: list[str] = []
    for path in candidates:
        if not path.is_file():
            continue
        try:
            read_checkpoint(path, map_location="meta")  # that it can be read is asked, not for its tensors
        except CheckpointError as error:
            notes.append(str(error).split(" Use another")[0])
        else:
            return path, notes
    return None, notes


def checksum_of(path: Path) -> Path:
    """Return where the checksum of a checkpoint lies."""
    return path.with_name(f"{path.name}.sha256")


def link_checkpoint(source: Path, target: Path) -> bool:
    """Give a checkpoint a second name, without a second copy where the file system has hard links.

    Args:
        source: A checkpoint; checkpoints are replaced and never written into, so sharing one is safe.
        target: The other name, replaced atomically.

    Returns:
        Whether that was possible.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    digests = _known_digests(source)
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        _put_in_place(temporary, target, digests[0] if digests else _digest(source))
    except OSError:  # a file system without hard links, or a checkpoint that is a folder
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _write(checkpoint: dict[str, Any], temporary: Path, target: Path) -> str:
    """Write a file through to the disk; return its SHA-256."""
    try:
        with temporary.open("wb") as file:
            hashing = _Hashing(file)
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]  # needs no more than write and flush
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch wraps what its writer raised
        cause = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), None)
        if cause is None or cause.errno not in _FULL:
            raise
        raise CheckpointError(
            f"{target}: the disk is full, or its quota is: this checkpoint needs {_bytes_of(checkpoint) / 2**20:,.1f} "
            "MiB. The checkpoints before it are intact. Make room, then go on with resume=true."
        ) from error
    return hashing.digest


def _put_in_place(temporary: Path, target: Path, digest: str) -> None:
    # While the two renames are under way the checksum file knows both contents, so no moment looks like damage.
    before = _known_digests(target) if target.is_file() else []
    if before:
        write_text(checksum_of(target), "".join(f"{one}  {target.name}\n" for one in [digest, before[0]]))
    os.replace(temporary, target)
    write_text(checksum_of(target), f"{digest}  {target.name}\n")
    _sync_folder(target.parent)


def _known_digests(path: Path) -> list[str]:
    try:
        lines = checksum_of(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.split()[0] for line in lines if line.strip()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@final
class _Hashing:
    """A file to write to that hashes what goes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _bytes_of(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values()))
    return sum(map(_bytes_of, value)) if isinstance(value, list | tuple) else 0


def _sync_folder(folder: Path) -> None:
    # The rename itself must reach the disk, or a power cut can bring the old name back.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
