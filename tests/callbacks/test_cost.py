from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from graft.callbacks.cost import Cost, parameter_counts, peak_rss
from graft.callbacks.counting import Count
from tests.callbacks.toy_run import ToyModule, batches, loader, trainer


def cost_of(run_dir: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run_dir / "cost.json").read_text())
    return loaded


def test_samples_and_tokens_are_counted(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[Cost(tmp_path)], max_epochs=2).fit(ToyModule(), loader(), loader())
    cost = cost_of(tmp_path)
    assert cost["train"]["samples"] == 20  # ten rows, two epochs
    assert cost["train"]["tokens"] == 110  # 1 + 2 + ... + 10 tokens, twice
    assert cost["train"]["optimizer_steps"] == 6
    assert cost["test"] is None
    assert cost["processes"] == 1


class Slow(ToyModule):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.1)
        return super().validation_step(batch, batch_idx)


def test_validation_is_not_booked_as_training(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[Cost(tmp_path)]).fit(Slow(), loader(), loader())
    cost = cost_of(tmp_path)
    seconds = cost["seconds"]
    assert cost["train"]["samples_per_second"] == pytest.approx(10 / seconds["train"], rel=0.01)
    assert cost["train"]["tokens_per_second"] == pytest.approx(55 / seconds["train"], rel=0.01)
    assert 0.15 <= seconds["train"] < 0.3  # three steps of 0.05 s
    assert 0.3 <= seconds["validation"] < 0.5  # three of 0.1 s


def test_testing_is_added_and_training_kept(tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[Cost(tmp_path)])
    module = ToyModule()
    run.fit(module, loader(), loader())
    run.test(module, loader(batches((4, 3))), verbose=False)
    cost = cost_of(tmp_path)
    assert (cost["train"]["samples"], cost["test"]["samples"], cost["test"]["tokens"]) == (10, 7, 28)
    assert cost["seconds"]["test"] > 0
    assert cost["seconds"]["total"] == pytest.approx(
        sum(cost["seconds"][phase] for phase in ("setup", "train", "validation", "test")), abs=0.01
    )


def test_parameters_are_counted_once_and_by_what_trains() -> None:
    first = torch.nn.Linear(4, 3)  # 12 + 3
    tied = torch.nn.Linear(4, 3, bias=False)
    tied.weight = first.weight
    first.bias.requires_grad_(False)
    assert parameter_counts(torch.nn.Sequential(first, tied)) == (12, 15)


def test_a_resumed_run_adds_to_what_it_cost_before(tmp_path: Path) -> None:
    from graft.callbacks.checkpoint import BestCheckpoint

    def callbacks() -> list[Any]:
        keeper = BestCheckpoint(str(tmp_path / "checkpoints"), monitor="val/accuracy", mode="max")
        return [Cost(tmp_path), keeper]

    trainer(tmp_path, callbacks=callbacks()).fit(ToyModule(), loader(), loader())
    before = cost_of(tmp_path)["seconds"]["train"]
    last = tmp_path / "checkpoints" / "last.ckpt"
    trainer(tmp_path, callbacks=callbacks(), max_epochs=2).fit(ToyModule(), loader(), loader(), ckpt_path=last)
    after = cost_of(tmp_path)
    assert (after["train"]["samples"], after["train"]["tokens"]) == (20, 110)
    assert after["seconds"]["train"] > 0.5 * before


def test_a_failed_run_says_what_it_cost(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="went"):
        trainer(tmp_path, callbacks=[Cost(tmp_path)]).fit(ToyModule(fail_at=2), loader(), loader())
    assert cost_of(tmp_path)["train"]["samples"] == 8


def test_peak_memory_is_in_bytes() -> None:
    assert 50 * 2**20 < peak_rss() < 64 * 2**30  # torch alone takes more than 50 MiB


def test_batches_without_a_mask_have_rows_but_no_tokens() -> None:
    count = Count()
    count.add({"temperature": torch.tensor(1.0), "pixels": torch.zeros(5, 3, 2, 2)})
    assert (count.rows, count.batches, count.tokens) == (5, 1, None)
