"""Optimizers with a training and an evaluation mode."""

from __future__ import annotations

import copy

import torch
from torch import nn

from graft.optim.groups import no_decay
from graft.optim.modes import ModeAware, evaluating, follow
from graft.optim.optimizers import adamw, schedule_free


def problem() -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    return model, schedule_free(no_decay(model, lr=0.05, weight_decay=0.01), lr=0.05)


def step(model: nn.Linear, optimizer: torch.optim.Optimizer, times: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(times):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()


def test_schedule_free_has_modes_and_adamw_has_none() -> None:
    model, optimizer = problem()
    assert isinstance(optimizer, ModeAware)
    assert not isinstance(adamw(no_decay(model, lr=0.1, weight_decay=0.0), lr=0.1), ModeAware)


def test_weights_differ_between_the_modes_and_come_back() -> None:
    model, optimizer = problem()
    follow([optimizer], training=True)
    step(model, optimizer, 5)
    trained = model.weight.detach().clone()
    with evaluating([optimizer], training=True):
        averaged = model.weight.detach().clone()
    assert not torch.allclose(averaged, trained)
    torch.testing.assert_close(model.weight.detach(), trained)


def test_evaluating_leaves_an_evaluating_optimizer_as_it_is() -> None:
    model, optimizer = problem()
    follow([optimizer], training=True)
    step(model, optimizer, 5)
    follow([optimizer], training=False)
    averaged = model.weight.detach().clone()
    with evaluating([optimizer], training=False):
        assert torch.equal(model.weight, averaged)
    assert torch.equal(model.weight, averaged)


def test_evaluating_goes_back_to_training_after_an_error() -> None:
    model, optimizer = problem()
    follow([optimizer], training=True)
    try:
        with evaluating([optimizer], training=True):
            raise RuntimeError
    except RuntimeError:
        pass
    step(model, optimizer, 1)  # raises if the optimizer still evaluated


def test_a_run_resumed_from_a_checkpoint_repeats_the_unbroken_run() -> None:
    model, optimizer = problem()
    follow([optimizer], training=True)
    step(model, optimizer, 5)
    with evaluating([optimizer], training=True):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        state = copy.deepcopy(optimizer.state_dict())
    step(model, optimizer, 5)

    resumed_model, resumed = problem()
    resumed_model.load_state_dict(weights)
    resumed.load_state_dict(state)
    follow([resumed], training=True)
    step(resumed_model, resumed, 5)
    assert torch.equal(resumed_model.weight, model.weight)


def test_optimizers_without_modes_are_left_alone() -> None:
    model = nn.Linear(2, 2)
    optimizer = adamw(no_decay(model, lr=0.1, weight_decay=0.0), lr=0.1)
    before = model.weight.detach().clone()
    with evaluating([optimizer], training=True):
        assert torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)
