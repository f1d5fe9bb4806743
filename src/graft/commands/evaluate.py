"""``graft evaluate``: the metrics of a finished run on one of its splits, or on other data."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from graft.atomic import write_json
from graft.build import plain
from graft.callbacks.progress import RichProgress
from graft.commands.app import run_command
from graft.commands.tables import print_metrics
from graft.errors import DataError
from graft.runs.load import load_run


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Evaluate a run with its own configuration and weights.

    Args:
        cfg: The configuration of ``conf/evaluate.yaml``.

    Returns:
        ``<split>/<metric>`` values, also written to ``<run>/evaluations/``.

    Raises:
        DataError: If there is no such split.
    """
    loaded = load_run(
        str(cfg.run),
        which=cfg.which,
        logs=Path(cfg.paths.logs),
        trust=list(cfg.trust),
        data=cfg.data or None,
        offline=cfg.offline,
        accelerator=cfg.accelerator,
        callbacks=[RichProgress()],
    )
    run = loaded.run
    run.data.setup("predict")
    if cfg.split not in run.data.info.sizes:
        raise DataError(
            f"split: the data has no '{cfg.split}' split. It has: {', '.join(run.data.info.sizes)}. "
            "Set split= to one of them."
        )
    (tested,) = run.trainer.test(run.module, dataloaders=run.data.eval_dataloader(cfg.split), verbose=False)
    metrics = {name.replace("test/", f"{cfg.split}/", 1): float(value) for name, value in tested.items()}
    write_json(
        loaded.dir / "evaluations" / f"{run.data.info.name}-{cfg.split}-{cfg.which}.json".replace("/", "_"),
        {
            "checkpoint": loaded.checkpoint.name,
            "data": run.data.info.fingerprint,
            "metrics": metrics,
            "config": plain(cfg),
        },
    )
    return metrics


def main() -> None:
    """Run the command line's ``evaluate``."""
    run_command("evaluate", _task)


def _task(cfg: DictConfig) -> None:
    print_metrics(evaluate(cfg), title=str(cfg.run))
