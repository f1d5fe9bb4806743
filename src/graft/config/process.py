"""Process-wide state that Hydra reads, set for a block and put back: the command line and the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Set ``sys.argv`` while the block runs.

    Args:
        words: The program's name and what stands behind it.

    Yields:
        Nothing.
    """
    before = sys.argv
    sys.argv = list(words)
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """Set one environment variable while the block runs.

    Args:
        name: The variable.
        value: Its value; None removes it.

    Yields:
        Nothing.
    """
    before = os.environ.get(name)
    _set(name, value)
    try:
        yield
    finally:
        _set(name, before)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
