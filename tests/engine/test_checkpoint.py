from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from graft.engine.checkpoint import AtomicCheckpointIO, link_checkpoint, newest_intact, read_checkpoint
from graft.errors import CheckpointError


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.arange(3.0)}, "epoch": 2}, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["epoch"] == 2
    assert torch.equal(loaded["state_dict"]["w"], torch.arange(3.0))


def test_the_system_temporary_folder_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    monkeypatch.setattr(tempfile, "tempdir", None)
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")["epoch"] == 1


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"the disk is full.*needs 4.0 MiB.*before it are intact.*resume=true"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "w": torch.zeros(2**20)}, path)
    monkeypatch.undo()
    assert read_checkpoint(path)["epoch"] == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.ckpt", "a.ckpt.sha256"]


def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path) -> None:
    # The limit on the size of files makes the kernel itself refuse the write, in the middle of a tensor.
    program = f"""
import resource, signal, torch
from pathlib import Path
from graft.engine.checkpoint import AtomicCheckpointIO
path = Path({str(tmp_path)!r}) / "a.ckpt"
AtomicCheckpointIO().save_checkpoint({{"epoch": 1}}, path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
AtomicCheckpointIO().save_checkpoint({{"epoch": 2, "w": torch.zeros(2**20)}}, path)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "CheckpointError" in done.stderr.splitlines()[-1]
    assert "needs 4.0 MiB" in done.stderr
    assert read_checkpoint(tmp_path / "a.ckpt")["epoch"] == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.ckpt", "a.ckpt.sha256"]


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for epoch in range(2):
        AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "w": torch.randn(100)}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (tmp_path / "a.ckpt.sha256").read_text() == f"{digest}  a.ckpt\n"  # as sha256sum writes it


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: float) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"w": torch.randn(1000)}, path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_the_first_intact_checkpoint_is_taken(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("missing.ckpt", "cut.ckpt", "good.ckpt", "other.ckpt")]
    for path in paths[1:]:
        AtomicCheckpointIO().save_checkpoint({"w": torch.randn(1000)}, path)
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    found, notes = newest_intact(paths)
    assert found == paths[2]
    assert len(notes) == 1
    assert "cut.ckpt: it is damaged" in notes[0]
    assert newest_intact(paths[:2])[0] is None


def test_a_link_is_the_same_checkpoint_until_either_is_replaced(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "best.ckpt")
    assert link_checkpoint(tmp_path / "best.ckpt", tmp_path / "last.ckpt")
    assert (tmp_path / "best.ckpt").samefile(tmp_path / "last.ckpt")
    AtomicCheckpointIO().save_checkpoint({"epoch": 2}, tmp_path / "best.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 1


def test_removing_takes_the_checksum_along(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "a.ckpt")
    AtomicCheckpointIO().remove_checkpoint(tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("die_at", [1, 2, 3])
def test_killed_between_its_renames_a_checkpoint_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die_at: int
) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    replace, calls = os.replace, []

    def killed(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == die_at:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    monkeypatch.undo()
    assert read_checkpoint(path)["epoch"] == (1 if die_at < 3 else 2)  # checksums of both, the file, its checksum


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("owned",))


def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt", pickle_module=pickle)
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_cut_off_file_is_named_as_such(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"w": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"a\.ckpt: it is damaged"):
        read_checkpoint(path)
    (tmp_path / "a.ckpt.sha256").unlink()
    with pytest.raises(CheckpointError, match=r"a\.ckpt: cannot be read"):
        read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")
