"""Schedules: parity with transformers, warm-up as steps or fraction, and a last step near zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import optimization as hf

from graft.errors import ConfigError
from graft.optim import schedules

Make = Callable[..., LRScheduler]
ALL: list[Make] = [
    schedules.constant,
    schedules.linear,
    schedules.cosine,
    schedules.cosine_restarts,
    schedules.wsd,
    schedules.inverse_sqrt,
    schedules.polynomial,
]
every_schedule = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)


def optimizer_of(*rates: float) -> Optimizer:
    groups: list[dict[str, Any]] = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def rates_of(optimizer: Optimizer, scheduler: LRScheduler, steps: int) -> list[float]:
    """The learning rate that each optimizer step is taken with, and the one after the last."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


def curve(make: Make, *, total_steps: int = 20, lr: float = 1.0, **settings: Any) -> list[float]:
    optimizer = optimizer_of(lr)
    return rates_of(optimizer, make(optimizer, total_steps=total_steps, **settings), total_steps)


def reference(make: Callable[[Optimizer], LRScheduler], *, total_steps: int = 20, lr: float = 1.0) -> list[float]:
    optimizer = optimizer_of(lr)
    return rates_of(optimizer, make(optimizer), total_steps)


PARITY: dict[str, tuple[Make, dict[str, Any], Callable[[Optimizer], Any]]] = {
    "constant": (schedules.constant, {}, lambda o: hf.get_constant_schedule_with_warmup(o, 4)),
    "linear": (schedules.linear, {}, lambda o: hf.get_linear_schedule_with_warmup(o, 4, 20)),
    "cosine": (schedules.cosine, {}, lambda o: hf.get_cosine_schedule_with_warmup(o, 4, 20)),
    "cosine to a tenth": (
        schedules.cosine,
        {"min_lr_ratio": 0.1},
        lambda o: hf.get_cosine_with_min_lr_schedule_with_warmup(o, 4, 20, min_lr_rate=0.1),
    ),
    "cosine_restarts": (
        schedules.cosine_restarts,
        {"cycles": 3},
        lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 4, 20, num_cycles=3),
    ),
    "wsd": (
        schedules.wsd,
        {"decay": 6, "decay_shape": "cosine"},
        lambda o: hf.get_wsd_schedule(o, 4, 6, num_training_steps=20),
    ),
    "inverse_sqrt": (schedules.inverse_sqrt, {}, lambda o: hf.get_inverse_sqrt_schedule(o, 4)),
    "polynomial": (
        schedules.polynomial,
        {"power": 2, "min_lr_ratio": 0.01},
        lambda o: hf.get_polynomial_decay_schedule_with_warmup(o, 4, 20, lr_end=0.02, power=2),
    ),
}


@pytest.mark.parametrize("name", PARITY)
def test_curve_equals_that_of_transformers(name: str) -> None:
    make, settings, theirs = PARITY[name]
    assert curve(make, warmup=4, lr=2.0, **settings) == reference(theirs, lr=2.0)


@every_schedule
def test_rate_is_above_zero_from_the_second_step_on_and_full_after_warmup(make: Make) -> None:
    rates = curve(make, warmup=4)
    assert rates[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]  # 4 steps of warm-up; the first is taken with 0, as in HF


@every_schedule
def test_without_warmup_the_first_step_has_the_full_rate(make: Make) -> None:
    assert curve(make)[0] == 1.0


@pytest.mark.parametrize(
    "make",
    [schedules.linear, schedules.cosine, schedules.cosine_restarts, schedules.wsd, schedules.polynomial],
    ids=lambda make: make.__name__,
)
def test_decay_reaches_zero_right_after_the_last_step(make: Make) -> None:
    rates = curve(make, total_steps=100, warmup=0.1)
    assert 0 < rates[-2] < 0.06
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_linear_by_hand() -> None:
    assert curve(schedules.linear, total_steps=6, warmup=2) == [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_wsd_stays_and_then_falls() -> None:
    rates = curve(schedules.wsd, total_steps=10, warmup=2, decay=0.4, decay_shape="linear")
    assert rates == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_wsd_falls_by_one_minus_the_square_root_unless_told_otherwise() -> None:
    rates = curve(schedules.wsd, total_steps=10, decay=4)
    assert rates[6:] == pytest.approx([1.0, 1 - 0.25**0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0.0])


def test_inverse_sqrt_has_halved_three_timescales_after_warmup() -> None:
    rates = curve(schedules.inverse_sqrt, total_steps=20, warmup=4)  # the timescale is the warm-up
    assert rates[4 + 3 * 4] == 0.5


def test_polynomial_of_power_one_is_linear() -> None:
    assert curve(schedules.polynomial, warmup=4, power=1.0) == pytest.approx(curve(schedules.linear, warmup=4))


def test_cosine_restarts_jump_back_to_the_full_rate() -> None:
    rates = curve(schedules.cosine_restarts, total_steps=12, cycles=3)
    assert [rates[0], rates[4], rates[8]] == [1.0, 1.0, 1.0]
    assert max(rates[3], rates[7], rates[11]) < 0.2


@every_schedule
def test_a_fraction_of_warmup_is_that_part_of_the_steps_rounded_up(make: Make) -> None:
    assert curve(make, total_steps=50, warmup=0.06) == curve(make, total_steps=50, warmup=3)
    assert curve(make, total_steps=50, warmup=0.05) == curve(make, total_steps=50, warmup=3)  # 2.5 -> 3


@every_schedule
def test_a_run_of_one_step_still_trains_when_warmup_is_a_fraction(make: Make) -> None:
    assert curve(make, total_steps=1, warmup=0.06)[0] == 1.0


@every_schedule
def test_every_group_keeps_its_share_of_the_rate(make: Make) -> None:
    optimizer = optimizer_of(1.0, 0.1)
    scheduler = make(optimizer, total_steps=20, warmup=2)
    for _ in range(15):
        optimizer.step()
        scheduler.step()
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(first * 0.1)


@every_schedule
def test_a_reloaded_schedule_goes_on_where_it_was(make: Make) -> None:
    unbroken = curve(make, warmup=4)
    first = optimizer_of(1.0)
    schedule = make(first, total_steps=20, warmup=4)
    rates_of(first, schedule, 9)
    second = optimizer_of(1.0)
    resumed = make(second, total_steps=20, warmup=4)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert rates_of(second, resumed, 11) == unbroken[9:]


@every_schedule
@pytest.mark.parametrize("warmup", [-1, -0.1, 2.5])
def test_a_warmup_that_is_neither_steps_nor_a_fraction_is_refused(make: Make, warmup: float) -> None:
    with pytest.raises(ConfigError, match=r"scheduler\.warmup.*got"):
        curve(make, warmup=warmup)


@every_schedule
def test_an_unknown_number_of_steps_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_steps"):
        make(optimizer_of(1.0), total_steps=0)


def test_warmup_longer_than_the_run_warns() -> None:
    with pytest.warns(UserWarning, match="never reached"):
        curve(schedules.linear, total_steps=4, warmup=100)


def test_polynomial_refuses_warmup_over_the_whole_run() -> None:
    with pytest.raises(ConfigError, match=r"leave nothing"):
        curve(schedules.polynomial, total_steps=4, warmup=4)


def test_wsd_refuses_phases_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="do not fit into the 10 steps"):
        curve(schedules.wsd, total_steps=10, warmup=6, decay=5)


def test_wsd_names_the_nearest_shape() -> None:
    with pytest.raises(ConfigError, match="Did you mean '1-sqrt'"):
        curve(schedules.wsd, decay_shape="1-sqr")
