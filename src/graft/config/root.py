"""The closed list of a training configuration's top-level keys, and what the command line says of each.

``Root`` is registered as ``root_schema`` and listed first in ``conf/train.yaml``. It is registered open, so
that a misspelt key in an experiment file is not Hydra's one error but one of all those that ``check_config``
reports together.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

SEVERAL = frozenset({"objective", "callbacks", "logger"})
"""Groups that may hold several options, in order: ``callbacks=[checkpoint,progress]``."""

GROUPS: Mapping[str, str] = {
    "data/split": "Which rows train, validate and test: as they come, held out, folds.",
    "task/loss": "What the task minimises.",
    "experiment": "A whole setting that can be repeated by its name.",
    "sweep": "A search space: one job a point.",
    "debug": "Short runs that find bugs; errors come with their traceback.",
    "hydra": "How Hydra itself behaves: folders, logging, sweeper, launcher.",
}
"""Groups that are no key of their own, with what they choose."""

PARTS = ("task", "data", "model", "peft", "optimizer", "param_groups", "scheduler", "module", "trainer")
"""Keys without which nothing can be trained."""


@dataclass
class Root:
    """Every legal top-level key of a training configuration. Nodes are free: their targets are the schema."""

    seed: Any = 0
    """Seed of everything random: data order, new heads, dropout. 0 is a seed."""

    task: Any = None
    """What a batch is scored by: features, loss, metrics, predictions."""

    data: Any = None
    """Where rows come from, their columns, splits and batch sizes."""

    model: Any = None
    """The pretrained model: any transformers checkpoint by name or folder (model.name=...)."""

    peft: Any = None
    """What of the model is trained: everything, its head, or an adapter."""

    objective: Any = None
    """What is added to the loss of a batch; the first is the outermost."""

    optimizer: Any = None
    """The update rule, its learning rate and weight decay."""

    param_groups: Any = None
    """Which weights get which learning rate and weight decay."""

    scheduler: Any = None
    """How the learning rate moves over the steps, with its warm-up."""

    module: Any = None
    """The LightningModule that runs the step; ours is only the default."""

    trainer: Any = None
    """Lightning's Trainer: epochs, devices, precision, accumulation, clipping."""

    callbacks: Any = None
    """What happens at moments of training."""

    logger: Any = None
    """Where metrics go."""

    run: Any = None
    """Name, tags and notes of the run."""

    paths: Any = None
    """Folders: where data sets lie, where runs are written."""

    resume: Any = False
    """true goes on with the run that run=<folder or id> names, from its last checkpoint."""

    ckpt_path: Any = None
    """A checkpoint whose weights, optimizer and step a new run starts from."""

    offline: Any = False
    """true stays off model and data hubs."""

    trust: Any = field(default_factory=list)
    """Packages besides ours whose classes a run's saved configuration may build."""


def wrong_kind(value: Any, default: Any) -> str | None:
    """Say what is wrong with the value of a top-level key, judged by its default.

    Args:
        value: The value, as plain Python.
        default: What it replaces. Only a switch, a whole number or a list says what belongs there.

    Returns:
        The rest of a sentence that begins with the value; None if nothing is wrong.
    """
    if isinstance(default, bool):
        return None if isinstance(value, bool | None) else "is neither true nor false"
    if isinstance(default, int):
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32
        return None if whole else f"is no whole number from 0 to {2**32 - 1}"
    if isinstance(default, list):
        return None if isinstance(value, list) else f"is no list. Write [{value}]"
    return None


def top_level_keys() -> tuple[str, ...]:
    """Return the legal top-level keys of a training configuration, in the order of ``Root``."""
    return tuple(one.name for one in fields(Root))


def key_meanings() -> dict[str, str]:
    """Return what each key and group is for, read from the docstrings in ``Root`` and from ``GROUPS``.

    Returns:
        One sentence by key or group name.
    """
    body = ast.parse(inspect.getsource(Root)).body[0]
    assert isinstance(body, ast.ClassDef)
    meanings: dict[str, str] = {}
    for assignment, docstring in zip(body.body, body.body[1:], strict=False):
        if isinstance(assignment, ast.AnnAssign) and isinstance(assignment.target, ast.Name):
            assert isinstance(docstring, ast.Expr)
            assert isinstance(docstring.value, ast.Constant)
            meanings[assignment.target.id] = str(docstring.value.value)
    return meanings | dict(GROUPS)
