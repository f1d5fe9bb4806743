"""A run that was cut off and resumed equals the unbroken run, bit for bit."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch

from graft.engine.resume import random_state, set_random_state
from tests.engine.crash import End, assert_same_end, run_to_end

SETTINGS: dict[str, tuple[str, ...]] = {
    "full": ("peft=full",),
    "lora_shuffled": ("data.bucket=0",),
    "accumulation": ("peft=full", "trainer.accumulate_grad_batches=2"),
    "validation_within_epochs": ("trainer.val_check_interval=3", "callbacks.checkpoint.save_top_k=2"),
    "early_stopping": (
        "callbacks=[checkpoint,early_stopping]",
        "callbacks.early_stopping.patience=2",
        "trainer.val_check_interval=2",
    ),
    "schedule_free": ("peft=full", "optimizer=schedule_free", "scheduler=constant"),
    "bf16": ("peft=full", "trainer.precision=bf16-mixed"),
    "two_workers": ("data.num_workers=2",),
}
BATCHES = 14  # at least; some settings end earlier


@cache
def unbroken(name: str) -> End:
    return run_to_end(Path(mkdtemp()), SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_cut_off_three_times_ends_as_the_unbroken_one(name: str, tmp_path: Path) -> None:
    # Before the first checkpoint; within the first epoch, behind one; then soon after going on.
    assert_same_end(run_to_end(tmp_path, SETTINGS[name], cut_at=(1, 5, 3)), unbroken(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "early_stopping"])
@pytest.mark.parametrize("at", [3, 4, 6, 7, 8, 9, 12])
def test_a_run_cut_off_anywhere_ends_as_the_unbroken_one(name: str, at: int, tmp_path: Path) -> None:
    assert_same_end(run_to_end(tmp_path, SETTINGS[name], cut_at=(at,)), unbroken(name))


def test_all_generators_go_on_where_they_were() -> None:
    def draw() -> tuple[float, float, float, float]:
        return random.gauss(0, 1), np.random.standard_normal(), float(torch.rand(())), random.random()

    draw()  # leaves half of a pair of normal numbers in two of them
    state = random_state()
    expected = [draw() for _ in range(3)]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    set_random_state(state)
    assert [draw() for _ in range(3)] == expected


def test_a_random_state_is_tensors_and_plain_values(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "state")
    assert torch.load(tmp_path / "state", weights_only=True).keys() >= {"python", "numpy", "torch"}
