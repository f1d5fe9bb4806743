from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from graft.data.info import DataInfo
from graft.errors import ConfigError
from graft.losses.classification import binary_cross_entropy, cross_entropy, mse
from graft.tasks.text_classification import TextClassification

NAMES = ("negative", "neutral", "positive")


class Words:
    """A tokenizer of single letters: a=1, b=2 ...; pads with 0; separates a pair by 99."""

    pad_token_id = 0

    def __init__(self, padding_side: str = "right") -> None:
        self.padding_side = padding_side

    def __call__(self, texts: list[str], pairs: list[str] | None = None, **settings: Any) -> dict[str, Any]:
        ids = [[ord(letter) - 96 for letter in text] for text in texts]
        segments = [[0] * len(row) for row in ids]
        if pairs is not None:
            for row, marks, pair in zip(ids, segments, pairs, strict=True):
                row.extend([99, *(ord(letter) - 96 for letter in pair)])
                marks.extend([0, *[1] * len(pair)])
        cut = settings["max_length"]
        return {"input_ids": [row[:cut] for row in ids], "token_type_ids": [row[:cut] for row in segments]}


class Fixed(nn.Module):
    """A model that gives the logits it was made with."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, **_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits)


def info(counts: tuple[int, ...] = (1, 1, 2), names: tuple[str, ...] | None = NAMES) -> DataInfo:
    return DataInfo(
        label_names=names, label_counts=counts, sizes={"train": sum(counts)}, fingerprint="0", name="made up"
    )


def task(**settings: Any) -> TextClassification:
    made = TextClassification(Words(settings.pop("padding_side", "right")), **{"loss": cross_entropy, **settings})
    made.bind(settings.pop("info", info()))
    return made


def collated(made: TextClassification, columns: dict[str, list[Any]]) -> Any:
    encoded = made.encode(columns)
    rows = [
        {name: np.asarray(values[index]) for name, values in encoded.items()} for index in range(len(columns["text"]))
    ]
    return made.collate(rows)


def test_texts_are_padded_to_the_longest_of_the_batch() -> None:
    batch = collated(task(), {"text": ["abc", "a"], "label": [2, 0]})
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["targets"].tolist() == [2, 0]


def test_padding_follows_the_tokenizers_side() -> None:
    batch = collated(task(padding_side="left"), {"text": ["abc", "a"], "label": [2, 0]})
    assert batch["input_ids"].tolist() == [[1, 2, 3], [0, 0, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_pair_keeps_its_segments() -> None:
    batch = collated(task(), {"text": ["a"], "text_pair": ["bc"], "label": [1]})
    assert batch["input_ids"].tolist() == [[1, 99, 2, 3]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1, 1]]


def test_long_texts_are_cut() -> None:
    assert task(max_length=2).encode({"text": ["abc"]})["input_ids"] == [[1, 2]]


def test_rows_without_targets_can_be_predicted() -> None:
    made = task()
    batch = collated(made, {"text": ["a", "b"]})
    assert "targets" not in batch
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]))
    predictions = made.predict(Fixed(logits), batch)
    assert [row["label"] for row in predictions] == ["positive", "negative"]
    assert predictions[0]["probability"] == pytest.approx(0.5)
    assert predictions[1]["probabilities"] == pytest.approx({"negative": 0.7, "neutral": 0.2, "positive": 0.1})


def test_the_loss_of_equal_logits_is_log_of_the_number_of_labels() -> None:
    made = task()
    output = made.step(Fixed(torch.zeros(2, 3)), collated(made, {"text": ["a", "b"], "label": [0, 2]}))
    assert_close(output.loss.detach(), torch.tensor(math.log(3.0)))
    assert output.scored.shape == (2, 3)


def test_half_precision_logits_are_scored_in_float32() -> None:
    made = task()
    output = made.step(Fixed(torch.zeros(1, 3, dtype=torch.bfloat16)), collated(made, {"text": ["a"], "label": [0]}))
    assert output.loss.dtype == output.scored.dtype == torch.float32


def test_balanced_weights_are_inverse_to_the_counts_of_the_training_split() -> None:
    seen: dict[str, Tensor] = {}

    def loss(predictions: Tensor, targets: Tensor, *, class_weights: Tensor) -> Tensor:
        seen["weights"] = class_weights
        return predictions.sum() * 0 + targets.sum() * 0

    made = task(loss=loss, class_weights="balanced")
    made.step(Fixed(torch.zeros(1, 3)), collated(made, {"text": ["a"], "label": [0]}))
    # 4 rows, 3 classes: 4 / (3 * 1), 4 / (3 * 1), 4 / (3 * 2)
    assert_close(seen["weights"], torch.tensor([4 / 3, 4 / 3, 2 / 3]))


def test_the_wrong_number_of_class_weights_names_the_labels() -> None:
    with pytest.raises(ConfigError, match=r"2 weights for 3 labels.*negative, neutral, positive"):
        task(class_weights=[1.0, 2.0])


def test_one_label_is_not_enough() -> None:
    with pytest.raises(ConfigError, match="classification needs two"):
        TextClassification(Words(), loss=cross_entropy).bind(info((4,), ("only",)))


def test_many_labels_become_a_matrix_and_words_again() -> None:
    made = task(problem="multi_label", loss=binary_cross_entropy)
    batch = collated(made, {"text": ["a", "b"], "labels": [[0, 2], []]})
    assert batch["targets"].tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert made.targets(batch) == [["negative", "positive"], []]
    predictions = made.predict(Fixed(torch.tensor([[3.0, -3.0, 0.1], [-1.0, -1.0, -1.0]])), batch)
    assert [row["labels"] for row in predictions] == [["negative", "positive"], []]
    output = made.step(Fixed(torch.zeros(2, 3)), batch)
    assert_close(output.loss.detach(), torch.tensor(math.log(2.0)))


def test_a_score_is_one_number() -> None:
    made = task(problem="regression", loss=mse)
    batch = collated(made, {"text": ["a", "b"], "score": [1.0, 3.0]})
    output = made.step(Fixed(torch.tensor([[2.0], [5.0]])), batch)
    assert output.loss.item() == pytest.approx((1.0 + 4.0) / 2)
    assert output.kind == "value"
    assert made.predict(Fixed(torch.tensor([[2.0], [5.0]])), batch) == [{"score": 2.0}, {"score": 5.0}]
    assert made.needs().config["num_labels"] == 1


def test_the_monitor_fits_the_problem_and_its_direction() -> None:
    assert (task().monitor, task().mode) == ("accuracy", "max")
    assert (task(monitor="loss").monitor, task(monitor="loss").mode) == ("loss", "min")
    assert task(problem="regression", loss=mse).monitor == "spearman"


def test_an_unknown_problem_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="single_label, multi_label, regression"):
        TextClassification(Words(), loss=partial(cross_entropy), problem="ranking")  # type: ignore[arg-type]


def test_metrics_score_the_whole_split() -> None:
    made = task()
    metrics = made.new_metrics()
    for labels in ([0, 1], [2, 2]):
        batch = collated(made, {"text": ["a", "b"], "label": labels})
        metrics.update(made.step(Fixed(torch.eye(3)[[0, 2]] * 5), batch), batch)
    assert metrics.compute()["accuracy"] == pytest.approx(0.5)  # right: row 0 of the first batch, row 1 of the second
