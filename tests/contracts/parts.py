"""Options of ``conf/``, configurations made of them, and small runs: what every contract test starts from.

An option is composed by Hydra once a process and put in place of the default's node, since composing takes longer
than training a tiny model.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from graft.build import Run, build_run
from graft.config.catalog import Option, list_options
from graft.config.root import SEVERAL
from graft.config.search import session
from graft.config.written import rewrite_overrides

OPTIONS: list[Option] = [option for group in list_options().values() for option in group.values()]
"""Every YAML in ``conf/`` that can be chosen."""

_SUBJECTS = ("Profit", "The company", "This film", "The bank", "A man", "The plot", "She")
_PHRASES = {
    "negative": ("fell after a weak report", "was dull", "is far too long"),
    "neutral": ("is playing a guitar", "appears in many sentences", "was on Monday"),
    "positive": ("rose sharply", "is one of the best this year", "was wonderful"),
}
_NAMES = tuple(_PHRASES)


_GROUPS = list_options()
_KEYS = {group: group.partition("/")[0] for group in _GROUPS}


def options_of(group: str) -> list[str]:
    """Return the names of a group's options."""
    return list(_GROUPS[group])


def composed(*overrides: str, command: str = "train") -> DictConfig:
    """Compose with Hydra, the same overrides once a process; returns a copy that may be changed."""
    return copy.deepcopy(_composed(command, overrides))


@functools.cache
def _composed(command: str, overrides: Sequence[str]) -> DictConfig:
    with session():
        return compose(command, overrides=rewrite_overrides(overrides))


def assembled(*overrides: str) -> DictConfig:
    """Return what ``composed`` returns for ``train``, put together of nodes that are composed once a process."""
    parsed = OverridesParser.create().parse_overrides(rewrite_overrides(overrides))
    choices = [one for one in parsed if one.key_or_group in _GROUPS]
    if any(one.is_delete() for one in parsed) or any(_whole(one.key_or_group) for one in choices):
        return composed(*overrides)
    cfg = composed()
    by_key: dict[str, list[str]] = {}
    for one in choices:
        by_key.setdefault(_KEYS[one.key_or_group], []).append(one.input_line or "")
    for key, some in by_key.items():
        cfg[key] = copy.deepcopy(_node(key, tuple(some)))
    for one in parsed:
        if one.key_or_group not in _GROUPS:
            OmegaConf.update(cfg, one.key_or_group, one.value(), force_add=True)
    return cfg


def _whole(group: str) -> bool:
    return group == "hydra" or any(option.whole for option in _GROUPS[group].values())


def _node(key: str, choices: Sequence[str]) -> Any:
    cfg = _rounds().get(choices[0]) if len(choices) == 1 else None
    return (composed(*choices) if cfg is None else cfg)[key]


@functools.cache
def _rounds() -> dict[str, DictConfig]:
    """Compose all options in as few rounds as the largest group has: each round takes one option of every group."""
    names = {group: options_of(group) for group in _GROUPS if not _whole(group) and "/" not in group}
    found: dict[str, DictConfig] = {}
    for number in range(max(map(len, names.values()))):
        chosen = [choice(group, options[number]) for group, options in names.items() if number < len(options)]
        found |= dict.fromkeys(chosen, _composed("train", tuple(chosen)))
    return found


def choice(group: str, name: str) -> str:
    """Return the override that chooses an option, alone where several can be chosen."""
    return f"{group}=[{name}]" if group in SEVERAL else f"{group}={name}"


def config(*choices: str, settings: Mapping[str, Any] | None = None) -> DictConfig:
    """Return the configuration of a tiny run on the CPU: 36 rows that a tiny BERT can learn.

    Args:
        choices: Options such as ``peft=lora`` in place of those of the tiny run.
        settings: Values by dotted key, set last.
    """
    chosen = {"model": "tiny_bert", "data": "in_memory", "trainer": "cpu"}
    chosen |= dict(one.split("=", maxsplit=1) for one in choices)
    cfg = assembled(*(f"{group}={name}" for group, name in chosen.items()))
    values: dict[str, Any] = {"data.batch_size": 8, "optimizer.lr": 3e-3, "trainer.log_every_n_steps": 1}
    if chosen["data"] == "in_memory":
        values["data.source.splits"] = splits(cfg.task.get("problem", "single_label"))
    for path, value in {**values, **(settings or {})}.items():
        OmegaConf.update(cfg, path, value, force_add=True)
    return cfg


def splits(problem: str) -> dict[str, list[dict[str, Any]]]:
    """Return rows for training, validation and test that share no text."""
    every = [_row(problem, number) for number in range(len(_SUBJECTS) * len(_NAMES) * 3)]
    return {"train": every[:36], "validation": every[36:49], "test": every[49:]}


def _row(problem: str, number: int) -> dict[str, Any]:
    """Return a text whose target is plain to see; the numbers below 63 give different texts."""
    kind, rest = number % len(_NAMES), number // len(_NAMES)
    text = f"{_SUBJECTS[rest % len(_SUBJECTS)]} {_PHRASES[_NAMES[kind]][rest % 3]}."
    if problem == "single_label":
        return {"text": text, "label": _NAMES[kind]}
    if problem == "multi_label":
        return {"text": text, "labels": (["down"], [], ["up", "good"])[kind]}
    return {"text": text, "score": float(kind - 1)}


def build(cfg: DictConfig, *, run_dir: Path | None = None, callbacks: Sequence[pl.Callback] = ()) -> Run:
    """Build a run as ``graft train`` does."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    return build_run(cfg, run_dir=run_dir, callbacks=callbacks)


def fit(cfg: DictConfig, *, run_dir: Path | None = None, callbacks: Sequence[pl.Callback] = ()) -> Run:
    """Build a run and train it."""
    run = build(cfg, run_dir=run_dir, callbacks=callbacks)
    run.trainer.fit(run.module, datamodule=run.data)
    return run
