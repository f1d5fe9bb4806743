"""The arguments that the contenders share, so that the same command line means the same work."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rows import HF_PROBLEMS, Rows


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every contender takes.

    Args:
        description: Shown above the help.

    Returns:
        A parser to add to.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = made.add_argument
    add("--rows", type=Path, required=True, help="folder of JSON lines (see rows.py; extract.py writes one)")
    add("--model", required=True, help="folder of the checkpoint and its tokenizer")
    add("--method", choices=("full", "lora"), default="full")
    add("--problem", choices=tuple(HF_PROBLEMS), default="single_label")
    add("--threshold", type=float, default=0.5, help="probability from which a label counts (multi_label)")
    add("--max-length", type=int, default=128, help="in tokens")
    add("--epochs", type=int, default=1)
    add("--batch-size", type=int, default=32)
    add("--eval-batch-size", type=int, default=64)
    add("--lr", type=float, default=5e-5)
    add("--weight-decay", type=float, default=0.01)
    add("--warmup", type=float, default=0.1, help="steps, or a share of all steps if below 1")
    add("--clip", type=float, default=1.0, help="largest gradient norm")
    add("--lora-r", type=int, default=8)
    add("--lora-alpha", type=int, default=16)
    add("--lora-dropout", type=float, default=0.0)
    add("--lora-targets", default="query,key,value", help="module names, separated by commas")
    add("--lora-save", default="classifier", help="modules trained as a whole, separated by commas")
    add("--train-limit", type=int, help="first rows of the training split to keep")
    add("--eval-limit", type=int, help="first rows of each other split to keep")
    add("--evaluate", default="validation", help="splits to score at the end, separated by commas")
    add("--seed", type=int, default=0)
    return made


def load_model(args: argparse.Namespace, rows: Rows) -> Any:
    """Load the model in training mode, wrapped for LoRA if asked.

    Args:
        args: Parsed arguments.
        rows: Say how many outputs the head has.

    Returns:
        A transformers or peft model.
    """
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=rows.outputs, problem_type=HF_PROBLEMS[args.problem], local_files_only=True
    )
    if args.method == "lora":
        from peft import LoraConfig, TaskType, get_peft_model

        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=args.lora_r,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            target_modules=args.lora_targets.split(","),
            modules_to_save=args.lora_save.split(","),
        )
        model = get_peft_model(model, config)
    return model.train()
