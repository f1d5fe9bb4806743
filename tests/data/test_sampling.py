from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graft.data.sampling import EvalBatches, TrainBatches, windowed_order
from graft.errors import ConfigError

SIZES = (1, 2, 3, 5, 8, 16, 17, 33, 64, 100, 257)


def lengths(count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Lengths as texts have them: many short, few long."""
    return np.random.default_rng(seed).lognormal(2.5, 0.6, count).astype(np.int64) + 1


def rows(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


def epoch(sampler: TrainBatches, number: int) -> list[list[int]]:
    sampler.set_epoch(number)
    return list(sampler)


def padding(batches: Iterable[list[int]], sizes: npt.NDArray[np.int64]) -> float:
    """Share of what is computed that is padding."""
    computed = sum(sizes[batch].max() * len(batch) for batch in batches)
    return float(1 - sizes.sum() / computed)


# ---- training ----


@pytest.mark.parametrize("bucket", [0, 1, 3, 50])
@pytest.mark.parametrize("count", SIZES)
def test_an_epoch_holds_every_row_exactly_once_over_all_processes(count: int, bucket: int) -> None:
    for world_size, micro_batches, batch_size in product((1, 2, 3), (1, 2, 4), (12, 16)):
        if count < world_size:
            continue
        settings: dict[str, Any] = {"batch_size": batch_size, "micro_batches": micro_batches, "bucket": bucket}
        ranks = [TrainBatches(lengths(count), rank=r, world_size=world_size, **settings) for r in range(world_size)]
        for number in range(2):
            batches = [epoch(sampler, number) for sampler in ranks]
            assert sorted(rows(chain.from_iterable(batches))) == list(range(count))
            assert [len(sampler) for sampler in ranks] == [len(part) for part in batches]
            assert len({len(part) for part in batches}) == 1, "every process takes the same number of steps"
            assert min(map(len, chain.from_iterable(batches))) >= 1


@pytest.mark.parametrize("count", [48, 50, 97, 250])
def test_the_global_batches_depend_on_neither_processes_nor_micro_batches(count: int) -> None:
    """The rows of an optimizer step are the same however they are cut, but for a rest smaller than the processes."""

    def steps(world_size: int, micro_batches: int) -> list[set[int]]:
        ranks = [
            list(
                TrainBatches(
                    lengths(count), batch_size=24, micro_batches=micro_batches, rank=rank, world_size=world_size
                )
            )
            for rank in range(world_size)
        ]
        by_step = [rows(parts) for parts in zip(*ranks, strict=True)]
        whole = [set(rows(by_step[start : start + micro_batches])) for start in range(0, len(by_step), micro_batches)]
        return whole

    expected = steps(1, 1)
    for world_size, micro_batches in product((1, 2, 3, 4), (1, 2, 3)):
        if 0 < count % 24 < world_size:
            merged = steps(world_size, micro_batches)
            assert merged[:-1] == expected[:-2]
            assert merged[-1] == expected[-2] | expected[-1]
        else:
            assert steps(world_size, micro_batches) == expected


def test_a_global_batch_is_cut_as_evenly_as_it_goes() -> None:
    ranks = [TrainBatches(lengths(70), batch_size=35, micro_batches=2, rank=rank, world_size=2) for rank in range(2)]
    sizes = [len(batch) for sampler in ranks for batch in sampler]
    # two batches of 35 rows in 4 parts each
    assert sorted(sizes) == [8, 8, 9, 9, 9, 9, 9, 9]


def test_the_short_batch_comes_last() -> None:
    for seed in range(5):
        sampler = TrainBatches(lengths(103), batch_size=10, seed=seed)
        assert [len(batch) for batch in sampler] == [10] * 10 + [3]


def test_length_buckets_save_most_of_the_padding() -> None:
    sizes = lengths(5000)
    random = padding(TrainBatches(sizes, batch_size=32, bucket=0), sizes)
    bucketed = padding(TrainBatches(sizes, batch_size=32), sizes)
    assert random > 0.5
    assert bucketed < 0.1


def test_buckets_do_not_put_the_same_rows_together_each_epoch() -> None:
    sampler = TrainBatches(lengths(5000), batch_size=32)
    first, second = ({frozenset(batch) for batch in epoch(sampler, number)} for number in (0, 1))
    assert not first & second


def test_lengths_come_in_no_order_within_an_epoch() -> None:
    sizes = lengths(1600)  # one bucket
    longest = [sizes[batch].max() for batch in TrainBatches(sizes, batch_size=32)]
    assert abs(np.corrcoef(np.arange(50), longest)[0, 1]) < 0.4


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_batch_comes_first_so_that_memory_fails_at_once(seed: int) -> None:
    sizes = lengths(1000)
    sampler = TrainBatches(sizes, batch_size=32, seed=seed)
    for number in range(3):
        batches = epoch(sampler, number)
        assert sizes[batches[0]].max() == sizes.max()


def test_each_epoch_has_a_new_order_and_each_seed_too() -> None:
    orders = [
        tuple(rows(epoch(TrainBatches(lengths(100), batch_size=8, seed=seed), number)))
        for seed, number in product(range(10), range(4))
    ]
    assert len(set(orders)) == 40


@pytest.mark.parametrize("bucket", [0, 50])
def test_the_order_is_the_same_for_a_seed_and_zero_is_a_seed(bucket: int) -> None:
    def order(seed: int) -> list[int]:
        return rows(epoch(TrainBatches(lengths(100), batch_size=8, seed=seed, bucket=bucket), 2))

    assert order(0) == order(0)
    np.random.seed(5)  # the order is drawn from a generator of its own
    assert order(0) == order(0) != order(1)


def test_an_epoch_can_be_read_twice() -> None:
    sampler = TrainBatches(lengths(100), batch_size=8)
    assert list(sampler) == list(sampler)


def test_without_buckets_rows_come_as_they_were_drawn() -> None:
    sizes = lengths(64)
    order = rows(TrainBatches(sizes, batch_size=8, bucket=0))
    assert order != sorted(order)
    assert sorted(sizes[order[:8]].tolist(), reverse=True) != sizes[order[:8]].tolist()


@pytest.mark.parametrize(("batch_size", "micro_batches", "world_size"), [(3, 4, 1), (7, 4, 2), (2, 1, 3)])
def test_a_batch_that_cannot_be_cut_is_refused(batch_size: int, micro_batches: int, world_size: int) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainBatches(lengths(50), batch_size=batch_size, micro_batches=micro_batches, world_size=world_size)
    assert str(caught.value) == (
        f"data.batch_size: a batch of {batch_size} rows cannot be cut into {micro_batches} micro-batches on "
        f"{world_size} processes. Raise data.batch_size or lower data.micro_batches."
    )


def test_there_must_be_a_row_for_every_process() -> None:
    with pytest.raises(ConfigError, match="2 training rows are not enough for 3 processes"):
        TrainBatches(lengths(2), batch_size=6, world_size=3)


# ---- evaluation ----


def evaluated(count: int, batch_size: int, world_size: int, window: int = 64) -> list[list[list[int]]]:
    return [
        list(EvalBatches(lengths(count), batch_size=batch_size, rank=rank, world_size=world_size, window=window))
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 5, 8, 33, *range(2, 60, 3)])
def test_evaluation_neither_pads_nor_repeats_a_row(count: int, world_size: int) -> None:
    for batch_size, window in product((1, 2, 3, 4, 8, 64), (1, 2, 64)):
        ranks = evaluated(count, batch_size, world_size, window)
        assert sorted(rows(chain.from_iterable(ranks))) == list(range(count))
        assert all(1 <= len(batch) <= max(batch_size, 2) for batch in chain.from_iterable(ranks))
        assert world_size > 1 or all(len(batch) <= batch_size for batch in ranks[0])
        steps = [len(batches) for batches in ranks]
        assert len(set(steps)) == 1 or (count < world_size and max(steps) == 1)
        samplers = [
            EvalBatches(lengths(count), batch_size=batch_size, rank=rank, world_size=world_size, window=window)
            for rank in range(world_size)
        ]
        assert [len(sampler) for sampler in samplers] == steps


def test_processes_take_no_more_steps_than_needed() -> None:
    # 33 rows in batches of 4 on 3 processes: 12 rows a round
    assert [len(batches) for batches in evaluated(33, 4, 3)] == [3, 3, 3]


def test_one_process_sees_the_windowed_order_cut_into_batches() -> None:
    for count, batch_size, window in product((1, 7, 8, 33), (1, 4, 8), (1, 2, 64)):
        order = windowed_order(lengths(count), batch_size=batch_size, window=window).tolist()
        batches = evaluated(count, batch_size, 1, window)[0]
        assert batches == [order[start : start + batch_size] for start in range(0, count, batch_size)]


def test_no_rows_are_no_batches() -> None:
    assert evaluated(0, 4, 2) == [[], []]


def test_evaluation_is_the_same_each_time_and_pads_little() -> None:
    sizes = lengths(5000)
    sampler = EvalBatches(sizes, batch_size=64)
    assert list(sampler) == list(sampler)
    assert padding(sampler, sizes) < 0.1


# ---- windows ----


def test_windows_are_sorted_longest_first_and_stay_in_place() -> None:
    # windows of two batches of two rows; equal lengths keep their order
    assert windowed_order([1, 5, 3, 5, 2, 9, 4], batch_size=2, window=2).tolist() == [1, 3, 2, 0, 5, 6, 4]


def test_rows_streamed_window_by_window_meet_in_the_same_batches() -> None:
    sizes = lengths(1000)
    span = 8 * 16
    streamed = [
        start + index
        for start in range(0, len(sizes), span)
        for index in windowed_order(sizes[start : start + span], batch_size=8, window=16).tolist()
    ]
    assert windowed_order(sizes, batch_size=8, window=16).tolist() == streamed


def test_the_order_of_no_rows_is_empty() -> None:
    assert windowed_order([], batch_size=8, window=2).tolist() == []
