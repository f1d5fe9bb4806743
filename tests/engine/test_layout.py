"""One update, however the batch of an optimizer step is cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graft.build import build_run
from graft.config.compose import load_config
from graft.models.state import trainable_state

SETTING = (
    *("model=tiny_bert", "model.dropout=0.0", "peft=full", "optimizer=sgd", "optimizer.lr=0.05", "seed=3"),
    *("data=financial_news", "data.limit=45", "data.batch_size=12", "trainer=cpu", "trainer.max_epochs=2"),
    *("trainer.limit_val_batches=0", "task.class_weights=balanced"),
)
"""4 steps an epoch: three of 12 rows, and one of 9, which 2 and 4 do not divide."""


def trained(*overrides: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    run = build_run(load_config("train", [*SETTING, *overrides]), run_dir=None)
    run.trainer.fit(run.module, datamodule=run.data)
    assert run.trainer.global_step == 8
    assert run.module.model is not None
    return {name: value.clone() for name, value in trainable_state(run.module.model).items()}


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    return trained()


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_micro_batches_make_the_update_of_the_whole_batch(whole: dict[str, Tensor], parts: int) -> None:
    cut = trained(f"trainer.accumulate_grad_batches={parts}")
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_the_weights_have_moved(whole: dict[str, Tensor]) -> None:
    start = trained("optimizer.lr=0.0")
    assert max(float((value - start[name]).abs().max()) for name, value in whole.items()) > 0.01
