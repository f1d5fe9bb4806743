"""Every task with every loss that fits it: it learns, and its metrics are those of the whole split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from omegaconf import DictConfig

from graft.build import Run
from graft.config.compat import check_parts
from graft.errors import IncompatibleError
from tests.contracts.parts import assembled, config, fit, options_of

PAIRS = [(task, loss) for task in options_of("task") for loss in options_of("task/loss")]


def refusal(cfg: DictConfig) -> str | None:
    try:
        check_parts(cfg)
    except IncompatibleError as error:
        return str(error)
    return None


FITTING = [pair for pair in PAIRS if refusal(assembled(f"task={pair[0]}", f"task/loss={pair[1]}")) is None]


@pytest.mark.parametrize(("task", "loss"), FITTING)
def test_every_task_learns_with_every_loss_that_fits(task: str, loss: str) -> None:
    settings = {"model.dropout": 0.0, "trainer.max_epochs": 15, "trainer.check_val_every_n_epoch": 5}
    run = fit(config(f"task={task}", f"task/loss={loss}", "peft=full", settings=settings))
    metric = f"val/{run.task.monitor}"
    history = [entry[metric] for entry in run.module.history]
    assert len(history) == 3
    assert history[-1] > 0.75
    assert run.module.history[-1]["val/loss"] < run.module.history[0]["val/loss"]


def test_every_task_and_every_loss_is_in_a_fitting_pair() -> None:
    assert {task for task, _ in FITTING} == set(options_of("task"))
    assert {loss for _, loss in FITTING} == set(options_of("task/loss"))


@pytest.mark.parametrize(("task", "loss"), [pair for pair in PAIRS if pair not in FITTING])
def test_a_loss_that_does_not_fit_is_refused_with_those_that_do(task: str, loss: str) -> None:
    told = refusal(assembled(f"task={task}", f"task/loss={loss}"))
    assert told is not None
    offered = [word.removeprefix("task/loss=").rstrip(",.") for word in told.split() if word.startswith("task/loss=")]
    assert offered
    for one in offered[1:]:
        assert refusal(assembled(f"task={task}", f"task/loss={one}")) is None


def evaluated(task: str, **settings: Any) -> tuple[Run, dict[str, float]]:
    """Train a little, so that some rows are wrong, and test."""
    values = {"trainer.max_epochs": 3, "trainer.limit_val_batches": 0, "model.dropout": 0.0, **settings}
    run = fit(config(f"task={task}", "peft=full", settings=values))
    run.trainer.test(run.module, datamodule=run.data, verbose=False)
    return run, {name: float(value) for name, value in run.trainer.callback_metrics.items() if name.startswith("test/")}


def predicted(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scores and targets of the test rows, one row at a time."""
    assert run.module.model is not None
    batches = [run.task.collate([run.data.encoded("test")[index]]) for index in range(len(run.data.encoded("test")))]
    with torch.no_grad():
        scores = [run.task.step(run.module.model.eval(), batch).scored for batch in batches]
    return torch.cat(scores), torch.cat([batch["targets"] for batch in batches])


@pytest.mark.parametrize("size", [1, 5, 64])
def test_metrics_of_one_label_are_those_of_the_whole_split(size: int) -> None:
    """M2, M4: 14 rows in batches of 1, of 5 (the last of 4) and at once; the mean of batches would differ."""
    run, metrics = evaluated("text_classification", **{"data.eval_batch_size": size})
    scores, targets = predicted(run)
    labels = scores.argmax(-1)
    assert 0 < metrics["test/accuracy"] < 1  # some are wrong, so that the averages differ
    assert metrics["test/accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(targets, labels))
    assert metrics["test/f1_macro"] == pytest.approx(sklearn.metrics.f1_score(targets, labels, average="macro"))
    assert metrics["test/loss"] == pytest.approx(torch.nn.functional.cross_entropy(scores, targets).item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_metrics_of_many_labels_are_those_of_the_whole_split(size: int) -> None:
    run, metrics = evaluated("text_multilabel", **{"data.eval_batch_size": size, "task.threshold": 0.3})
    scores, targets = predicted(run)
    said = (scores.sigmoid() >= 0.3).int()
    expected = sklearn.metrics.f1_score(targets, said, average="macro", zero_division=0)
    assert 0 < expected < 1
    assert metrics["test/f1_macro"] == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_metrics_of_scores_are_those_of_the_whole_split(size: int) -> None:
    run, metrics = evaluated("text_regression", **{"data.eval_batch_size": size})
    scores, targets = predicted(run)
    expected = np.corrcoef(scores.squeeze(-1).numpy(), targets.numpy())[0, 1]
    assert metrics["test/pearson"] == pytest.approx(expected, abs=1e-5)
    assert metrics["test/loss"] == pytest.approx(((scores.squeeze(-1) - targets) ** 2).mean().item(), rel=1e-4)
