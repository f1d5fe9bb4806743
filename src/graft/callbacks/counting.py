"""Rows and tokens of batches, counted without waiting for the device."""

from __future__ import annotations

from typing import final

from torch import Tensor

from graft.step import Batch


@final
class Count:
    """A running count of rows and tokens.

    Tokens are the sum of the attention mask. On an accelerator the sum stays there, as one more small kernel
    a step, and is read only when asked for.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.batches = 0
        self._sum: Tensor | None = None

    def add(self, batch: Batch) -> None:
        """Count a batch.

        Args:
            batch: Collated rows; the batch is the first dimension of its tensors.
        """
        self.batches += 1
        self.rows += rows_of(batch)
        mask = batch.get("attention_mask")
        if isinstance(mask, Tensor):
            tokens = mask.detach().sum()
            self._sum = tokens if self._sum is None else self._sum + tokens

    @property
    def tokens(self) -> int | None:
        """The tokens so far, None for batches without an attention mask; waits for the device."""
        return None if self._sum is None else int(self._sum)


def rows_of(batch: Batch) -> int:
    """Return the number of rows of a batch.

    Args:
        batch: Collated rows.

    Returns:
        The first dimension of its first tensor that has one, else 0.
    """
    return next((len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim), 0)
