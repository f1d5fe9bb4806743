from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from graft.build import Run
from graft.engine.checkpoint import read_checkpoint
from graft.errors import CheckpointError
from graft.models.load import BaseId
from graft.module import check_base
from graft.optim.modes import evaluating
from graft.step import Batch, Step, StepOutput
from tests.contracts.parts import build, config, fit

Weights = dict[str, Tensor]


class Scaled:
    """A transform that multiplies the loss, adds to it, and says so."""

    calls = 0

    def __init__(self, factor: float = 1.0, offset: float = 0.0) -> None:
        self.factor = factor
        self.offset = offset

    def __call__(self, step: Step, model: nn.Module, batch: Batch) -> StepOutput:
        Scaled.calls += 1
        inner = step(model, batch)
        loss = self.factor * inner.loss + self.offset
        return replace(inner, loss=loss, logs={**inner.logs, "scaled/inner": inner.loss.detach()})


@dataclass
class Watch(pl.Callback):
    """Notes losses and logged values of training steps, and the weights around a validation."""

    losses: list[float] = field(default_factory=list)
    logged: list[dict[str, float]] = field(default_factory=list)
    trained_at: list[Weights] = field(default_factory=list)
    evaluated_at: list[Weights] = field(default_factory=list)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *given: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.trained_at.append(weights(pl_module.model))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0:
            self.evaluated_at.append(weights(pl_module.model))


def weights(model: Any) -> Weights:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def equal(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def close(first: Weights, second: Weights) -> None:
    """Going from the training weights to the averaged ones and back rounds once."""
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def settings(optimizer: str, **more: Any) -> Any:
    values = {"model.dropout": 0.0, "optimizer.lr": 1e-2, "trainer.max_epochs": 2, **more}
    return config(
        f"optimizer={optimizer}", "scheduler=constant", "callbacks=[checkpoint]", "logger=[]", settings=values
    )


# ---- optimizers that evaluate other weights than they train ----------------------------------------------------------


def test_a_schedule_free_run_is_evaluated_and_saved_at_the_averaged_weights(tmp_path: Path) -> None:
    seen = Watch()
    run = fit(settings("schedule_free"), run_dir=tmp_path, callbacks=[seen])
    assert len(seen.evaluated_at) == 2
    # The average of the first steps lies elsewhere than the point that gradients are taken at.
    assert not equal(seen.trained_at[0], seen.evaluated_at[0])
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    close({name.removeprefix("model."): value for name, value in saved.items()}, seen.evaluated_at[1])
    close(weights(run.module.model), seen.evaluated_at[1])  # and what is left in the model


def test_the_averaged_weights_are_the_mean_that_the_paper_says() -> None:
    """Defazio et al. 2024: x is the mean of the z of all steps, here with equal weights."""
    z: list[Weights] = []

    class Bases(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *given: Any) -> None:
            state = trainer.optimizers[0].state
            names = {value: name for name, value in pl_module.model.named_parameters()}
            z.append({names[value]: held["z"].clone() for value, held in state.items()})

    more = {"trainer.max_steps": 5, "optimizer.weight_decay": 0.0, "trainer.limit_val_batches": 0}
    run = fit(settings("schedule_free", **more), callbacks=[Bases()])
    assert len(z) == 5
    for name, value in weights(run.module.model).items():
        mean = torch.stack([one[name] for one in z]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


def test_a_reloaded_schedule_free_run_has_the_metrics_that_were_reported(tmp_path: Path) -> None:
    run = fit(settings("schedule_free", **{"trainer.max_epochs": 4}), run_dir=tmp_path)
    reported = run.module.history[-1]
    again = build(settings("schedule_free"))
    metrics = again.trainer.validate(
        again.module, datamodule=again.data, ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"), verbose=False
    )[0]
    assert metrics == pytest.approx({name: value for name, value in reported.items() if name != "step"}, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["schedule_free", "adamw"])
@pytest.mark.parametrize("interval", [1.0, 0.4])
def test_a_resumed_run_repeats_the_weights_of_an_unbroken_one(optimizer: str, interval: float, tmp_path: Path) -> None:
    more = {"trainer.max_epochs": 4, "trainer.val_check_interval": interval}
    whole = fit(settings(optimizer, **more), run_dir=tmp_path / "whole")
    fit(settings(optimizer, **{**more, "trainer.max_epochs": 2}), run_dir=tmp_path / "half")
    rest = build(settings(optimizer, **more), run_dir=tmp_path / "half")
    rest.trainer.fit(rest.module, datamodule=rest.data, ckpt_path=str(tmp_path / "half" / "checkpoints" / "last.ckpt"))
    assert rest.trainer.global_step == whole.trainer.global_step == 20
    assert equal(weights(rest.module.model), weights(whole.module.model))
    assert rest.module.history == whole.module.history  # what came before is not forgotten, and nothing stands twice


def test_saving_in_the_middle_of_training_changes_nothing_that_follows(tmp_path: Path) -> None:
    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *given: Any) -> None:
            trainer.save_checkpoint(tmp_path / "any.ckpt")

    quiet = fit(settings("schedule_free"))
    disturbed = fit(settings("schedule_free"), callbacks=[Saves()])
    close(weights(quiet.module.model), weights(disturbed.module.model))


def test_a_checkpoint_taken_while_training_holds_the_averaged_weights(tmp_path: Path) -> None:
    taken: list[Weights] = []

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *given: Any) -> None:
            with evaluating(trainer.optimizers, training=True):
                taken.append(weights(pl_module.model))
            trainer.save_checkpoint(tmp_path / "any.ckpt")
            assert not equal(weights(pl_module.model), taken[-1]) or len(taken) == 1

    fit(settings("schedule_free", **{"trainer.limit_val_batches": 0}), callbacks=[Saves()])
    saved = read_checkpoint(tmp_path / "any.ckpt")["state_dict"]
    close({name.removeprefix("model."): value for name, value in saved.items()}, taken[-1])


# ---- the objective ---------------------------------------------------------------------------------------------------


def objective(**transforms: dict[str, float]) -> dict[str, Any]:
    """Return a configuration node that chains transforms of this file."""
    return {name: {"_target_": f"{__name__}.Scaled", **values} for name, values in transforms.items()}


def test_the_objective_is_trained_on_and_never_evaluated_with() -> None:
    more = {"trainer.max_steps": 1, "optimizer.lr": 0.0}  # weights stay, so that losses can be compared
    plain, doubled = Watch(), Watch()
    without = fit(settings("sgd", **more), callbacks=[plain])
    Scaled.calls = 0
    cfg = settings("sgd", **more, objective=objective(a={"factor": 2.0}, b={"offset": 3.0}))
    run = fit(cfg, callbacks=[doubled])
    assert Scaled.calls == 2  # each once, in one training step; none in evaluation
    assert doubled.losses == [pytest.approx(2 * (plain.losses[0] + 3))]  # the first is the outermost
    assert run.module.history == without.module.history
    run.trainer.test(run.module, datamodule=run.data, verbose=False)
    assert Scaled.calls == 2


def test_what_a_transform_logs_appears_under_train() -> None:
    seen = Watch()
    cfg = settings("sgd", **{"trainer.max_steps": 1, "objective": objective(a={"factor": 2.0})})
    fit(cfg, callbacks=[seen])
    assert seen.logged[0]["train/scaled/inner"] == pytest.approx(seen.logged[0]["train/loss"] / 2)


def test_a_transform_that_is_switched_off_is_not_there() -> None:
    Scaled.calls = 0
    node = {**objective(a={"factor": 2.0}), "off": None}
    fit(settings("sgd", **{"trainer.max_steps": 1, "objective": node}))
    assert Scaled.calls == 1


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train LoRA on the tiny BERT for an epoch, and return its last checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    fit(settings("adamw", **{"trainer.max_epochs": 1}), run_dir=folder)
    return folder / "checkpoints" / "last.ckpt"


def resumed(checkpoint: Path, *choices: str, **more: Any) -> Run:
    cfg = settings("adamw", **more)
    cfg = config(*choices, "optimizer=adamw", "scheduler=constant", settings={"optimizer.lr": 1e-2}) if choices else cfg
    run = build(cfg)
    run.trainer.fit(run.module, datamodule=run.data, ckpt_path=str(checkpoint))
    return run


def changed(checkpoint: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a copy of a checkpoint with something else in it."""
    loaded = torch.load(checkpoint, weights_only=True)
    change(loaded)
    torch.save(loaded, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def test_a_checkpoint_of_another_base_is_refused_with_both_names(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        resumed(checkpoint, "model=tiny_electra")
    assert "trained on the base 'tiny_bert' (fingerprint " in str(caught.value)
    assert "'tiny_electra' was loaded" in str(caught.value)
    assert "Set model to the one it was trained on." in str(caught.value)


def test_the_same_architecture_with_other_weights_is_another_base(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="trained on the base 'tiny_bert'"):
        resumed(checkpoint, **{"model.weights_seed": 7})


def test_bases_are_compared_by_their_content_and_not_by_their_name() -> None:
    saved = {"name": "/data/bert", "revision": None, "fingerprint": "a" * 64}
    check_base(saved, BaseId("bert", None, "a" * 64))
    check_base(None, BaseId("bert", None, "a" * 64))
    with pytest.raises(CheckpointError, match="aaaaaaaaaaaa"):
        check_base(saved, BaseId("/data/bert", None, "b" * 64))


def test_a_checkpoint_that_lacks_the_head_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """C3: Lightning itself would go on with a head at random."""

    def behead(loaded: dict[str, Any]) -> None:
        loaded["state_dict"] = {name: value for name, value in loaded["state_dict"].items() if "classifier" not in name}

    with pytest.raises(CheckpointError, match=r"2 of the \d+ trained tensors of this model are missing .*classifier"):
        resumed(changed(checkpoint, tmp_path, behead))


def test_a_checkpoint_with_a_renamed_tensor_is_refused_with_both_problems(checkpoint: Path, tmp_path: Path) -> None:
    def rename(loaded: dict[str, Any]) -> None:
        name = next(iter(loaded["state_dict"]))
        loaded["state_dict"][f"{name}_old"] = loaded["state_dict"].pop(name)

    with pytest.raises(CheckpointError) as caught:
        resumed(changed(checkpoint, tmp_path, rename))
    assert len(caught.value.problems) == 2
    assert "1 of the" in caught.value.problems[0]
    assert "are not trained in this model" in caught.value.problems[1]


def test_a_head_for_other_labels_is_refused(checkpoint: Path) -> None:
    rows = {split: [{"text": "a b", "label": "x"}, {"text": "c", "label": "y"}] for split in ("train", "validation")}
    with pytest.raises(CheckpointError, match=r"have another shape: .*classifier.*\(\(3, 32\) saved, \(2, 32\)"):
        resumed(checkpoint, **{"data.source.splits": rows})


def test_a_checkpoint_of_another_way_of_adapting_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="another way of adapting"):
        resumed(checkpoint, "peft=full")


def test_a_checkpoint_that_is_not_ours_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    foreign = changed(checkpoint, tmp_path, lambda loaded: loaded.pop("graft"))
    with pytest.raises(CheckpointError, match=r"was not written by graft.*checkpoints/ folder"):
        resumed(foreign)


def test_a_refused_checkpoint_leaves_the_model_as_it_was(checkpoint: Path) -> None:
    run = build(settings("adamw"))
    run.data.setup("fit")
    run.module.configure_model()
    before = weights(run.module.model)
    loaded = read_checkpoint(checkpoint)
    loaded["state_dict"]["model.one_too_many"] = torch.zeros(1)
    with pytest.raises(CheckpointError):
        run.module.on_load_checkpoint(loaded)
    assert equal(weights(run.module.model), before)


def test_a_checkpoint_is_read_without_unpickling_and_names_its_base(checkpoint: Path) -> None:
    loaded = torch.load(checkpoint, weights_only=True)
    assert loaded["graft"]["base"]["name"] == "tiny_bert"
    assert len(loaded["graft"]["base"]["fingerprint"]) == 64
    assert [entry["step"] for entry in loaded["graft"]["history"]] == [5.0]
    assert "hyper_parameters" not in loaded


# ---- evaluation ------------------------------------------------------------------------------------------------------


def test_the_model_is_loaded_once_for_fitting_and_testing() -> None:
    run = fit(settings("adamw", **{"trainer.max_epochs": 1}))
    model = run.module.model
    run.trainer.test(run.module, datamodule=run.data, verbose=False)
    assert run.module.model is model


def test_history_holds_one_entry_a_validation_with_its_step() -> None:
    run = fit(settings("adamw", **{"trainer.max_epochs": 3}))
    assert [entry["step"] for entry in run.module.history] == [5.0, 10.0, 15.0]
    assert {"val/accuracy", "val/loss", "val/f1_macro"} <= run.module.history[0].keys()


def test_testing_and_validating_by_themselves_leave_no_history() -> None:
    run = build(settings("adamw"))
    run.trainer.test(run.module, datamodule=run.data, verbose=False)
    assert run.module.history == []
    run.trainer.validate(run.module, datamodule=run.data, verbose=False)
    assert run.module.history == []


def test_metrics_of_one_pass_do_not_leak_into_the_next() -> None:
    run = build(settings("adamw"))
    first = run.trainer.validate(run.module, datamodule=run.data, verbose=False)
    assert run.trainer.validate(run.module, datamodule=run.data, verbose=False) == first


def test_evaluation_has_dropout_off_and_training_has_it_on_again_after() -> None:
    modes: list[tuple[str, bool]] = []

    class Modes(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *given: Any) -> None:
            modes.append(("train", all(module.training for module in pl_module.model.modules())))

        def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, *given: Any) -> None:
            modes.append(("val", any(module.training for module in pl_module.model.modules())))

    fit(settings("adamw"), callbacks=[Modes()])
    assert set(modes) == {("train", True), ("val", False)}
