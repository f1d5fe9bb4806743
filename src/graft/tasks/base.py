"""What every task is: rows -> features -> batch -> loss -> metrics -> predictions, in one plain object.

A task never sees the model's class, a trainer or a config object, so it is tested in ten lines on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from graft.step import Batch, Columns, Features, ModelNeeds, Prediction, StepOutput

if TYPE_CHECKING:
    from torch import nn

    from graft.data.info import DataInfo


class Metrics(Protocol):
    """Collects the outputs of one split and computes its metrics; one object a split, reset after each pass."""

    def update(self, output: StepOutput, batch: Batch) -> None:
        """Add one batch."""

    def compute(self) -> dict[str, float]:
        """Return the metrics over all rows of all processes, by name."""
        ...

    def reset(self) -> None:
        """Forget everything."""


class AbstractTask(ABC):
    """The contract of a task.

    Attributes:
        schema: The row it reads, one of the TypedDicts of ``data/schemas.py``.
        monitor: Name of the metric to select checkpoints by, without the split's prefix.
        mode: Whether more or less of ``monitor`` is better.
    """

    schema: type
    monitor: str
    mode: Literal["max", "min"]

    @abstractmethod
    def bind(self, info: DataInfo) -> None:
        """Take what is known of the data; called once, after the rows are read and before anything else.

        Args:
            info: Label names and counts.
        """

    @abstractmethod
    def needs(self) -> ModelNeeds:
        """Return what the model must be for this task and data."""

    @abstractmethod
    def encode(self, columns: Columns) -> dict[str, list[Any]]:
        """Encode a chunk of rows.

        Args:
            columns: Columns named as in ``schema``; the target columns are missing when predicting.

        Returns:
            Feature columns of the same number of rows. A sequence of integers becomes one ragged array on disk and in
            memory; ``input_ids`` decides a row's length for bucketing.
        """

    @abstractmethod
    def collate(self, features: Sequence[Features]) -> Batch:
        """Pad and stack encoded rows to tensors."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Batch) -> StepOutput:
        """Run the model over a batch and score it."""

    @abstractmethod
    def new_metrics(self) -> Metrics:
        """Return fresh metrics, for one split."""

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch, output: StepOutput | None = None) -> list[Prediction]:
        """Say what is predicted for each row of a batch.

        Args:
            model: The model, evaluating.
            batch: Collated rows, with or without targets.
            output: What ``step`` gave for this batch, where the caller has it: saves a second forward pass.

        Returns:
            One prediction a row, in the order of the batch.
        """
