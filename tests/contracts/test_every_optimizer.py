"""Every optimizer, schedule and way of grouping parameters, in the loop that real runs go through."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from graft.build import Run
from tests.contracts.parts import config, fit, options_of

LR = {"sgd": 5e-2, "lion": 1e-3, "schedule_free": 1e-2}
"""Learning rates at which the tiny problem is learned; 3e-3 for all others."""

DECAYING = {"linear", "cosine", "cosine_restarts", "wsd", "polynomial"}
"""Schedules that end at zero."""


@dataclass
class Recorder(pl.Callback):
    """Notes losses, and the learning rate that each optimizer step is taken with."""

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.groups = [dict(group) for group in trainer.optimizers[0].param_groups]

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *given: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def train(*choices: str, **settings: Any) -> tuple[Run, Recorder]:
    recorder = Recorder()
    values = {"model.dropout": 0.0, "trainer.limit_val_batches": 0, **settings}
    return fit(config(*choices, settings=values), callbacks=[recorder]), recorder


@pytest.mark.parametrize("optimizer", options_of("optimizer"))
def test_every_optimizer_brings_the_loss_down(optimizer: str) -> None:
    _, seen = train(
        f"optimizer={optimizer}",
        "peft=full",
        "scheduler=constant",
        **{"optimizer.lr": LR.get(optimizer, 3e-3), "trainer.max_epochs": 10},
    )
    assert len(seen.losses) == 10 * 5  # 36 rows by 8
    assert sum(seen.losses[-5:]) < 0.7 * sum(seen.losses[:5])


@pytest.mark.parametrize("optimizer", options_of("optimizer"))
def test_every_optimizer_takes_its_lr_and_decay_from_its_own_yaml(optimizer: str) -> None:
    """The groups are made before the optimizer, from the same two values."""
    settings = {"optimizer.lr": 0.0123, "trainer.max_steps": 1}
    _, seen = train(f"optimizer={optimizer}", "peft=full", "scheduler=constant", **settings)
    decay = {group["name"]: group["weight_decay"] for group in seen.groups}
    assert {group["lr"] for group in seen.groups} == {0.0123}
    assert min(decay.values()) == 0.0  # norms and biases
    _, seen = train(
        f"optimizer={optimizer}",
        "peft=full",
        "scheduler=constant",
        **{**settings, "optimizer.weight_decay": 0.321},
    )
    assert max(group["weight_decay"] for group in seen.groups) == 0.321


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("scheduler", options_of("scheduler"))
def test_every_schedule_moves_once_an_optimizer_step(scheduler: str, accumulated: int) -> None:
    """T6: stepped once an epoch, the whole first epoch would train with a rate of zero."""
    run, seen = train(
        f"scheduler={scheduler}",
        **{
            "scheduler.warmup": 2,
            "optimizer.lr": 0.01,
            "trainer.max_epochs": 4,
            "trainer.accumulate_grad_batches": accumulated,
        },
    )
    steps = 4 * 5
    assert run.trainer.global_step == steps
    assert len(seen.rates) == steps
    assert len(seen.losses) == steps * accumulated
    assert seen.rates[:3] == pytest.approx([0.0, 0.005, 0.01])  # two steps of warm-up, then the full rate
    if scheduler in DECAYING:
        assert 0 < seen.rates[-1] < 0.0025
        assert run.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    else:
        assert seen.rates[-1] > 0.001
    again = {"scheduler.warmup": 0, "optimizer.lr": 0.01, "trainer.max_steps": 2}
    assert train(f"scheduler={scheduler}", **again)[1].rates[0] == 0.01


@pytest.mark.parametrize(
    ("batch_size", "accumulated"),
    [
        pytest.param(8, 4, id="even"),
        pytest.param(8, 8, id="a short window"),  # T5: the last batch has 4 rows, so 4 micro-batches and not 8
        pytest.param(10, 4, id="uneven"),  # micro-batches of 3 and 2 rows
    ],
)
def test_accumulated_micro_batches_train_like_the_whole_batch(batch_size: int, accumulated: int) -> None:
    """``data.batch_size`` is the batch of an optimizer step, so accumulation changes memory and nothing else."""
    settings = {"data.batch_size": batch_size, "trainer.max_epochs": 1, "scheduler.warmup": 0, "optimizer.lr": 0.1}
    whole, _ = train("peft=full", "optimizer=sgd", **settings)
    parts, _ = train("peft=full", "optimizer=sgd", **settings, **{"trainer.accumulate_grad_batches": accumulated})
    assert whole.trainer.global_step == parts.trainer.global_step == math.ceil(36 / batch_size)
    assert whole.module.model is not None
    assert parts.module.model is not None
    torch.testing.assert_close(parts.module.model.state_dict(), whole.module.model.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("param_groups", "peft"),
    [
        (param_groups, peft)
        for param_groups in options_of("param_groups")
        for peft in ("full", "lora", "norms")
        if param_groups != "lora_plus" or peft == "lora"
    ],
)
def test_every_grouping_covers_each_trained_parameter_once(param_groups: str, peft: str) -> None:
    run, seen = train(f"param_groups={param_groups}", f"peft={peft}", **{"trainer.max_steps": 1})
    assert run.module.model is not None
    covered = Counter(id(weight) for group in seen.groups for weight in group["params"])
    assert set(covered.values()) == {1}
    assert covered.keys() == {id(weight) for weight in run.module.model.parameters() if weight.requires_grad}
    assert len({group["name"] for group in seen.groups}) == len(seen.groups)
