"""The same work by the Hugging Face Trainer, as in its example script or tuned. Prints one JSON line.

``--preset default`` does what ``run_glue.py`` does: every row padded to the maximum length, random batches,
the library's default optimizer (in transformers 5 on torch 2.8 and later that is fused AdamW already).
``--preset tuned`` pads to the longest row of a batch and groups rows by length. ``--order graft`` takes the
batches of ``graft.data.sampling.TrainBatches``, so that both trainers see the same rows in the same order.

    python bench/hf_trainer.py --preset tuned --rows bench/results/rows/sst2 --model .../model
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from contender import load_model, parser
from measure import Stopwatch, print_result
from rows import Rows, read_rows, score, targets, tokenize

SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial")


@final
class Encoded(Dataset[dict[str, Any]]):
    """One split as the dictionaries that the Trainer's collators take.

    Args:
        tokenizer: A transformers tokenizer.
        rows: All splits.
        split: The one to encode.
        args: Parsed arguments.
    """

    def __init__(self, tokenizer: Any, rows: Rows, split: str, args: argparse.Namespace) -> None:
        own = rows.splits[split]
        columns = dict(tokenize(tokenizer, own, max_length=args.max_length, pad=args.preset == "default"))
        columns["labels"] = list(targets(own, args.problem, rows.outputs))
        self._rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row that are no padding."""
        return np.asarray([sum(row["attention_mask"]) for row in self._rows], dtype=np.int64)


@final
class GraftBatches(DataLoader[dict[str, Any]]):
    """A loader in graft's order; the Trainer calls ``set_epoch``."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


@final
class GraftOrderTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that takes its training batches in graft's order.

    Args:
        bucket: Batches that are sorted by length together.
        options: As for the Trainer.
    """

    def __init__(self, *, bucket: int, **options: Any) -> None:
        super().__init__(**options)
        self._bucket = bucket

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches that graft would train on."""
        from graft.data.sampling import TrainBatches

        data = self.train_dataset
        sampler = TrainBatches(
            data.lengths, batch_size=self.args.train_batch_size, seed=self.args.seed, bucket=self._bucket
        )
        return GraftBatches(data, batch_sampler=sampler, collate_fn=self.data_collator)


@final
class Timing(TrainerCallback):  # type: ignore[misc]
    """Times the steps as all contenders do.

    Args:
        sizes: Rows of each step, in order.
    """

    def __init__(self, sizes: Iterator[int]) -> None:
        self.watch = Stopwatch()
        self._sizes = sizes

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **others: Any) -> None:  # noqa: ARG002
        """Note the end of a step."""
        self.watch.step(next(self._sizes))


def step_sizes(n_rows: int, args: argparse.Namespace) -> Iterator[int]:
    """Yield the rows of each step of a Trainer that cuts an epoch in order, the last batch being the rest."""
    for _ in range(args.epochs):
        for start in range(0, n_rows, args.batch_size):
            yield min(args.batch_size, n_rows - start)


def training_arguments(args: argparse.Namespace, folder: str) -> TrainingArguments:
    """Translate our arguments.

    Args:
        args: Parsed arguments.
        folder: Where checkpoints go.

    Returns:
        The Trainer's settings; everything not named is the library's default.
    """
    chosen: dict[str, Any] = {}
    if args.preset == "tuned":
        chosen |= {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
    if args.select:
        chosen |= {
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "save_only_model": True,
            "load_best_model_at_end": True,
            "metric_for_best_model": args.select,
            "greater_is_better": args.select != "loss",
        }
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.eval_batch_size,
        learning_rate=args.lr,
        weight_decay=args.weight_decay,
        warmup_steps=args.warmup,
        lr_scheduler_type=args.schedule,
        max_grad_norm=args.clip,
        label_smoothing_factor=args.label_smoothing,
        seed=args.seed,
        use_cpu=args.cpu,
        disable_tqdm=True,
        report_to="none",
        **chosen,
    )


def build(args: argparse.Namespace, rows: Rows, tokenizer: Any, folder: str) -> tuple[Trainer, Timing]:
    """Build the Trainer.

    Args:
        args: Parsed arguments.
        rows: All splits.
        tokenizer: A transformers tokenizer.
        folder: Where checkpoints go.

    Returns:
        The Trainer and its clock.
    """

    def scores(prediction: Any) -> dict[str, float]:
        return score(prediction.predictions, prediction.label_ids, args.problem, threshold=args.threshold)

    train = Encoded(tokenizer, rows, "train", args)
    options: dict[str, Any] = {
        "model": load_model(args, rows),
        "args": training_arguments(args, folder),
        "train_dataset": train,
        "eval_dataset": Encoded(tokenizer, rows, "validation", args),
        "data_collator": default_data_collator if args.preset == "default" else DataCollatorWithPadding(tokenizer),
        "processing_class": tokenizer,
        "compute_metrics": scores,
    }
    if args.order == "graft":
        made: Trainer = GraftOrderTrainer(bucket=args.bucket, **options)
    else:
        made = Trainer(**options)
    timing = Timing(step_sizes(len(train), args))
    made.add_callback(timing)
    return made, timing


def main() -> None:
    """Train, evaluate, print."""
    made = parser(__doc__)
    made.add_argument("--preset", choices=("default", "tuned"), default="default")
    made.add_argument("--order", choices=("own", "graft"), default="own", help="whose batches are trained on")
    made.add_argument("--bucket", type=int, default=50, help="of --order graft; 0 shuffles without buckets")
    made.add_argument("--schedule", choices=SCHEDULES, default="linear")
    made.add_argument("--label-smoothing", type=float, default=0.0)
    made.add_argument("--select", help="metric to choose the best epoch by; by default the last weights are scored")
    made.add_argument("--cpu", action="store_true", help="stay on the CPU")
    args = made.parse_args()
    set_seed(args.seed)
    rows = read_rows(args.rows, train_limit=args.train_limit, eval_limit=args.eval_limit)
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer, timing = build(args, rows, tokenizer, folder)
        loss = trainer.train().training_loss
        metrics: dict[str, float] = {}
        speed = None
        for split in [split for split in args.evaluate.split(",") if split in rows.splits]:
            prefix = "val" if split == "validation" else split
            found = trainer.evaluate(Encoded(tokenizer, rows, split, args), metric_key_prefix=prefix)
            if split == "validation":
                speed = found["val_samples_per_second"]
            metrics |= _ours(found, prefix)
    print_result(
        contender=f"hf_{args.preset}",
        metrics=metrics,
        train_loss=loss,
        eval_samples_per_s=speed,
        threads=torch.get_num_threads(),
        **timing.watch.report(),
    )


def _ours(found: dict[str, float], prefix: str) -> dict[str, float]:
    """Rename ``val_accuracy`` to ``val/accuracy``, leaving out the Trainer's own timings."""
    names = [name for name in found if name.startswith(f"{prefix}_") and not name.endswith(("_second", "_runtime"))]
    return {f"{prefix}/{name.removeprefix(prefix + '_')}": found[name] for name in names}


if __name__ == "__main__":
    main()
