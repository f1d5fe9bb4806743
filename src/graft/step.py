"""The words that all parts share: a batch, a step over it, a transform of that step, what a model must be.

Plain values and callables only: this file is what keeps the layers apart. ``models/`` and ``peft/`` never see a task,
a task never sees the model's class, and a transform sees neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor, nn

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""A chunk of rows by column: ``{"text": [...], "label": [...]}``, all of one length."""

Features: TypeAlias = Mapping[str, Any]
"""One encoded row: numpy arrays and numbers."""

Batch: TypeAlias = Mapping[str, Any]
"""Collated rows: tensors with the batch in the first dimension, never changed in place."""

Prediction: TypeAlias = dict[str, Any]
"""What is said of one row, as plain values that JSON can hold."""


@dataclass(frozen=True)
class StepOutput:
    """What one step over a batch produced.

    Attributes:
        loss: Scalar with a graph, the mean over the scored positions.
        scored: Predictions at the positions that the loss scores, shape ``(n_scored, n_classes)``. ``n_scored`` also
            weights epoch means.
        kind: How two of them are compared: ``logits`` as distributions, ``value`` by distance.
        logs: Further scalars to log, detached.
        extra: Whatever the task's own metrics and predictions need.
    """

    loss: Tensor
    scored: Tensor
    kind: Literal["logits", "value"]
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Any = None


Step: TypeAlias = Callable[[nn.Module, Batch], StepOutput]
"""From a model and a batch to its loss."""


class Transform(Protocol):
    """A training objective around a step: returns one scalar loss, never calls backward, leaves no trace."""

    def __call__(self, step: Step, model: nn.Module, batch: Batch) -> StepOutput:
        """Run ``step`` once or more and return the output to train on."""
        ...


@dataclass(frozen=True)
class ModelNeeds:
    """What a task needs of a model, in plain values.

    Attributes:
        auto_class: Name of the transformers class that loads it, such as ``AutoModelForSequenceClassification``.
        peft_task_type: The ``peft.TaskType`` that fits, such as ``SEQ_CLS``; None for bare feature extraction.
        config: Settings of the transformers configuration, such as ``num_labels`` and ``id2label``.
        new_parameters: Names of the parameters that the checkpoint did not hold (a new head); filled in after loading.
            They are always trained and always saved.
    """

    auto_class: str
    peft_task_type: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    new_parameters: tuple[str, ...] = ()


class Adaptation(Protocol):
    """Chooses what of a loaded model is trained; may wrap it (``peft/``)."""

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the model to train, with ``requires_grad`` set on exactly the parameters to train."""
        ...
