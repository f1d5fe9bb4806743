"""Lion against hand-computed steps."""

from __future__ import annotations

import torch
from torch import nn

from graft.optim.lion import Lion


def test_two_steps_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = Lion([weight], lr=0.1, betas=(0.9, 0.5), weight_decay=0.5)

    weight.grad = torch.tensor([2.0, -4.0])
    optimizer.step()
    # shrunk to +-0.95, then moved by 0.1 against the sign of 0.1 * g; m = 0.5 * g = [1, -2]
    torch.testing.assert_close(weight.detach(), torch.tensor([0.85, -0.85]))

    weight.grad = torch.tensor([-8.0, -8.0])
    optimizer.step()
    # direction 0.9 * [1, -2] + 0.1 * [-8, -8] = [0.1, -2.6]: the momentum wins, both move as before
    torch.testing.assert_close(weight.detach(), torch.tensor([0.85 * 0.95 - 0.1, -0.85 * 0.95 + 0.1]))
    torch.testing.assert_close(optimizer.state[weight]["momentum"], torch.tensor([-3.5, -5.0]))


def test_a_parameter_without_gradient_is_left_alone() -> None:
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Lion([moved, still], lr=0.1, weight_decay=0.5)
    moved.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(still, torch.ones(2))
    assert not torch.equal(moved, torch.ones(2))
    assert still not in optimizer.state


def test_the_closure_runs_with_gradients_and_its_loss_comes_back() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    optimizer = Lion([weight], lr=0.1)

    def closure() -> float:
        loss = weight.square().sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    assert optimizer.step(closure) == 9.0
    torch.testing.assert_close(weight.detach(), torch.tensor([2.9]))
