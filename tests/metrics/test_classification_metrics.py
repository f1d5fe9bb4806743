"""Metrics against scikit-learn and SciPy, over whole splits and over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as reference
import torch
from torch import Tensor, nn

from graft.metrics.classification import MultiLabelMetrics, RegressionMetrics, SingleLabelMetrics


def fill(metric: Any, scores: Tensor, labels: Tensor, size: int = 7) -> Any:
    """Feed rows in batches, as an evaluation does."""
    for start in range(0, len(labels), size):
        metric.update(scores[start : start + size], labels[start : start + size])
    return metric


def single_label_rows(n: int, classes: int) -> tuple[Tensor, Tensor]:
    """Logits that are right more often than not, and labels."""
    labels = torch.arange(n) % classes
    return torch.randn(n, classes) + 1.2 * nn.functional.one_hot(labels, classes), labels


def multi_label_rows(n: int, labels: int) -> tuple[Tensor, Tensor]:
    truth = (torch.rand(n, labels) < 0.3).long()
    return torch.randn(n, labels) + 1.5 * truth - 0.5, truth


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017, equation 3, written out."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for lower in range(bins):
        inside = (confidence > lower / bins) & (confidence <= (lower + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_single_label_by_hand() -> None:
    # predicted 0 0 1 2, true 0 1 1 2: F1 of the classes 2/3, 2/3, 1
    metric = SingleLabelMetrics(3)
    metric.update(5 * torch.eye(3)[[0, 0, 1, 2]], torch.tensor([0, 1, 1, 2]))
    values = metric.compute()
    assert values["accuracy"] == pytest.approx(3 / 4)
    assert values["f1_micro"] == pytest.approx(3 / 4)
    assert values["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert metric.confusion().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_single_label_metrics_equal_those_of_scikit_learn(classes: int) -> None:
    scores, labels = single_label_rows(101, classes)
    values = fill(SingleLabelMetrics(classes), scores, labels).compute()
    probabilities = scores.double().softmax(-1).numpy()
    y, p = labels.numpy(), probabilities.argmax(1)
    expected = {
        "accuracy": reference.accuracy_score(y, p),
        "f1_macro": reference.f1_score(y, p, average="macro"),
        "f1_micro": reference.f1_score(y, p, average="micro"),
        "mcc": reference.matthews_corrcoef(y, p),
        "calibration_error": expected_calibration_error(probabilities, y),
        "auroc": reference.roc_auc_score(
            y, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr", average="macro"
        ),
    }
    if classes == 2:
        expected["f1"] = reference.f1_score(y, p)
    assert values == pytest.approx(expected, abs=1e-6)
    assert (
        fill(SingleLabelMetrics(classes), scores, labels).confusion().numpy() == reference.confusion_matrix(y, p)
    ).all()


def test_f1_is_that_of_the_second_class_and_only_there_for_two() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    metric = SingleLabelMetrics(2)
    metric.update(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), labels)
    assert metric.compute()["f1"] == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert "f1" not in fill(SingleLabelMetrics(3), *single_label_rows(9, 3)).compute()


def test_split_metric_is_not_the_mean_of_batch_metrics() -> None:
    scores, labels = single_label_rows(64, 5)
    whole = fill(SingleLabelMetrics(5), scores, labels, size=4).compute()["f1_macro"]
    batches = [fill(SingleLabelMetrics(5), scores[i : i + 4], labels[i : i + 4]).compute() for i in range(0, 64, 4)]
    assert whole == pytest.approx(reference.f1_score(labels, scores.argmax(-1), average="macro"), abs=1e-6)
    assert abs(np.mean([values["f1_macro"] for values in batches]) - whole) > 0.05


def test_metrics_do_not_depend_on_the_batch_size() -> None:
    scores, labels = single_label_rows(50, 4)
    values = [fill(SingleLabelMetrics(4), scores, labels, size=size).compute() for size in (1, 7, 50)]
    assert values[0] == values[1] == values[2]


def test_a_class_that_does_not_occur_is_left_out_of_macro_f1_and_leaves_auroc_undefined() -> None:
    scores, labels = single_label_rows(40, 3)
    scores = torch.cat([scores, torch.full((40, 1), -20.0)], dim=1)  # a fourth class, never true nor predicted
    values = fill(SingleLabelMetrics(4), scores, labels).compute()
    assert values["f1_macro"] == pytest.approx(reference.f1_score(labels, scores.argmax(-1), average="macro"), abs=1e-6)
    assert "auroc" not in values
    assert all(np.isfinite(list(values.values())))


def test_auroc_of_two_classes_is_missing_if_one_does_not_occur() -> None:
    metric = SingleLabelMetrics(2)
    metric.update(torch.randn(5, 2), torch.zeros(5, dtype=torch.long))
    assert "auroc" not in metric.compute()


def test_logits_between_zero_and_one_are_not_taken_for_probabilities() -> None:
    # torchmetrics skips the softmax if all scores happen to lie in [0, 1]
    scores, labels = torch.rand(60, 3), torch.arange(60) % 3
    values = fill(SingleLabelMetrics(3), scores, labels).compute()
    expected = expected_calibration_error(scores.double().softmax(-1).numpy(), labels.numpy())
    assert values["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_logits_of_lower_precision_are_taken() -> None:
    scores, labels = single_label_rows(40, 3)
    low = fill(SingleLabelMetrics(3), scores.bfloat16(), labels).compute()
    assert low == fill(SingleLabelMetrics(3), scores.bfloat16().float(), labels).compute()


def test_reset_forgets_everything() -> None:
    scores, labels = single_label_rows(40, 3)
    metric = fill(SingleLabelMetrics(3), -scores, labels)
    metric.compute()
    metric.reset()
    assert fill(metric, scores, labels).compute() == fill(SingleLabelMetrics(3), scores, labels).compute()


def test_update_keeps_no_graph() -> None:
    metric = SingleLabelMetrics(3)
    metric.update(torch.randn(4, 3, requires_grad=True) * 2, torch.tensor([0, 1, 2, 0]))
    assert metric.scores[0].grad_fn is None


def test_multi_label_metrics_equal_those_of_scikit_learn() -> None:
    scores, labels = multi_label_rows(90, 6)
    values = fill(MultiLabelMetrics(6), scores, labels).compute()
    y, p = labels.numpy(), (scores >= 0).long().numpy()
    assert values == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, p),
            "f1_macro": reference.f1_score(y, p, average="macro"),
            "f1_micro": reference.f1_score(y, p, average="micro"),
            "auroc": reference.roc_auc_score(y, scores.numpy(), average="macro"),
        },
        abs=1e-6,
    )
    confusion = fill(MultiLabelMetrics(6), scores, labels).confusion()
    assert (confusion.numpy() == reference.multilabel_confusion_matrix(y, p)).all()


def test_a_label_that_neither_occurs_nor_is_predicted_counts_as_zero_in_multi_label_macro_f1() -> None:
    metric = MultiLabelMetrics(2)
    metric.update(torch.tensor([[9.0, -9.0], [-9.0, -9.0]]), torch.tensor([[1, 0], [0, 0]]))
    values = metric.compute()
    assert values["f1_macro"] == pytest.approx(0.5)  # (1 + 0) / 2, as scikit-learn
    assert values["accuracy"] == 1.0
    assert "auroc" not in values


def test_the_threshold_is_a_probability_that_counts_as_reached() -> None:
    scores = torch.tensor([[-1.0, -9.0], [0.0, -9.0], [1.0, -9.0]])  # 0.27, 0.5, 0.73 of the first label
    labels = torch.tensor([[0, 0], [1, 0], [1, 0]])
    assert fill(MultiLabelMetrics(2), scores, labels).compute()["accuracy"] == 1.0
    assert fill(MultiLabelMetrics(2, threshold=0.2), scores, labels).compute()["accuracy"] == pytest.approx(2 / 3)


def test_floating_labels_are_taken() -> None:
    scores, labels = multi_label_rows(30, 3)
    metric = fill(MultiLabelMetrics(3), scores, labels.float())
    assert metric.compute() == fill(MultiLabelMetrics(3), scores, labels).compute()


def test_regression_metrics_equal_those_of_scipy() -> None:
    targets = (torch.rand(80) * 5).round()  # ties
    predicted = targets + torch.randn(80).round(decimals=1)
    values = fill(RegressionMetrics(), predicted, targets).compute()
    assert values == pytest.approx(
        {
            "mse": float(((predicted - targets) ** 2).mean()),
            "pearson": scipy.stats.pearsonr(predicted, targets).statistic,
            "spearman": scipy.stats.spearmanr(predicted, targets).statistic,
        },
        abs=1e-6,
    )


def test_regression_takes_a_column_of_predictions() -> None:
    predicted, targets = torch.randn(9), torch.randn(9)
    column = fill(RegressionMetrics(), predicted[:, None], targets).compute()
    assert column == fill(RegressionMetrics(), predicted, targets).compute()


def test_spearman_is_right_on_many_rows_with_few_different_scores() -> None:
    # torchmetrics 1.9 sums ranks in 32-bit integers and gives 0.16 here
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 6, 200_000).astype(np.float32)
    predicted = (targets + generator.normal(size=len(targets))).astype(np.float32)
    metric = RegressionMetrics()
    metric.update(torch.from_numpy(predicted), torch.from_numpy(targets))
    expected = scipy.stats.spearmanr(predicted, targets).statistic
    assert metric.compute()["spearman"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("predicted", [[1.0, 1.0, 1.0], [2.0]])
def test_correlations_are_missing_where_all_predictions_are_equal(predicted: list[float]) -> None:
    metric = RegressionMetrics()
    metric.update(torch.tensor(predicted), torch.arange(float(len(predicted))))
    assert set(metric.compute()) == {"mse"}


def test_pearson_is_right_far_from_zero() -> None:
    predicted = 1e4 + torch.randn(50)
    targets = 1e4 + torch.randn(50)
    values = fill(RegressionMetrics(), predicted, targets).compute()
    expected = scipy.stats.pearsonr(predicted.double(), targets.double()).statistic
    assert values["pearson"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "scores", "labels"),
    [
        (SingleLabelMetrics(3), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)),
        (SingleLabelMetrics(3), torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.long)),
        (MultiLabelMetrics(3), torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)),
        (RegressionMetrics(), torch.zeros(4, 2), torch.zeros(4)),
        (RegressionMetrics(), torch.zeros(4), torch.zeros(3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(metric: Any, scores: Tensor, labels: Tensor) -> None:
    with pytest.raises(ValueError, match="must have shape"):
        metric.update(scores, labels)


@pytest.mark.parametrize("make", [SingleLabelMetrics, MultiLabelMetrics])
def test_one_class_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="num_labels=1"):
        make(1)


# Run by each of two processes: takes its rows of a file, and writes what it computes over all of them.
_RANK = """
import json, sys
import torch
from graft.metrics.classification import MultiLabelMetrics, RegressionMetrics, SingleLabelMetrics

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
rows = torch.load(f"{folder}/rows.pt")
results = []
for kind, arguments, (scores, labels), cut in rows:
    kinds = {"single": SingleLabelMetrics, "multi": MultiLabelMetrics, "score": RegressionMetrics}
    metric = kinds[kind](*arguments)
    mine = slice(None, cut) if rank == 0 else slice(cut, None)
    for one, label in zip(scores[mine].split(3), labels[mine].split(3)):
        if len(label):
            metric.update(one, label)
    confusion = metric.confusion().tolist() if kind != "score" else None
    results.append([metric.compute(), confusion])
json.dump(results, open(f"{folder}/rank{rank}.json", "w"))
torch.distributed.destroy_process_group()
"""


def test_two_processes_with_uneven_rows_give_what_one_gives(tmp_path: Path) -> None:
    single, multi, score = single_label_rows(11, 3), multi_label_rows(20, 2), (torch.randn(9), torch.randn(9))
    # (kind, arguments, rows, how many of them the first process gets); also one process without any row
    rows: list[tuple[str, tuple[int, ...], tuple[Tensor, Tensor], int]] = [
        ("single", (3,), single, 8),
        ("single", (3,), single, 11),
        ("multi", (2,), multi, 3),
        ("multi", (2,), multi, 0),
        ("score", (), score, 2),
        ("score", (), score, 9),
    ]
    torch.save(rows, tmp_path / "rows.pt")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", _RANK]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors

    make: dict[str, Any] = {
        "single": SingleLabelMetrics,
        "multi": MultiLabelMetrics,
        "score": RegressionMetrics,
    }
    expected = []
    for kind, arguments, (scores, labels), _ in rows:
        metric = fill(make[kind](*arguments), scores, labels)
        expected.append([metric.compute(), metric.confusion().tolist() if kind != "score" else None])
    for rank in (0, 1):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == expected
