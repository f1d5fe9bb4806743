"""Every callback and every logger alone, all of them at once, and where their files go."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graft.commands.train import Result, train
from graft.config.compat import check_parts
from graft.errors import IncompatibleError
from tests.contracts.parts import config, options_of

FILES: dict[str, Callable[[Path], object]] = {
    "callbacks/checkpoint": lambda run: (run / "checkpoints" / "best.ckpt").stat().st_size,
    "callbacks/cost": lambda run: json.loads((run / "cost.json").read_text(encoding="utf-8")),
    "callbacks/predictions": lambda run: (run / "predictions" / "test.jsonl").read_text(encoding="utf-8"),
    "callbacks/report": lambda run: (run / "parameters.txt").read_text(encoding="utf-8"),
    "logger/csv": lambda run: logged_by_csv(run)["val/accuracy"],
    "logger/mlflow": lambda run: sqlite3.connect(run / "mlflow.db").execute("select * from metrics").fetchall(),
    "logger/tensorboard": lambda run: [*run.rglob("events.out.tfevents.*")],
    "logger/wandb": lambda run: [*run.rglob("*.wandb")],
}
"""What each leaves in the run's folder; the other callbacks leave nothing there."""

LOGGERS = [name for name in options_of("logger") if name != "mlflow" or importlib.util.find_spec("sqlalchemy")]
"""Those whose packages are here."""


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


def trained(tmp_path: Path, *choices: str, **settings: Any) -> Result:
    values = {"paths.logs": str(tmp_path / "logs"), "trainer.max_epochs": 2, "scheduler.warmup": 0}
    return train(config("peft=full", *choices, settings={**values, **settings}))


def logged_by_csv(run: Path) -> dict[str, list[float]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


@pytest.mark.parametrize("callback", options_of("callbacks"))
def test_every_callback_works_alone(callback: str, tmp_path: Path) -> None:
    result = trained(tmp_path, f"callbacks=[{callback}]", "logger=[csv]")
    assert 0 <= result.metrics["test/accuracy"] <= 1
    check = FILES.get(f"callbacks/{callback}")
    assert check is None or check(result.dir)
    if callback == "lr_monitor":
        rates = next(values for name, values in logged_by_csv(result.dir).items() if name.startswith("lr"))
        assert len(rates) == 10
        assert rates[0] == 3e-3
        assert rates[-1] < rates[0]


@pytest.mark.parametrize(
    "logger",
    [pytest.param(name, marks=pytest.mark.slow if name == "mlflow" else ()) for name in options_of("logger")],
)
def test_every_logger_works_alone(logger: str, tmp_path: Path) -> None:
    if logger not in LOGGERS:
        pytest.skip("pip install sqlalchemy alembic sqlparse")
    result = trained(tmp_path, "callbacks=[checkpoint]", f"logger=[{logger}]")
    assert FILES[f"logger/{logger}"](result.dir)
    assert (result.dir / "metrics.csv").is_file() == (logger == "csv")


def test_all_callbacks_and_all_loggers_work_at_once_and_write_into_the_runs_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    callbacks = ",".join(options_of("callbacks"))
    result = trained(tmp_path, f"callbacks=[{callbacks}]", f"logger=[{','.join(LOGGERS)}]")
    for name, check in FILES.items():
        group, _, option = name.partition("/")
        assert (group == "logger" and option not in LOGGERS) or check(result.dir), name
    history = logged_by_csv(result.dir)
    assert len(history["val/accuracy"]) == 2
    assert history["test/accuracy"] == [pytest.approx(result.metrics["test/accuracy"])]
    if "mlflow" in LOGGERS:
        with sqlite3.connect(result.dir / "mlflow.db") as database:
            values = [value for (value,) in database.execute("select value from metrics where key = 'val/accuracy'")]
        assert sorted(values) == pytest.approx(sorted(history["val/accuracy"]))
    assert os.listdir(tmp_path) == ["logs"]
    assert list((tmp_path / "logs").iterdir()) == [result.dir.parent]


def test_a_run_without_callbacks_and_loggers_still_says_what_it_measured(tmp_path: Path) -> None:
    result = trained(tmp_path, "callbacks=[]", "logger=[]")
    assert 0 <= result.metrics["test/accuracy"] <= 1
    assert not list(result.dir.rglob("*.ckpt"))


def test_checkpoints_lie_in_one_folder_under_plain_names(tmp_path: Path) -> None:
    """C14: a metric's name holds a slash, and a file named after it would lie in a folder of its own."""
    result = trained(tmp_path, "callbacks=[checkpoint]", "logger=[csv]", **{"callbacks.checkpoint.save_top_k": 2})
    found = [path.relative_to(result.dir / "checkpoints").as_posix() for path in result.dir.rglob("*.ckpt")]
    assert {"best.ckpt", "best-v1.ckpt", "last.ckpt"} <= set(found)
    assert all(re.fullmatch(r"[a-z]+(-v\d+)?\.ckpt", name) for name in found)
    assert not [path for path in (result.dir / "checkpoints").iterdir() if path.is_dir()]


def test_the_learning_rate_monitor_without_a_logger_is_refused(tmp_path: Path) -> None:
    """Lightning would stop the run in its first step."""
    cfg = config("logger=[]", "callbacks=[checkpoint,lr_monitor]")
    with pytest.raises(IncompatibleError) as caught:
        check_parts(cfg)
    assert "logger=[csv]" in str(caught.value)
    assert "callbacks.lr_monitor=null" in str(caught.value)
    without = {"callbacks.lr_monitor": None}
    result = trained(tmp_path, "logger=[]", "callbacks=[checkpoint,lr_monitor]", **without)
    assert result.metrics
