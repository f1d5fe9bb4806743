from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graft.callbacks.csv import MetricsCsv, read_metrics
from graft.callbacks.mlflow import mlflow
from graft.callbacks.tensorboard import tensorboard
from graft.errors import MissingDependencyError
from tests.callbacks.toy_run import ToyModule, loader, trainer


def test_tensorboard_writes_its_events_to_the_run(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer(tmp_path, logger=tensorboard(tmp_path)).fit(ToyModule([0.75]), loader(), loader())
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [round(event.value, 3) for event in events.Scalars("val/accuracy")] == [0.75]


def test_mlflow_writes_a_database_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    pytest.importorskip("sqlalchemy", reason="pip install 'graft[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "reviews" / "run"
    logger = mlflow(run_dir, run_name="lora r=16", group="abc", tags=["a"], config={"peft": {"r": 16}, "seed": 0})
    trainer(run_dir, logger=logger).fit(ToyModule([0.75]), loader(), loader())
    client = tracking.MlflowClient(f"sqlite:///{run_dir / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("reviews")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["val/accuracy"] == 0.75
    assert run.data.params == {"peft/r": "16", "seed": "0"}
    assert (run.data.tags["group"], run.data.tags["a"], run.info.run_name) == ("abc", "true", "lora r=16")
    assert run.info.status == "FINISHED"
    assert [path.name for path in tmp_path.iterdir()] == ["reviews"]  # nothing in the current folder


@pytest.mark.parametrize(("make", "extra"), [(tensorboard, "tensorboard"), (mlflow, "mlflow")])
def test_a_missing_package_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, extra: str
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr("graft.errors.importlib.import_module", missing)
    with pytest.raises(MissingDependencyError, match=rf'pip install "graft\[{extra}\]"'):
        make(tmp_path)


def test_several_loggers_get_the_same_values(tmp_path: Path) -> None:
    first, second = MetricsCsv(tmp_path / "a"), MetricsCsv(tmp_path / "b")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    trainer(tmp_path, logger=[first, second]).fit(ToyModule(), loader(), loader())
    assert read_metrics(first.path) == read_metrics(second.path) != []
