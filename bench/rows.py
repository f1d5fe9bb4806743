"""Rows and scores for the contenders: JSON lines in, token ids and metrics out. Nothing here imports graft.

A folder holds ``train.jsonl``, ``validation.jsonl``, perhaps ``test.jsonl``, and ``labels.json``. A row is
``{"text", "text_pair"?}`` with ``label`` (an index), ``labels`` (indices) or ``score`` (a number).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Problem = Literal["single_label", "multi_label", "regression"]
TARGETS: dict[str, str] = {"single_label": "label", "multi_label": "labels", "regression": "score"}
HF_PROBLEMS: dict[str, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class Rows:
    """What a folder holds.

    Attributes:
        splits: Rows by split, in order.
        label_names: Names in the order of their indices; empty for regression.
    """

    splits: dict[str, list[dict[str, Any]]]
    label_names: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Number of outputs that a model needs."""
        return max(1, len(self.label_names))


def read_rows(folder: Path, *, train_limit: int | None = None, eval_limit: int | None = None) -> Rows:
    """Read a folder of rows.

    Args:
        folder: Where they lie.
        train_limit: First rows of the training split to keep.
        eval_limit: First rows of each other split to keep.

    Returns:
        The rows.
    """
    splits = {}
    for split in ("train", "validation", "test"):
        path = folder / f"{split}.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            splits[split] = [json.loads(line) for line in lines[: train_limit if split == "train" else eval_limit]]
    names = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    return Rows(splits=splits, label_names=tuple(names))


def write_rows(folder: Path, rows: Rows) -> None:
    """Write a folder that :func:`read_rows` reads.

    Args:
        folder: Where to; made if it is missing.
        rows: What.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, own in rows.splits.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")
    (folder / "labels.json").write_text(json.dumps(list(rows.label_names)), encoding="utf-8")


def tokenize(tokenizer: Any, rows: Sequence[dict[str, Any]], *, max_length: int, pad: bool = False) -> Any:
    """Tokenize all rows at once.

    Args:
        tokenizer: A transformers tokenizer.
        rows: Rows of one split.
        max_length: Longest text or pair in tokens.
        pad: Whether to pad every row to ``max_length``, as the example scripts do.

    Returns:
        The tokenizer's columns, lists of lists.
    """
    pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    return tokenizer(
        [row["text"] for row in rows],
        pairs,
        truncation=True,
        max_length=max_length,
        padding="max_length" if pad else False,
    )


def targets(rows: Sequence[dict[str, Any]], problem: Problem, outputs: int) -> npt.NDArray[Any]:
    """Return the targets of rows as one array.

    Args:
        rows: Rows of one split.
        problem: What is predicted.
        outputs: Number of labels.

    Returns:
        Indices ``(n,)``, a 0/1 matrix ``(n, outputs)``, or scores ``(n,)``.
    """
    values = [row[TARGETS[problem]] for row in rows]
    if problem == "single_label":
        return np.asarray(values, dtype=np.int64)
    if problem == "regression":
        return np.asarray(values, dtype=np.float32)
    chosen = np.zeros((len(values), outputs), dtype=np.float32)
    for index, labels in enumerate(values):
        chosen[index, labels] = 1.0
    return chosen


def score(
    outputs: npt.NDArray[Any], wanted: npt.NDArray[Any], problem: Problem, *, threshold: float
) -> dict[str, float]:
    """Score outputs with scikit-learn and scipy.

    Args:
        outputs: Logits ``(n, n_labels)`` or predicted scores ``(n, 1)``.
        wanted: What :func:`targets` returns.
        problem: What is predicted.
        threshold: Probability from which a label counts as predicted, for ``multi_label``.

    Returns:
        ``accuracy``, ``f1_macro`` and, of two labels, ``f1`` of the second; ``f1_macro`` and ``f1_micro``;
        or ``spearman`` and ``pearson``.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import accuracy_score, f1_score

    if problem == "regression":
        values = outputs.reshape(-1)
        return {
            "spearman": float(spearmanr(values, wanted).statistic),
            "pearson": float(pearsonr(values, wanted).statistic),
        }
    if problem == "multi_label":
        chosen = outputs >= np.log(threshold / (1 - threshold))
        kinds = ("macro", "micro")
        return {f"f1_{kind}": float(f1_score(wanted, chosen, average=kind, zero_division=0)) for kind in kinds}
    best = outputs.argmax(-1)
    found = {
        "accuracy": float(accuracy_score(wanted, best)),
        "f1_macro": float(f1_score(wanted, best, average="macro", zero_division=0)),
    }
    if outputs.shape[1] == 2:
        found["f1"] = float(f1_score(wanted, best, zero_division=0))
    return found
