"""Every trainer YAML fits and tests; those that need several processes or a GPU are marked so."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from graft.build import Run
from tests.contracts.parts import assembled, build, config, options_of

MARKS: dict[str, Any] = {"gpu": pytest.mark.gpu, "ddp": pytest.mark.slow}


@dataclass
class Seen(pl.Callback):
    """Notes the rows of every training batch, and the losses."""

    rows: list[list[int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.rows.append(batch["row"].tolist())
        self.losses.append(float(outputs["loss"]))


def fitted(trainer: str, **settings: Any) -> tuple[Run, Seen]:
    """Fit and test with a trainer YAML, on the CPU unless it says otherwise."""
    own = {} if trainer == "gpu" else {"trainer.accelerator": "cpu"}
    cfg = config(f"trainer={trainer}", "peft=full", settings={"model.dropout": 0.0, **own, **settings})
    seen = Seen()
    run = build(cfg, callbacks=[seen])
    run.trainer.fit(run.module, datamodule=run.data)
    run.trainer.test(run.module, datamodule=run.data, verbose=False)
    return run, seen


@pytest.mark.parametrize(
    "trainer", [pytest.param(name, marks=MARKS.get(name, ())) for name in options_of("trainer") if name != "ddp"]
)
def test_every_trainer_fits_and_tests(trainer: str) -> None:
    run, seen = fitted(trainer)
    assert run.trainer.global_step == len(seen.losses) > 0
    assert all(map(math.isfinite, seen.losses))
    wanted = assembled(f"trainer={trainer}").trainer
    assert run.trainer.gradient_clip_val == wanted.gradient_clip_val
    if wanted.get("limit_test_batches") != 0:
        assert 0 <= float(run.trainer.callback_metrics["test/accuracy"]) <= 1


def test_a_smoke_run_takes_four_steps_and_a_batch_of_the_other_splits() -> None:
    run, seen = fitted("smoke", **{"data.eval_batch_size": 3})
    assert len(seen.losses) == 4
    assert run.trainer.num_val_batches == [1]
    assert run.trainer.num_test_batches == [1]


def test_overfitting_sees_the_same_batch_every_epoch_and_learns_it() -> None:
    """Lightning replaces a DataLoader's sampler for that, and ours is none."""
    run, seen = fitted("overfit")
    assert len(seen.rows) == run.trainer.max_epochs == 50
    assert all(rows == seen.rows[0] for rows in seen.rows)
    assert seen.losses[-1] < 0.1 * seen.losses[0]


def test_overfitting_several_batches_sees_these_in_their_order(recwarn: pytest.WarningsRecorder) -> None:
    _, seen = fitted("overfit", **{"trainer.overfit_batches": 2, "trainer.max_epochs": 3})
    assert seen.rows[:2] == seen.rows[2:4] == seen.rows[4:]
    assert seen.rows[0] != seen.rows[1]
    assert not [one for one in recwarn if "requested to overfit" in str(one.message)]


def test_other_trainers_see_the_rows_in_a_new_order_every_epoch() -> None:
    _, seen = fitted("cpu", **{"trainer.max_epochs": 2})
    assert seen.rows[:5] != seen.rows[5:]
    assert sorted(chain(*seen.rows[:5])) == sorted(chain(*seen.rows[5:])) == list(range(36))


def test_profiling_measures_parts_of_a_step() -> None:
    run, seen = fitted("profile")
    assert len(seen.losses) == 5  # an epoch, which is shorter than its 40 steps
    durations = run.trainer.profiler.recorded_durations  # type: ignore[attr-defined]
    assert len(durations["run_training_batch"]) == 5


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """Gradients are averaged over processes whose rows together are those of one, and nothing is padded."""
    splits = config().data.source.splits
    for split in ("train", "validation", "test"):
        text = "".join(json.dumps(dict(row)) + "\n" for row in splits[split])
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    words = [
        *("train", "model=tiny_bert", "model.dropout=0.0", "peft=full", "optimizer.lr=3e-3", "logger=[csv]"),
        *("data=jsonl", "data.batch_size=8", "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=2"),
        *("callbacks=[checkpoint]", *(f"data.source.{split}={tmp_path / split}.jsonl" for split in splits)),
    ]
    metrics = []
    for devices in (1, 2):
        logs = tmp_path / f"logs{devices}"
        environment = {**os.environ, "GRAFT_LOGS": str(logs), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "graft", *words, f"trainer.devices={devices}"]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "sync_dist" not in ended.stderr  # advice that does not apply
        (found,) = logs.rglob("metrics.json")  # one folder, whatever the number of processes
        metrics.append(json.loads(found.read_text(encoding="utf-8")))
    assert metrics[0]["test"].keys() == metrics[1]["test"].keys()
    for name, value in metrics[0]["test"].items():
        assert metrics[1]["test"][name] == pytest.approx(value, abs=1e-3), name
