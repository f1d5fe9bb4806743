"""From config nodes to parts to a run: the only file that knows every part.

Each ``build_*`` makes one part. A node with a ``_target_`` becomes a factory; the factory is then called with what
only the program knows (the tokenizer, the run's folder, the metric to monitor ...), matched by parameter name. So a
part declares what it needs by naming it in its signature, and a value written in the config always wins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import transformers
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from graft.config.versions import execution_whitelist
from graft.data.info import DataInfo
from graft.data.module import DataModule
from graft.data.schemas import fields
from graft.engine.checkpoint import AtomicCheckpointIO
from graft.engine.resume import ExactResume
from graft.errors import ConfigError, GraftError, IncompatibleError
from graft.log import quiet_lightning
from graft.module import FineTuneModule, Optimization
from graft.step import Transform
from graft.tasks.base import AbstractTask


@dataclass(frozen=True)
class Run:
    """The parts of one run, ready to fit.

    Attributes:
        task: What a batch is scored by.
        data: Rows to batches.
        module: The task's model in training.
        trainer: Lightning's trainer.
        processor: The model's tokenizer.
    """

    task: AbstractTask
    data: DataModule
    module: FineTuneModule
    trainer: pl.Trainer
    processor: Any


def factory(node: DictConfig) -> Callable[..., Any]:
    """Turn a node into a callable that lacks only what the program supplies.

    Args:
        node: A config node with a ``_target_``; nodes inside it are built.

    Returns:
        The target with the node's other keys bound, as plain Python values.

    Raises:
        GraftError: What the constructor of a node inside raises; Hydra 1.3 would wrap it.
    """
    try:
        made: Callable[..., Any] = instantiate(node, _partial_=True, _convert_="all", **execution_whitelist(node))
    except InstantiationException as error:
        if isinstance(error.__cause__, GraftError):
            raise error.__cause__ from None
        raise
    return made


def complete(node: DictConfig, **available: Any) -> Any:
    """Call a node's target with its own keys and those of ``available`` that its signature names.

    Args:
        node: A config node with a ``_target_``.
        available: What the program can supply. A key of the node wins over it.

    Returns:
        The part.
    """
    made = factory(node)
    parameters = inspect.signature(made).parameters
    return made(**{name: value for name, value in available.items() if name in parameters and name not in node})


def build_task(cfg: DictConfig, processor: Any) -> AbstractTask:
    """Build the task with its loss.

    Args:
        cfg: The ``task`` node.
        processor: The model's tokenizer or image or audio processor.

    Returns:
        The task, not yet bound to data.

    Raises:
        IncompatibleError: If the task reads texts and the model images or sound.
    """
    task: AbstractTask = complete(cfg, processor=processor)
    reads_text = any(field.kind == "text" for field in fields(task.schema).values())
    if reads_text and isinstance(processor, transformers.ImageProcessingMixin | transformers.FeatureExtractionMixin):
        raise IncompatibleError(
            f"model: the chosen model reads images or sound ({type(processor).__name__}), and the rows of "
            f"{type(task).__name__} are texts. Choose a model that reads text, such as model=minilm."
        )
    return task


def build_data(
    cfg: DictConfig,
    task: AbstractTask,
    *,
    seed: int,
    micro_batches: int = 1,
    tell: Callable[[DataInfo], None] | None = None,
) -> DataModule:
    """Build the data module for a task.

    Args:
        cfg: The ``data`` node.
        task: Encodes and collates its rows.
        seed: For the order of the training rows, unless the node sets its own.
        micro_batches: Micro-batches of one optimizer step.
        tell: Told what is known of the data, besides the task.

    Returns:
        A data module; nothing is read yet.
    """

    def bind(info: DataInfo) -> None:
        task.bind(info)
        if tell is not None:
            tell(info)

    data: DataModule = complete(
        cfg,
        schema=task.schema,
        bind=bind,
        encode=task.encode,
        collate=task.collate,
        seed=seed,
        micro_batches=micro_batches,
    )
    return data


def build_optimization(optimizer: DictConfig, param_groups: DictConfig, scheduler: DictConfig) -> Optimization:
    """Build what moves the weights.

    Args:
        optimizer: The ``optimizer`` node; its ``lr`` and ``weight_decay`` are handed to the groups.
        param_groups: The ``param_groups`` node.
        scheduler: The ``scheduler`` node.

    Returns:
        Three factories.

    Raises:
        ConfigError: If the optimizer's node has no learning rate.
    """
    lr, decay = optimizer.get("lr"), optimizer.get("weight_decay", 0.0)
    if lr is None:
        raise ConfigError(
            "optimizer.lr: a learning rate is needed here, since the parameter groups are made with it before the "
            "optimizer is. Set optimizer.lr=1e-3, or write lr into its YAML."
        )
    groups = factory(param_groups)

    def make_groups(model: Any) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = groups(model, lr=lr, weight_decay=decay)
        return made

    return Optimization(groups=make_groups, optimizer=factory(optimizer), schedule=factory(scheduler))


def build_objective(cfg: DictConfig | None) -> list[Transform]:
    """Build the transforms of the training step.

    Args:
        cfg: The ``objective`` node: one named node a transform.

    Returns:
        The transforms, the outermost first.
    """
    return [complete(node) for node in (cfg or {}).values() if node is not None]


def build_module(cfg: DictConfig, task: AbstractTask, *, source: Any) -> FineTuneModule:
    """Build the LightningModule; the model itself is loaded when the data is known.

    Args:
        cfg: The whole configuration.
        task: The task.
        source: The ``model`` part, which loads the model.

    Returns:
        The module.
    """
    module: FineTuneModule = complete(
        cfg.module,
        task=task,
        load=source.load,
        adaptation=complete(cfg.peft, seed=cfg.seed),
        objective=build_objective(cfg.objective),
        optimization=build_optimization(cfg.optimizer, cfg.param_groups, cfg.scheduler),
    )
    return module


def build_trainer(
    cfg: DictConfig,
    task: AbstractTask,
    data: DataModule,
    *,
    run_dir: Path | None,
    about: Mapping[str, Any],
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Build the trainer with its callbacks and loggers.

    Args:
        cfg: The whole configuration.
        task: Says which metric to monitor.
        data: Whose rows stand beside predictions.
        run_dir: The run's folder; None writes nothing, and leaves out callbacks and loggers.
        about: What loggers want to know of the run: run_name, group, tags, job_type, config, run_id.
        callbacks: Besides those that the configuration chooses.

    Returns:
        The trainer.

    Raises:
        ConfigError: If Lightning refuses its settings, such as a device that is not there.
    """
    chosen: list[pl.Callback] = [ExactResume(), *callbacks]
    loggers: list[Any] = []
    if run_dir is not None:
        supplied = {
            "run_dir": run_dir,
            "save_dir": str(run_dir),
            "dirpath": str(run_dir / "checkpoints"),
            "monitor": f"val/{task.monitor}",
            "mode": task.mode,
            "seed": cfg.seed,
            "rows": data.rows,
            **about,
        }
        chosen += [complete(node, **supplied) for node in (cfg.callbacks or {}).values() if node is not None]
        loggers = [complete(node, **supplied) for node in (cfg.logger or {}).values() if node is not None]
    quiet_lightning()
    try:
        trainer: pl.Trainer = factory(cfg.trainer)(
            callbacks=chosen,
            logger=loggers or False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(run_dir) if run_dir else None,
            enable_model_summary=False,  # the report callback says what trains
            enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in chosen),
            enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in chosen),
            use_distributed_sampler=False,  # our samplers know ranks, and never pad or repeat a row
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            f"trainer: its settings cannot work here ({' '.join(str(error).split())}) Check trainer.accelerator, "
            "trainer.devices, trainer.strategy and trainer.precision."
        ) from error
    return trainer


def build_run(
    cfg: DictConfig,
    *,
    run_dir: Path | None,
    about: Mapping[str, Any] | None = None,
    tell: Callable[[DataInfo], None] | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Build all parts of a run.

    Args:
        cfg: The composed, checked configuration.
        run_dir: The run's folder, or None to write nothing.
        about: What loggers want to know of the run.
        tell: Told what is known of the data, as soon as it is read.
        callbacks: Of the trainer, besides those that the configuration chooses.

    Returns:
        The parts.
    """
    source = complete(cfg.model, offline=cfg.offline, seed=cfg.seed)
    processor = source.processor()
    task = build_task(cfg.task, processor)
    micro_batches = int(cfg.trainer.get("accumulate_grad_batches", 1))
    data = build_data(cfg.data, task, seed=cfg.seed, micro_batches=micro_batches, tell=tell)
    module = build_module(cfg, task, source=source)
    trainer = build_trainer(cfg, task, data, run_dir=run_dir, about=about or {}, callbacks=callbacks)
    return Run(task=task, data=data, module=module, trainer=trainer, processor=processor)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain, resolved Python values.

    Args:
        cfg: A composed configuration.

    Returns:
        Nested dicts, lists and primitives.

    Raises:
        ConfigError: If it is no mapping.
    """
    container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    if not isinstance(container, dict):
        raise ConfigError("the configuration is not a mapping.")
    return {str(key): value for key, value in container.items()}
