"""What trains is float32 whatever the checkpoint's and the trainer's precision, and dropout is on while it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from graft.build import Run, build_optimization
from graft.config.compat import check_parts
from graft.errors import IncompatibleError
from graft.models.tiny import TinyModel
from graft.optim.modes import follow
from graft.step import ModelNeeds
from tests.contracts.parts import assembled, config, fit, options_of

PRECISIONS = ("32-true", "64-true", "bf16-mixed")  # 16-mixed needs a GPU


NEEDS = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": 3})


@pytest.fixture(scope="module")
def bf16_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny BERT as many checkpoints of the hub are saved: in bfloat16."""
    folder = tmp_path_factory.mktemp("bf16")
    tiny = TinyModel(family="bert")
    model: Any = tiny.load(ModelNeeds("AutoModel")).model
    model.to(torch.bfloat16).save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return folder


@dataclass
class FirstStep(pl.Callback):
    """Notes the training flags inside the first step, and the weights before it."""

    off: list[str] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.off += [name for name, module in pl_module.model.named_modules() if not module.training]
        if not self.weights:
            self.weights = {name: weight.detach().clone() for name, weight in pl_module.model.named_parameters()}


class DropAll(pl.Callback):
    """Lets nothing through any dropout layer."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        layers = [module for module in pl_module.model.modules() if isinstance(module, nn.Dropout)]
        assert layers
        for layer in layers:
            layer.p = 1.0


def train(
    base: Path, *choices: str, settings: Mapping[str, Any] | None = None, callback: pl.Callback | None = None
) -> Run:
    own = {"model.name": str(base), "trainer.max_steps": 4, "trainer.limit_val_batches": 1}
    values = {**own, **(settings or {})}
    cfg = config("model=custom", *choices, settings=values)
    check_parts(cfg)
    return fit(cfg, callbacks=[] if callback is None else [callback])


def dtypes(run: Run, *, trains: bool) -> set[torch.dtype]:
    assert run.module.model is not None
    return {weight.dtype for weight in run.module.model.parameters() if weight.requires_grad == trains}


@pytest.mark.parametrize("peft", ["full", "lora", "head_only", "norms"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_trains_over_a_bf16_checkpoint_is_float32_in_every_precision(
    peft: str, precision: str, bf16_base: Path
) -> None:
    """T2, T3: in bfloat16 an update of 1e-5 of a weight is rounded away."""
    seen = FirstStep()
    run = train(
        bf16_base, f"peft={peft}", callback=seen, settings={"trainer.precision": precision, "optimizer.lr": 1e-5}
    )
    wide = torch.float64 if precision == "64-true" else torch.float32
    assert dtypes(run, trains=True) == {wide}
    assert run.module.model is not None
    trained = {name: weight for name, weight in run.module.model.named_parameters() if weight.requires_grad}
    still = [name for name, weight in trained.items() if torch.equal(weight, seen.weights[name])]
    # LoRA's A matrices have a gradient of zero while their B matrices are
    assert all("lora_A" in name for name in still)
    assert all(torch.isfinite(weight).all() for weight in trained.values())


@pytest.mark.parametrize("peft", ["lora", "head_only", "norms"])
def test_only_what_is_frozen_may_be_half_precision(peft: str, bf16_base: Path) -> None:
    run = train(bf16_base, f"peft={peft}", settings={"model.dtype": "bfloat16", "trainer.precision": "bf16-mixed"})
    assert dtypes(run, trains=True) == {torch.float32}
    assert dtypes(run, trains=False) == {torch.bfloat16}


@pytest.mark.parametrize("precision", [None, 32, "32-true"])
def test_half_precision_weights_without_autocast_are_refused(precision: Any, bf16_base: Path) -> None:
    settings = {"model.dtype": "bfloat16"} | ({} if precision is None else {"trainer.precision": precision})
    with pytest.raises(IncompatibleError, match=r"model\.dtype=bfloat16: .* Set trainer\.precision=bf16-mixed"):
        train(bf16_base, "peft=lora", settings=settings)
    assert dtypes(train(bf16_base, "peft=full", settings=settings), trains=True) == {torch.float32}  # nothing is frozen


def test_frozen_float16_on_the_cpu_is_refused(bf16_base: Path) -> None:
    with pytest.raises(IncompatibleError, match=r"model\.dtype=float16: on the CPU.* Set model\.dtype=bfloat16"):
        train(bf16_base, "peft=lora", settings={"model.dtype": "float16", "trainer.precision": "16-mixed"})


@pytest.mark.parametrize("peft", ["lora", "head_only"])
def test_true_half_precision_is_refused_where_little_trains(peft: str, bf16_base: Path) -> None:
    with pytest.raises(IncompatibleError, match=r"Set trainer\.precision=bf16-mixed, or peft=full"):
        train(bf16_base, f"peft={peft}", settings={"trainer.precision": "bf16-true"})


def test_the_default_optimizer_is_clipped_in_mixed_precision_like_any_other(bf16_base: Path) -> None:
    """Lightning refuses to clip for an optimizer that says it unscales gradients itself, as fused AdamW does."""
    settings = {"trainer.precision": "bf16-mixed", "trainer.gradient_clip_val": 1e-3, "model.dropout": 0.0}
    fused = train(bf16_base, "peft=full", settings=settings)
    plain = train(bf16_base, "peft=full", settings={**settings, "optimizer.fused": False})
    assert fused.trainer.optimizers[0].param_groups[0]["fused"]
    assert not plain.trainer.optimizers[0].param_groups[0]["fused"]
    assert fused.module.model is not None
    assert plain.module.model is not None
    torch.testing.assert_close(fused.module.model.state_dict(), plain.module.model.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", options_of("optimizer"))
def test_every_optimizer_steps_by_gradients_that_a_scaler_unscaled_once(optimizer: str) -> None:
    """What Lightning does in 16-mixed: scale the loss, unscale the gradients, clip them, step."""
    ends = []
    for scale in (1.0, 1024.0):
        model = TinyModel(family="bert", dropout=0.0).load(NEEDS).model
        node = assembled(f"optimizer={optimizer}", "optimizer.lr=1e-3")
        optimization = build_optimization(node.optimizer, node.param_groups, node.scheduler)
        made = optimization.optimizer(optimization.groups(model))
        follow([made], training=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for _ in range(2):
            loss = model(torch.arange(20).reshape(2, 10)).logits.square().mean()
            scaler.scale(loss).backward()
            scaler.unscale_(made)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(made)
            scaler.update()
            made.zero_grad()
        ends.append(model.state_dict())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("peft", ["full", "lora", "head_only"])
def test_every_module_trains_in_every_step_also_after_a_validation(peft: str, bf16_base: Path) -> None:
    """T1: from_pretrained returns an evaluating model, and Lightning keeps the mode it finds."""
    seen = FirstStep()
    run = train(bf16_base, f"peft={peft}", callback=seen, settings={"trainer.max_steps": 7})
    assert len(run.module.history) == 1  # steps 6 and 7 come after a validation
    assert seen.off == []


def test_dropout_of_everything_lets_a_model_learn_nothing(bf16_base: Path) -> None:
    """T1: with dropout off in training, this would not matter."""
    settings = {
        "trainer.max_steps": -1,
        "trainer.max_epochs": 15,
        "trainer.check_val_every_n_epoch": 15,
        "trainer.limit_val_batches": 1.0,
        "model.dropout": 0.0,
    }
    learned = train(bf16_base, "peft=full", settings=settings).module.history[-1]
    dropped = train(bf16_base, "peft=full", callback=DropAll(), settings=settings).module.history[-1]
    assert learned["val/accuracy"] > 0.8
    assert dropped["val/accuracy"] < 0.55
