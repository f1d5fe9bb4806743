"""Learning-rate schedules with warm-up, counted in optimizer steps.

The curves are those of ``transformers.optimization``, value for value: during warm-up, step ``i`` (from 0) is
taken with ``lr * i / warmup``, so the very first step of a run with warm-up changes nothing, the second
already does, and a schedule that decays to zero reaches it right after the last step.

Each function returns a scheduler to be stepped once after every optimizer step. ``total_steps`` counts
optimizer steps: batches divided by the accumulation. ``warmup`` is a number of steps, or a fraction of
``total_steps`` if it is below 1 (rounded up, as the Hugging Face Trainer does, but never all of a run). The
schedule multiplies every parameter group's own learning rate.

Chosen with ``scheduler=linear`` (the default), ``constant``, ``cosine``, ``cosine_restarts``, ``wsd``,
``inverse_sqrt`` or ``polynomial``.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, TypeAlias, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import optimization

from graft.errors import ConfigError, did_you_mean

DecayShape: TypeAlias = Literal["linear", "cosine", "1-sqrt"]
"""How the last phase of ``wsd`` falls."""


def constant(optimizer: Optimizer, *, total_steps: int, warmup: float = 0) -> LRScheduler:
    """Keep the learning rate after warm-up.

    Args:
        optimizer: The optimizer to schedule.
        total_steps: Optimizer steps of the run.
        warmup: Steps, or a fraction below 1, of linear warm-up.

    Returns:
        The scheduler.
    """
    steps = _warmup_steps(warmup, total_steps)
    scheduler: LRScheduler = optimization.get_constant_schedule_with_warmup(optimizer, steps)
    return scheduler


def linear(optimizer: Optimizer, *, total_steps: int, warmup: float = 0) -> LRScheduler:
    """Fall linearly to zero after warm-up.

    Args:
        optimizer: The optimizer to schedule.
        total_steps: Optimizer steps of the run.
        warmup: Steps, or a fraction below 1, of linear warm-up.

    Returns:
        The scheduler.
    """
    steps = _warmup_steps(warmup, total_steps)
    scheduler: LRScheduler = optimization.get_linear_schedule_with_warmup(optimizer, steps, total_steps)
    return scheduler


def cosine(optimizer: Optimizer, *, total_steps: int, warmup: float = 0, min_lr_ratio: float = 0.0) -> LRScheduler:
    """Fall along half a cosine after warm-up; Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    Args:
        optimizer: The optimizer to schedule.
        total_steps: Optimizer steps of the run.
        warmup: Steps, or a fraction below 1, of linear warm-up.
        min_lr_ratio: Where it ends, as a part of the base learning rate.

    Returns:
        The scheduler.
    """
    steps = _warmup_steps(warmup, total_steps)
    scheduler: LRScheduler = optimization.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, steps, total_steps, min_lr_rate=min_lr_ratio
    )
    return scheduler


def cosine_restarts(optimizer: Optimizer, *, total_steps: int, warmup: float = 0, cycles: int = 1) -> LRScheduler:
    """Fall along half a cosine several times, jumping back to the full rate; same paper as ``cosine``.

    Args:
        optimizer: The optimizer to schedule.
        total_steps: Optimizer steps of the run.
        warmup: Steps, or a fraction below 1, of linear warm-up.
        cycles: How often it falls; 1 is ``cosine``.

    Returns:
        The scheduler.
    """
    steps = _warmup_steps(warmup, total_steps)
    scheduler: LRScheduler = optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
        optimizer, steps, total_steps, num_cycles=cycles
    )
    return scheduler


def wsd(
    optimizer: Optimizer,
    *,
    total_steps: int,
    warmup: float = 0,
    decay: float = 0.2,
    decay_shape: DecayShape = "1-sqrt",
    min_lr_ratio: float = 0.0,
) -> LRScheduler:
    """Warm up, stay, decay: a run can be prolonged from any point of the middle phase.

    Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395; that a decay over a fifth of the steps with
    the shape ``1 - sqrt`` does as well as a cosine: Haegele et al. 2024, https://arxiv.org/abs/2405.18392.

    Args:
        optimizer: The optimizer to schedule.
        total_steps: Optimizer steps of the run.
        warmup: Steps, or a fraction below 1, of linear warm-up.
        decay: Steps, or a fraction below 1, of the last phase.
        decay_shape: How the last phase falls.
        min_lr_ratio: Where it ends (and warm-up begins), as a part of the base learning rate.

    Returns:
        The scheduler.

    Raises:
        ConfigError: If warm-up and decay together are longer than the run, or the shape is unknown.
    """
    if decay_shape not in get_args(DecayShape):
        raise ConfigError(
            f"scheduler.decay_shape: there is no shape '{decay_shape}'."
            f"{did_you_mean(decay_shape, get_args(DecayShape))} There are: {', '.join(get_args(DecayShape))}."
        )
    warmup_steps = _warmup_steps(warmup, total_steps)
    decay_steps = _decay_steps(decay, total_steps)
    if warmup_steps + decay_steps > total_steps:
        raise ConfigError(
            f"scheduler: {warmup_steps} steps of warm-up and {decay_steps} of decay do not fit into the "
            f"{total_steps} steps of the run. Lower scheduler.warmup or scheduler.decay; numbers below 1 are "
            "fractions of the run."
        )
    scheduler: LRScheduler = optimization.get_wsd_schedule(
        optimizer,
        warmup_steps,
        decay_steps,
        num_training_steps=total_steps,
        decay_type=decay_shape,
        min_lr_ratio=min_lr_ratio,
    )
    return scheduler


def inverse_sqrt(
    optimizer: Optimizer, *, total_steps: int, warmup: float = 0, timescale: int | None = None
) -> LRScheduler:
    """Fall with the inverse square root of the step after warm-up; never reaches zero.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, in the form of Zhai et al. 2022,
    https://arxiv.org/abs/2106.04560.

    Args:
        optimizer: The optimizer to schedule.
        total_steps: Optimizer steps of the run.
        warmup: Steps, or a fraction below 1, of linear warm-up.
        timescale: ``3 * timescale`` steps after warm-up the rate has halved; None means the warm-up steps, or
            10 000 without any.

    Returns:
        The scheduler.
    """
    steps = _warmup_steps(warmup, total_steps)
    scheduler: LRScheduler = optimization.get_inverse_sqrt_schedule(optimizer, steps, timescale=timescale)
    return scheduler


def polynomial(
    optimizer: Optimizer,
    *,
    total_steps: int,
    warmup: float = 0,
    power: float = 2.0,
    min_lr_ratio: float = 0.0,
) -> LRScheduler:
    """Fall with a power of the steps that remain; ``power=1`` is ``linear``.

    Args:
        optimizer: The optimizer to schedule, with its base learning rate in ``defaults``.
        total_steps: Optimizer steps of the run.
        warmup: Steps, or a fraction below 1, of linear warm-up; fewer than ``total_steps``.
        power: 2 falls fast at first and slowly at the end.
        min_lr_ratio: Where it ends, as a part of the base learning rate; below 1.

    Returns:
        The scheduler.

    Raises:
        ConfigError: If warm-up takes the whole run, or ``min_lr_ratio`` is not below 1.
    """
    if not 0.0 <= min_lr_ratio < 1.0:
        raise ConfigError(f"scheduler.min_lr_ratio: must be from 0 to below 1, got {min_lr_ratio}.")
    if warmup >= max(total_steps, 1):
        raise ConfigError(
            f"scheduler.warmup: {int(warmup)} steps of warm-up leave nothing of the run's {total_steps} "
            "steps to decay over. Lower it; a number below 1 is a fraction of the run."
        )
    steps = _warmup_steps(warmup, total_steps)
    scheduler: LRScheduler = optimization.get_polynomial_decay_schedule_with_warmup(
        optimizer, steps, total_steps, lr_end=min_lr_ratio * optimizer.defaults["lr"], power=power
    )
    return scheduler


def _warmup_steps(warmup: float, total_steps: int) -> int:
    """Turn ``warmup`` into steps; a fraction always leaves a step after them."""
    _check_amount("warmup", warmup, total_steps)
    if warmup < 1:
        return min(math.ceil(total_steps * warmup), total_steps - 1)
    if warmup >= total_steps:
        warnings.warn(
            f"scheduler.warmup: the run has {total_steps} steps and warm-up takes {int(warmup)}, so the "
            "learning rate is never reached. Lower it; a number below 1 is a fraction of the run.",
            stacklevel=3,
        )
    return int(warmup)


def _decay_steps(decay: float, total_steps: int) -> int:
    """Turn ``decay`` into steps, a fraction to the nearest number of them."""
    _check_amount("decay", decay, total_steps)
    return int(decay) if decay >= 1 else round(total_steps * decay)


def _check_amount(key: str, amount: float, total_steps: int) -> None:
    """Raise unless ``amount`` is a number of steps or a fraction, and ``total_steps`` is known."""
    if not math.isfinite(total_steps) or total_steps < 1:
        raise ConfigError(
            f"scheduler: the run's number of steps is not known (got {total_steps}). "
            "Set trainer.max_steps or trainer.max_epochs."
        )
    if amount < 0 or (amount >= 1 and not float(amount).is_integer()):
        raise ConfigError(
            f"scheduler.{key}: must be a whole number of steps, or a fraction of the run from 0 to below 1, "
            f"got {amount}."
        )
