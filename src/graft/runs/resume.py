"""Taking up a run again: its own configuration, its last checkpoint, its own folder.

    graft train run=logs/runs/2026-01-31_12-00-00_1a2b3c4d resume=true
    graft train run=1a2b3c4d resume=true trainer.max_epochs=10

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

from graft.errors import ConfigError
from graft.runs.finding import find_run
from graft.runs.load import find_checkpoint, read_saved
from graft.runs.record import RunRecord, reopen_run

ALLOWED = (
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.log_every_n_steps"),
    *("trainer.accelerator", "trainer.enable_progress_bar", "data.num_workers", "data.eval_batch_size"),
    *("callbacks", "logger", "offline", "run.tags", "run.notes"),
)
"""Keys, with everything below them, that a resumed run may change."""

_ABOUT_RESUMING = ("run", "resume", "trust", "paths", "debug")


@dataclass(frozen=True)
class TakenUp:
    """A run to go on with.

    Attributes:
        cfg: Its configuration, with the changes.
        record: Its folder.
        choices: The option of each group.
        overrides: What its command line changed, then and now.
        checkpoint: The file to go on from.
    """

    cfg: DictConfig
    record: RunRecord
    choices: Mapping[str, Any]
    overrides: Sequence[str]
    checkpoint: str


def take_up(asked: DictConfig, overrides: Sequence[str]) -> TakenUp:
    """Open a run again.

    Args:
        asked: The configuration that was composed; ``run`` names the run.
        overrides: What the command line says; settings among it change the run's own.

    Returns:
        What is needed to go on.

    Raises:
        CheckpointError: If there is no such run, or no checkpoint to go on from.
        ConfigError: If ``run`` names none, or a change would make it another experiment.
    """
    if not isinstance(asked.run, str):
        raise ConfigError("resume: say which run, as in graft train run=<folder or id> resume=true.")
    folder = find_run(asked.run, Path(asked.paths.logs))
    cfg = read_saved(folder, trust=list(asked.trust or []))
    changes = [one for one in overrides if one.partition("=")[0].lstrip("+~") not in _ABOUT_RESUMING]
    refused = [
        f"{one}: this would make it another experiment; the run has {_now(cfg, one)}. Leave it out, or start a new run."
        for one in changes
        if not _may_change(one.partition("=")[0])
    ]
    if refused:
        raise ConfigError(refused)
    parser = OverridesParser.create()
    for one in changes:
        parsed = parser.parse_override(one)
        OmegaConf.update(cfg, parsed.key_or_group, parsed.value(), force_add=True)
    cfg.resume, cfg.ckpt_path = None, None
    checkpoint = find_checkpoint(folder, "last")
    record = reopen_run(folder, changes=changes)
    then = _read_yaml(folder / "overrides.yaml") or []
    return TakenUp(
        cfg=cfg,
        record=record,
        choices=_read_yaml(folder / "choices.yaml") or {},
        overrides=list(then),
        checkpoint=str(checkpoint),
    )


def _may_change(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in ALLOWED)


def _now(cfg: DictConfig, override: str) -> str:
    key = override.partition("=")[0].lstrip("+~").replace("/", ".")
    value = OmegaConf.select(cfg, key, throw_on_missing=False)
    return f"{key}={value}" if not OmegaConf.is_config(value) else f"its own {key}"


def _read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
