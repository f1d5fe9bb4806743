"""Parts that are right by themselves and cannot work together: one small rule each, with the way out.

A rule takes the composed configuration and returns a message, or None. It reads what the configuration says
and builds nothing. All messages are reported together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from graft.errors import IncompatibleError

Rule = Callable[[DictConfig], str | None]

_LOSSES = {
    "single_label": ("cross_entropy", "focal"),
    "multi_label": ("binary_cross_entropy", "asymmetric"),
    "regression": ("mse", "huber"),
}


def check_parts(cfg: DictConfig) -> None:
    """Refuse combinations of parts that cannot work.

    Args:
        cfg: A composed configuration that passed ``check_config``.

    Raises:
        IncompatibleError: With every combination that was found, and what to choose instead.
    """
    found = [problem for rule in RULES if (problem := rule(cfg)) is not None]
    if found:
        raise IncompatibleError(found)


def true_half_precision_needs_full_training(cfg: DictConfig) -> str | None:
    """Lightning's ``-true`` precisions cast every weight, an adapter's and a new head's too."""
    precision = str(_get(cfg, "trainer.precision"))
    if precision not in {"bf16-true", "16-true"} or _target(cfg, "peft").endswith(".Full"):
        return None
    return (
        f"trainer.precision={precision}: what this peft option trains would be kept in 16 bits too, where small "
        f"updates are rounded away. Set trainer.precision={precision.replace('true', 'mixed')}, or peft=full."
    )


def accumulation_divides_the_batch(cfg: DictConfig) -> str | None:
    """``data.batch_size`` is the batch of an optimizer step; accumulation cuts it into equal parts."""
    parts, size = _get(cfg, "trainer.accumulate_grad_batches"), _get(cfg, "data.batch_size")
    if not isinstance(parts, int) or not isinstance(size, int) or parts < 1 or size % parts == 0:
        return None
    return (
        f"trainer.accumulate_grad_batches={parts}: data.batch_size={size} rows, those of one optimizer step, "
        f"cannot be cut into {parts} equal parts. Set data.batch_size={max(1, round(size / parts)) * parts}."
    )


def loss_fits_the_problem(cfg: DictConfig) -> str | None:
    """Each loss of ``losses/classification.py`` reads one kind of target."""
    if not _target(cfg, "task").endswith(".TextClassification"):
        return None
    problem = str(_get(cfg, "task.problem") or "single_label")
    module, _, loss = _target(cfg, "task.loss").rpartition(".")
    fitting = _LOSSES.get(problem, (loss,))  # a problem that there is not is the task's to answer
    if module != "graft.losses.classification" or loss in fitting or not any(loss in some for some in _LOSSES.values()):
        return None
    return (
        f"task/loss={loss}: this loss does not fit task.problem={problem}. Choose "
        f"{' or '.join(f'task/loss={one}' for one in fitting)}, or another task."
    )


def a_regression_has_no_classes(cfg: DictConfig) -> str | None:
    """Class weights balance labels; a score is none."""
    if _get(cfg, "task.problem") != "regression" or _get(cfg, "task.class_weights") is None:
        return None
    return "task.class_weights: a regression has no classes to weigh. Leave it out, or choose another task."


def lora_plus_needs_lora(cfg: DictConfig) -> str | None:
    """LoRA+ gives LoRA's B matrices a learning rate of their own; other methods have none."""
    adapted = _target(cfg, "peft").endswith(".PeftMethod")
    if not _target(cfg, "param_groups").endswith(".lora_plus") or adapted:
        return None
    return (
        "param_groups=lora_plus: it sets the learning rate of LoRA's B matrices, and the chosen peft option has "
        "none. Choose peft=lora, or param_groups=no_decay."
    )


def half_precision_weights_need_autocast(cfg: DictConfig) -> str | None:
    """What trains is float32, and a layer cannot take both; torch's CPU kernels mix bfloat16 only."""
    dtype, precision = str(_get(cfg, "model.dtype")), str(_get(cfg, "trainer.precision"))
    if dtype not in {"bfloat16", "float16"} or _target(cfg, "peft").endswith(".Full"):
        return None
    if precision in {"None", "32", "32-true"}:
        return (
            f"model.dtype={dtype}: what stays frozen would be {dtype} and what trains float32, which only mixed "
            "precision computes with. Set trainer.precision=bf16-mixed, or leave model.dtype out."
        )
    if dtype == "float16" and _get(cfg, "trainer.accelerator") == "cpu" and precision.endswith("-mixed"):
        return (
            "model.dtype=float16: on the CPU, frozen float16 weights cannot be mixed with what trains in float32. "
            "Set model.dtype=bfloat16, or leave it out."
        )
    return None


def lr_monitor_needs_a_logger(cfg: DictConfig) -> str | None:
    """Lightning's monitor writes to loggers, and stops the run where there are none."""
    if any(node is not None for node in (_get(cfg, "logger") or {}).values()):
        return None
    for name in _get(cfg, "callbacks") or {}:
        if _target(cfg, f"callbacks.{name}").endswith(".LearningRateMonitor"):
            return (
                f"callbacks.{name}: no logger is chosen that it could write learning rates to. Choose "
                f"logger=[csv], or leave it out with callbacks.{name}=null."
            )
    return None


def what_graft_hands_the_trainer_is_not_set_again(cfg: DictConfig) -> str | None:
    """``build_trainer`` passes these itself, so a value here would be ignored without a word."""
    ways = {
        "logger": "Choose loggers with logger=[...].",
        "callbacks": "Choose callbacks with callbacks=[...].",
        "enable_checkpointing": "The callback checkpoint does that; choose it or not.",
        "enable_progress_bar": "The callback progress does that; choose it or not.",
        "enable_model_summary": "The callback report does that; choose it or not.",
        "default_root_dir": "Set paths.logs.",
        **dict.fromkeys(("plugins", "num_sanity_val_steps", "use_distributed_sampler"), "Leave it out."),
    }
    found = [
        f"trainer.{key}: graft sets this itself, so the value {value} would be ignored. {ways[str(key)]}"
        for key, value in (_get(cfg, "trainer") or {}).items()
        if key in ways
    ]
    return "\n".join(found) or None


RULES: tuple[Rule, ...] = (
    true_half_precision_needs_full_training,
    half_precision_weights_need_autocast,
    lr_monitor_needs_a_logger,
    accumulation_divides_the_batch,
    loss_fits_the_problem,
    a_regression_has_no_classes,
    lora_plus_needs_lora,
    what_graft_hands_the_trainer_is_not_set_again,
)
"""Every rule, in the order of their messages."""


def _get(cfg: DictConfig, path: str) -> Any:
    return OmegaConf.select(cfg, path, throw_on_missing=False)


def _target(cfg: DictConfig, path: str) -> str:
    return str(_get(cfg, f"{path}._target_") or "")
