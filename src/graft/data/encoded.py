"""Encoded rows in memory: flat numpy arrays, so that a million rows are a few objects and not a million.

A forked worker shares them without copying, and a row is a handful of views.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset


@dataclass(frozen=True)
class _Ragged:
    """Sequences of different lengths below each other: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.offsets.nbytes


@final
class EncodedRows(Dataset[dict[str, Any]]):
    """The rows of one split as a task encoded them.

    ``rows[i]`` is a dictionary of views and numpy scalars: sequences of whole numbers as int32 (int64 where
    they do not fit), of other numbers as float32; single numbers as int64 or float32; and ``row``, the
    position in the split.

    Args:
        columns: Feature columns of one length.
    """

    def __init__(self, columns: Mapping[str, npt.NDArray[Any] | _Ragged]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"encoded columns have different numbers of rows: {lengths}")
        self._size = next(iter(lengths.values()), 0)
        self._columns = {**columns, "row": np.arange(self._size)}

    @classmethod
    def build(cls, chunks: Iterable[Mapping[str, list[Any]]]) -> EncodedRows:
        """Put encoded chunks below each other.

        Args:
            chunks: Feature columns as ``AbstractTask.encode`` returns them, in the order of the rows.

        Returns:
            All rows, in the same order.

        Raises:
            ValueError: If chunks or columns do not match, or a value is neither a number nor a flat sequence
                of them.
        """
        parts: dict[str, list[npt.NDArray[Any] | _Ragged]] = {}
        for number, chunk in enumerate(chunks):
            if number and chunk.keys() != parts.keys():
                raise ValueError(f"chunk {number} has the features {sorted(chunk)}, those before {sorted(parts)}")
            for name, values in chunk.items():
                parts.setdefault(name, []).append(_packed(name, values))
        return cls({name: _joined(name, pieces) for name, pieces in parts.items()})

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self._columns.items()}

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row: that of ``input_ids``, or one where a task has no such feature."""
        ids = self._columns.get("input_ids")
        return np.diff(ids.offsets) if isinstance(ids, _Ragged) else np.ones(self._size, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Memory of all columns in bytes."""
        return sum(column.nbytes for column in self._columns.values())


def _packed(name: str, values: list[Any]) -> npt.NDArray[Any] | _Ragged:
    if not values or not isinstance(values[0], list | tuple | np.ndarray):
        return _small(name, np.asarray(values), single=True)
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    arrays = isinstance(values[0], np.ndarray)
    flat = np.concatenate(values) if arrays else np.asarray(list(chain.from_iterable(values)))
    return _Ragged(_small(name, flat, single=False), offsets)


def _small(name: str, values: npt.NDArray[Any], *, single: bool) -> npt.NDArray[Any]:
    """Return numbers in the type that they are kept in."""
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise ValueError(f"the feature '{name}' is neither a number nor a flat sequence of numbers in every row")
    if values.size == 0 and not single:
        return values.astype(np.int32)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.kind == "b":
        return values
    bounds = np.iinfo(np.int32)
    fits = not single and int(values.min()) >= bounds.min and int(values.max()) <= bounds.max
    return values.astype(np.int32 if fits else np.int64)


def _joined(name: str, pieces: list[npt.NDArray[Any] | _Ragged]) -> npt.NDArray[Any] | _Ragged:
    ragged = [piece for piece in pieces if isinstance(piece, _Ragged)]
    plain = [piece for piece in pieces if not isinstance(piece, _Ragged)]
    if ragged and plain:
        raise ValueError(f"the feature '{name}' is a sequence in some rows and a number in others")
    if plain:
        return np.concatenate(plain)
    filled = [piece.values for piece in ragged if piece.values.size] or [ragged[0].values]
    sizes = np.concatenate([np.diff(piece.offsets) for piece in ragged])
    return _Ragged(np.concatenate(filled), np.concatenate([[0], np.cumsum(sizes)]))
