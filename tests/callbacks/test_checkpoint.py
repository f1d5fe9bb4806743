from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch

from graft.callbacks.checkpoint import BestCheckpoint
from graft.engine.checkpoint import read_checkpoint
from graft.errors import CheckpointError
from tests.callbacks.toy_run import ToyModule, loader, trainer


def fit(
    run_dir: Path,
    scores: list[float],
    *,
    mode: Literal["max", "min"] = "max",
    monitor: str = "val/accuracy",
    save_top_k: int = 1,
    epochs: int | None = None,
    resume: Path | None = None,
) -> BestCheckpoint:
    keeper = BestCheckpoint(str(run_dir / "checkpoints"), monitor=monitor, mode=mode, save_top_k=save_top_k)
    run = trainer(run_dir, callbacks=[keeper], max_epochs=epochs or len(scores))
    run.fit(ToyModule(scores), loader(), loader(), ckpt_path=str(resume) if resume else None)
    return keeper


def epoch_of(path: Path) -> int:
    return int(read_checkpoint(path)["epoch"])


def test_the_best_and_the_last_are_kept(tmp_path: Path) -> None:
    fit(tmp_path, [0.5, 0.9, 0.7])
    kept = tmp_path / "checkpoints"
    assert sorted(path.name for path in kept.iterdir() if path.suffix != ".sha256") == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
        "scores.json",
    ]
    assert epoch_of(kept / "best.ckpt") == 1
    assert epoch_of(kept / "last.ckpt") == 2


def test_less_can_be_better(tmp_path: Path) -> None:
    fit(tmp_path, [0.5, 0.9, 0.7], monitor="val/loss", mode="min")  # the loss is one minus the score
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 1


def test_scores_say_which_of_several_is_best(tmp_path: Path) -> None:
    fit(tmp_path, [0.5, 0.9, 0.7], save_top_k=2)
    kept = tmp_path / "checkpoints"
    said = json.loads((kept / "scores.json").read_text())
    assert (said["monitor"], said["mode"]) == ("val/accuracy", "max")
    assert sorted(said["scores"].values()) == pytest.approx([0.7, 0.9])
    assert epoch_of(kept / said["best"]) == 1
    assert all((kept / name).is_file() for name in said["scores"])


def test_a_metric_with_a_slash_makes_no_folder(tmp_path: Path) -> None:
    fit(tmp_path, [0.5, 0.6])
    assert not [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_dir()]


def test_a_score_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not kept as the best"):
        keeper = fit(tmp_path, [math.nan, 0.4, math.inf])
    assert epoch_of(Path(keeper.best_model_path)) == 1
    assert keeper.best_model_score == torch.tensor(0.4)


def test_a_run_of_nothing_but_nan_has_no_best(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="val/accuracy is nan"):
        keeper = fit(tmp_path, [math.nan, math.nan])
    assert keeper.best_model_path == ""
    assert {path.name for path in (tmp_path / "checkpoints").glob("*.ckpt")} == {"last.ckpt", "previous.ckpt"}


def test_a_resumed_run_keeps_its_best_and_replaces_it_by_a_better_one(tmp_path: Path) -> None:
    fit(tmp_path, [0.5, 0.9], epochs=2)
    last = tmp_path / "checkpoints" / "last.ckpt"
    keeper = fit(tmp_path, [0.8], epochs=3, resume=last)
    assert epoch_of(Path(keeper.best_model_path)) == 1
    fit(tmp_path, [0.95], epochs=4, resume=last)
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 3
    assert sorted(path.name for path in last.parent.glob("b*.ckpt")) == ["best.ckpt"]


def test_a_moved_run_resumes_with_its_best(tmp_path: Path) -> None:
    fit(tmp_path / "here", [0.9], epochs=1)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "checkpoints"
    keeper = fit(tmp_path / "there", [0.8], epochs=2, resume=moved / "last.ckpt")
    assert keeper.best_model_path == str(moved / "best.ckpt")
    assert epoch_of(moved / "best.ckpt") == 0


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "max"), ("val/accuracy", "min")])
def test_resuming_by_another_metric_is_refused(tmp_path: Path, monitor: str, mode: Literal["max", "min"]) -> None:
    fit(tmp_path, [0.9], epochs=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(CheckpointError, match=r"val/accuracy \(max\)"):
        fit(tmp_path, [0.8], monitor=monitor, mode=mode, epochs=2, resume=last)


def test_the_best_and_last_of_one_step_share_the_disk(tmp_path: Path) -> None:
    fit(tmp_path, [0.5])
    kept = tmp_path / "checkpoints"
    assert (kept / "best.ckpt").samefile(kept / "last.ckpt")


def test_without_validation_the_end_is_kept(tmp_path: Path) -> None:
    keeper = BestCheckpoint(str(tmp_path / "checkpoints"), monitor="val/accuracy", mode="max")
    trainer(tmp_path, callbacks=[keeper]).fit(ToyModule(), loader())
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 3
