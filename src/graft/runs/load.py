"""From a run's folder to the same parts again, built by the same functions from its own saved configuration.

``load_from_checkpoint`` is not used: objects passed to a constructor cannot be rebuilt from a checkpoint. What a saved
configuration may build is checked against an allow-list first, since a folder may come from anyone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from graft.build import Run, build_run
from graft.config.check import check_targets
from graft.data.info import DataInfo
from graft.engine.checkpoint import read_checkpoint
from graft.errors import CheckpointError
from graft.runs.finding import find_run
from graft.runs.record import read_config


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
    logs: Path,
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
        logs: Where ids are looked for.
        trust: Further packages whose classes the saved configuration may build.
        data: Other data, or settings to change in the run's own (a node without ``_target_``).
        offline: Whether to stay off model hubs.
        accelerator: What to run on; ``auto`` is the run's own choice.
        callbacks: Of the trainer.

    Returns:
        The run.

    Raises:
        CheckpointError: If the folder is no run, was cut off before its first checkpoint, or belongs to another model.
        ConfigError: If the saved configuration names something that may not be built.
    """
    folder = find_run(ref, logs)
    cfg = read_saved(folder, trust=trust)
    checkpoint = find_checkpoint(folder, which)
    info = read_info(folder)
    if data:
        cfg.data = data if "_target_" in data else OmegaConf.merge(cfg.data, data)
    cfg.offline = offline or cfg.offline
    cfg.trainer.devices = 1
    cfg.trainer.pop("strategy", None)
    if accelerator != "auto":
        cfg.trainer.accelerator = accelerator
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    run = build_run(cfg, run_dir=None, callbacks=callbacks)
    run.task.bind(info)
    run.data.follow(info)
    run.module.configure_model()
    run.module.on_load_checkpoint(read_checkpoint(checkpoint))
    run.module.eval()
    return LoadedRun(dir=folder, cfg=cfg, info=info, run=run, checkpoint=checkpoint)


def read_saved(folder: Path, *, trust: Sequence[str] = ()) -> DictConfig:
    """Read a run's configuration, and see that it builds parts and nothing else.

    Args:
        folder: The run's folder.
        trust: Further packages whose classes it may build.

    Returns:
        The configuration, open to changes.

    Raises:
        CheckpointError: If there is none, or it cannot be read.
        ConfigError: If it names something that may not be built.
    """
    read_config(folder)
    cfg = OmegaConf.load(folder / "config.yaml")
    assert isinstance(cfg, DictConfig)
    check_targets(cfg, trust=trust)
    return cfg


def find_checkpoint(folder: Path, which: str) -> Path:
    """Return the checkpoint that a word or a path means.

    Args:
        folder: The run's folder.
        which: ``best``, ``last``, or a path.

    Returns:
        An existing file.

    Raises:
        CheckpointError: If there is none.
    """
    kept = folder / "checkpoints"
    if which not in ("best", "last"):
        given = Path(which).expanduser()
        return given if given.is_file() else kept / given
    candidates = [kept / "last.ckpt", kept / "best.ckpt"]
    if which == "best":
        candidates.reverse()
        scores = kept / "scores.json"
        if scores.is_file():
            candidates.insert(0, kept / json.loads(scores.read_text(encoding="utf-8"))["best"])
    candidates += sorted(kept.glob("*.ckpt"))
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{folder}: the run was cut off before its first checkpoint, so there are no weights to load. "
            "Train it again."
        )
    return found


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
