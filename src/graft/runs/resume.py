"""Taking up a run again: its own configuration, its last checkpoint, its own folder.

    graft train run=logs/runs/2026-01-31_12-00-00_a1b2c3d4 resume=true
    graft train run=a1b2c3d4 resume=true trainer.max_epochs=10

What would make it another experiment is refused; how long it trains, what it runs on and where metrics go may change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from graft.config.check import check_config
from graft.config.compat import check_parts
from graft.data.info import DataInfo
from graft.engine.checkpoint import read_checkpoint
from graft.errors import CheckpointError, ConfigError, DataError
from graft.log import get_logger
from graft.runs.finding import find_run, running_process
from graft.runs.load import checkpoint_to_go_on_from, read_info, read_saved
from graft.runs.record import RunRecord

log = get_logger(__name__)

ALLOWED = (
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.log_every_n_steps"),
    *("trainer.accelerator", "data.num_workers", "data.eval_batch_size"),
    *("callbacks", "logger", "offline"),
)
"""Keys, with everything below them, that a resumed run may change."""

_ABOUT_RESUMING = ("run", "resume", "trust", "paths", "debug")


@dataclass(frozen=True)
class TakenUp:
    """A run to go on with.

    Attributes:
        dir: Its folder.
        cfg: Its configuration, with the changes.
        changes: What the command line changed now.
        choices: The option of each group.
        overrides: What the command line changed at its start.
        checkpoint: The file to go on from; None begins again, since the run was cut off before its first.
    """

    dir: Path
    cfg: DictConfig
    changes: Sequence[str]
    choices: Mapping[str, Any]
    overrides: Sequence[str]
    checkpoint: Path | None


def take_up(asked: DictConfig, overrides: Sequence[str], *, joining: bool = False) -> TakenUp:
    """Find a run and check that it can go on; nothing is written.

    Args:
        asked: The configuration that was composed; ``run`` names the run.
        overrides: What the command line says; settings among it change the run's own.
        joining: Whether this is a further process of a run that was taken up already.

    Returns:
        What is needed to go on.

    Raises:
        CheckpointError: If there is no such run, all its checkpoints are damaged, or it is still going on.
        ConfigError: If ``run`` names none, or a change would make it another experiment or end it in the past.
    """
    if asked.run is None or OmegaConf.is_config(asked.run):
        raise ConfigError("resume: say which run, as in graft train run=<folder or id> resume=true.")
    folder = find_run(str(asked.run), Path(asked.paths.logs), with_weights=False)
    if not joining and (pid := running_process(folder)):
        raise CheckpointError(f"{folder}: the run is still going on, in process {pid}. Wait for it, or end it first.")
    cfg = read_saved(folder, trust=list(asked.trust or []))
    then = list(_read_yaml(folder / "overrides.yaml") or [])
    changes = [change for change in _changes(cfg, overrides, then) if _apply(cfg, change, asked)]
    cfg.resume, cfg.ckpt_path = False, None
    check_config(cfg)
    check_parts(cfg)
    checkpoint = checkpoint_to_go_on_from(folder) if any((folder / "checkpoints").glob("*.ckpt")) else None
    if checkpoint is None:
        log.info("%s was cut off before its first checkpoint; it begins again", folder)
    else:
        _check_not_behind(cfg, checkpoint)
    return TakenUp(
        dir=folder,
        cfg=cfg,
        changes=changes,
        choices=_read_yaml(folder / "choices.yaml") or {},
        overrides=then,
        checkpoint=checkpoint,
    )


def check_same_data(folder: Path, info: DataInfo) -> None:
    """Refuse to go on with other data than a run began with.

    Args:
        folder: The run's folder.
        info: What is known of the data that was read now.

    Raises:
        DataError: If its content differs.
    """
    if not (folder / "data_info.json").is_file():  # cut off before the data was read
        RunRecord(folder).describe_data(info)
    before = read_info(folder)
    if before.fingerprint != info.fingerprint:
        raise DataError(
            f"data: the rows of {info.name} are not those that the run began with (fingerprint "
            f"{info.fingerprint[:12]}, not {before.fingerprint[:12]}). Restore the files, or start a new run."
        )


def _changes(cfg: DictConfig, overrides: Sequence[str], then: Sequence[str]) -> list[str]:
    """Return the settings among overrides that may change; the rest must be what the run was started with."""
    settings = [one for one in overrides if _key(one).partition(".")[0] not in _ABOUT_RESUMING]
    changes = [one for one in settings if any(_key(one) == key or _key(one).startswith(f"{key}.") for key in ALLOWED)]
    refused = [
        f"{one}: this would make it another experiment; the run has {_now(cfg, one)}. Leave it out, or start a new run."
        for one in settings
        if one not in changes and one not in then
    ]
    if refused:
        raise ConfigError(refused)
    return changes


def _apply(cfg: DictConfig, change: str, asked: DictConfig) -> bool:
    """Change a setting; whether that made a difference."""
    parsed = OverridesParser.create().parse_override(change)
    key = parsed.key_or_group
    # What stands behind the name of a group was composed with it.
    value = asked[key] if key in ("callbacks", "logger") else parsed.value()
    before = OmegaConf.select(cfg, key, throw_on_missing=False)
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    return bool(OmegaConf.select(cfg, key) != before)


def _check_not_behind(cfg: DictConfig, checkpoint: Path) -> None:
    """Refuse to end before the epoch that was reached, which Lightning would refuse only after everything is built."""
    epochs, reached = cfg.trainer.get("max_epochs"), read_checkpoint(checkpoint, map_location="meta")["epoch"] + 1
    if isinstance(epochs, int) and 0 <= epochs < reached:
        raise ConfigError(
            f"trainer.max_epochs={epochs}: the run has reached epoch {reached} already. Leave it out, or set more."
        )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _now(cfg: DictConfig, override: str) -> str:
    key = _key(override).replace("/", ".")
    value = OmegaConf.select(cfg, key, throw_on_missing=False)
    return f"{key}={value}" if not OmegaConf.is_config(value) else f"its own {key}"


def _read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
