"""Losses against numbers computed by hand and against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from graft.losses.classification import asymmetric, binary_cross_entropy, cross_entropy, focal, huber, mse

# log 3 against 0: probabilities 1/4 and 3/4, with a softmax over [0, log 3] and with a sigmoid of log 3.
LOGITS = torch.tensor([[0.0, log(3.0)], [0.0, log(3.0)]])
LABELS = torch.tensor([1, 0])
MULTI_LOGITS = torch.tensor([[log(3.0), log(3.0)]])
MULTI_LABELS = torch.tensor([[1, 0]])


def random_rows(n: int = 12, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, one label a row, any number of labels a row."""
    return 3 * torch.randn(n, classes), torch.randint(classes, (n,)), (torch.rand(n, classes) > 0.5).long()


def test_cross_entropy_by_hand() -> None:
    assert_close(cross_entropy(LOGITS, LABELS), torch.tensor((log(4 / 3) + log(4)) / 2))


def test_label_smoothing_by_hand() -> None:
    # targets (0.05, 0.95) and (0.95, 0.05)
    first = 0.95 * log(4 / 3) + 0.05 * log(4)
    second = 0.95 * log(4) + 0.05 * log(4 / 3)
    assert_close(cross_entropy(LOGITS, LABELS, label_smoothing=0.1), torch.tensor((first + second) / 2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_without_weights_is_that_of_torch(smoothing: float) -> None:
    logits, labels, _ = random_rows()
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert_close(cross_entropy(logits, labels, label_smoothing=smoothing), expected)


def test_class_weights_by_hand() -> None:
    weights = torch.tensor([3.0, 1.0])
    loss = cross_entropy(LOGITS, LABELS, class_weights=weights)
    assert_close(loss, torch.tensor((1 * log(4 / 3) + 3 * log(4)) / 2))


def test_class_weights_do_not_cancel_when_a_batch_is_cut_into_single_rows() -> None:
    logits, labels, _ = random_rows()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    whole = cross_entropy(logits, labels, class_weights=weights)
    rows = [cross_entropy(logits[i : i + 1], labels[i : i + 1], class_weights=weights) for i in range(len(labels))]
    assert_close(torch.stack(rows).mean(), whole)


def test_focal_by_hand() -> None:
    # (1 - p) ** 2 is 1/16 for the sure row and 9/16 for the wrong one
    assert_close(focal(LOGITS, LABELS, gamma=2.0), torch.tensor((log(4 / 3) / 16 + log(4) * 9 / 16) / 2))


def test_focal_with_class_weights_by_hand() -> None:
    loss = focal(LOGITS, LABELS, gamma=2.0, class_weights=torch.tensor([3.0, 1.0]))
    assert_close(loss, torch.tensor((log(4 / 3) / 16 + 3 * log(4) * 9 / 16) / 2))


def test_focal_of_gamma_zero_is_cross_entropy() -> None:
    logits, labels, _ = random_rows()
    weights = torch.rand(5)
    expected = cross_entropy(logits, labels, class_weights=weights)
    assert_close(focal(logits, labels, gamma=0.0, class_weights=weights), expected)


def test_binary_cross_entropy_by_hand() -> None:
    # a positive of probability 3/4 and a negative of probability 3/4
    assert_close(binary_cross_entropy(MULTI_LOGITS, MULTI_LABELS), torch.tensor((log(4 / 3) + log(4)) / 2))


def test_binary_cross_entropy_weighs_positives_only() -> None:
    loss = binary_cross_entropy(MULTI_LOGITS, MULTI_LABELS, class_weights=torch.tensor([3.0, 5.0]))
    assert_close(loss, torch.tensor((3 * log(4 / 3) + log(4)) / 2))


def test_asymmetric_by_hand() -> None:
    # positive: (1/4) ** 1 * log(4/3); negative: q = 0.75 - 0.05, q ** 4 * -log(0.3)
    expected = (0.25 * log(4 / 3) - 0.7**4 * log(0.3)) / 2
    assert_close(asymmetric(MULTI_LOGITS, MULTI_LABELS), torch.tensor(expected))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])], ids=["plain", "weighted"])
def test_asymmetric_without_discounts_is_binary_cross_entropy(weights: Tensor | None) -> None:
    logits, _, labels = random_rows()
    loss = asymmetric(logits, labels, gamma_positive=0, gamma_negative=0, clip=0, class_weights=weights)
    assert_close(loss, binary_cross_entropy(logits, labels, class_weights=weights))


def test_asymmetric_does_not_count_negatives_below_the_clip() -> None:
    logits = torch.tensor([[-4.0]], requires_grad=True)  # probability 0.018
    loss = asymmetric(logits, torch.tensor([[0]]))
    assert loss == 0
    assert torch.autograd.grad(loss, logits)[0] == 0


def test_mse_by_hand() -> None:
    assert_close(mse(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])), torch.tensor((1 + 9) / 2))


def test_huber_by_hand() -> None:
    # differences 0.5 and 3 with delta 1: 0.5 ** 2 / 2 and 1 * (3 - 0.5)
    loss = huber(torch.tensor([1.5, 5.0]), torch.tensor([1.0, 2.0]), delta=1.0)
    assert_close(loss, torch.tensor((0.125 + 2.5) / 2))


def test_integer_scores_are_taken() -> None:
    assert_close(mse(torch.tensor([1.0, 5.0]), torch.tensor([2, 2])), torch.tensor(5.0))


SINGLE = pytest.mark.parametrize("loss", [cross_entropy, focal], ids=lambda loss: loss.__name__)
MULTI = pytest.mark.parametrize("loss", [binary_cross_entropy, asymmetric], ids=lambda loss: loss.__name__)
SCORE = pytest.mark.parametrize("loss", [mse, huber], ids=lambda loss: loss.__name__)


@SINGLE
def test_single_label_losses_refuse_shapes_that_do_not_fit(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(3,\)"):
        loss(LOGITS, torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(2, 1\)"):
        loss(LOGITS, LABELS[:, None])


@MULTI
def test_multi_label_losses_refuse_shapes_that_torch_would_broadcast(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(1, 2\)"):
        loss(torch.zeros(3, 2), torch.zeros(1, 2))


@SCORE
def test_score_losses_refuse_shapes_that_torch_would_broadcast(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"got \(3, 1\) and \(3,\)"):
        loss(torch.zeros(3, 1), torch.zeros(3))


@SINGLE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_single_label_losses_are_computed_in_float32(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    logits, labels, _ = random_rows()
    low = logits.to(dtype)
    assert loss(low, labels).dtype == torch.float32
    assert_close(loss(low, labels), loss(low.float(), labels), rtol=0, atol=0)


@MULTI
def test_multi_label_losses_are_computed_in_float32(loss: Callable[..., Tensor]) -> None:
    logits, _, labels = random_rows()
    low = logits.bfloat16()
    assert loss(low, labels).dtype == torch.float32
    assert_close(loss(low, labels), loss(low.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [50.0, 200.0])
def test_losses_and_gradients_stay_finite_for_extreme_logits(gamma: float, size: float) -> None:
    logits = torch.tensor([[size, -size], [-size, size]], requires_grad=True)
    ones = torch.tensor([[1, 0], [1, 0]])
    losses = [
        focal(logits, torch.tensor([0, 0]), gamma=gamma),
        asymmetric(logits, ones, gamma_positive=gamma, gamma_negative=gamma),
        asymmetric(logits, ones, gamma_positive=gamma, gamma_negative=gamma, clip=0.0),
        asymmetric(logits, ones, gamma_positive=gamma, gamma_negative=gamma, clip=1e-9),
    ]
    for loss in losses:
        assert loss.isfinite()
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gradients_are_right(gamma: float) -> None:
    logits, labels, many = random_rows(4, 3)
    logits = logits.double().requires_grad_()
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: focal(x, labels, gamma=gamma, class_weights=weights), logits)
    assert torch.autograd.gradcheck(lambda x: asymmetric(x, many, gamma_positive=gamma, class_weights=weights), logits)
