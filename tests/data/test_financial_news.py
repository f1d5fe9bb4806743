"""The shipped data keeps what its datasheet promises."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from graft.paths import conf_dir

SPLITS = ("train", "validation", "test")
ROWS = {
    split: list(
        csv.DictReader((conf_dir() / "data/financial_news" / f"{split}.csv").open(encoding="ascii", newline=""))
    )
    for split in SPLITS
}


def words(text: str) -> list[str]:
    return re.findall(r"[a-zN]+", re.sub(r"[\d.,]+%?", "N", text.lower()))


def five_grams(text: str) -> set[tuple[str, ...]]:
    parts = words(text)
    return set(zip(*(parts[start:] for start in range(5)), strict=False))


def test_there_are_at_least_1500_distinct_sentences() -> None:
    texts = {re.sub(r"\W+", " ", row["text"].lower()).strip() for rows in ROWS.values() for row in rows}
    assert len(texts) == sum(map(len, ROWS.values())) >= 1500


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(split: str) -> None:
    counts = Counter(row["label"] for row in ROWS[split])
    assert set(counts) == {"negative", "neutral", "positive"}
    assert max(counts.values()) <= 1.1 * min(counts.values())


def test_sentences_vary_in_length() -> None:
    lengths = [len(row["text"].split()) for rows in ROWS.values() for row in rows]
    assert min(lengths) <= 5
    assert max(lengths) >= 40


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_no_two_splits_share_a_frame(one: str, other: str) -> None:
    first = {gram for row in ROWS[one] for gram in five_grams(row["text"])}
    second = {gram for row in ROWS[other] for gram in five_grams(row["text"])}
    assert not first & second


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_no_two_splits_share_most_words_of_a_sentence(one: str, other: str) -> None:
    def longer(row: dict[str, Any]) -> set[str]:
        return {word for word in words(row["text"]) if len(word) > 3}

    known = [longer(row) for row in ROWS[one]]
    for row in ROWS[other]:
        asked = longer(row)
        assert all(len(asked & seen) <= 0.35 * len(asked | seen) for seen in known if seen or asked)
