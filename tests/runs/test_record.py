from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning.utilities.exceptions import SIGTERMException

from graft.data.info import DataInfo
from graft.errors import CheckpointError, DataError
from graft.runs import record as module
from graft.runs.record import RunRecord, exit_status, open_run, read_config, reopen_run

CONFIG: dict[str, Any] = {"seed": 0, "run": {"name": None}, "optimizer": {"lr": 3e-4}, "paths": {"logs": "/x"}}


def opened(logs: Path, **changes: Any) -> RunRecord:
    settings: dict[str, Any] = {"overrides": [], "choices": {}, "name": None, **changes}
    return open_run(settings.pop("config", CONFIG), logs=logs, **settings)


def status(record: RunRecord) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((record.dir / "status.json").read_text())
    return held


def test_folder_is_named_by_group_time_and_hash(tmp_path: Path) -> None:
    record = opened(tmp_path, name="my group")
    assert record.dir.parent == tmp_path / "my_group"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[a-f][0-9a-f]{7}", record.id)


@pytest.mark.parametrize(
    ("name", "choices", "group"),
    [
        (None, {}, "runs"),
        (None, {"experiment": "sst2_lora"}, "sst2_lora"),
        ("mine", {"experiment": "sst2_lora"}, "mine"),
        (2024, {}, "2024"),
        ("0", {}, "0"),
        ("a/b \"c'" + "x" * 400, {}, "a_b_c_" + "x" * 74),
    ],
)
def test_group_is_the_runs_name_else_its_experiment(
    name: Any, choices: dict[str, Any], group: str, tmp_path: Path
) -> None:
    assert opened(tmp_path, name=name, choices=choices).dir.parent.name == group


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    names = {opened(tmp_path).id for _ in range(3)}
    assert len(names) == 3


def test_what_is_to_be_run_is_written_before_it_begins(tmp_path: Path) -> None:
    record = opened(tmp_path, overrides=["seed=0", "optimizer.lr=3e-4"], choices={"peft": "lora", "callbacks": None})
    assert read_config(record.dir) == CONFIG
    assert yaml.safe_load((record.dir / "overrides.yaml").read_text()) == ["seed=0", "optimizer.lr=3e-4"]
    assert yaml.safe_load((record.dir / "choices.yaml").read_text()) == {"peft": "lora", "callbacks": None}
    assert "torch" in json.loads((record.dir / "env.json").read_text())["packages"]
    assert status(record)["state"] == "running"
    assert status(record)["ended"] is None


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "a ${b} c", r"\${x}", "\\\\${x}", "caf\u00e9: #1", "on", "1e3", "", " ", "a\nb"]
)
def test_text_comes_back_as_it_was_whatever_it_looks_like(text: str, tmp_path: Path) -> None:
    record = opened(tmp_path, config={"run": {}, "value": text, "list": [text], text or "key": 1})
    assert read_config(record.dir)["value"] == text
    assert read_config(record.dir)["list"] == [text]


def test_values_that_yaml_has_no_word_for_are_written_as_text(tmp_path: Path) -> None:
    record = opened(tmp_path, config={"path": Path("/a/b"), "pair": (1, 2), "none": None, "true": True})
    assert read_config(record.dir) == {"path": "/a/b", "pair": [1, 2], "none": None, "true": True}


def test_finished_run_is_done(tmp_path: Path) -> None:
    with opened(tmp_path) as record:
        record.finish({"val/accuracy": 0.5, "test/accuracy": 0.25}, history=[{"step": 1.0, "val/accuracy": 0.5}])
    assert status(record)["state"] == "done"
    assert status(record)["reason"] is None
    assert status(record)["ended"] >= status(record)["started"]
    assert json.loads((record.dir / "metrics.json").read_text()) == {
        "best": {"val/accuracy": 0.5},
        "test": {"test/accuracy": 0.25},
        "history": [{"step": 1.0, "val/accuracy": 0.5}],
    }


def test_number_that_is_not_finite_leaves_readable_metrics(tmp_path: Path) -> None:
    record = opened(tmp_path)
    record.finish({"val/loss": float("nan")})
    assert json.loads((record.dir / "metrics.json").read_text())["best"] == {"val/loss": None}


def test_failure_is_noted_in_one_line_with_its_traceback_beside_it(tmp_path: Path) -> None:
    with pytest.raises(DataError), opened(tmp_path) as record:
        raise DataError(["first\nproblem", "second " + "x" * 500])
    assert status(record)["state"] == "failed"
    assert status(record)["reason"].startswith("DataError: 2 problems: first problem second xxx")
    assert len(status(record)["reason"]) == 300
    assert "raise DataError" in (record.dir / "traceback.txt").read_text()


@pytest.mark.parametrize(
    ("error", "state", "reason", "exits"),
    [
        (KeyboardInterrupt(), "interrupted", "interrupted from the keyboard", 130),
        (SIGTERMException(), "preempted", "stopped by SIGTERM", 143),
        (SystemExit(143), "preempted", "stopped by SIGTERM", 143),
        (SystemExit(3), "interrupted", "exit with status 3", 130),
        (RuntimeError("boom"), "failed", "RuntimeError: boom", 1),
    ],
)
def test_ends_are_told_apart(error: BaseException, state: str, reason: str, exits: int, tmp_path: Path) -> None:
    with pytest.raises(type(error)), opened(tmp_path) as record:
        raise error
    assert (status(record)["state"], status(record)["reason"]) == (state, reason)
    assert (record.dir / "traceback.txt").exists() is (state == "failed")
    assert exit_status(error) == exits


def test_full_disk_does_not_hide_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    with pytest.raises(ValueError, match="the reason"), opened(tmp_path):  # noqa: PT012
        monkeypatch.setattr(module, "write_text", full)
        monkeypatch.setattr(module, "write_json", full)
        raise ValueError("the reason")


def test_resumed_run_keeps_its_start_and_notes_each_change(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.close("interrupted", "interrupted from the keyboard")
    begun = status(first)["started"]
    changed = {**CONFIG, "trainer": {"max_epochs": 9}}
    with reopen_run(first.dir, changed, changes=["trainer.max_epochs=9"]) as again:
        assert status(again)["state"] == "running"
        assert status(again)["reason"] is None
    with reopen_run(first.dir, {"never": "written"}) as once_more:
        pass
    held = status(once_more)
    assert (held["state"], held["started"]) == ("done", begun)
    assert [one["changes"] for one in held["resumed"]] == [["trainer.max_epochs=9"], []]
    assert read_config(first.dir) == changed


def test_further_process_of_a_run_writes_nothing(tmp_path: Path) -> None:
    helper = RunRecord(tmp_path, writes=False)
    with pytest.raises(RuntimeError), helper:  # noqa: PT012
        helper.start()
        helper.describe_data(DataInfo(None, None, {}, "", "x"))
        helper.finish({"val/accuracy": 1.0})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "cannot be read (ParserError"),
        ("- 1\n- 2\n", "is not a mapping"),
        ("a: ${b.c}\n", "cannot be read (InterpolationKeyError"),
        ("a: \x00", "cannot be read (ReaderError"),
    ],
)
def test_damaged_configuration_is_refused_by_name(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=re.escape(said)) as raised:
        read_config(tmp_path)
    assert str(tmp_path / "config.yaml") in str(raised.value)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.yaml"):
        read_config(tmp_path)
