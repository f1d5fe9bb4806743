"""Text classification as a hand-optimised plain PyTorch loop: the speed to measure a framework against.

Length buckets (sorted inside shuffled mega-batches of 50 batches, the longest batch first), padding to the
longest of a batch, fused AdamW, scaled-dot-product attention, no synchronisation within a step, linear
schedule with warm-up, clipped gradients; evaluation sorted by length under inference mode. Prints one JSON
line.

    python bench/bare_loop.py --rows bench/results/rows/sst2 --model .../model --method lora
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from contender import load_model, parser
from measure import Stopwatch, print_result
from rows import Rows, read_rows, score, targets, tokenize

MEGA_BATCH = 50


class Encoded:
    """One split as arrays: token ids, segments if the rows are pairs, targets.

    Args:
        tokenizer: A transformers tokenizer that pads on the right.
        rows: All splits.
        split: The one to encode.
        args: Parsed arguments.
    """

    def __init__(self, tokenizer: Any, rows: Rows, split: str, args: argparse.Namespace) -> None:
        own = rows.splits[split]
        columns = tokenize(tokenizer, own, max_length=args.max_length)
        self.ids = [np.asarray(ids) for ids in columns["input_ids"]]
        self.segments = (
            [np.asarray(types) for types in columns["token_type_ids"]]
            if "text_pair" in own[0] and "token_type_ids" in columns
            else None
        )
        self.lengths = np.asarray([len(ids) for ids in self.ids])
        self.wanted = targets(own, args.problem, rows.outputs)
        self._pad = tokenizer.pad_token_id

    def batch(self, chosen: Sequence[int] | npt.NDArray[Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the model's inputs and the targets of some rows."""
        lengths = self.lengths[chosen]
        longest = int(lengths.max())
        inputs = {"input_ids": _padded([self.ids[row] for row in chosen], longest, self._pad)}
        inputs["attention_mask"] = torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))
        if self.segments is not None:
            inputs["token_type_ids"] = _padded([self.segments[row] for row in chosen], longest, 0)
        return inputs, torch.from_numpy(self.wanted[chosen])


def _padded(sequences: list[npt.NDArray[Any]], longest: int, value: int) -> Tensor:
    table = np.full((len(sequences), longest), value, dtype=np.int64)
    for index, sequence in enumerate(sequences):
        table[index, : len(sequence)] = sequence
    return torch.from_numpy(table)


def bucketed(lengths: npt.NDArray[Any], batch_size: int, generator: random.Random) -> list[list[int]]:
    """Cut a shuffled epoch into batches of rows of similar length.

    Args:
        lengths: Length of each row.
        batch_size: Rows of a batch; one batch may be smaller.
        generator: Where chance comes from.

    Returns:
        Every row once, the batch with the longest row first.
    """
    order = list(range(len(lengths)))
    generator.shuffle(order)
    mega = MEGA_BATCH * batch_size
    batches = []
    for start in range(0, len(order), mega):
        rows = sorted(order[start : start + mega], key=lambda row: int(lengths[row]))
        batches += [rows[cut : cut + batch_size] for cut in range(0, len(rows), batch_size)]
    generator.shuffle(batches)
    longest = max(range(len(batches)), key=lambda index: int(lengths[batches[index]].max()))
    batches[0], batches[longest] = batches[longest], batches[0]
    return batches


def epochs(lengths: npt.NDArray[Any], args: argparse.Namespace) -> Iterator[list[int]]:
    """Yield the batches of all epochs."""
    generator = random.Random(args.seed)
    for _ in range(args.epochs):
        yield from bucketed(lengths, args.batch_size, generator)


def loss_of(logits: Tensor, wanted: Tensor, problem: str) -> Tensor:
    """Return the mean loss of a batch."""
    if problem == "single_label":
        return functional.cross_entropy(logits, wanted)
    if problem == "regression":
        return functional.mse_loss(logits.squeeze(-1), wanted)
    return functional.binary_cross_entropy_with_logits(logits, wanted)


def optimization(
    model: nn.Module, args: argparse.Namespace, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return fused AdamW (no decay on biases and norms) and a linear schedule with warm-up."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
    warmup = int(args.warmup) if args.warmup >= 1 else int(np.ceil(args.warmup * total))

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        return max(0.0, (total - step) / max(1, total - warmup))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train(model: nn.Module, data: Encoded, args: argparse.Namespace) -> tuple[Stopwatch, float]:
    """Train; return the time it took and the mean loss of a step."""
    batches = list(epochs(data.lengths, args))
    optimizer, schedule = optimization(model, args, len(batches))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = torch.zeros(())
    watch = Stopwatch()
    for rows in batches:
        inputs, wanted = data.batch(rows)
        loss = loss_of(model(**inputs).logits, wanted, args.problem)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, args.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
        watch.step(len(rows))
    return watch, float(total) / len(batches)


@torch.inference_mode()
def evaluate(model: nn.Module, data: Encoded, args: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Return the metrics of a split and the rows scored in a second."""
    model.eval()
    order = np.argsort(-data.lengths, kind="stable")
    began = time.perf_counter()
    parts = [
        model(**data.batch(order[start : start + args.eval_batch_size])[0]).logits
        for start in range(0, len(order), args.eval_batch_size)
    ]
    speed = len(order) / (time.perf_counter() - began)
    outputs = torch.cat(parts).numpy()
    return score(outputs, data.wanted[order], args.problem, threshold=args.threshold), speed


def main() -> None:
    """Run the loop."""
    args = parser(__doc__).parse_args()
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(args.seed)
    rows = read_rows(args.rows, train_limit=args.train_limit, eval_limit=args.eval_limit)
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    data = Encoded(tokenizer, rows, "train", args)
    model = load_model(args, rows)
    watch, loss = train(model, data, args)
    metrics: dict[str, float] = {}
    speeds = {}
    for split in [split for split in args.evaluate.split(",") if split in rows.splits]:
        found, speeds[split] = evaluate(model, Encoded(tokenizer, rows, split, args), args)
        metrics |= {f"{'val' if split == 'validation' else split}/{name}": value for name, value in found.items()}
    print_result(
        contender="bare",
        metrics=metrics,
        train_loss=loss,
        eval_samples_per_s=speeds.get("validation"),
        threads=torch.get_num_threads(),
        **watch.report(),
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
