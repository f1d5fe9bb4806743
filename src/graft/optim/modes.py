"""Optimizers whose weights differ between training and evaluation, such as schedule-free ones.

Such an optimizer keeps the point where gradients are taken in the parameters while it trains, and must put
the average there before anything is evaluated or saved. It says so by having ``train()`` and ``eval()``. The
rule for whoever trains: the optimizers' mode follows the model's.

* Before the first step, and after an evaluation: ``follow(optimizers, training=True)``.
* Before an evaluation, and when training ends: ``follow(optimizers, training=False)``.
* A checkpoint holds the weights that are evaluated, and an optimizer state that says so: take both inside
  ``with evaluating(optimizers, training=...)`` and copy the tensors there, because the parameters are changed
  in place when the block ends. A run resumed from it calls ``follow(optimizers, training=True)`` at its start
  like any other, and so repeats what the unbroken run did after it saved.

For all other optimizers these calls do nothing. Pass the optimizers themselves (``trainer.optimizers``), not
wrappers around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class ModeAware(Protocol):
    """An optimizer with a training mode and an evaluation mode; calling either twice changes nothing more."""

    def train(self) -> None:
        """Put the weights to train at into the parameters."""

    def eval(self) -> None:
        """Put the weights to evaluate and to save into the parameters."""


def follow(optimizers: Iterable[object], *, training: bool) -> None:
    """Bring every optimizer that has modes into the model's mode.

    Args:
        optimizers: The optimizers; those without modes are left alone.
        training: Whether the model trains from here on.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, ModeAware):
            if training:
                optimizer.train()
            else:
                optimizer.eval()


@contextmanager
def evaluating(optimizers: Iterable[object], *, training: bool) -> Iterator[None]:
    """Have the weights that are evaluated and saved in the parameters inside the block.

    Args:
        optimizers: The optimizers; those without modes are left alone.
        training: Whether the model trains around the block, so that training goes on after it.

    Yields:
        Nothing.
    """
    held = list(optimizers)
    follow(held, training=False)
    try:
        yield
    finally:
        follow(held, training=training)
