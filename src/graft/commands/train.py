"""``graft train``: fit, test the best checkpoint, leave a run that explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerStatus

from graft.atomic import write_text
from graft.build import Run, build_run, plain
from graft.callbacks.wandb import Wandb
from graft.commands.app import run_command
from graft.commands.tables import print_metrics
from graft.config.check import check_config
from graft.config.compat import check_parts
from graft.config.compose import clean_overrides, pin_paths
from graft.data.info import DataInfo
from graft.engine.checkpoint import read_checkpoint
from graft.models.state import save_for_others
from graft.runs.record import RunRecord, group_hash, open_run, run_name
from graft.runs.resume import take_up


@dataclass(frozen=True)
class Result:
    """What a training run ended with.

    Attributes:
        dir: The run's folder.
        metrics: Of the best checkpoint: ``val/...`` and, where there is a test split, ``test/...``.
        objective: The value of the monitored metric, what a sweep optimises; None when no validation ran.
    """

    dir: Path
    metrics: dict[str, float]
    objective: float | None


def train(cfg: DictConfig, *, choices: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()) -> Result:
    """Train once, as the configuration says.

    Args:
        cfg: A composed configuration.
        choices: Which option each group was given, for the record and the run's name.
        overrides: What the command line changed, for the record and the run's name.

    Returns:
        Where the run lies and its metrics.

    Raises:
        GraftError: If the configuration or the data cannot work; nothing was trained then.
    """
    check_config(cfg)
    if cfg.resume:
        taken = take_up(cfg, overrides)
        check_config(taken.cfg)
        check_parts(taken.cfg)
        return _run(taken.cfg, taken.record, taken.choices, taken.overrides, checkpoint=taken.checkpoint)
    check_parts(cfg)
    cfg = pin_paths(cfg)
    config = plain(cfg)
    record = open_run(
        config,
        overrides=list(overrides),
        choices=dict(choices or {}),
        logs=Path(config["paths"]["logs"]),
        name=config["run"].get("name"),
    )
    return _run(cfg, record, choices or {}, overrides, checkpoint=cfg.ckpt_path)


def _run(
    cfg: DictConfig,
    record: RunRecord,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    checkpoint: str | None,
) -> Result:
    def tell(info: DataInfo) -> None:
        write_text(record.dir / "data_info.json", info.to_json() + "\n")

    config = plain(cfg)
    about = {
        "config": config,
        "run_id": record.id,
        "run_name": run_name(choices, overrides),
        "group": group_hash(config),
        "job_type": "train",
        "tags": list(config["run"].get("tags") or []),
    }
    with record:
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        run = build_run(cfg, run_dir=record.dir, about=about, tell=tell)
        metrics = _fit_and_test(run, record, checkpoint)
        record.finish(metrics, history=run.module.history)
    return Result(dir=record.dir, metrics=metrics, objective=metrics.get(f"val/{run.task.monitor}"))


def _fit_and_test(run: Run, record: RunRecord, checkpoint: str | None) -> dict[str, float]:
    exit_code = 1
    try:
        _interruptible(
            run.trainer, lambda: run.trainer.fit(run.module, run.data, ckpt_path=checkpoint, weights_only=True)
        )
        metrics = best_validation(run)
        best = best_checkpoint(run.trainer)
        if best is not None:
            run.module.on_load_checkpoint(read_checkpoint(best))
        if "test" in run.data.info.sizes:
            _interruptible(
                run.trainer, lambda: run.trainer.test(run.module, datamodule=run.data, verbose=False, weights_only=True)
            )
            logged = run.trainer.callback_metrics.items()
            metrics |= {name: float(value) for name, value in logged if name.startswith("test/")}
        _leave(run, record)
        exit_code = 0
    finally:
        for logger in run.trainer.loggers:
            if isinstance(logger, Wandb):
                logger.close(exit_code)
    return metrics


def _interruptible(trainer: pl.Trainer, work: Any) -> None:
    """Run a part of Lightning's, which turns an interrupt from the keyboard into an exit with status 1."""
    try:
        work()
    except SystemExit:
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from None
        raise


def best_validation(run: Run) -> dict[str, float]:
    """Return the validation metrics of the step that the best checkpoint was taken at.

    Args:
        run: A run that was fitted.

    Returns:
        ``val/...`` metrics; empty when no validation ran.
    """
    monitor = f"val/{run.task.monitor}"
    known = [entry for entry in run.module.history if entry.get(monitor) == entry.get(monitor, 0)]  # NaN is never best
    if not known:
        return {}
    choose = max if run.task.mode == "max" else min
    best = choose(known, key=lambda entry: entry[monitor])
    return {name: value for name, value in best.items() if name != "step"}


def best_checkpoint(trainer: pl.Trainer) -> Path | None:
    """Return the file of the best checkpoint; None when none is kept.

    Args:
        trainer: A trainer that has fitted.
    """
    keeper = trainer.checkpoint_callback
    return Path(keeper.best_model_path) if isinstance(keeper, ModelCheckpoint) and keeper.best_model_path else None


def _leave(run: Run, record: RunRecord) -> None:
    """Write what others need to use the model: weights for plain transformers or peft, and its tokenizer."""
    if run.trainer.is_global_zero and run.module.model is not None:
        save_for_others(run.module.model, record.dir / "model")
        run.processor.save_pretrained(record.dir / "model")


def main() -> None:
    """Run the command line's ``train``."""
    run_command("train", _task)


def _task(cfg: DictConfig) -> float | None:
    hydra = HydraConfig.get()
    result = train(cfg, choices=hydra.runtime.choices, overrides=clean_overrides(hydra.overrides.task))
    print_metrics(result.metrics, title=str(result.dir))
    return result.objective
