from __future__ import annotations

from pathlib import Path

import pytest
from pytorch_lightning.utilities import rank_zero_only

from graft.callbacks.csv import MetricsCsv, read_metrics
from tests.callbacks.toy_run import ToyModule, loader, trainer


def test_each_line_is_on_the_disk_when_it_was_logged(tmp_path: Path) -> None:
    table = MetricsCsv(tmp_path)
    table.log_metrics({"train/loss": 0.5}, step=3)
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss\n3,0.5\n"


def test_a_later_metric_adds_a_column_and_keeps_the_lines(tmp_path: Path) -> None:
    table = MetricsCsv(tmp_path)
    table.log_metrics({"train/loss": 0.5}, step=1)
    table.log_metrics({"val/accuracy": 0.9}, step=1)
    table.log_metrics({"train/loss": 0.25}, step=2)
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss,val/accuracy\n1,0.5,\n1,,0.9\n2,0.25,\n"


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    first = MetricsCsv(tmp_path)
    for step in range(6):
        first.log_metrics({"train/loss": float(step), "epoch": 0}, step=step)
    first.log_metrics({"val/accuracy": 0.9, "epoch": 0}, step=3)
    resumed = MetricsCsv(tmp_path)
    for step in range(4, 8):
        resumed.log_metrics({"train/loss": 10.0 + step, "epoch": 0}, step=step)
    rows = read_metrics(tmp_path / "metrics.csv")
    losses = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    assert losses == {0: 0, 1: 1, 2: 2, 3: 3, 4: 14, 5: 15, 6: 16, 7: 17}
    assert [row["val/accuracy"] for row in rows if row["val/accuracy"]] == ["0.9"]


def test_a_later_test_does_not_touch_the_history_of_training(tmp_path: Path) -> None:
    MetricsCsv(tmp_path).log_metrics({"train/loss": 0.5}, step=7)
    MetricsCsv(tmp_path).log_metrics({"test/accuracy": 0.8}, step=0)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [(row["step"], row["train/loss"], row["test/accuracy"]) for row in rows] == [
        ("7", "0.5", ""),
        ("0", "", "0.8"),
    ]


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,0.")
    MetricsCsv(tmp_path).log_metrics({"train/loss": 0.125}, step=2)
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss\n1,0.5\n2,0.125\n"


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    MetricsCsv(tmp_path).log_metrics({"train/loss": 0.5}, step=1)
    assert not (tmp_path / "metrics.csv").exists()


def test_a_run_is_a_table_of_its_steps(tmp_path: Path) -> None:
    trainer(tmp_path, logger=MetricsCsv(tmp_path)).fit(ToyModule([0.75]), loader(), loader())
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1", "2"]
    assert [row["val/accuracy"] for row in rows if row["val/accuracy"]] == ["0.75"]
