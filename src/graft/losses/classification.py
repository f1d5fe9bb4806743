"""Losses of classification and regression: pure functions from predictions and targets to one scalar.

All are means: over the rows, and for multi-label targets over rows and labels. Weights multiply a row's share
and are not divided out again, so that a batch's loss is the mean of its rows' losses however the rows are cut
into batches. Predictions of lower precision are raised to float32 first.

Chosen with ``task/loss=cross_entropy`` (or ``label_smoothing``, ``focal``, ``asymmetric``,
``binary_cross_entropy``, ``mse``, ``huber``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy of the true class, if wanted with label smoothing and class weights.

    A row's loss is ``-w[y] * log p[y]``. With smoothing ``s`` the target is ``1 - s`` on the true class plus
    ``s`` spread evenly over all classes (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567). Unlike
    ``torch.nn.functional.cross_entropy`` the weights are not divided by their sum over the batch: there,
    weights cancel in a batch of one class, and accumulated micro-batches differ from one batch.

    Args:
        logits: Shape ``(n, n_classes)``.
        labels: Class indices, shape ``(n,)``.
        label_smoothing: Share of the target that is spread over all classes, from 0 to 1.
        class_weights: Shape ``(n_classes,)``; a mean of 1 over the training rows keeps the loss's scale.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If the shapes do not fit.
    """
    logits = _single_label(logits, labels)
    weights = None if class_weights is None else class_weights.to(logits)
    return F.cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing, reduction="none").mean()


def focal(logits: Tensor, labels: Tensor, *, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy that counts rows less the surer the model is of the right class.

    A row's loss is ``-w[y] * (1 - p[y]) ** gamma * log p[y]``, with a softmax over the classes. Lin et al.
    2017, https://arxiv.org/abs/1708.02002 (their ``alpha`` is ``class_weights``).

    Args:
        logits: Shape ``(n, n_classes)``.
        labels: Class indices, shape ``(n,)``.
        gamma: How strongly easy rows are discounted; 0 is ``cross_entropy``.
        class_weights: Shape ``(n_classes,)``.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If the shapes do not fit.
    """
    logits = _single_label(logits, labels)
    nll = F.cross_entropy(logits, labels, reduction="none")
    loss = _power(-torch.expm1(-nll), gamma) * nll
    if class_weights is not None:
        loss = class_weights.to(logits)[labels] * loss
    return loss.mean()


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """Mean binary cross entropy over rows and labels, for rows with any number of labels.

    Args:
        logits: Shape ``(n, n_labels)``.
        labels: 1 where a row has a label, else 0; same shape.
        class_weights: Factor on the loss of a label's positives, shape ``(n_labels,)``; negatives over
            positives in the training rows balances them.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If the shapes do not fit.
    """
    logits, targets = _same_shape(logits, labels, "labels")
    weights = None if class_weights is None else class_weights.to(logits)
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)


def asymmetric(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma_positive: float = 1.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy that discounts easy negatives more than easy positives, for many rare labels.

    Ridnik et al. 2021, https://arxiv.org/abs/2009.14119. With ``p`` the sigmoid of a logit and ``q = max(p -
    clip, 0)``, a positive's loss is ``-(1 - p) ** gamma_positive * log p``, a negative's ``-q **
    gamma_negative * log(1 - q)``, so negatives below ``clip`` are not counted at all. The mean over rows and
    labels is taken (the authors' code sums), and gradients flow through the discounts, as in the paper.

    Args:
        logits: Shape ``(n, n_labels)``.
        labels: 1 where a row has a label, else 0; same shape.
        gamma_positive: Discount of easy positives.
        gamma_negative: Discount of easy negatives.
        clip: Probability below which a negative counts nothing.
        class_weights: Factor on the loss of a label's positives, shape ``(n_labels,)``.

    Returns:
        A scalar in nats; ``binary_cross_entropy`` if both gammas and ``clip`` are 0.

    Raises:
        ValueError: If the shapes do not fit.
    """
    logits, targets = _same_shape(logits, labels, "labels")
    positive = -_power(torch.sigmoid(-logits), gamma_positive) * F.logsigmoid(logits)
    if clip > 0:
        # log(1 - q) from the other side, min(1 - p + clip, 1), which never gets to log(0).
        log_rest = (torch.sigmoid(-logits) + clip).clamp(max=1.0).log()
        negative = -_power((torch.sigmoid(logits) - clip).clamp(min=0.0), gamma_negative) * log_rest
    else:
        negative = -_power(torch.sigmoid(logits), gamma_negative) * F.logsigmoid(-logits)
    if class_weights is not None:
        positive = class_weights.to(logits) * positive
    return (targets * positive + (1 - targets) * negative).mean()


def mse(values: Tensor, scores: Tensor) -> Tensor:
    """Mean squared error.

    Args:
        values: Predictions, shape ``(n,)``.
        scores: Targets, same shape.

    Returns:
        A scalar in squared units of the score.

    Raises:
        ValueError: If the shapes differ.
    """
    values, targets = _same_shape(values, scores, "scores")
    return F.mse_loss(values, targets)


def huber(values: Tensor, scores: Tensor, *, delta: float = 1.0) -> Tensor:
    """Mean Huber loss: squared for small differences, linear for large ones.

    A row's loss is ``d ** 2 / 2`` for a difference ``d`` up to ``delta``, and
    ``delta * (|d| - delta / 2)`` beyond. Huber 1964, https://doi.org/10.1214/aoms/1177703732.

    Args:
        values: Predictions, shape ``(n,)``.
        scores: Targets, same shape.
        delta: Difference from which the loss grows linearly, in units of the score.

    Returns:
        A scalar in squared units of the score.

    Raises:
        ValueError: If the shapes differ.
    """
    values, targets = _same_shape(values, scores, "scores")
    return F.huber_loss(values, targets, delta=delta)


def _single_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Check the shapes of single-label arguments and return the logits in at least float32."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            "logits must have shape (n, n_classes) and labels (n,), "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return _at_least_float32(logits)


def _same_shape(predictions: Tensor, targets: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Check for equal shapes, which torch would broadcast in silence; both come back in one precision."""
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions and {what} must have one shape, got {tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
    predictions = _at_least_float32(predictions)
    return predictions, targets.to(predictions)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _power(base: Tensor, exponent: float) -> Tensor:
    """Raise numbers from 0 to 1 to a power; one below 1 has an infinite slope at 0, so that is avoided."""
    if 0 < exponent < 1:
        base = base.clamp(min=torch.finfo(base.dtype).tiny)
    return base.pow(exponent)
