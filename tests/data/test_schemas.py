from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

import pytest

from graft.data.schemas import ClassificationRow, Field, Label, MultiLabelRow, RegressionRow, Text, fields


@pytest.mark.parametrize(
    ("schema", "target", "kind"),
    [(ClassificationRow, "label", "label"), (MultiLabelRow, "labels", "labels"), (RegressionRow, "score", "score")],
)
def test_a_row_is_a_text_perhaps_a_pair_and_a_target(schema: type, target: str, kind: str) -> None:
    assert fields(schema) == {
        "text": Field("text", required=True, target=False),
        "text_pair": Field("text", required=False, target=False),
        target: Field(kind, required=True, target=True),  # type: ignore[arg-type]
    }


class OwnRow(TypedDict):
    """A schema from outside, with an optional target and a note of its own."""

    question: Annotated[Text, "as it was asked"]
    topic: NotRequired[Label]


def test_a_schema_of_ones_own_uses_the_same_words() -> None:
    assert fields(OwnRow) == {
        "question": Field("text", required=True, target=False),
        "topic": Field("label", required=False, target=True),
    }


class WrongRow(TypedDict):
    """A column without one of the words."""

    text: Text
    length: int


def test_a_column_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"WrongRow\.length: a column of a schema is Text, Label, Labels or Score"):
        fields(WrongRow)
