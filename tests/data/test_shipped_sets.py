"""Every data set with a YAML of its own loads from the real files, with the rows that their README promises."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from graft.config.compose import load_config
from graft.data.module import DataModule
from graft.data.schemas import ClassificationRow, MultiLabelRow, RegressionRow
from graft.paths import conf_dir
from tests.data.letters import bind, collate, encode

GENERIC = {"_loading", "csv", "tsv", "json", "jsonl", "parquet", "hub", "in_memory", "saved", "financial_news"}
SIZES = {
    # a tenth of the training rows of ag_news (9,977) and banking77 (10,003) is cut off for validation
    "ag_news": {"train": 8979, "validation": 998, "test": 7600},
    "banking77": {"train": 9003, "validation": 1000, "test": 3080},
    "cola": {"train": 8551, "validation": 527 + 516},
    "financial_phrasebank": {"train": 3872, "validation": 485, "test": 483},
    "go_emotions": {"train": 43410, "validation": 5426, "test": 5427},
    "mrpc": {"train": 3668, "validation": 408, "test": 1725},
    "rte": {"train": 2490, "validation": 277},
    "sst2": {"train": 67349, "validation": 872, "test": 1821},
    "stsb": {"train": 5749, "validation": 1500, "test": 1379},
}
LABELS = {"ag_news": 4, "banking77": 77, "financial_phrasebank": 3, "go_emotions": 28, "stsb": None}
SCHEMAS = {"stsb": RegressionRow, "go_emotions": MultiLabelRow}


def load(name: str, *overrides: str, schema: type = ClassificationRow) -> DataModule:
    node = load_config("train", [f"data={name}", *overrides]).data
    parts = {"schema": schema, "bind": bind, "encode": encode, "collate": collate}
    data: DataModule = instantiate(node, _convert_="all", _partial_=True)(**parts)
    data.setup("predict")
    return data


def test_every_set_with_a_yaml_of_its_own_is_listed_here() -> None:
    assert {path.stem for path in (conf_dir() / "data").glob("*.yaml")} == GENERIC | set(SIZES)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_set_has_the_rows_and_labels_of_its_description(shared: Path, name: str) -> None:
    data = load(name, f"paths.data={shared / 'data'}", schema=SCHEMAS.get(name, ClassificationRow))
    assert data.info.sizes == SIZES[name]
    assert data.info.name == name
    expected = LABELS.get(name, 2)
    assert len(data.info.label_names or ()) == (expected or 0)
    if expected:
        assert data.info.label_counts is not None
        assert all(data.info.label_counts), "every label occurs in training"


def first_words(data: DataModule, split: str, target: str) -> Any:
    """Return the first text and its label in words."""
    row = data.rows(split).slice(0, 1).to_pylist()[0]
    names = data.info.label_names or ()
    value = row[target]
    return row["text"], [names[index] for index in value] if isinstance(value, list) else names[value]


def test_labels_are_those_that_the_files_write(shared: Path) -> None:
    root = shared / "data"
    banking = load("banking77", f"paths.data={root}")
    with (root / "banking77/test.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert first_words(banking, "test", "label") == (row["text"], row["category"])

    emotions = load("go_emotions", f"paths.data={root}", schema=MultiLabelRow)
    names = (root / "go_emotions/labels.txt").read_text(encoding="utf-8").split()
    with gzip.open(root / "go_emotions/test.tsv.gz", "rt", encoding="utf-8") as file:
        text, labels, _ = file.readline().rstrip("\n").split("\t")
    assert first_words(emotions, "test", "labels") == (text, [names[int(label)] for label in labels.split(",")])


def test_the_embedded_set_needs_no_files_beside_the_package() -> None:
    data = load("financial_news", "paths.data=/nowhere")
    assert data.info.label_names == ("negative", "neutral", "positive")
    assert set(data.info.sizes) == {"train", "validation", "test"}


@pytest.mark.parametrize("name", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_files_of_ones_own_are_read_by_their_format(here: Path, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"review": "good film", "stars": "5"}, {"review": "bad film", "stars": "1"}] * 5
    path = here / f"mine.{name}"
    if name == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        import json

        comma = {"csv": ",", "tsv": "\t"}.get(name)
        lines = [comma.join(rows[0]), *(comma.join(row.values()) for row in rows)] if comma else map(json.dumps, rows)
        text = "\n".join(lines)
        path.write_text(f"[{','.join(text.splitlines())}]" if name == "json" else text)
    settings = ["data.columns.text=review", "data.columns.label=stars", "data/split=holdout"]
    data = load(name, f"data.source.train=mine.{name}", *settings)
    assert data.info.label_names == ("1", "5")
    assert data.info.sizes == {"train": 9, "validation": 1}


def test_rows_may_be_written_on_the_command_line() -> None:
    rows = "{train: [{text: good, label: 1}, {text: bad, label: 0}], test: [{text: so, label: 1}]}"
    data = load("in_memory", f"data.source.splits={rows}", "data.label_names=[bad, good]")
    assert data.rows("train").to_pydict() == {"text": ["good", "bad"], "label": [1, 0]}


def test_a_hub_set_follows_the_offline_switch_of_the_run() -> None:
    cfg = load_config("train", ["data=hub", "data.source.name=owner/set", "offline=true"])
    assert cfg.data.source.offline is True
