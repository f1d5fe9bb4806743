"""The documentation as the tests read it: pages, code blocks, files that they show, commands, tables and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), REPOSITORY / "README.md"]

_SHELL = ("", "bash", "sh", "console")
_ID = "a1b2c3d4"


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: Where it begins, from 1.
        language: What stands behind the fence.
        text: What is in it.
        file: The file that it shows, from a line before it that is the name in code and a colon.
    """

    line: int
    language: str
    text: str
    file: str | None


@dataclass(frozen=True)
class Command:
    """A command of graft.

    Attributes:
        line: Where it stands, from 1.
        words: What stands behind ``graft``.
    """

    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(["graft", *self.words])


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    held: list[str] = []
    before = ""
    for number, line in enumerate(text.splitlines(), start=1):
        fence = re.match(r"(\s*)```(\w*)\s*$", line)
        if opened is None and fence:
            opened, held = (number, fence[1], fence[2]), []
        elif opened is None:
            before = line if line.strip() else before
        elif fence and not fence[2]:
            start, indent, language = opened
            named = re.fullmatch(r"`([^`]+)`:", before.strip())
            body = "".join(f"{one.removeprefix(indent)}\n" for one in held)
            found.append(Block(start, language, body, named[1] if named else None))
            opened, before = None, ""
        else:
            held.append(line)
    assert opened is None, f"the block that begins in line {opened and opened[0]} has no end"
    return found


def prose(text: str) -> str:
    """Return a page without its blocks."""
    return re.sub(r"^ *```\w*\n.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[Command]:
    """Return the commands of graft in the blocks of a page, in order."""
    found: list[Command] = []
    for block in blocks(text):
        if block.language in _SHELL and block.file is None:
            found += [
                Command(block.line + offset, words)
                for offset, line in enumerate(block.text.splitlines(), start=1)
                for words in _calls(line)
            ]
    return found


def _calls(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the calls of graft in a line of a shell; a name in angle brackets stands for anything."""
    inner = re.search(r"\$\((graft [^)]*)\)", line)
    words = shlex.split(re.sub(r"<[^<>]+>", _ID, inner[1] if inner else line), comments=True)
    while "graft" in words:
        words = words[words.index("graft") + 1 :]
        ends = [index for index, word in enumerate(words) if word in ("&&", "|", ";")]
        yield tuple(words[: ends[0]] if ends else words)


def first_cells(text: str) -> list[str]:
    """Return the words in code in the first column of the tables of a page."""
    rows = [line for line in prose(text).splitlines() if line.startswith("|")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])]


def links(text: str) -> list[str]:
    """Return where the links of a page lead."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """Return what can stand behind ``#`` in a link to a page."""
    titles = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
