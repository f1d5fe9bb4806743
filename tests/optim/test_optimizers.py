"""The optimizers that conf/optimizer names, and the factories behind them."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.optim import Optimizer

from graft.errors import MissingDependencyError
from graft.optim.groups import Group, uniform
from graft.optim.modes import follow
from graft.optim.optimizers import adamw, schedule_free

CONF = Path(__file__).resolve().parents[2] / "conf" / "optimizer"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))


def regression() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A noiseless linear problem of 4 inputs and 2 outputs."""
    torch.manual_seed(0)
    inputs = torch.randn(64, 4)
    return nn.Linear(4, 2), inputs, inputs @ torch.randn(4, 2) + 1.0


def groups_of(model: nn.Module, *, lr: float, weight_decay: float) -> list[Group]:
    """Groups of a bare layer; its matrix stands for one inside a block."""
    groups = uniform(model, lr=lr, weight_decay=weight_decay)
    for group in groups:
        group["hidden"] = [p.ndim == 2 for p in group["params"]]
    return groups


def build(option: str, model: nn.Module, **changes: Any) -> Optimizer:
    """What ``build`` makes of a YAML: its target, called with the groups and the other keys."""
    settings = yaml.safe_load((CONF / f"{option}.yaml").read_text()) | changes
    module, _, name = settings.pop("_target_").rpartition(".")
    assert settings.pop("_partial_") is True
    settings = {key: float(value) if key == "lr" else value for key, value in settings.items()}
    groups = groups_of(model, lr=settings["lr"], weight_decay=settings.get("weight_decay", 0.0))
    optimizer: Optimizer = getattr(importlib.import_module(module), name)(groups, **settings)
    return optimizer


def train(optimizer: Optimizer, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, steps: int) -> float:
    follow([optimizer], training=True)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(model(inputs), targets))
        optimizer.step()
    follow([optimizer], training=False)
    return float(nn.functional.mse_loss(model(inputs), targets))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_fits_a_linear_problem(option: str) -> None:
    model, inputs, targets = regression()
    before = float(nn.functional.mse_loss(model(inputs), targets))
    lr = {"sgd": 0.02}.get(option, 0.03)
    after = train(build(option, model, lr=lr, weight_decay=0.0), model, inputs, targets, steps=200)
    assert after < 0.01 * before


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_uses_its_groups_learning_rate_and_decay(option: str) -> None:
    model, inputs, targets = regression()
    optimizer = build(option, model, lr=0.5, weight_decay=0.25)
    assert optimizer.defaults["lr"] == 0.5
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
        group["lr"] = 0.0
    before = [p.clone() for p in model.parameters()]
    train(optimizer, model, inputs, targets, steps=3)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_goes_on_from_its_saved_state_as_if_never_stopped(option: str) -> None:
    model, inputs, targets = regression()
    optimizer = build(option, model, lr=0.01)
    train(optimizer, model, inputs, targets, steps=5)
    other, _, _ = regression()
    other.load_state_dict(model.state_dict())
    resumed = build(option, other, lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(optimizer, model, inputs, targets, steps=5) == train(resumed, other, inputs, targets, steps=5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_adamw_is_fused_by_default_and_gives_the_same_steps() -> None:
    model, inputs, targets = regression()
    fused = adamw(groups_of(model, lr=0.01, weight_decay=0.1), lr=0.01)
    assert fused.param_groups[0]["fused"] is True
    loss = train(fused, model, inputs, targets, steps=20)
    other, _, _ = regression()
    plain = adamw(groups_of(other, lr=0.01, weight_decay=0.1), lr=0.01, fused=False)
    assert plain.param_groups[0]["fused"] is False
    assert train(plain, other, inputs, targets, steps=20) == pytest.approx(loss, rel=1e-5)


def test_adamw_is_not_fused_where_torch_has_no_kernel() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    assert adamw(groups_of(model, lr=0.01, weight_decay=0.0), lr=0.01).param_groups[0]["fused"] is False


def test_adamw_first_step_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    group = Group(name="all", params=[weight], names=["w"], lr=0.1, weight_decay=0.5, hidden=[False])
    optimizer = adamw([group], lr=0.1)
    weight.grad = torch.tensor([3.0, -0.5])
    optimizer.step()
    # shrunk by 0.1 * 0.5, then moved by lr against the gradient's sign: 0.95 - 0.1, -1.9 + 0.1
    torch.testing.assert_close(weight.detach(), torch.tensor([0.85, -1.8]))


def test_adafactor_moves_a_weight_that_is_zero_as_far_as_any_other() -> None:
    # LoRA's B matrices start at zero; with steps scaled by the size of the weight they would hardly move.
    model = nn.Linear(4, 4, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = build("adafactor", model, lr=0.1)
    model.weight.grad = torch.ones(4, 4)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), torch.full((4, 4), -0.1))


def test_schedule_free_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = regression()

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r'optimizer=schedule_free.*\n.*pip install "graft\[optim\]"'):
        schedule_free(groups_of(model, lr=0.1, weight_decay=0.0), lr=0.1)
