"""One tiny run, trained once by a real command in a process of its own, that most tests of runs and verbs share."""

from __future__ import annotations

import csv
import functools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LABELS = ("bad", "good", "so-so")
WORDS = ("fell", "rose", "flat")  # the word that gives each label away
FILLERS = (
    *("profit", "sales", "the bank", "in the third quarter", "on Monday", "12 %", "said the company", "and", "while"),
    *(
        "caf\u00e9",
        'the "new" plan',
        "costs, mostly",
        "a report",
        "outlook",
        "shares",
        "in 2024",
        "this year",
        "of the best",
    ),
)
SETTINGS = (
    *("model=tiny_bert", "trainer=cpu", "trainer.max_epochs=3", "trainer.log_every_n_steps=5", "optimizer.lr=5e-3"),
    # The last step is not the best by this metric, so that the two checkpoints can be told apart.
    *("task.monitor=calibration_error", "data.batch_size=16", "data.eval_batch_size=8"),
)


def rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Rows of one to 14 phrases, one of which decides the label."""
    drawn = random.Random(seed)
    made = []
    for number in range(count):
        label = drawn.randrange(3)
        phrases = [WORDS[label], *drawn.choices(FILLERS, k=drawn.randrange(14))]
        drawn.shuffle(phrases)
        made.append({"id": number, "text": " ".join(phrases), "label": LABELS[label]})
    return made


def write_csv(path: Path, table: Sequence[dict[str, Any]]) -> Path:
    """Write rows to a csv file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def data_of(folder: Path) -> tuple[str, ...]:
    """What chooses the files that ``write_data`` wrote."""
    return (
        "data=csv",
        *(f"data.source.{split}={folder / split}.csv" for split in ("train", "validation", "test")),
    )


def write_data(folder: Path, *, sizes: tuple[int, int, int] = (200, 90, 600)) -> tuple[str, ...]:
    """Write the three splits, and return what chooses them."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, size) in enumerate(zip(("train", "validation", "test"), sizes, strict=True)):
        write_csv(folder / f"{split}.csv", rows(size, seed=seed))
    return data_of(folder)


@dataclass(frozen=True)
class TinyRun:
    """A run and where it came from.

    Attributes:
        dir: Its folder.
        cwd: The folder that the command was started in; the run lies in its ``logs``.
        words: What stood behind ``graft train``.
        out: What the command wrote to standard output.
        err: What it wrote to standard error.
    """

    dir: Path
    cwd: Path
    words: tuple[str, ...]
    out: str
    err: str

    @property
    def test_file(self) -> Path:
        """The file of the test split."""
        return self.cwd / "data" / "test.csv"

    @property
    def logs(self) -> Path:
        """The folder of all runs."""
        return self.cwd / "logs"

    def read(self, name: str) -> Any:
        """Read one of its JSON files."""
        return json.loads((self.dir / name).read_text(encoding="utf-8"))

    def lines(self, name: str) -> list[Any]:
        """Read one of its files of JSON lines."""
        return [json.loads(line) for line in (self.dir / name).read_text(encoding="utf-8").splitlines()]

    def copy(self, to: Path) -> TinyRun:
        """Copy its folder, to damage it or go on with it."""
        shutil.copytree(self.dir, to / "logs" / self.dir.parent.name / self.dir.name)
        return TinyRun(to / "logs" / self.dir.parent.name / self.dir.name, to, self.words, self.out, self.err)


@functools.cache
def trained(base: Path) -> TinyRun:
    """Train it, or return it when it was trained before."""
    cwd = base / "tiny run"  # a blank in a folder's name is nothing unusual
    words = (*write_data(cwd / "data"), *SETTINGS, "run.name=tiny/run", "run.tags=[first,second]")
    relative = tuple(word.replace(f"{cwd}/", "") for word in words)
    command = [sys.executable, "-m", "graft", "train", *relative]
    # Several threads would wait for each other where the tests share the cores with others.
    env = {**os.environ, "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    env.pop("GRAFT_LOGS", None)
    ended = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (cwd / "logs").glob("*/*")
    return TinyRun(folder, cwd, relative, ended.stdout, ended.stderr)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see that nothing changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute as the commands do, so that numbers are equal to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def untouched(base: Path, complaint: str) -> Iterator[TinyRun]:
    """The shared run, whose folder must be at the end what it was; ``complaint`` says what changed it."""
    made = trained(base)
    before = contents(made.dir)
    yield made
    assert contents(made.dir) == before, complaint
