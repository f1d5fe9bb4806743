"""The one LightningDataModule: rows from a source, encoded by a task, in batches.

What differs between data sets is a source, a schema and names, so a data set is a YAML file and no class. The
task comes in as plain functions; this file knows none.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, SequentialSampler

from graft.data.columns import to_schema
from graft.data.encoded import EncodedRows
from graft.data.info import DataInfo, describe
from graft.data.origin import shown
from graft.data.sampling import EvalBatches, TrainBatches
from graft.data.sources import Source
from graft.data.splits import keep, subsample
from graft.errors import ConfigError, DataError, did_you_mean
from graft.log import get_logger
from graft.step import Batch, Columns, Features

log = get_logger(__name__)

SPLITS = ("train", "validation", "test")
_STAGES = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",), "predict": ()}
_CHUNK = 1000  # rows that the task encodes at once
_BAR_FROM = 20_000  # rows from which a progress bar is worth its lines


@final
class Loader:
    """A DataLoader that begins when its first batch is asked for.

    Lightning makes the iterator before it announces the epoch, and a DataLoader with workers draws its first
    indices right then, so that a resumed run would begin with the order of epoch 0. It is no DataLoader
    itself, so Lightning does not put its own sampler, which repeats rows, in place of ours.

    Args:
        loader: What to iterate over.
        sampler: Its batch sampler; Lightning calls the ``set_epoch`` of an attribute of this name.
        repeat: Keep to the batches of the first epoch.
    """

    def __init__(self, loader: DataLoader[Any], sampler: TrainBatches | EvalBatches, *, repeat: bool = False) -> None:
        self.loader = loader
        self._batches = sampler
        # What Lightning knows to keep its order is told no epoch.
        self.sampler = SequentialSampler(range(len(sampler))) if repeat else sampler
        self.batch_sampler = None  # Lightning looks at it where there is a sampler

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self._batches, EvalBatches):
            yield from self.loader
            return
        try:
            for batch, share in zip(self.loader, self._batches.shares(), strict=True):
                yield {**batch, "share": share}
        finally:
            self._batches.skip(0)

    def skip(self, batches: int) -> None:
        """Leave out the first batches of the next pass, and of that one only.

        Args:
            batches: How many; a resumed run has trained on them.
        """
        if isinstance(self._batches, TrainBatches):
            self._batches.skip(batches)

    @property
    def _iterator(self) -> Any:
        """The running workers: Lightning ends those of an attribute of this name when it has done with a loader."""
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self.loader._iterator = iterator


@final
class DataModule(LightningDataModule):
    """Loads, splits, checks, encodes and batches the rows of one data set.

    Args:
        source: Where the rows are (``data/sources.py``).
        schema: The row that the task reads (``data/schemas.py``).
        bind: Takes the facts of the data before anything is encoded: ``task.bind``.
        encode: From a chunk of columns to feature columns: ``task.encode``.
        collate: From encoded rows to a batch: ``task.collate``.
        columns: From the schema's column names to the data's.
        label_names: Names of the labels, or a file that lists them (one a line, or a JSON list); None finds
            them in the training split.
        separator: What separates several labels in one cell.
        split: Chooses which rows train, validate and test (``data/splits.py``).
        batch_size: Rows per optimizer step, over all micro-batches and processes.
        micro_batches: Forward and backward passes per optimizer step; the trainer accumulates as many.
        eval_batch_size: Rows a batch and process in evaluation.
        num_workers: Processes that collate; no more are started than there are processor cores for.
        limit: Train on this many rows (an integer) or this fraction of them (a float), chosen by
            ``limit_seed``.
        limit_seed: Seed of that choice. It is not the run's seed, so that runs of other seeds see the same
            rows.
        bucket: How many batches' rows are sorted by length together; 0 shuffles without regard to length.
        seed: Seed of the order of the training rows.
        name: What the data set is called.

    Raises:
        ConfigError: If a size is below what it can be.
    """

    def __init__(
        self,
        source: Source,
        *,
        schema: type,
        bind: Callable[[DataInfo], None],
        encode: Callable[[Columns], dict[str, list[Any]]],
        collate: Callable[[Sequence[Features]], Batch],
        columns: Mapping[str, str | None] | None = None,
        label_names: Sequence[str] | str | None = None,
        separator: str | None = None,
        split: Callable[[Mapping[str, pa.Table]], dict[str, pa.Table]] = keep,
        batch_size: int = 32,
        micro_batches: int = 1,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        limit: int | float | None = None,
        limit_seed: int = 0,
        bucket: int = 50,
        seed: int = 0,
        name: str = "data",
    ) -> None:
        super().__init__()
        lowest = {"batch_size": 1, "micro_batches": 1, "eval_batch_size": 1, "num_workers": 0, "bucket": 0}
        given = (batch_size, micro_batches, eval_batch_size, num_workers, bucket)
        problems = [
            f"data.{key}: {value} is too low. Set it to {least} or more."
            for (key, least), value in zip(lowest.items(), given, strict=True)
            if value < least
        ]
        if problems:
            raise ConfigError(problems)
        # a process without a single row to evaluate is right when there are fewer rows than processes
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.source = source
        self.schema = schema
        self.bind = bind
        self.encode = encode
        self.collate = collate
        self.columns = columns
        self.label_names = Path(label_names).expanduser().absolute() if isinstance(label_names, str) else label_names
        self.separator = separator
        self.split = split
        self.batch_size = batch_size
        self.micro_batches = micro_batches
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.limit = limit
        self.limit_seed = limit_seed
        self.bucket = bucket
        self.seed = seed
        self._name = name
        self._tables: dict[str, pa.Table] = {}
        self._encoded: dict[str, EncodedRows] = {}
        self._info: DataInfo | None = None
        self._trained: DataInfo | None = None

    def follow(self, trained: DataInfo) -> None:
        """Keep to the labels of a model that is trained already; call it before ``setup``.

        Args:
            trained: What was known of the data that it was trained on: its label names are the model's outputs.
        """
        self._trained = trained

    @property
    def info(self) -> DataInfo:
        """What is known of the data; there after ``setup``."""
        if self._info is None:
            raise RuntimeError("DataModule.info is there after setup()")
        return self._info

    def rows(self, split: str) -> pa.Table:
        """Return the rows of a split as they are used, columns named as in the schema.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Returns:
            The table; the feature ``row`` of an encoded row is its position here.

        Raises:
            DataError: If there is no such split.
        """
        if split not in self._tables:
            raise DataError(_no_split(split, self._name, self._tables))
        return self._tables[split]

    def encoded(self, split: str) -> EncodedRows:
        """Return the encoded rows of a split, encoding them at the first call.

        Args:
            split: As in ``rows``.

        Returns:
            The rows in the order of the table.
        """
        if split not in self._encoded:
            self._encoded[split] = EncodedRows.build(self._chunks(split))
        return self._encoded[split]

    def setup(self, stage: str | None = None) -> None:
        """Load everything once, and encode what a stage needs.

        Args:
            stage: Lightning's ``fit``, ``validate`` or ``test``; None is all of them.

        Raises:
            DataError: If the data cannot be used, with every problem found, or a split that the stage needs
                is missing.
        """
        if self._info is None:
            self._load()
        needed = SPLITS if stage is None else _STAGES[stage]
        missing = [split for split in needed if split not in self._tables]
        if stage is None:
            missing = [split for split in missing if split == "train"]
        if missing:
            raise DataError([_no_split(split, self._name, self._tables) for split in missing])
        for split in needed:
            if split in self._tables:
                self.encoded(split)

    def train_dataloader(self) -> Loader:
        """Return the training batches of this process."""
        rank, world_size = self._place()
        rows = self.encoded("train")
        batches = TrainBatches(
            rows.lengths,
            batch_size=self.batch_size,
            micro_batches=self.micro_batches,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            bucket=self.bucket,
        )
        return self._loader(rows, batches)

    def val_dataloader(self) -> Loader:
        """Return the validation batches of this process."""
        return self.eval_dataloader("validation")

    def test_dataloader(self) -> Loader:
        """Return the test batches of this process."""
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str) -> Loader:
        """Return batches of any split in the order of evaluation: every row once over all processes.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Returns:
            The batches of this process.
        """
        rank, world_size = self._place()
        rows = self.encoded(split)
        batches = EvalBatches(rows.lengths, batch_size=self.eval_batch_size, rank=rank, world_size=world_size)
        return self._loader(rows, batches)

    def _load(self) -> None:
        loaded = self.split(self.source.load())
        unused = [split for split in loaded if split not in SPLITS]
        if unused:
            log.info("data %s: the splits %s are not used", self._name, ", ".join(unused))
        raw = {split: loaded[split] for split in SPLITS if split in loaded}
        if not raw:
            raise DataError(
                f"data: {self._name} has none of the splits {', '.join(SPLITS)}, only "
                f"{', '.join(unused) or 'nothing'}. Name them, for example "
                f"data.source.splits={{train: {(unused or ['...'])[0]}}}."
            )
        tables, names = to_schema(
            raw,
            self.schema,
            columns=self.columns,
            label_names=_names_in(self.label_names) if isinstance(self.label_names, Path) else self.label_names,
            outputs=None if self._trained is None else self._trained.label_names,
            separator=self.separator,
        )
        if "train" in tables:
            tables["train"] = subsample(tables["train"], limit=self.limit, seed=self.limit_seed)
        info = describe(tables, self.schema, names, self._name)
        sizes = ", ".join(f"{size:,} {split}" for split, size in info.sizes.items())
        log.info("data %s: %s rows%s", self._name, sizes, f", {len(names)} labels" if names else "")
        if self._trained is None:
            self.bind(info)
        self._tables, self._info = tables, info

    def _chunks(self, split: str) -> Iterator[dict[str, list[Any]]]:
        table = self.rows(split)
        starts = range(0, table.num_rows, _CHUNK)
        if table.num_rows <= _BAR_FROM or self._place()[0] != 0:
            yield from (self._encode(table.slice(start, _CHUNK)) for start in starts)
            return
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress

        with Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as bar:
            job = bar.add_task(f"encoding {split}", total=table.num_rows)
            for start in starts:
                chunk = table.slice(start, _CHUNK)
                yield self._encode(chunk)
                bar.advance(job, chunk.num_rows)

    def _encode(self, chunk: pa.Table) -> dict[str, list[Any]]:
        features = self.encode(chunk.to_pydict())
        sizes = {name: len(values) for name, values in features.items()}
        if set(sizes.values()) != {chunk.num_rows}:
            raise ValueError(f"the task encoded {chunk.num_rows} rows to columns of {sizes}")
        return features

    def _loader(self, rows: EncodedRows, batches: TrainBatches | EvalBatches) -> Loader:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        workers = min(self.num_workers, max(1, cores // self._place()[1]))
        if workers < self.num_workers:
            log.info("data.num_workers: %d instead of %d, as many as there are cores", workers, self.num_workers)
        loader = DataLoader(
            rows,
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # its own generator, so that the number of loaders does not shift the dropout masks of the run
            generator=torch.Generator().manual_seed(self.seed),
        )
        # Lightning cannot turn off an order that is ours
        repeat = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return Loader(loader, batches, repeat=repeat)

    def _place(self) -> tuple[int, int]:
        """Return this process and the number of processes."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def _names_in(path: Path) -> list[str]:
    """Read label names: a JSON list, or one a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except FileNotFoundError:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"data.label_names: there is no file {shown(path)}.{did_you_mean(path.name, siblings)} "
            "Names themselves are written as a list, data.label_names=[bad, good]."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"data.label_names: {shown(path)} cannot be read ({error}).") from None
    names = [str(name) for name in names if name != ""] if isinstance(names, list) else []
    if not names:
        raise DataError(f"data.label_names: {shown(path)} holds no list of names.")
    return names


def _no_split(split: str, name: str, present: Mapping[str, Any]) -> str:
    remedy = {
        "train": "Name the training rows, for example data.source.train=<file>.",
        "validation": (
            "Cut it from the training rows with data/split=holdout, or name it, for example "
            "data.source.validation=<file>."
        ),
        "test": (
            "Name it, for example data.source.test=<file>, or cut it with data/split=holdout data.split.test=0.1."
        ),
    }
    have = ", ".join(present) or "nothing"
    return f"data: {name} has no {split} split, only {have}. {remedy.get(split, 'Choose one of these.')}"
