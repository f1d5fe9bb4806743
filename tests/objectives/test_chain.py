from __future__ import annotations

import pickle
from dataclasses import replace

import torch
from torch import nn

from graft.objectives.chain import chain
from graft.step import Batch, Step, StepOutput


class Scaled:
    """Multiplies the inner loss, so that order shows."""

    def __init__(self, factor: float, offset: float) -> None:
        self.factor = factor
        self.offset = offset

    def __call__(self, step: Step, model: nn.Module, batch: Batch) -> StepOutput:
        inner = step(model, batch)
        return replace(inner, loss=self.factor * inner.loss + self.offset)


def plain_step(model: nn.Module, batch: Batch) -> StepOutput:
    scored = model(batch["x"])
    return StepOutput(loss=scored.sum(), scored=scored, kind="logits")


def test_no_transform_leaves_the_step_itself() -> None:
    assert chain(plain_step, []) is plain_step


def test_the_first_transform_is_the_outermost() -> None:
    step = chain(plain_step, [Scaled(2.0, 0.0), Scaled(1.0, 3.0)])
    output = step(nn.Identity(), {"x": torch.ones(1, 5)})
    assert output.loss.item() == 2.0 * (5.0 + 3.0)  # inner + 3, then doubled


def test_a_chain_can_be_pickled_for_other_processes() -> None:
    step = pickle.loads(pickle.dumps(chain(plain_step, [Scaled(2.0, 1.0)])))
    assert step(nn.Identity(), {"x": torch.ones(1, 2)}).loss.item() == 5.0
