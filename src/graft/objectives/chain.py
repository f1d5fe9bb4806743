"""Chaining transforms around a step, the outermost first.

After ``optax.chain``: each transform takes the inner step and returns one :class:`StepOutput` with a scalar loss, so
Lightning keeps doing precision, accumulation, clipping and DDP.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

from torch import nn

from graft.step import Batch, Step, StepOutput, Transform


def chain(step: Step, transforms: Sequence[Transform]) -> Step:
    """Wrap a step in transforms.

    Args:
        step: The innermost step, a task's.
        transforms: In the order of the command line; the first is the outermost. None leaves the step as it is.

    Returns:
        A step that can be pickled when its parts can.
    """
    return reduce(_wrap, reversed(transforms), step)


def _wrap(step: Step, transform: Transform) -> Step:
    return partial(_apply, transform, step)


def _apply(transform: Transform, step: Step, model: nn.Module, batch: Batch) -> StepOutput:
    return transform(step, model, batch)
