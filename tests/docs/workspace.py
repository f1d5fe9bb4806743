"""A folder that holds the files a page shows, with the code among them importable."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks


def place_files(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write the files that a page shows, make the folder the current one, and let Python import from it.

    Args:
        text: The page.
        folder: Where.
        monkeypatch: Undoes all of it.

    Returns:
        The names of the files.
    """
    named = [block for block in blocks(text) if block.file is not None]
    for block in named:
        assert block.file is not None
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    for name in [name for name in sys.modules if name == "my_lab" or name.startswith("my_lab.")]:
        monkeypatch.delitem(sys.modules, name)  # that of another page
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    importlib.invalidate_caches()
    return [str(block.file) for block in named]
