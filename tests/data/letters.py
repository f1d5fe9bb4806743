"""A task small enough to check by eye: a text is encoded as its letters, a=1, b=2 ...; padded with 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graft.data.collate import pad, stack
from graft.data.info import DataInfo
from graft.data.module import DataModule
from graft.data.schemas import ClassificationRow
from graft.data.sources import InMemory
from graft.step import Batch, Columns, Features

WORDS = ("a", "bb", "ccc", "dddd", "eeeee", "ffffff")


def encode(columns: Columns) -> dict[str, list[Any]]:
    return {
        "input_ids": [[ord(letter) - 96 for letter in text] for text in columns["text"]],
        "label": list(columns["label"]),
    }


def collate(features: Sequence[Features]) -> Batch:
    return {
        "input_ids": pad([row["input_ids"] for row in features], value=0),
        "label": stack([row["label"] for row in features], torch.long),
        "row": stack([row["row"] for row in features], torch.long),
    }


def rows(count: int) -> list[dict[str, str]]:
    """Return rows of 1 to 6 letters, in no order of length, with two labels."""
    return [
        {"text": WORDS[(7 * index + index // 5) % len(WORDS)], "label": ("no", "yes")[index % 2]}
        for index in range(count)
    ]


def data(source: Any = None, **settings: Any) -> DataModule:
    """Return a data module of 23 training, 7 validation and 5 test rows, or of another source."""
    made = {"schema": ClassificationRow, "bind": bind, "encode": encode, "collate": collate, **settings}
    return DataModule(
        source or InMemory({"train": rows(23), "validation": rows(7), "test": rows(5)}),
        **made,
    )


def bind(info: DataInfo) -> None:
    """Take the facts and forget them."""
