"""The one LightningModule: a task, a model, transforms of the step, and an optimization. Never subclassed.

What differs between tasks is in ``tasks/``, between methods in ``peft/`` and ``objectives/``; this file only says when
each is called. The group ``module`` may point at another LightningModule with the same constructor, for example one
with manual optimisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from graft.errors import CheckpointError
from graft.models.load import BaseId, Loaded
from graft.models.state import load_trainable_state, trainable_state
from graft.objectives.chain import chain
from graft.optim.modes import ModeAware, evaluating, follow
from graft.step import Adaptation, Batch, ModelNeeds, StepOutput, Transform
from graft.tasks.base import AbstractTask, Metrics

_PREFIX = "model."

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Optimization:
    """How weights move.

    Attributes:
        groups: From the model to its parameter groups.
        optimizer: From the groups to an optimizer.
        schedule: From ``(optimizer, total_steps=...)`` to a schedule, stepped once an optimizer step.
    """

    groups: Callable[[nn.Module], Groups]
    optimizer: Callable[[Groups], Optimizer]
    schedule: Callable[..., LRScheduler]


@final
class FineTuneModule(LightningModule):
    """Trains a task's model.

    Args:
        task: What a batch is scored by.
        load: From the task's needs to a loaded model.
        adaptation: What of it is trained.
        objective: Transforms of the training step, the outermost first. Evaluation never runs them.
        optimization: How weights move.
    """

    def __init__(
        self,
        task: AbstractTask,
        *,
        load: Callable[[ModelNeeds], Loaded],
        adaptation: Adaptation,
        objective: Sequence[Transform],
        optimization: Optimization,
    ) -> None:
        super().__init__()
        self.task = task
        self.model: nn.Module | None = None
        self.base: BaseId | None = None
        self.history: list[dict[str, float]] = []
        self._load = load
        self._adaptation = adaptation
        self._optimization = optimization
        self._training_step = chain(task.step, objective)
        self._metrics: dict[str, Metrics] = {}
        self._losses: dict[str, _Mean] = {}
        # Checkpoints hold what is trained; on_load_checkpoint is strict about exactly that set.
        self.strict_loading = False

    # ---- building -----------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Load and adapt the model; runs after the data is set up, so sizes and labels are known."""
        if self.model is not None:
            return
        needs = self.task.needs()
        loaded = self._load(needs)
        self.base = loaded.base
        self.model = self._adaptation(loaded.model, replace(needs, new_parameters=loaded.new_parameters))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, and the schedule stepped once an optimizer step."""
        optimizer = self._optimization.optimizer(self._optimization.groups(self._built()))
        schedule = self._optimization.schedule(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _built(self) -> nn.Module:
        assert self.model is not None, "configure_model has not run"
        return self.model

    # ---- training -----------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch, through all transforms of the step."""
        output = self._training_step(self._built(), batch)
        size = len(output.scored)
        self.log("train/loss", output.loss.detach(), prog_bar=True, batch_size=size)
        for name, value in output.logs.items():
            self.log(f"train/{name}", value, batch_size=size)
        # Micro-batches and processes of unequal size count by their rows, so that the update is that of one batch.
        loss: Tensor = output.loss * batch.get("share", 1.0)
        return loss

    def on_train_start(self) -> None:
        """Put optimizers that average weights on the training weights."""
        follow(self.trainer.optimizers, training=True)

    def on_train_end(self) -> None:
        """Leave the weights that are evaluated in the model, before anything else is loaded into it."""
        follow(self.trainer.optimizers, training=False)

    # ---- evaluation ---------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start a pass with fresh metrics, on the weights that will be used."""
        follow(self.trainer.optimizers, training=False)
        self._start("val")

    def on_test_epoch_start(self) -> None:
        """Start a pass with fresh metrics."""
        self._start("test")

    def validation_step(self, batch: Batch, batch_idx: int) -> StepOutput:  # type: ignore[override]  # noqa: ARG002
        """Score a batch without transforms."""
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> StepOutput:  # type: ignore[override]  # noqa: ARG002
        """Score a batch without transforms; callbacks receive the output."""
        return self._evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole split, computed once."""
        values = self._finish("val")
        if self._fitting() and not self.trainer.sanity_checking:
            self.history.append({"step": float(self.global_step), **values})

    def on_validation_end(self) -> None:
        """Go back to the training weights."""
        follow(self.trainer.optimizers, training=self._fitting())

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole split, computed once."""
        self._finish("test")

    def _fitting(self) -> bool:
        return self.trainer.state.fn == TrainerFn.FITTING

    def _start(self, split: str) -> None:
        self._metrics[split] = self.task.new_metrics()
        self._losses[split] = _Mean(self.device)

    def _evaluate(self, split: str, batch: Batch) -> StepOutput:
        output = self.task.step(self._built(), batch)
        self._metrics[split].update(output, batch)
        self._losses[split].update(output.loss, len(output.scored))
        return output

    def _finish(self, split: str) -> dict[str, float]:
        loss = self._losses[split].compute(self.all_gather)
        values = {f"{split}/{name}": value for name, value in self._metrics[split].compute().items()}
        values[f"{split}/loss"] = loss
        # Already the same on every rank, so nothing is left to reduce.
        self.log_dict(values, prog_bar=False, sync_dist=False)
        return values

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what is trained, and say which base it belongs to."""
        model, optimizers = self._built(), self.trainer.optimizers
        state = trainable_state(model)
        if any(isinstance(one, ModeAware) for one in optimizers):
            # Such an optimizer trains at one point and evaluates at another; a checkpoint holds the second.
            with evaluating(optimizers, training=self.trainer.training):
                state = {name: value.clone() for name, value in trainable_state(model).items()}
                if "optimizer_states" in checkpoint:
                    states = [self.trainer.strategy.optimizer_state(one) for one in optimizers]
                    checkpoint["optimizer_states"] = deepcopy(states)
        checkpoint["state_dict"] = {_PREFIX + name: value for name, value in state.items()}
        checkpoint["graft"] = {"base": asdict(self.base) if self.base else None, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load what was trained, strictly, onto the same base.

        Args:
            checkpoint: What :meth:`on_save_checkpoint` wrote.

        Raises:
            CheckpointError: If it belongs to another base or another set of trained parameters.
        """
        saved = checkpoint.get("graft")
        if not isinstance(saved, Mapping):
            raise CheckpointError("the checkpoint was not written by graft. Give one of a run's checkpoints/ folder.")
        check_base(saved.get("base"), self.base)
        state = checkpoint["state_dict"]
        load_trainable_state(self._built(), {name.removeprefix(_PREFIX): value for name, value in state.items()})
        self.history = list(saved.get("history", []))


def check_base(saved: Mapping[str, Any] | None, base: BaseId | None) -> None:
    """Refuse a checkpoint of another base model.

    Args:
        saved: The base that a checkpoint names.
        base: The base that was loaded.

    Raises:
        CheckpointError: If their contents differ.
    """
    if saved is None or base is None or saved["fingerprint"] == base.fingerprint:
        return
    raise CheckpointError(
        f"the checkpoint was trained on the base '{saved['name']}' (fingerprint {saved['fingerprint'][:12]}), but "
        f"'{base.name}' was loaded (fingerprint {base.fingerprint[:12]}). Set model to the one it was trained on."
    )


@final
class _Mean:
    """A mean weighted by the number of scored positions, over all ranks; no synchronisation before the end."""

    def __init__(self, device: torch.device) -> None:
        self._total = torch.zeros(2, dtype=torch.float64, device="cpu" if device.type == "mps" else device)

    def update(self, value: Tensor, weight: int) -> None:
        if weight:
            self._total += torch.stack(
                [value.detach().double() * weight, torch.tensor(float(weight), device=value.device).double()]
            ).to(self._total.device)

    def compute(self, all_gather: Callable[[Tensor], Any]) -> float:
        total = all_gather(self._total).reshape(-1, 2).sum(0)
        return float((total[0] / total[1]).float())  # as loggers keep it, so that all records of a run say the same
