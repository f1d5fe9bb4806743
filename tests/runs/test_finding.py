from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from graft.errors import CheckpointError
from graft.runs.finding import find_run, read_status, running_process


def make(
    logs: Path, group: str, name: str, *, status: dict[str, object] | None = None, checkpoint: bool = True
) -> Path:
    folder = logs / group / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    if checkpoint:
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    if status is not None:
        (folder / "status.json").write_text(json.dumps(status))
    return folder


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    make(tmp_path / "logs", "sst2", "2026-01-31_12-00-00_a1b2c3d4")
    make(tmp_path / "logs", "sst2", "2026-01-31_12-00-00_a1b2c3d4-2")
    make(tmp_path / "logs", "runs", "2026-02-01_09-30-00_e5f60718")
    return tmp_path / "logs"


@pytest.mark.parametrize(
    "ref", ["2026-02-01_09-30-00_e5f60718", "e5f60718", "runs/2026-02-01_09-30-00_e5f60718", "{logs}/runs/{name}"]
)
def test_run_is_found_by_name_hash_group_and_folder(ref: str, logs: Path) -> None:
    name = "2026-02-01_09-30-00_e5f60718"
    assert find_run(ref.format(logs=logs, name=name), logs) == logs / "runs" / name


def test_relative_folder_counts_from_where_the_command_is_run(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs / "runs")
    assert find_run("2026-02-01_09-30-00_e5f60718", Path("/nowhere")) == logs / "runs" / "2026-02-01_09-30-00_e5f60718"
    monkeypatch.chdir(logs / "runs" / "2026-02-01_09-30-00_e5f60718")
    assert find_run(".", Path("/nowhere")).resolve() == logs / "runs" / "2026-02-01_09-30-00_e5f60718"


def test_hash_of_two_runs_is_refused_with_both_folders(logs: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        find_run("a1b2c3d4", logs)
    message = str(raised.value)
    assert "'a1b2c3d4' means 2 runs. Give one of these folders:" in message
    assert f"\n    {logs}/sst2/2026-01-31_12-00-00_a1b2c3d4\n" in message
    assert message.endswith(f"    {logs}/sst2/2026-01-31_12-00-00_a1b2c3d4-2")


def test_name_beats_a_hash_that_ends_another_name(logs: Path) -> None:
    assert find_run("2026-01-31_12-00-00_a1b2c3d4", logs).name == "2026-01-31_12-00-00_a1b2c3d4"


@pytest.mark.parametrize(
    ("ref", "near"), [("2026-02-01_09-31-00_e5f60718", "2026-02-01_09-30-00_e5f60718"), ("e5f60719", "e5f60718")]
)
def test_missing_run_names_the_nearest(ref: str, near: str, logs: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        find_run(ref, logs)
    assert f"there is no folder '{ref}'" in str(raised.value)
    assert f"among the 3 in {logs}. Did you mean '{near}'?" in str(raised.value)


@pytest.mark.parametrize("ref", ["", "nothing-like-it", "*", "[a-z]"])
def test_missing_run_without_a_near_one_says_what_to_give(ref: str, logs: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Give a run's folder or the name of one\."):
        find_run(ref, logs)


def test_folder_of_all_runs_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="among the 0 in"):
        find_run("e5f60718", tmp_path / "none")


@pytest.mark.parametrize("ref", ["runs", "."])
def test_folder_that_is_no_run_is_refused(ref: str, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs)
    with pytest.raises(CheckpointError, match=r"has no config\.yaml, so it is no run|there is no folder '\.'"):
        find_run(ref, logs)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"state": "running", "host": socket.gethostname(), "pid": 2**22 + 1}, "It was cut off while running."),
        ({"state": "running", "host": "elsewhere", "pid": 1}, "It was cut off while running."),
        ({"state": "running", "host": socket.gethostname(), "pid": 1}, "It is still running."),
        ({"state": "failed", "reason": "DataError: no rows"}, "It ended as 'failed': DataError: no rows."),
        ({"state": "interrupted", "reason": None}, "It ended as 'interrupted'."),
        (None, "It has no status."),
    ],
)
def test_run_without_a_checkpoint_says_what_became_of_it(
    status: dict[str, object] | None, said: str, tmp_path: Path
) -> None:
    folder = make(tmp_path, "runs", "x", status=status, checkpoint=False)
    with pytest.raises(CheckpointError, match=re.escape(f"there are no weights to load. {said} Train it again.")):
        find_run(folder, tmp_path)


def test_running_process_is_known_until_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        status = {"state": "running", "host": socket.gethostname(), "pid": process.pid}
        folder = make(tmp_path, "runs", "x", status=status)
        assert running_process(folder) == process.pid
        process.communicate(b"\n")
    assert running_process(folder) is None


def test_number_of_this_process_is_a_killed_runs_old_one(tmp_path: Path) -> None:
    status = {"state": "running", "host": socket.gethostname(), "pid": os.getpid()}
    assert running_process(make(tmp_path, "runs", "x", status=status)) is None


@pytest.mark.parametrize("text", ['{"state": "run', "[1]", ""])
def test_damaged_status_is_no_status(text: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path) == {}
