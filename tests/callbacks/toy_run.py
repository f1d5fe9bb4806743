"""A run small enough to know every number of: four features, three classes, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from graft.engine.checkpoint import AtomicCheckpointIO
from graft.step import Batch, Prediction, StepOutput

NAMES = ("negative", "neutral", "positive")


class ToyTask:
    """Single-label classification, as the real task says it."""

    def step(self, model: nn.Module, batch: Batch) -> StepOutput:
        logits = model(batch["features"])
        return StepOutput(nn.functional.cross_entropy(logits, batch["targets"]), logits, "logits")

    def predict(self, model: nn.Module, batch: Batch, output: StepOutput | None = None) -> list[Prediction]:
        output = output or self.step(model, batch)
        return [
            {
                "label": NAMES[row.argmax()],
                "probability": float(row.max()),
                "probabilities": dict(zip(NAMES, row.tolist(), strict=True)),
            }
            for row in output.scored.softmax(-1)
        ]

    def targets(self, batch: Batch) -> list[Any]:
        return [NAMES[target] for target in batch["targets"].tolist()]


class ToyModule(pl.LightningModule):
    """Logs what the real module logs; the validation metric is what ``scores`` says, one a validation."""

    def __init__(self, scores: Sequence[float] = (), *, fail_at: int | None = None) -> None:
        super().__init__()
        self.task = ToyTask()
        self.model = nn.Linear(4, 3)
        self.scores = list(scores)
        self.fail_at = fail_at

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise RuntimeError("the loss went\nwrong")
        output = self.task.step(self.model, batch)
        self.log("train/loss", output.loss.detach(), prog_bar=True, batch_size=len(output.scored))
        return output.loss

    def validation_step(self, batch: Batch, batch_idx: int) -> StepOutput:  # type: ignore[override]
        return self.task.step(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        score = self.scores.pop(0) if self.scores else 0.5
        self.log_dict({"val/accuracy": score, "val/loss": 1 - score})

    def test_step(self, batch: Batch, batch_idx: int) -> StepOutput:  # type: ignore[override]
        return self.task.step(self.model, batch)

    def on_test_epoch_end(self) -> None:
        self.log("test/accuracy", 0.25)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def batches(sizes: Sequence[int] = (4, 4, 2), *, order: Sequence[int] | None = None) -> list[dict[str, Tensor]]:
    """Rows 0, 1, 2 ... in batches; row i has i + 1 tokens and the class i % 3."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor(list(order) if order is not None else list(range(sum(sizes))))
    features = torch.randn(len(rows), 4, generator=generator)
    made = []
    for part in torch.split(rows, list(sizes)):
        mask = (torch.arange(len(rows)) <= part.unsqueeze(1)).long()
        made.append({"row": part, "attention_mask": mask, "features": features[part], "targets": part % 3})
    return made


def trainer(run_dir: Path, **settings: Any) -> pl.Trainer:
    """The settings that build.py decides, without progress and checkpoints unless given."""
    callbacks = settings.get("callbacks", [])
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        "enable_progress_bar": any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": str(run_dir),
    }
    return pl.Trainer(**{**defaults, **settings})


def loader(data: Sequence[dict[str, Tensor]] | None = None) -> Any:
    """A loader over ready batches, whose length Lightning knows."""
    return torch.utils.data.DataLoader(data if data is not None else batches(), batch_size=None)  # type: ignore[arg-type]
