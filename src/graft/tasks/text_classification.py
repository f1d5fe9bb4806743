"""Text classification: one label, many labels or a score for a text or a pair of texts.

Chosen with ``task=text_classification`` (one label a text), ``task=text_multilabel`` or ``task=text_regression``;
the loss with ``task/loss=...``. A pair is encoded as the tokenizer encodes pairs (segment ids where the model has
them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from graft.data.collate import pad, stack
from graft.data.info import DataInfo
from graft.data.schemas import ClassificationRow, MultiLabelRow, RegressionRow
from graft.errors import ConfigError
from graft.log import get_logger
from graft.metrics.classification import MultiLabelMetrics, RegressionMetrics, SingleLabelMetrics
from graft.step import Batch, Columns, Features, ModelNeeds, Prediction, StepOutput
from graft.tasks.base import AbstractTask, Metrics

log = get_logger(__name__)

Problem = Literal["single_label", "multi_label", "regression"]

_SCHEMAS: dict[str, type] = {
    "single_label": ClassificationRow,
    "multi_label": MultiLabelRow,
    "regression": RegressionRow,
}
_TARGETS = {"single_label": "label", "multi_label": "labels", "regression": "score"}
_MONITORS = {"single_label": "accuracy", "multi_label": "f1_macro", "regression": "spearman"}
_LESS_IS_BETTER = {"loss", "mse", "calibration_error"}


Loss: TypeAlias = Callable[..., Tensor]
"""From predictions of shape ``(n, n_classes)``, or ``(n,)`` for a regression, and targets to a scalar, the mean over
rows; takes ``class_weights`` where the task is given some."""


@final
class TextClassification(AbstractTask):
    """Classifies or scores texts with a sequence-classification head.

    Args:
        processor: The model's tokenizer.
        loss: A function of ``losses/classification.py`` or one like it.
        problem: ``single_label``, ``multi_label`` or ``regression``.
        max_length: Longest encoded text or pair in tokens; longer ones are cut (the longer text of a pair first).
        threshold: Probability from which a label counts as predicted, for ``multi_label``.
        class_weights: ``balanced`` (n_rows / (n_classes * n_rows_of_class), from the training split; for
            ``multi_label`` the weight of positives, n_negative / n_positive), or one weight a class in the order of
            the label names. Given to the loss as ``class_weights``.
        monitor: Metric to select checkpoints by; accuracy, f1_macro or spearman by default, after the problem.

    Raises:
        ConfigError: If the problem is unknown.
    """

    def __init__(
        self,
        processor: Any,
        *,
        loss: Loss,
        problem: Problem = "single_label",
        max_length: int = 128,
        threshold: float = 0.5,
        class_weights: Literal["balanced"] | Sequence[float] | None = None,
        monitor: str | None = None,
    ) -> None:
        if problem not in _SCHEMAS:
            raise ConfigError(f"task.problem: no problem is called '{problem}'. It is one of {', '.join(_SCHEMAS)}.")
        self.schema = _SCHEMAS[problem]
        self.monitor = monitor or _MONITORS[problem]
        self.mode = "min" if self.monitor in _LESS_IS_BETTER else "max"
        self._processor = processor
        self._loss = loss
        self._problem = problem
        self._target = _TARGETS[problem]
        self._max_length = max_length
        self._threshold = threshold
        self._class_weights = class_weights
        self._weights: Tensor | None = None
        self._names: tuple[str, ...] = ()

    def bind(self, info: DataInfo) -> None:
        """Take the label names and, for balanced weights, their counts.

        Args:
            info: What is known of the data.

        Raises:
            ConfigError: If there are fewer than two labels, or the class weights do not fit them.
        """
        if self._problem == "regression":
            return
        self._names = info.label_names or ()
        if len(self._names) < 2 and self._problem == "single_label":
            raise ConfigError(
                f"data: the training split has {len(self._names)} label ({', '.join(self._names)}); "
                "classification needs two. Check data.columns.label."
            )
        self._weights = self._class_weight_tensor(info)

    def _class_weight_tensor(self, info: DataInfo) -> Tensor | None:
        if self._class_weights is None:
            return None
        if self._class_weights == "balanced":
            counts = torch.tensor(info.label_counts, dtype=torch.float32).clamp(min=1)
            if self._problem == "multi_label":
                return (info.sizes["train"] - counts).clamp(min=1) / counts
            return counts.sum() / (len(counts) * counts)
        if len(self._class_weights) != len(self._names):
            raise ConfigError(
                f"task.class_weights: {len(self._class_weights)} weights for {len(self._names)} labels. "
                f"Give one for each of {', '.join(self._names)}, or 'balanced'."
            )
        return torch.tensor([float(weight) for weight in self._class_weights])

    def needs(self) -> ModelNeeds:
        """Return a sequence-classification model with one output a label, or one output for a score."""
        names = self._names or ("score",)
        return ModelNeeds(
            auto_class="AutoModelForSequenceClassification",
            peft_task_type="SEQ_CLS",
            config={
                "num_labels": len(names),
                "id2label": dict(enumerate(names)),
                "label2id": {name: index for index, name in enumerate(names)},
                "problem_type": {
                    "single_label": "single_label_classification",
                    "multi_label": "multi_label_classification",
                    "regression": "regression",
                }[self._problem],
            },
        )

    def encode(self, columns: Columns) -> dict[str, list[Any]]:
        """Tokenize texts or pairs; targets pass through.

        Args:
            columns: ``text``, optionally ``text_pair``, and the target.

        Returns:
            ``input_ids`` and, where the model has segments, ``token_type_ids``; the target when present.
        """
        pairs = columns.get("text_pair")
        encoded = self._processor(
            list(columns["text"]),
            list(pairs) if pairs is not None else None,
            truncation=True,
            max_length=self._max_length,
            padding=False,
            return_attention_mask=False,
        )
        features = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        if pairs is None:
            features.pop("token_type_ids", None)  # all zero, which is also the model's default
        if self._target in columns:
            features[self._target] = list(columns[self._target])
        return features

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pad to the longest text of the batch.

        Args:
            features: Encoded rows.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape ``(n, longest)``, perhaps ``token_type_ids``, and ``targets``:
            class indices ``(n,)``, a 0/1 matrix ``(n, n_classes)``, or scores ``(n,)``.
        """
        side = self._processor.padding_side
        ids = [row["input_ids"] for row in features]
        batch: dict[str, Any] = {
            "input_ids": pad(ids, value=self._processor.pad_token_id, side=side),
            "attention_mask": pad([np.ones(len(row), dtype=np.int64) for row in ids], value=0, side=side),
        }
        if "token_type_ids" in features[0]:
            batch["token_type_ids"] = pad([row["token_type_ids"] for row in features], value=0, side=side)
        if "row" in features[0]:
            batch["row"] = stack([row["row"] for row in features], torch.long)
        if self._target in features[0]:
            batch["targets"] = self._targets([row[self._target] for row in features])
        return batch

    def _targets(self, values: Sequence[Any]) -> Tensor:
        if self._problem == "single_label":
            return stack(values, torch.long)
        if self._problem == "regression":
            return stack(values, torch.float32)
        chosen = torch.zeros(len(values), len(self._names))
        for index, labels in enumerate(values):
            chosen[index, torch.as_tensor(np.asarray(labels, dtype=np.int64))] = 1.0
        return chosen

    def step(self, model: nn.Module, batch: Batch) -> StepOutput:
        """Score a batch; logits are taken to float32 before the loss, whatever the model's precision."""
        scores = self._scores(model, batch)
        settings = {}
        if self._weights is not None:
            settings["class_weights"] = self._weights.to(scores.device)
        predictions = scores.squeeze(-1) if self._problem == "regression" else scores
        return StepOutput(
            loss=self._loss(predictions, batch["targets"], **settings),
            scored=scores,
            kind="value" if self._problem == "regression" else "logits",
        )

    def _scores(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        scores: Tensor = model(**inputs).logits  # (n, n_classes)
        return scores.float()

    def new_metrics(self) -> Metrics:
        """Return the metrics of the problem."""
        if self._problem == "single_label":
            return _Scored(SingleLabelMetrics(len(self._names)))
        if self._problem == "multi_label":
            return _Scored(MultiLabelMetrics(len(self._names), threshold=self._threshold))
        return _Scored(RegressionMetrics())

    def predict(self, model: nn.Module, batch: Batch, output: StepOutput | None = None) -> list[Prediction]:
        """Say the label and its probabilities, the labels, or the score of each row.

        Args:
            model: The model, evaluating.
            batch: Collated rows.
            output: What ``step`` gave for them, if it ran.

        Returns:
            ``{"label", "probability", "probabilities"}``, ``{"labels", "probabilities"}`` or ``{"score"}`` a row.
        """
        scores = (self._scores(model, batch) if output is None else output.scored).detach().cpu()
        if self._problem == "regression":
            return [{"score": value} for value in scores.squeeze(-1).tolist()]
        if self._problem == "multi_label":
            return [
                {
                    "labels": [name for name, p in zip(self._names, row, strict=True) if p >= self._threshold],
                    "probabilities": dict(zip(self._names, row, strict=True)),
                }
                for row in scores.sigmoid().tolist()
            ]
        best = scores.argmax(-1).tolist()
        return [
            {
                "label": self._names[index],
                "probability": row[index],
                "probabilities": dict(zip(self._names, row, strict=True)),
            }
            for index, row in zip(best, scores.softmax(-1).tolist(), strict=True)
        ]

    def targets(self, batch: Batch) -> list[Any]:
        """Return the targets of a batch in words, as predictions are written.

        Args:
            batch: Collated rows with targets.

        Returns:
            A label, a list of labels or a score a row.
        """
        values = batch["targets"].tolist()
        if self._problem == "regression":
            return list(values)
        if self._problem == "multi_label":
            return [[n for n, chosen in zip(self._names, row, strict=True) if chosen] for row in values]
        return [self._names[index] for index in values]


@final
class _Scored:
    """Feeds the scores and targets of a batch to a metric."""

    def __init__(self, metric: SingleLabelMetrics | MultiLabelMetrics | RegressionMetrics) -> None:
        self.metric = metric

    def update(self, output: StepOutput, batch: Batch) -> None:
        self.metric.update(output.scored, batch["targets"])

    def compute(self) -> dict[str, float]:
        return self.metric.compute()

    def reset(self) -> None:
        self.metric.reset()
