"""From what a user calls a run to its folder."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from graft.errors import CheckpointError, did_you_mean


def find_run(ref: str | Path, logs: Path, *, with_weights: bool = True) -> Path:
    """Return a run's folder.

    Args:
        ref: The folder; or its name, or the hash at the end of its name, or ``<group>/<name>``, below
            ``logs``.
        logs: The folder of all runs.
        with_weights: Whether it must have a checkpoint.

    Returns:
        A folder with a configuration and, unless not wanted, at least one checkpoint. The run may still be going on, or
        may have failed.

    Raises:
        CheckpointError: If there is no such run, there are several, or it was cut off before its first
        checkpoint.
    """
    folder = _locate(str(ref), logs)
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(
            f"{folder}: has no config.yaml, so it is no run, or was cut off at its start. "
            "Give the folder of a training run; 'graft train' prints it."
        )
    if with_weights and not any((folder / "checkpoints").glob("*.ckpt")):
        raise CheckpointError(
            f"{folder}: has no checkpoint, so there are no weights to load. {_what_became_of(folder)} Train it again."
        )
    return folder.absolute()


def _locate(ref: str, logs: Path) -> Path:
    given = Path(ref).expanduser()
    for folder in (given, logs / given):
        # An empty text is the current folder to pathlib, and logs itself is no run.
        if ref and folder.is_dir() and folder.resolve() != logs.resolve():
            return folder
    runs = sorted(run for run in logs.glob("*/*") if run.is_dir())
    same_name = [run for run in runs if run.name == ref]
    found = same_name or [run for run in runs if _ends_with_hash(run.name, ref)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = "\n".join(f"    {run}" for run in found)
        raise CheckpointError(f"run: '{ref}' means {len(found)} runs. Give one of these folders:\n{listed}")
    near = did_you_mean(ref, [word for run in runs for word in (run.name, _hash_of(run.name))])
    raise CheckpointError(
        f"run: there is no folder '{ref}', and no run of that name or hash among the {len(runs)} in "
        f"{logs}.{near} Give a run's folder or the name of one."
    )


def _ends_with_hash(name: str, ref: str) -> bool:
    # A second run of the same second and configuration has "-2" behind the hash.
    return re.fullmatch(rf".*_{re.escape(ref)}(-\d+)?", name) is not None


def _hash_of(name: str) -> str:
    return re.sub(r"-\d+$", "", name.rpartition("_")[2])


def _what_became_of(folder: Path) -> str:
    status = read_status(folder)
    state, reason = status.get("state"), status.get("reason")
    if state == "running":
        return "It is still running." if running_process(folder) else "It was cut off while running."
    return f"It ended as '{state}'" + (f": {reason}." if reason else ".") if state else "It has no status."


def running_process(folder: Path) -> int | None:
    """Return the process that is running a run.

    Args:
        folder: The run's folder.

    Returns:
        Its number; None when the run ended, was cut off, or runs on another machine.
    """
    status = read_status(folder)
    pid = status.get("pid")
    here = status.get("state") == "running" and status.get("host") == socket.gethostname()
    return pid if here and isinstance(pid, int) and _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():  # a killed run's number was given to this process, as a container does it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, but of another user
        return True
    return True


def read_status(folder: Path) -> dict[str, Any]:
    """Read a run's status.

    Args:
        folder: The run's folder.

    Returns:
        What ``status.json`` holds; empty when it is missing or damaged.
    """
    path = folder / "status.json"
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
