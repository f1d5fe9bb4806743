from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from graft.atomic import replacing, write_json, write_text


def test_a_file_is_written_with_its_folder_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "deep" / "status.txt", "done, fertig: \u00e4\u4e2d\n")
    assert (tmp_path / "new" / "deep" / "status.txt").read_bytes() == b"done, fertig: \xc3\xa4\xe4\xb8\xad\n"
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["status.txt"]


def test_the_old_file_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old", encoding="utf-8")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"


def test_a_failure_while_writing_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old", encoding="utf-8")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half of the n")
            raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        write_half()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_cannot_be_written_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"accuracy": 0.5})
    looped: list[object] = []
    looped.append(looped)
    with pytest.raises(RecursionError):
        write_json(path, looped)
    assert json.loads(path.read_text(encoding="utf-8")) == {"accuracy": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text("old", encoding="utf-8")
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from graft.atomic import replacing
        with replacing(Path(sys.argv[1])) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == -9
    assert path.read_text(encoding="utf-8") == "old"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from graft.atomic import write_json
        for number in range(60):
            write_json(Path(sys.argv[1]), {"number": number, "filling": ["x" * 1000] * 50})
    """)
    with subprocess.Popen([sys.executable, "-c", script, str(path)]) as writer:
        seen = set()
        while writer.poll() is None:
            if path.is_file():
                seen.add(json.loads(path.read_text(encoding="utf-8"))["number"])
            time.sleep(0.001)
    assert writer.returncode == 0
    assert len(seen) > 1


def test_the_whole_content_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed before it is flushed, a file may be empty after a power cut."""
    order: list[str] = []
    sync, rename = os.fsync, os.replace

    def syncs(handle: int) -> None:
        order.append("sync")
        sync(handle)

    def renames(old: Path, new: Path) -> None:
        order.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(os, "replace", renames)
    write_text(tmp_path / "a", "x")
    assert order == ["sync", "rename"]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    """NaN is no JSON: other readers of the file would refuse all of it."""
    write_json(tmp_path / "a.json", {"loss": float("nan"), "list": [1.5, float("inf")], "pair": (float("-inf"), 2)})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"loss": None, "list": [1.5, None], "pair": [None, 2]}


def test_keys_and_objects_are_written_as_their_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {1: Path("runs") / "x", "word": "gr\u00fcn"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"1": "runs/x", "word": "gr\u00fcn"}
    assert "gr\u00fcn" in text  # readable, not escaped
    assert text.endswith("}\n")
