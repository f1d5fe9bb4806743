"""What is known of the data once it is read: label names, sizes, a fingerprint. Saved with the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graft.data.cells import Column, is_text
from graft.data.schemas import fields


@dataclass(frozen=True)
class DataInfo:
    """Plain facts about a data set, which tasks and models are made from.

    Attributes:
        label_names: Names of the labels in the order of the model's outputs; None without labels.
        label_counts: Rows of the training split that have each label; None without labels or training split.
        sizes: Rows by split.
        fingerprint: SHA-256 over the content of all splits, as hexadecimal digits.
        name: What the data set is called.
    """

    label_names: tuple[str, ...] | None
    label_counts: tuple[int, ...] | None
    sizes: dict[str, int]
    fingerprint: str
    name: str

    def to_json(self) -> str:
        """Return the facts as the text of a JSON file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> DataInfo:
        """Read what ``to_json`` wrote."""
        held = json.loads(text)
        names, counts = held["label_names"], held["label_counts"]
        return cls(
            label_names=None if names is None else tuple(names),
            label_counts=None if counts is None else tuple(counts),
            sizes=held["sizes"],
            fingerprint=held["fingerprint"],
            name=held["name"],
        )


def describe(tables: Mapping[str, pa.Table], schema: type, label_names: tuple[str, ...] | None, name: str) -> DataInfo:
    """Gather the facts of tables that ``columns.to_schema`` made.

    Args:
        tables: Rows by split, as they are used.
        schema: Their schema.
        label_names: As ``to_schema`` returned them.
        name: What the data set is called.

    Returns:
        The facts.
    """
    counts: tuple[int, ...] | None = None
    labelled = [column for column, field in fields(schema).items() if field.kind in ("label", "labels")]
    if label_names is not None and labelled and "train" in tables:
        values = tables["train"].column(labelled[0])
        flat = pc.list_flatten(values) if pa.types.is_list(values.type) else values
        counts = tuple(np.bincount(flat.to_numpy(), minlength=len(label_names)).tolist())
    return DataInfo(
        label_names=label_names,
        label_counts=counts,
        sizes={split: table.num_rows for split, table in tables.items()},
        fingerprint=_fingerprint(tables, label_names),
        name=name,
    )


def _fingerprint(tables: Mapping[str, pa.Table], label_names: tuple[str, ...] | None) -> str:
    """Hash values and their lengths, so that neither chunks nor the width of offsets matter."""
    digest = hashlib.sha256(json.dumps(label_names).encode())
    for split in sorted(tables):
        table = tables[split]
        for column in sorted(table.column_names):
            digest.update(f"\0{split}\0{column}\0{table.num_rows}\0".encode())
            for part in _parts(Column(split, table, column).values()):
                digest.update(part)
    return digest.hexdigest()


def _parts(values: pa.Array) -> Iterator[bytes | memoryview]:
    if pa.types.is_list(values.type):
        yield pc.list_value_length(values).to_numpy().astype(np.int64).tobytes()
        values = pc.list_flatten(values)
    if not is_text(values.type):
        yield values.to_numpy().tobytes()
        return
    texts = values.cast(pa.large_string())
    _, offsets, letters = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    yield np.diff(bounds).tobytes()
    yield memoryview(letters)[bounds[0] : bounds[-1]]
