"""The notebooks are stripped and run from an empty folder, and the quickstart leaves a run that learned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from graft.callbacks.csv import read_metrics
from graft.callbacks.predictions import most_wrong, read_predictions
from graft.runs.load import load_run
from graft.runs.predict import predict_rows
from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_holds_no_output_and_no_place_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.isascii()
    assert not re.search(r"(?<![\w.])/(home|work|root|Users|tmp|mnt)/", text)
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert [cell.execution_count for cell in cells] == [None] * len(cells)


def test_every_notebook_is_executed_by_a_test() -> None:
    assert [path.name for path in NOTEBOOKS] == ["01_quickstart.ipynb"]


def test_the_quickstart_trains_plots_shows_mistakes_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minilm: str
) -> None:
    del minilm  # only whether it is there: the notebook finds it by itself
    for name in ("GRAFT_LOGS", "GRAFT_CONF_DIR", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()

    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    (run,) = (tmp_path / "logs" / "quickstart").iterdir()
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert "peft=lora" in (run / "overrides.yaml").read_text()
    assert "peft: lora" in (run / "choices.yaml").read_text()

    metrics = json.loads((run / "metrics.json").read_text())
    accuracies = [one["val/accuracy"] for one in metrics["history"]]
    assert len(accuracies) == 3
    assert accuracies[-1] > 0.5  # of three classes
    losses = [float(line["train/loss"]) for line in read_metrics(run / "metrics.csv") if line["train/loss"]]
    assert len(losses) == 24  # 48 steps, every second one logged
    assert sum(losses[-4:]) < sum(losses[:4])

    assert said(notebook, "train(composed)").count("\n") == len(metrics["best"]) + len(metrics["test"])
    assert f"test/accuracy           {metrics['test']['test/accuracy']:.3f}" in said(notebook, "train(composed)")
    assert drawn(notebook) == 1
    worst = most_wrong(run / "predictions" / "test.jsonl", 5)
    assert [line.partition("): ")[2] for line in said(notebook, "most_wrong(").splitlines()] == [
        record["text"] for record in worst
    ]
    assert all(record["label"] != record["target"] for record in worst)
    assert len(list(read_predictions(run / "predictions" / "test.jsonl"))) == 351

    sentences = ["The company cut its forecast after weak sales.", "The annual meeting is on 12 May in Oslo."]
    predictions = predict_rows(load_run(run), [{"text": sentence} for sentence in sentences])
    assert said(notebook, "predict_rows(").splitlines() == [
        f"{prediction['label']} ({prediction['probability']:.2f}): {sentence}"
        for prediction, sentence in zip(predictions, sentences, strict=True)
    ]
    assert predictions[1]["label"] == "neutral"


def cell_with(notebook: Any, code: str) -> Any:
    (found,) = [cell for cell in notebook.cells if cell.cell_type == "code" and code in cell.source]
    return found


def said(notebook: Any, code: str) -> str:
    """Return what the cell with some code wrote to standard output."""
    outputs = cell_with(notebook, code).outputs
    return "".join(one.text for one in outputs if one.output_type == "stream" and one.name == "stdout")


def drawn(notebook: Any) -> int:
    """Return how many pictures the cell with the learning curve shows."""
    return sum("image/png" in one.get("data", {}) for one in cell_with(notebook, "plt.show()").outputs)
