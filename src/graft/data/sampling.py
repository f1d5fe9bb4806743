"""Which rows form a batch: every row exactly once, rows of like length together, the same for a seed.

Length buckets keep padding small; a batch still is a random set of rows of like length, and the batches come
in random order. The longest batch of an epoch comes first, so that a run that does not fit into memory fails
at once. In evaluation nothing is padded or repeated to even out processes, so metrics are those of the rows
and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, final

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from graft.errors import ConfigError

Rows = npt.NDArray[np.int64]

WINDOW = 64
"""Batches of evaluation whose rows are sorted by length together."""


@final
class TrainBatches(Sampler[list[int]]):
    """The training batches of one process, in a new order each epoch.

    The global batches of an epoch depend on the seed and the epoch only. Each is cut into ``micro_batches``
    times ``world_size`` parts as even as possible, and process ``rank`` gets one part of each step. The one
    short batch, if there is any, comes last; it may have fewer steps, the same number on all processes.

    Args:
        lengths: Length of every row, in tokens.
        batch_size: Rows that one optimizer step sees, over all micro-batches and processes.
        micro_batches: Forward and backward passes per optimizer step.
        seed: Seed of the order.
        rank: This process, from 0.
        world_size: Number of processes.
        bucket: How many batches' rows are sorted by length together; 0 shuffles without regard to length.

    Raises:
        ConfigError: If a batch has fewer rows than parts, or there are fewer rows than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Rows,
        *,
        batch_size: int,
        micro_batches: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        bucket: int = 50,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if micro_batches < 1 or batch_size < micro_batches * world_size:
            raise ConfigError(
                f"data.batch_size: a batch of {batch_size} rows cannot be cut into {micro_batches} micro-batches on "
                f"{world_size} processes. Raise data.batch_size or lower data.micro_batches."
            )
        if len(self.lengths) < world_size:
            raise ConfigError(
                f"data: {len(self.lengths)} training rows are not enough for {world_size} processes. "
                "Use fewer devices or more rows."
            )
        self.batch_size = batch_size
        self.micro_batches = micro_batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.bucket = bucket
        self.epoch = 0
        self._first = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(len(self.lengths), self.batch_size)
        return full * self.micro_batches + self._steps(rest)

    def skip(self, batches: int) -> None:
        """Begin each pass behind this many batches, until told otherwise."""
        self._first = batches

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows, _ in self._planned())

    def shares(self) -> list[float]:
        """Return how much each batch of this process counts in its optimizer step, relative to an even cut.

        Returns:
            ``rows * micro_batches * world_size / rows of the step`` by batch: the factor on a batch's mean loss with
            which the mean over processes of the accumulated gradients is that of the mean over all rows of the step.
        """
        parts = self.micro_batches * self.world_size
        return [len(rows) * parts / together for rows, together in self._planned()]

    def _planned(self) -> Iterator[tuple[Rows, int]]:
        """Yield the rows of each batch of this process, with the number of rows of its optimizer step."""
        planned = (
            (parts[step * self.world_size + self.rank], len(batch))
            for batch in self._global_batches()
            for parts in [np.array_split(batch, self._steps(len(batch)) * self.world_size)]
            for step in range(self._steps(len(batch)))
        )
        return islice(planned, self._first, None)

    def _steps(self, rows: int) -> int:
        """Return the steps of a global batch: none for a rest smaller than the processes, which joins another."""
        return min(self.micro_batches, rows // self.world_size)

    def _global_batches(self) -> list[Rows]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        if self.bucket == 0:
            full, short = _cut(order, self.batch_size)
        else:
            full, short = [], order[:0]
            for start in range(0, len(order), self.bucket * self.batch_size):
                mega = order[start : start + self.bucket * self.batch_size]
                batches, short = _cut(_longest_first(mega, self.lengths), self.batch_size)
                full.extend(batches)
            full = [full[index] for index in random.permutation(len(full))]
            longest = max(range(len(full)), key=lambda index: self.lengths[full[index]].max(), default=0)
            full[:1], full[longest : longest + 1] = full[longest : longest + 1], full[:1]
        if len(short) >= self.world_size or not full:
            return [*full, short] if len(short) else full
        return [*full[:-1], np.concatenate([full[-1], short])]


@final
class EvalBatches(Sampler[list[int]]):
    """The evaluation batches of one process: every row once over all processes, nothing padded or repeated.

    One process sees ``windowed_order`` cut into batches. Several take turns batch by batch; the last rows are
    spread so that all have the same number of batches, as collective operations in a forward pass need. Only
    when there are fewer rows than processes do some have none.

    Args:
        lengths: Length of every row, in tokens.
        batch_size: Rows a batch and process at most (one more where several processes take single rows).
        rank: This process, from 0.
        world_size: Number of processes.
        window: How many batches' rows are sorted by length together.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Rows,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        window: int = WINDOW,
    ) -> None:
        order = windowed_order(lengths, batch_size=batch_size, window=window)
        together = batch_size * world_size
        even = len(order) - len(order) % together
        if 0 < len(order) - even < world_size and even:
            even -= together  # too few rows are left to give each process one, so the last full round helps out
        rounds = [
            part for start in range(0, even, together) for part in _cut(order[start : start + together], batch_size)[0]
        ]
        tail = order[even:]
        # batches of a single row cannot be spread evenly, so a batch may then hold a row more
        steps = max(1, min(-(-len(tail) // together), len(tail) // world_size))
        batches = [*rounds, *np.array_split(tail, steps * world_size)]
        self._batches = [batch for batch in batches[rank::world_size] if len(batch)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._batches)


def windowed_order(lengths: Sequence[int] | Rows, *, batch_size: int, window: int) -> Rows:
    """Return the order in which rows are evaluated: longest first inside windows of consecutive rows.

    Evaluation and prediction share it, so that the same rows meet in the same batches whether they are read
    at once or streamed window by window.

    Args:
        lengths: Length of every row, in tokens.
        batch_size: Rows a batch.
        window: Batches a window.

    Returns:
        A permutation of the rows; windows of ``window * batch_size`` rows stay in place.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    span = window * batch_size
    starts = range(0, len(lengths), span)
    parts = [_longest_first(np.arange(start, min(start + span, len(lengths))), lengths) for start in starts]
    return np.concatenate(parts) if parts else np.arange(0)


def _longest_first(rows: Rows, lengths: npt.NDArray[Any]) -> Rows:
    return rows[np.argsort(-lengths[rows], kind="stable")]


def _cut(rows: Rows, size: int) -> tuple[list[Rows], Rows]:
    """Return the full batches and the rest, which may be empty."""
    even = len(rows) - len(rows) % size
    return [rows[start : start + size] for start in range(0, even, size)], rows[even:]
