from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from graft.data.collate import pad, stack


@pytest.mark.parametrize(
    ("side", "expected"), [("right", [[1, 2, 3], [4, 9, 9], [9, 9, 9]]), ("left", [[1, 2, 3], [9, 9, 4], [9, 9, 9]])]
)
def test_sequences_are_padded_to_the_longest_on_either_side(side: str, expected: list[list[int]]) -> None:
    padded = pad([[1, 2, 3], [4], []], value=9, side=side)  # type: ignore[arg-type]
    assert padded.tolist() == expected
    assert padded.dtype == torch.long


def test_numpy_views_are_padded_and_left_as_they_are() -> None:
    values = np.arange(5, dtype=np.int32)
    assert pad([values[:2], values[2:]], value=0).tolist() == [[0, 1, 0], [2, 3, 4]]
    assert values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("longest", "multiple", "width"), [(1, 8, 8), (8, 8, 8), (9, 8, 16), (3, 1, 3)])
def test_the_length_is_rounded_up_to_a_multiple(longest: int, multiple: int, width: int) -> None:
    padded = pad([[5] * longest, [5]], value=0, multiple=multiple)
    assert padded.shape == (2, width)
    assert padded.sum() == 5 * (longest + 1)


def test_sequences_that_are_all_empty_have_no_width() -> None:
    assert pad([[], []], value=0).shape == (2, 0)


def test_numbers_and_vectors_are_stacked_in_the_type_asked_for() -> None:
    assert_close(stack([np.int64(3), np.int64(1)], torch.float32), torch.tensor([3.0, 1.0]))
    assert_close(stack([[1.5, 2.0], [3.0, 4.0]], torch.float64), torch.tensor([[1.5, 2], [3, 4]], dtype=torch.float64))
