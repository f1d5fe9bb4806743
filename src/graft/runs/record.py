"""What a run leaves behind, so that its folder explains it: ``logs/<name>/<date>_<time>_<hash>/``.

================  =================================================================================
config.yaml       the resolved configuration; the run is rebuilt from it, in any process. A resumed run may
                  change it; its status says what was changed
overrides.yaml    what the command line changed
choices.yaml      which option each group was given
env.json          versions, git state, hardware, the command
data_info.json    label names, sizes and the fingerprint of the data
status.json       running, done, failed, interrupted or preempted; why, when, which process
traceback.txt     of a failure
metrics.json      final values, of the best checkpoint's validation and of the test; history of validations
================  =================================================================================

Every file is written whole or not at all, so a run that is killed at any moment leaves a folder that can be
read.
"""

from __future__ import annotations

import os
import re
import socket
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, final

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from graft.atomic import write_json, write_text
from graft.data.info import DataInfo
from graft.errors import CheckpointError
from graft.log import get_logger
from graft.runs.environment import environment
from graft.runs.finding import find_run, read_status
from graft.runs.naming import content_hash, group_hash, option_text, run_name, safe_name

__all__ = [
    "RUN_DIR",
    "RunRecord",
    "content_hash",
    "exit_status",
    "find_run",
    "group_hash",
    "open_run",
    "read_config",
    "reopen_run",
    "run_name",
    "write_json",
    "write_text",
]

log = get_logger(__name__)

State = Literal["running", "done", "failed", "interrupted", "preempted"]

RUN_DIR = "GRAFT_RUN_DIR"
"""Environment variable that tells the further processes of a run its folder."""

_SIGTERM = 143  # 128 + 15, what a process ended by SIGTERM exits with


@final
class RunRecord:
    """A run's folder and its status; a context that notes how the run ended.

    Args:
        folder: The run's folder.
        writes: Whether this is the process that keeps the record; the run's other processes only need the folder.

    Attributes:
        dir: The run's folder.
        writes: As given.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.dir = folder
        self.writes = writes
        self._status: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """The folder's name, which ``find_run`` takes."""
        return self.dir.name

    def start(self, changes: Sequence[str] = ()) -> None:
        """Note that the run goes on in this process.

        Args:
            changes: Settings that differ from its configuration, where it is resumed.
        """
        previous = read_status(self.dir)
        again = [{"at": _now(), "changes": list(changes)}] if previous else []
        self._status = {
            "state": "running",
            "reason": None,
            "started": previous.get("started") or _now(),
            "resumed": [*previous.get("resumed", []), *again],
            "ended": None,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        self._write("status.json", self._status)

    def describe_data(self, info: DataInfo) -> None:
        """Write what is known of the data.

        Args:
            info: Label names, sizes, fingerprint.
        """
        if self.writes:
            write_text(self.dir / "data_info.json", info.to_json() + "\n")

    def finish(self, metrics: Mapping[str, float], *, history: Sequence[Mapping[str, float]] = ()) -> None:
        """Write the final metrics.

        Args:
            metrics: Flat names; ``test/...`` is of the test split, everything else of the best checkpoint.
            history: Metrics of every validation, each with its ``step``.
        """
        test = {name: value for name, value in metrics.items() if name.startswith("test/")}
        best = {name: value for name, value in metrics.items() if name not in test}
        self._write("metrics.json", {"best": best, "test": test, "history": list(history)})

    def close(self, state: State, reason: str | None = None) -> None:
        """Note how the run ended.

        Args:
            state: The last state.
            reason: Why, in one line.
        """
        self._status |= {"state": state, "reason": reason, "ended": _now()}
        self._write("status.json", self._status)

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        if self.writes:
            write_json(self.dir / name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("done")
            return
        state, reason = _how_it_ended(error)
        try:
            if state == "failed" and self.writes:
                write_text(self.dir / "traceback.txt", "".join(traceback.format_exception(kind, error, trace)))
            self.close(state, reason)
        except OSError as failure:  # a full disk, perhaps the very reason; it must not hide the error
            log.warning("%s: could not note that the run %s: %s", self.dir, state, failure)


def open_run(
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str],
    choices: Mapping[str, Any],
    logs: Path,
    name: str | None,
) -> RunRecord:
    """Make a run's folder and write down what is to be run.

    Args:
        config: The resolved configuration, as plain values.
        overrides: What the command line changed.
        choices: The option of each group.
        logs: The folder of all runs.
        name: What the run belongs to; the chosen experiment, or ``runs``, without one.

    Returns:
        The record, in the state ``running``.
    """
    group = safe_name(str(name) if name is not None else option_text(choices.get("experiment")) or "runs")
    stem = f"{datetime.now().astimezone():%Y-%m-%d_%H-%M-%S}_{content_hash(config)}"
    folder = _make_folder(logs / group, stem)
    write_text(folder / "config.yaml", _to_yaml(config))
    write_text(folder / "overrides.yaml", yaml.safe_dump(list(overrides), allow_unicode=True))
    write_text(folder / "choices.yaml", yaml.safe_dump(_plain(choices), sort_keys=False, allow_unicode=True))
    write_json(folder / "env.json", environment())
    record = RunRecord(folder)
    record.start()
    return record


def reopen_run(folder: Path, config: Mapping[str, Any], *, changes: Sequence[str] = ()) -> RunRecord:
    """Take up a run again in its own folder, to resume it.

    Args:
        folder: The run's folder.
        config: Its configuration with the changes, which replaces the one in the folder.
        changes: The settings that differ from it, noted in the run's status.

    Returns:
        The record, in the state ``running``.
    """
    if changes:
        write_text(folder / "config.yaml", _to_yaml(config))
    record = RunRecord(folder)
    record.start(changes)
    return record


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's configuration.

    Args:
        folder: The run's folder.

    Returns:
        Plain values, equal to those the run was opened with.

    Raises:
        CheckpointError: If there is none, or it cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise CheckpointError(f"{folder}: has no config.yaml, so it is no run, or was cut off at its start.")
    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, OmegaConfBaseException) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({_one_line(error)}). Copy the run again, or train it again."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: is not a mapping, so it is no run's configuration.")
    return {str(key): value for key, value in config.items()}


def _make_folder(parent: Path, stem: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:  # the same second and configuration, perhaps from another process
            number += 1
        else:
            return folder


def _to_yaml(config: Mapping[str, Any]) -> str:
    # A text that holds "${" is no longer meant as a reference, but OmegaConf would read it as one.
    return OmegaConf.to_yaml(OmegaConf.create(_escape(_plain(config))))


def _escape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if isinstance(value, str) and "${" in value:
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def exit_status(error: BaseException) -> int:
    """Return the exit status of a process that an error ends.

    Args:
        error: What was raised.

    Returns:
        130 for an interrupt, 143 for a termination signal, 1 for a failure.
    """
    return {"interrupted": 130, "preempted": _SIGTERM}.get(_how_it_ended(error)[0], 1)


def _how_it_ended(error: BaseException) -> tuple[State, str]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted from the keyboard"
    if isinstance(error, SystemExit):
        # Lightning raises a SystemExit without a code on SIGTERM.
        if error.code == _SIGTERM or type(error).__name__ == "SIGTERMException":
            return "preempted", "stopped by SIGTERM"
        return "interrupted", f"exit with status {error.code}"
    return "failed", _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
