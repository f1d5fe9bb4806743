"""What a row is, per kind of task: one TypedDict each, whose annotations say what a column holds.

A task names its schema, a data set's YAML maps its own column names to the schema's (``data.columns``), and
``data/columns.py`` converts and checks the values by their kind. A schema of one's own is a TypedDict
anywhere that uses the same four words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import (
    Annotated,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    TypedDict,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

Kind: TypeAlias = Literal["text", "label", "labels", "score"]

Text = Annotated[str, "text"]
"""A text that is not empty."""

Label = Annotated[str, "label"]
"""One of a closed list of names; an index into that list after ``data/columns.py``."""

Labels = Annotated[list[str], "labels"]
"""Any number of names of a closed list; indices after ``data/columns.py``."""

Score = Annotated[float, "score"]
"""A finite number."""


class ClassificationRow(TypedDict):
    """A text, or a pair of texts, with one label."""

    text: Text
    text_pair: NotRequired[Text]
    label: Label


class MultiLabelRow(TypedDict):
    """A text, or a pair of texts, with any number of labels."""

    text: Text
    text_pair: NotRequired[Text]
    labels: Labels


class RegressionRow(TypedDict):
    """A text, or a pair of texts, with a number."""

    text: Text
    text_pair: NotRequired[Text]
    score: Score


@dataclass(frozen=True)
class Field:
    """One column of a schema.

    Attributes:
        kind: What its values are.
        required: Whether a row must have it.
        target: Whether it is what is learned, and therefore missing when predicting.
    """

    kind: Kind
    required: bool
    target: bool


def fields(schema: type) -> dict[str, Field]:
    """Return the columns of a schema, in the order they are written.

    Args:
        schema: A TypedDict whose values are annotated with ``Text``, ``Label``, ``Labels`` or ``Score``.

    Returns:
        A description by column name.

    Raises:
        TypeError: If a column is annotated with something else.
    """
    found: dict[str, Field] = {}
    for name, hint in get_type_hints(schema, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        inner = get_args(hint)[0] if get_origin(hint) in (NotRequired, Required) else hint
        words = [word for word in get_args(inner)[1:] if word in get_args(Kind)]
        if len(words) != 1:
            raise TypeError(
                f"{schema.__name__}.{name}: a column of a schema is Text, Label, Labels or Score, not {inner}."
            )
        kind = cast("Kind", words[0])
        found[name] = Field(kind, required=not optional, target=kind != "text")
    return found
