"""``graft train``: fit, test the best checkpoint, leave a run that explains itself."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from graft.build import Run, build_run, plain
from graft.callbacks.wandb import Wandb
from graft.commands.app import run_command
from graft.commands.tables import print_metrics
from graft.config.check import check_config
from graft.config.compat import check_parts
from graft.config.compose import Composed, pin_paths
from graft.config.process import environment
from graft.config.written import clean_overrides
from graft.data.info import DataInfo
from graft.engine.checkpoint import read_checkpoint
from graft.errors import ConfigError, IncompatibleError
from graft.models.state import save_for_others
from graft.runs.record import RUN_DIR, RunRecord, exit_status, group_hash, open_run, reopen_run, run_name
from graft.runs.resume import check_same_data, take_up


@dataclass(frozen=True)
class Result:
    """What a training run ended with.

    Attributes:
        dir: The run's folder.
        metrics: Of the best checkpoint, or of the last step where none is kept: ``val/...`` and, where there is a
            test split, ``test/...``.
        objective: The value of the monitored metric, what a sweep optimises; None when no validation ran.
    """

    dir: Path
    metrics: dict[str, float]
    objective: float | None


def train(
    cfg: DictConfig | Composed, *, choices: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Result:
    """Train once, as the configuration says.

    Args:
        cfg: A configuration; or what ``compose_config`` returned, which holds the choices and overrides too.
        choices: Which option each group was given, for the record and the run's name.
        overrides: What the command line changed, for the record and the run's name.

    Returns:
        Where the run lies and its metrics.

    Raises:
        GraftError: If the configuration or the data cannot work; nothing was trained then.
    """
    if isinstance(cfg, Composed):
        return train(cfg.cfg, choices=cfg.choices, overrides=cfg.overrides)
    check_config(cfg)
    joined = _joined_run()
    if cfg.resume:
        taken = take_up(cfg, overrides, joining=joined is not None)
        run = _prepare(
            taken.cfg,
            taken.dir,
            choices=taken.choices,
            overrides=taken.overrides,
            tell=lambda info: check_same_data(taken.dir, info),
        )
        with joined or reopen_run(taken.dir, plain(taken.cfg), changes=taken.changes) as record:
            return _fit_and_test(run, record, taken.checkpoint)
    if not OmegaConf.is_dict(cfg.run):
        raise ConfigError(
            f"run: '{cfg.run}' would name a run to go on with, which resume=true does. "
            "For the folder of a new run set run.name."
        )
    check_parts(cfg)
    cfg = pin_paths(cfg)
    config = plain(cfg)
    with joined or open_run(
        config,
        overrides=list(overrides),
        choices=dict(choices or {}),
        logs=Path(config["paths"]["logs"]),
        name=config["run"].get("name"),
    ) as record:
        run = _prepare(cfg, record.dir, choices=choices or {}, overrides=overrides, tell=record.describe_data)
        return _fit_and_test(run, record, cfg.ckpt_path)


def _joined_run() -> RunRecord | None:
    """Return the run that this process helps with: Lightning repeats the command for each further device."""
    if _rank() == 0:
        return None
    folder = os.environ.get(RUN_DIR)
    if folder is None:
        raise IncompatibleError(
            f"trainer: this is process {_rank()} of several that were started from outside, as torchrun and srun do "
            "it. Start graft once, with trainer.devices=<how many>; it starts the others itself."
        )
    return RunRecord(Path(folder), writes=False)


def _rank() -> int:
    return int(rank_zero_only.rank)  # type: ignore[attr-defined]


def _prepare(
    cfg: DictConfig,
    folder: Path,
    *,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    tell: Callable[[DataInfo], None],
) -> Run:
    """Build a run's parts and read its data, so that what is wrong with them is answered before a logger begins."""
    config = plain(cfg)
    tags = config["run"].get("tags") or []
    about = {
        "config": config,
        "run_id": folder.name,
        "run_name": run_name(choices, overrides),
        "group": group_hash(config),
        "job_type": "train",
        "tags": [tags] if isinstance(tags, str) else list(tags),
    }
    with _terminable():
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        run = build_run(cfg, run_dir=folder, about=about, tell=tell)
        _refuse_processes_in_a_sweep(run.trainer)
        run.data.setup("fit")
    return run


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as an exit, which the run's record sees; while fitting, Lightning listens to it."""

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():  # signals are not this thread's to catch
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_processes_in_a_sweep(trainer: pl.Trainer) -> None:
    """Lightning's further processes repeat the whole sweep, and would go on with the wrong job."""
    processes = trainer.num_devices * trainer.num_nodes
    if processes > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise IncompatibleError(
            f"trainer: a sweep runs its jobs in one process, and this one would use {processes}. Start each job as a "
            "command of its own, or set trainer.devices=1 and remove trainer.strategy."
        )


@contextmanager
def _closing(trainer: pl.Trainer) -> Iterator[None]:
    """End the trackers' runs with the block, telling them how it ended."""
    status = 0
    try:
        yield
    except BaseException as error:
        status = exit_status(error)
        raise
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, Wandb):
                logger.close(status)


def _fit_and_test(run: Run, record: RunRecord, checkpoint: str | Path | None) -> Result:
    trainer, module = run.trainer, run.module
    with environment(RUN_DIR, str(record.dir)), _closing(trainer):
        _interruptible(lambda: trainer.fit(module, run.data, ckpt_path=checkpoint, weights_only=True))
        history = list(module.history)
        best = best_checkpoint(trainer)
        if best is not None:
            module.on_load_checkpoint(read_checkpoint(best))
        # A checkpoint holds the validations up to its own.
        metrics = {name: value for name, value in (module.history or [{}])[-1].items() if name != "step"}
        if "test" in run.data.info.sizes:
            _interruptible(lambda: trainer.test(module, datamodule=run.data, verbose=False, weights_only=True))
            logged = trainer.callback_metrics.items()
            metrics |= {name: float(value) for name, value in logged if name.startswith("test/")}
        _leave(run, record)
    record.finish(metrics, history=history)
    return Result(dir=record.dir, metrics=metrics, objective=metrics.get(f"val/{run.task.monitor}"))


def _interruptible(work: Callable[[], object]) -> None:
    """Run a part of Lightning's, which turns an interrupt from the keyboard into an exit, and is deaf to later ones."""
    before = signal.getsignal(signal.SIGINT)
    try:
        work()
    except BaseException as error:
        if _began_as_interrupt(error):
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt from None
        raise


def _began_as_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt is what an error came of, as when torch cannot end the file it was writing."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


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
    if _rank() == 0:
        print_metrics(result.metrics, title=str(result.dir))
    return result.objective
