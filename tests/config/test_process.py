"""State of the process, set for a block."""

from __future__ import annotations

import os
import sys

import pytest

from graft.config.process import command_line, environment


def test_the_command_line_is_put_back_even_after_an_error() -> None:
    before = list(sys.argv)

    def fail() -> None:
        with command_line(["graft", "train"]):
            assert sys.argv == ["graft", "train"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sys.argv == before


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("inside", [None, "new"])
def test_a_variable_is_put_back_and_one_that_was_not_there_is_gone_again(
    monkeypatch: pytest.MonkeyPatch, before: str | None, inside: str | None
) -> None:
    monkeypatch.delenv("GRAFT_TEST", raising=False)
    if before is not None:
        monkeypatch.setenv("GRAFT_TEST", before)

    def fail() -> None:
        with environment("GRAFT_TEST", inside):
            assert os.environ.get("GRAFT_TEST") == inside
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.environ.get("GRAFT_TEST") == before
