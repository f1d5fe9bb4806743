"""From rows to tensors: pad sequences, stack numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def pad(
    sequences: Sequence[npt.NDArray[Any] | Sequence[int]],
    *,
    value: int,
    side: Literal["right", "left"] = "right",
    multiple: int | None = None,
) -> Tensor:
    """Pad sequences to the longest of them.

    Args:
        sequences: ``n`` sequences of whole numbers, at least one.
        value: What to fill with.
        side: Where to fill.
        multiple: Round the length up to a multiple of this; tensor cores like 8.

    Returns:
        A long tensor of shape ``(n, longest)``.
    """
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    longest = int(lengths.max())
    if multiple is not None:
        longest = -(-longest // multiple) * multiple
    padded = np.full((len(sequences), longest), value, dtype=np.int64)
    positions = np.arange(longest)
    used = positions < lengths[:, None] if side == "right" else positions >= longest - lengths[:, None]
    padded[used] = np.concatenate(sequences)
    return torch.from_numpy(padded)


def stack(values: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """Stack single numbers, or sequences of one length.

    Args:
        values: ``n`` numbers, or ``n`` sequences of ``m`` numbers.
        dtype: Type of the tensor.

    Returns:
        A tensor of shape ``(n,)`` or ``(n, m)``.
    """
    return torch.from_numpy(np.asarray(values)).to(dtype)
