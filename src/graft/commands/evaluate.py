"""``graft evaluate``: the metrics of a finished run on one of its splits, or on other data."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from graft.atomic import write_json
from graft.build import plain
from graft.callbacks.progress import RichProgress
from graft.commands.app import run_command
from graft.commands.tables import print_metrics
from graft.config.check import check_given
from graft.errors import DataError, did_you_mean
from graft.log import get_logger
from graft.runs.load import LoadedRun, load_run

log = get_logger(__name__)


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Evaluate a run with its own configuration and weights.

    Args:
        cfg: The configuration of ``conf/evaluate.yaml``.

    Returns:
        ``<split>/<metric>`` values, also written to ``<run>/evaluations/``.

    Raises:
        ConfigError: If no run is given.
        DataError: If there is no such split.
    """
    check_given(cfg, run="<folder or id of a run>")
    loaded = load_run(
        str(cfg.run),
        which=str(cfg.which),
        logs=Path(cfg.paths.logs),
        trust=list(cfg.trust),
        data=_resolved(cfg.data) if cfg.data else None,
        offline=cfg.offline,
        accelerator=cfg.accelerator,
        callbacks=[RichProgress()],
    )
    run = loaded.run
    run.data.setup("predict")
    if cfg.split not in run.data.info.sizes:
        raise DataError(
            f"split: the data has no '{cfg.split}' split.{did_you_mean(cfg.split, run.data.info.sizes)} "
            f"It has: {', '.join(run.data.info.sizes)}. Set split= to one of them."
        )
    _limit(run.trainer, cfg.split)
    (tested,) = run.trainer.test(run.module, dataloaders=run.data.eval_dataloader(cfg.split), verbose=False)
    metrics = {name.replace("test/", f"{cfg.split}/", 1): float(value) for name, value in tested.items()}
    _write(loaded, cfg, metrics)
    return metrics


def _resolved(node: DictConfig) -> DictConfig:
    """Fill in what refers to other keys, such as paths.data: those of this command are meant, not the run's."""
    resolved = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    assert isinstance(resolved, DictConfig)
    return resolved


def _limit(trainer: pl.Trainer, split: str) -> None:
    """Evaluate as much of a split as training did, or all of one that it left out."""
    limits = {"validation": trainer.limit_val_batches, "test": trainer.limit_test_batches}
    trainer.limit_test_batches = limits.get(split) or 1.0
    if trainer.limit_test_batches != 1.0:
        log.info("the run's trainer has a limit: %s batches of the split are used", trainer.limit_test_batches)


def _write(loaded: LoadedRun, cfg: DictConfig, metrics: dict[str, float]) -> None:
    info = loaded.run.data.info
    name = f"{info.name}-{cfg.split}-{cfg.which}-{info.fingerprint[:8]}.json".replace("/", "_")
    held = {
        "checkpoint": loaded.checkpoint.name,
        "data": info.fingerprint,
        "metrics": metrics,
        "config": plain(cfg),
    }
    try:
        write_json(loaded.dir / "evaluations" / name, held)
    except OSError as error:  # someone else's run, perhaps
        log.warning("the metrics are not written to the run's folder (%s)", error)


def main() -> None:
    """Run the command line's ``evaluate``."""
    run_command("evaluate", _task)


def _task(cfg: DictConfig) -> None:
    print_metrics(evaluate(cfg), title=str(cfg.run))
