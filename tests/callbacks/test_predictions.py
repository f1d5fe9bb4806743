from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from graft.callbacks.predictions import Predictions, how_wrong, most_wrong, read_predictions
from tests.callbacks.toy_run import NAMES, ToyModule, batches, loader, trainer


def test_one_line_a_row_in_the_order_of_the_data(tmp_path: Path) -> None:
    shuffled = batches((4, 4, 2), order=[9, 3, 0, 1, 8, 2, 5, 4, 7, 6])
    trainer(tmp_path, callbacks=[Predictions(tmp_path)]).test(ToyModule(), loader(shuffled), verbose=False)
    written = list(read_predictions(tmp_path / "predictions" / "test.jsonl"))
    assert [record["row"] for record in written] == list(range(10))
    assert [record["target"] for record in written] == [NAMES[row % 3] for row in range(10)]
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["test.jsonl"]


def test_what_is_written_is_what_the_task_predicts(tmp_path: Path) -> None:
    module, data = ToyModule(), batches()
    trainer(tmp_path, callbacks=[Predictions(tmp_path)]).test(module, loader(data), verbose=False)
    written = list(read_predictions(tmp_path / "predictions" / "test.jsonl"))
    with torch.no_grad():
        expected = [prediction for batch in data for prediction in module.task.predict(module.model, batch)]
    assert [record["label"] for record in written] == [prediction["label"] for prediction in expected]
    for record in written:
        assert record["target_probability"] == record["probabilities"][record["target"]]


def test_texts_stand_beside_the_predictions(tmp_path: Path) -> None:
    texts = [f"sentence {row}" for row in range(10)]
    table = pa.table({"text": texts, "label": [row % 3 for row in range(10)]})
    callback = Predictions(tmp_path, rows={"test": table}.__getitem__)
    trainer(tmp_path, callbacks=[callback]).test(ToyModule(), loader(batches((5, 5), order=range(9, -1, -1))))
    written = list(read_predictions(tmp_path / "predictions" / "test.jsonl"))
    assert [record["text"] for record in written] == texts


def test_the_most_wrong_come_first_and_the_right_ones_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    said = [("a", "a", 0.9), ("a", "b", 0.25), ("b", "a", 0.125), ("b", "b", 0.5), ("b", "a", 0.25)]
    lines = [
        {"row": row, "label": label, "target": target, "target_probability": probability}
        for row, (label, target, probability) in enumerate(said)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [record["row"] for record in most_wrong(path)] == [2, 1, 4]
    assert [record["row"] for record in most_wrong(path, 1)] == [2]


def test_how_wrong_is_one_minus_the_probability_of_the_target() -> None:
    assert how_wrong({"label": "a", "target": "b", "target_probability": 0.125}) == 0.875
    assert how_wrong({"label": "a", "target": "a", "target_probability": 0.75}) is None
    assert how_wrong({"labels": ["a", "b"], "target": ["b", "a"], "target_probability": 0.1}) is None
    assert how_wrong({"labels": ["a"], "target": [], "target_probability": 0.1}) == 0.9
    assert how_wrong({"score": 1.0, "target": 3.5, "error": 2.5}) == 2.5
    assert how_wrong({"text": "generated"}) is None


class Several(ToyModule):
    """Says two of three labels with known probabilities, or a score."""

    def __init__(self, said: dict[str, object], target: object) -> None:
        super().__init__()
        self.task.predict = lambda model, batch, output=None: [said] * len(batch["row"])  # type: ignore[method-assign]
        self.task.targets = lambda batch: [target] * len(batch["row"])  # type: ignore[method-assign]


def test_the_probability_of_a_set_of_labels_is_the_product(tmp_path: Path) -> None:
    module = Several({"labels": ["x"], "probabilities": {"x": 0.75, "y": 0.25, "z": 0.5}}, ["x", "y"])
    trainer(tmp_path, callbacks=[Predictions(tmp_path)]).test(module, loader(batches((1,))))
    [record] = read_predictions(tmp_path / "predictions" / "test.jsonl")
    assert record["target_probability"] == 0.75 * 0.25 * 0.5


def test_a_score_has_an_absolute_error(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[Predictions(tmp_path)]).test(Several({"score": 1.5}, 4.0), loader(batches((1,))))
    [record] = read_predictions(tmp_path / "predictions" / "test.jsonl")
    assert math.isclose(record["error"], 2.5)


class Failing(ToyModule):
    def test_step(self, batch: object, batch_idx: int) -> None:  # type: ignore[override]
        raise RuntimeError("broken")


def test_a_failed_test_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    old = tmp_path / "predictions" / "test.jsonl"
    old.parent.mkdir()
    old.write_text('{"row": 0}\n')
    with pytest.raises(RuntimeError, match="broken"):
        trainer(tmp_path, callbacks=[Predictions(tmp_path)]).test(Failing(), loader())
    assert [path.name for path in old.parent.iterdir()] == ["test.jsonl"]
    assert old.read_text() == '{"row": 0}\n'
