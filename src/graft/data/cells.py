"""One column of one split: its values in one piece, as text, and where a bad one stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from graft.data.origin import file_names, places

_SHORT = 2**31 - 1  # bytes that one array of ordinary strings can hold


@dataclass(frozen=True)
class Column:
    """A column of a split's table.

    Attributes:
        split: Name of the split.
        table: The table it is in.
        name: The table's name for it.
    """

    split: str
    table: pa.Table
    name: str

    def values(self) -> pa.Array:
        """Return the values in one array, dictionaries resolved."""
        column = self.table.column(self.name)
        if is_text(column.type) and column.nbytes > _SHORT:
            column = column.cast(pa.large_string())
        array = column.combine_chunks()
        return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array

    def places(self, mask: npt.NDArray[np.bool_]) -> str:
        """Return where the rows of a mask are, for a message."""
        return places(self.split, self.table, np.flatnonzero(mask))

    def wrong_type(self, what: str) -> str:
        """Return the problem that the values are of a type that cannot be used."""
        return (
            f"{self.split} split: the column '{self.name}' of {file_names(self.table)} holds values of type "
            f"{self.values().type}, which are no {what}."
        )


def is_text(kind: pa.DataType) -> bool:
    """Whether an array of this type holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def as_words(array: pa.Array) -> pa.Array | None:
    """Return single values as text without white space around it.

    Args:
        array: Texts, numbers or truth values.

    Returns:
        Strings, null where there is nothing but white space or no number (``1.0`` is ``1`` when the whole column
        is whole), or None if the values are lists or objects.
    """
    kind = array.type
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
        array = array.cast(pa.int64()) if _is_whole(array) else array
    if is_text(kind):
        text = pc.utf8_trim_whitespace(array.cast(pa.large_string()))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        text = array.cast(pa.large_string())
    else:
        return None
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_string()), text)


def flags(mask: pa.Array) -> npt.NDArray[np.bool_]:
    """Return a mask as numpy, false where it is null."""
    return np.asarray(mask.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _is_whole(array: pa.Array) -> bool:
    numbers = array.drop_null()
    inside = pc.and_(pc.is_finite(numbers), pc.less(pc.abs(numbers), 2.0**53))
    return bool(flags(inside).all()) and bool(flags(pc.equal(numbers, pc.floor(numbers))).all())
