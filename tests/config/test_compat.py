"""Parts that are right by themselves and cannot work together, one rule at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from omegaconf import DictConfig

from graft.config.compat import RULES, check_parts
from graft.config.compose import load_config
from graft.errors import IncompatibleError


def composed(*overrides: str) -> DictConfig:
    return load_config("train", ["model=tiny_bert", *overrides])


REFUSED: dict[str, tuple[Sequence[str], str]] = {
    "true_half_precision_needs_full_training": (
        ["trainer.precision=bf16-true"],
        "trainer.precision=bf16-true: what this peft option trains would be kept in 16 bits too, where small updates "
        "are rounded away. Set trainer.precision=bf16-mixed, or peft=full.",
    ),
    "half_precision_weights_need_autocast": (
        ["model=custom", "model.name=x", "model.dtype=bfloat16"],
        "model.dtype=bfloat16: what stays frozen would be bfloat16 and what trains float32, which only mixed precision "
        "computes with. Set trainer.precision=bf16-mixed, or leave model.dtype out.",
    ),
    "lr_monitor_needs_a_logger": (
        ["logger=[]"],
        "callbacks.lr_monitor: no logger is chosen that it could write learning rates to. Choose logger=[csv], or "
        "leave it out with callbacks.lr_monitor=null.",
    ),
    "accumulation_divides_the_batch": (
        ["trainer.accumulate_grad_batches=5", "data.batch_size=32"],
        "trainer.accumulate_grad_batches=5: data.batch_size=32 rows, those of one optimizer step, cannot be cut into 5 "
        "equal parts. Set data.batch_size=30.",
    ),
    "loss_fits_the_problem": (
        ["task=text_regression", "task/loss=focal"],
        "task/loss=focal: this loss does not fit task.problem=regression. Choose task/loss=mse or task/loss=huber, or "
        "another task.",
    ),
    "a_regression_has_no_classes": (
        ["task=text_regression", "task.class_weights=balanced"],
        "task.class_weights: a regression has no classes to weigh. Leave it out, or choose another task.",
    ),
    "lora_plus_needs_lora": (
        ["param_groups=lora_plus", "peft=full"],
        "param_groups=lora_plus: it sets the learning rate of LoRA's B matrices, and the chosen peft option has none. "
        "Choose peft=lora, or param_groups=no_decay.",
    ),
    "what_graft_hands_the_trainer_is_not_set_again": (
        ["trainer.logger=false", "trainer.num_sanity_val_steps=2"],
        "trainer.logger: graft sets this itself, so the value False would be ignored. Choose loggers with "
        "logger=[...].\ntrainer.num_sanity_val_steps: graft sets this itself, so the value 2 would be ignored. Leave "
        "it out.",
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_refuses_its_combination_with_the_way_out(rule: object) -> None:
    overrides, message = REFUSED[getattr(rule, "__name__", "")]
    with pytest.raises(IncompatibleError) as caught:
        check_parts(composed(*overrides))
    assert caught.value.problems == (message,)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.precision=bf16-true", "peft=full"],
        ["trainer.precision=bf16-mixed"],
        ["model=custom", "model.name=x", "model.dtype=bfloat16", "trainer.precision=bf16-mixed"],
        ["logger=[]", "callbacks.lr_monitor=null"],
        ["trainer.accumulate_grad_batches=4", "data.batch_size=32"],
        ["task=text_multilabel", "task/loss=asymmetric"],
        ["task.class_weights=balanced"],
        ["param_groups=lora_plus"],
        ["task.loss._target_=my_lab.loss"],
        ["task.problem=a_misspelt_one"],
    ],
)
def test_what_works_passes(overrides: list[str]) -> None:
    check_parts(composed(*overrides))


def test_float16_on_the_cpu_is_refused_even_with_mixed_precision() -> None:
    with pytest.raises(IncompatibleError, match=r"Set model.dtype=bfloat16, or leave it out"):
        check_parts(
            composed("model=custom", "model.name=x", "model.dtype=float16", "trainer=cpu", "trainer.precision=16-mixed")
        )


def test_all_combinations_come_together() -> None:
    with pytest.raises(IncompatibleError) as caught:
        check_parts(composed("peft=full", "param_groups=lora_plus", "logger=[]"))
    assert len(caught.value.problems) == 2
