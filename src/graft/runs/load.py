"""From a run's folder to the same parts again, built by the same functions from its own saved configuration.

``load_from_checkpoint`` is not used: objects passed to a constructor cannot be rebuilt from a checkpoint. What a saved
configuration may build is checked against an allow-list first, since a folder may come from anyone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from graft.build import Run, build_run
from graft.config.check import check_config
from graft.config.targets import check_targets
from graft.data.info import DataInfo
from graft.engine.checkpoint import newest_intact, read_checkpoint
from graft.errors import CheckpointError
from graft.log import get_logger
from graft.paths import logs_dir
from graft.runs.finding import find_run
from graft.runs.record import read_config

log = get_logger(__name__)

_BUILT = (
    *("seed", "task", "data", "model", "peft", "objective", "optimizer", "param_groups", "scheduler"),
    *("module", "trainer", "callbacks", "logger", "run", "paths"),
)
"""Keys that every configuration has had, in the order they are written; what is cut off lacks the last ones."""


@dataclass(frozen=True)
class LoadedRun:
    """A run's parts with its trained weights.

    Attributes:
        dir: The run's folder.
        cfg: Its saved configuration, with the changes asked for.
        info: What was known of its data.
        run: The parts; the module holds the trained weights and evaluates.
        checkpoint: The file the weights came from.
    """

    dir: Path
    cfg: DictConfig
    info: DataInfo
    run: Run
    checkpoint: Path


def load_run(
    ref: str | Path,
    *,
    which: str = "best",
    logs: Path | None = None,
    trust: Sequence[str] = (),
    data: DictConfig | None = None,
    offline: bool = False,
    accelerator: str = "auto",
    callbacks: Sequence[pl.Callback] = (),
) -> LoadedRun:
    """Build a run's parts again and load its weights.

    Args:
        ref: The run's folder, or its id.
        which: ``best``, ``last``, or the path of a checkpoint.
        logs: Where ids are looked for; the folder that runs are written to, if not given.
        trust: Further packages whose classes the saved configuration may build.
        data: Other data, or settings to change in the run's own (a node without ``_target_``), without
            interpolations.
        offline: Whether to stay off model hubs.
        accelerator: What to run on; ``auto`` is the run's own choice where there is such a device, else the CPU.
        callbacks: Of the trainer.

    Returns:
        The run.

    Raises:
        CheckpointError: If the folder is no run, was cut off before its first checkpoint, or belongs to another model.
        ConfigError: If the saved configuration names something that may not be built, or ``data`` cannot work.
    """
    folder = find_run(ref, logs_dir() if logs is None else logs)
    cfg = read_saved(folder, trust=trust)
    checkpoint = find_checkpoint(folder, which)
    info = read_info(folder)
    if data:
        cfg.data = _data(cfg.data, data)
        check_config(OmegaConf.create({"data": cfg.data}))
    cfg.offline = offline or cfg.get("offline", False)
    _on_one_device(cfg.trainer, accelerator)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    run = build_run(cfg, run_dir=None, callbacks=callbacks)
    run.task.bind(info)
    run.data.follow(info)
    run.module.configure_model()
    try:
        run.module.on_load_checkpoint(read_checkpoint(checkpoint))
    except CheckpointError as error:
        raise CheckpointError([_at(checkpoint, problem) for problem in error.problems]) from None
    run.module.eval()
    return LoadedRun(dir=folder, cfg=cfg, info=info, run=run, checkpoint=checkpoint)


def _at(path: Path, problem: str) -> str:
    return problem if problem.startswith(str(path)) else f"{path}: {problem}"


def _data(own: DictConfig, asked: DictConfig) -> DictConfig:
    """Return the run's own data with changes, or other data; files that are asked for are looked for from here."""
    asked = copy.deepcopy(asked)
    source = asked.get("source") or OmegaConf.create()
    for split in ("train", "validation", "test"):
        if OmegaConf.is_missing(source, split):
            source[split] = None  # nothing is trained, so no split is needed but the one that is evaluated
        elif source.get(split) is not None and source.get("directory") is None:
            source[split] = _from_here(source[split])
    merged: Any = asked if "_target_" in asked else OmegaConf.merge(own, asked)
    assert isinstance(merged, DictConfig)
    return merged


def _from_here(files: Any) -> Any:
    if isinstance(files, list | ListConfig):
        return [_from_here(one) for one in files]
    return str(Path(str(files)).expanduser().absolute())


def _on_one_device(trainer: DictConfig, accelerator: str) -> None:
    """Let a trainer's settings mean one process."""
    trainer.devices = 1
    for key in ("strategy", "num_nodes"):
        trainer.pop(key, None)
    if accelerator != "auto":
        trainer.accelerator = accelerator
    elif trainer.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        log.info("there is no GPU here, as the run had; the CPU is used")
        trainer.accelerator = "cpu"


def read_saved(folder: Path, *, trust: Sequence[str] = ()) -> DictConfig:
    """Read a run's configuration, and see that it is whole and builds parts and nothing else.

    Args:
        folder: The run's folder.
        trust: Further packages whose classes it may build.

    Returns:
        The configuration, open to changes.

    Raises:
        CheckpointError: If there is none, it cannot be read, or it was cut off.
        ConfigError: If it names something that may not be built.
    """
    held = read_config(folder)
    if lacking := [key for key in _BUILT if key not in held]:
        raise CheckpointError(
            f"{folder / 'config.yaml'}: has no {', '.join(lacking)}, so it was cut off or is no run's configuration. "
            "Copy the run again, or train it again."
        )
    cfg = OmegaConf.load(folder / "config.yaml")
    assert isinstance(cfg, DictConfig)
    check_targets(cfg, trust=trust)
    return cfg


def find_checkpoint(folder: Path, which: str) -> Path:
    """Return the checkpoint that a word or a path means.

    Args:
        folder: The run's folder.
        which: ``best``, ``last``, or a path. Where a run kept only one of the two, it is both.

    Returns:
        An existing file, or the one that the path names.

    Raises:
        CheckpointError: If there is none.
    """
    kept = folder / "checkpoints"
    if which not in ("best", "last"):
        given = Path(which).expanduser()
        return given if given.is_file() else kept / given
    best, last = [*_scored_best(kept), kept / "best.ckpt"], [kept / "last.ckpt"]
    wanted, others = (best, last) if which == "best" else (last, best)
    found = next((path for path in [*wanted, *others, *sorted(kept.glob("*.ckpt"))] if path.is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{folder}: the run was cut off before its first checkpoint, so there are no weights to load. "
            "Train it again."
        )
    if found not in wanted:
        log.info("%s has no %s checkpoint; %s is used", folder, which, found.name)
    return found


def checkpoint_to_go_on_from(folder: Path) -> Path:
    """Return the newest checkpoint of a run that is intact.

    Args:
        folder: The run's folder.

    Returns:
        ``last.ckpt``, else ``previous.ckpt``, else the best.

    Raises:
        CheckpointError: If there is none, or all are damaged.
    """
    kept = folder / "checkpoints"
    candidates = [kept / "last.ckpt", kept / "previous.ckpt", *_scored_best(kept), kept / "best.ckpt"]
    found, damaged = newest_intact(candidates)
    if found is None and not damaged:
        return find_checkpoint(folder, "last")
    if found is None:
        raise CheckpointError([f"{one} Restore it from a copy, or start a new run." for one in damaged])
    for one in damaged:
        log.warning("%s; going on from %s, the one before", one, found.name)
    return found


def _scored_best(kept: Path) -> list[Path]:
    try:
        scores = json.loads((kept / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing, or cut off while the folder was copied
        return []
    return [kept / Path(str(scores["best"])).name] if isinstance(scores, dict) and scores.get("best") else []


def read_info(folder: Path) -> DataInfo:
    """Read what a run knew of its data.

    Args:
        folder: The run's folder.

    Returns:
        Label names, counts and sizes.

    Raises:
        CheckpointError: If the run never got that far.
    """
    path = folder / "data_info.json"
    try:
        return DataInfo.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: has no data_info.json; the run was cut off before its data was read. Train it again."
        ) from None
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read ({type(error).__name__}: {error}). Train it again.") from None
