"""From a graft configuration to what another trainer needs for the same work: rows and settings.

The rows are those that graft itself would train on, after column mapping, splitting and sub-sampling, in
its order. The settings are the values that graft would use, defaults of its signatures included; what the
contenders cannot do is refused.

    python bench/extract.py --out bench/results/rows/sst2 experiment=sst2 seed=1 paths.data=../shared/data
"""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from rows import TARGETS, Rows, write_rows

SCHEDULES = {
    "graft.optim.schedules.linear": "linear",
    "graft.optim.schedules.cosine": "cosine",
    "graft.optim.schedules.constant": "constant_with_warmup",
}
LOSSES = {
    "graft.losses.classification.cross_entropy": "single_label",
    "graft.losses.classification.binary_cross_entropy": "multi_label",
    "graft.losses.classification.mse": "regression",
}
OPTIMIZER = "graft.optim.optimizers.adamw"
GROUPS = "graft.optim.groups.no_decay"


def value(node: DictConfig, key: str) -> Any:
    """Return a key of a node, or the default in the signature of the node's target.

    Args:
        node: A config node with a ``_target_``.
        key: A parameter of the target.

    Returns:
        What graft would use.
    """
    if key in node:
        return node[key]
    return inspect.signature(get_object(node["_target_"])).parameters[key].default


def refuse_what_differs(cfg: DictConfig) -> None:
    """Stop if the contenders would do something else than this configuration says.

    Args:
        cfg: A composed configuration.

    Raises:
        SystemExit: If so, with the reasons.
    """
    problem = value(cfg.task, "problem")
    reasons = [
        f"{path} is {found}, not {wanted}"
        for path, found, wanted in (
            ("optimizer", cfg.optimizer["_target_"], OPTIMIZER),
            ("param_groups", cfg.param_groups["_target_"], GROUPS),
            ("task.loss", LOSSES.get(cfg.task.loss["_target_"]), problem),
            ("task.class_weights", value(cfg.task, "class_weights"), None),
            ("objective", dict(cfg.objective or {}), {}),
            ("trainer.accumulate_grad_batches", value(cfg.trainer, "accumulate_grad_batches"), 1),
            ("trainer.max_steps", value(cfg.trainer, "max_steps"), -1),
        )
        if found != wanted
    ]
    if cfg.scheduler["_target_"] not in SCHEDULES:
        reasons.append(f"scheduler is {cfg.scheduler['_target_']}, none of {', '.join(SCHEDULES)}")
    if reasons:
        raise SystemExit("the contenders cannot do this:\n  " + "\n  ".join(reasons))


def settings_of(cfg: DictConfig, run: Any) -> dict[str, Any]:
    """Return the arguments of the contenders, by their names without dashes.

    Args:
        cfg: A composed configuration.
        run: The parts built from it, with the data set up.

    Returns:
        Plain values.
    """
    from graft.models.resolve import resolve

    model = cfg.model
    epochs = value(cfg.trainer, "max_epochs")
    return {
        "model": str(
            resolve(
                model.name,
                package=(model.get("packages") or {}).get(model.name),
                revision=model.get("revision"),
                offline=True,
            )
        ),
        "problem": value(cfg.task, "problem"),
        "threshold": value(cfg.task, "threshold"),
        "max_length": value(cfg.task, "max_length"),
        "epochs": epochs,
        "batch_size": value(cfg.data, "batch_size"),
        "eval_batch_size": value(cfg.data, "eval_batch_size"),
        "bucket": value(cfg.data, "bucket"),
        "lr": cfg.optimizer.lr,
        "weight_decay": cfg.optimizer.get("weight_decay", 0.0),
        "schedule": SCHEDULES[cfg.scheduler["_target_"]],
        "warmup": value(cfg.scheduler, "warmup"),
        "clip": value(cfg.trainer, "gradient_clip_val") or 0.0,
        "label_smoothing": cfg.task.loss.get("label_smoothing", 0.0),
        "seed": cfg.seed,
        "select": run.task.monitor,
        **_method(cfg, run),
    }


def _method(cfg: DictConfig, run: Any) -> dict[str, Any]:
    if cfg.peft["_target_"] == "graft.peft.freeze.Full":
        return {"method": "full"}
    run.module.configure_model()
    (config,) = run.module.model.peft_config.values()
    if config.peft_type != "LORA":
        raise SystemExit(f"the contenders cannot do this:\n  peft is {config.peft_type}, neither full nor LORA")
    return {
        "method": "lora",
        "lora_r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "lora_targets": ",".join(sorted(config.target_modules)),
        "lora_save": ",".join(sorted(set(config.modules_to_save))),
    }


def rows_of(run: Any, problem: str) -> Rows:
    """Return graft's own rows.

    Args:
        run: The parts of a run, with the data set up.
        problem: What is predicted.

    Returns:
        Rows of all splits, in the order that graft numbers them.
    """
    names = ("text", "text_pair", TARGETS[problem])
    splits = {}
    for split in run.data.info.sizes:
        table = run.data.rows(split)
        splits[split] = table.select([name for name in names if name in table.column_names]).to_pylist()
    return Rows(splits=splits, label_names=tuple(run.data.info.label_names or ()))


def main() -> None:
    """Write the rows and ``settings.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("overrides", nargs="*", help="as of graft train")
    args = parser.parse_args()
    from graft.build import build_run
    from graft.config.check import check_config
    from graft.config.compose import load_config

    cfg = load_config("train", args.overrides)
    check_config(cfg)
    refuse_what_differs(cfg)
    run = build_run(cfg, run_dir=None)
    run.data.setup("fit")
    settings = settings_of(cfg, run)
    write_rows(args.out, rows_of(run, settings["problem"]))
    # Last: its presence says that the folder is complete.
    (args.out / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
