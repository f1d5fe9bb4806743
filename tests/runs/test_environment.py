from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from graft.runs.environment import environment


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_versions_hardware_and_command_are_recorded_as_plain_values() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert {"graft", "transformers", "peft", "pytorch-lightning", "hydra-core"} <= set(found["packages"])
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["hardware"]["memory_bytes"] > 2**28
    assert found["command"] == sys.argv
    assert found["cwd"] == str(Path.cwd())


def test_commit_is_recorded_and_whether_tracked_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment()["git"] is None
    git(tmp_path, "init", "-q")
    (tmp_path / "tracked").write_text("1")
    git(tmp_path, "add", "tracked")
    git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "untracked").write_text("1")
    assert environment()["git"] == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "tracked").write_text("2")
    assert environment()["git"]["dirty"] is True


def test_machine_without_git_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["git"] is None
