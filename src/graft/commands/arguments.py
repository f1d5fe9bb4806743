"""What stands behind a verb: flags for Hydra, overrides, folders of the user's configs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from graft.errors import did_you_mean

_VALUES: dict[str, tuple[str, ...] | None] = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    **dict.fromkeys(("--package", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"), ()),
    **dict.fromkeys(("--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion")),
}
"""Hydra's flags with the values they take: any where the tuple is empty, none where there is no tuple."""

_SHORT = {
    **{"-c": "--cfg", "-i": "--info", "-p": "--package", "-h": "--help", "-r": "--run", "-m": "--multirun"},
    **{"-cp": "--config-path", "-cn": "--config-name", "-cd": "--config-dir", "-sc": "--shell-completion"},
}
_SHOWS_ONLY = frozenset({"--cfg", "--info", "--hydra-help", "--shell-completion"})
_NOT_OURS = frozenset({"--shell-completion", "--hydra-help", "--experimental-rerun", "--config-path"})


@dataclass
class Arguments:
    """What stands behind a verb.

    Attributes:
        flags: Hydra's own flags, in their long form, with their values.
        overrides: Everything else, as written.
        config_dirs: The user's config folders.
        config_name: The primary config, where ``--config-name`` gives another than the verb's.
        problems: Flags that there are not, and flags without the value that they need.
    """

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    config_name: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def multirun(self) -> bool:
        """Whether several values make a sweep."""
        written = [one.lstrip("+") for one in self.overrides]
        return "--multirun" in self.flags or any(
            one.startswith("sweep=") or one.upper() == "HYDRA.MODE=MULTIRUN" for one in written
        )

    @property
    def shows_only(self) -> bool:
        """Whether Hydra prints something and the verb itself does not run."""
        return not _SHOWS_ONLY.isdisjoint(self.flags)

    @property
    def checked(self) -> bool:
        """Whether the overrides are for our configs, so that they can be checked."""
        return _NOT_OURS.isdisjoint(self.flags)

    @property
    def wants_traceback(self) -> bool:
        """Whether problems of the user's come with a traceback."""
        debug = [
            one.partition("=")[2] for one in (one.lstrip("+") for one in self.overrides) if one.startswith("debug=")
        ]
        return os.environ.get("HYDRA_FULL_ERROR") == "1" or any(one not in {"", "null"} for one in debug)


def read_arguments(words: Sequence[str]) -> Arguments:
    """Sort the words behind a verb into flags, overrides and config folders.

    Args:
        words: The words.

    Returns:
        The arguments.
    """
    arguments = Arguments()
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            arguments.overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        flag = _SHORT.get(name, name)
        if flag not in _VALUES:
            way = did_you_mean(name, _VALUES)
            if equals:
                way = f" A setting is written without dashes: {word.lstrip('-')}"
            arguments.problems.append(f"{word}: there is no such flag.{way}")
            continue
        values = [value] if equals else _value_behind(flag, left)
        arguments.problems.extend(_value_problems(word, flag, values))
        if flag == "--config-dir":
            arguments.config_dirs.extend(values)
        else:
            arguments.flags.extend([flag, *values])
        if flag == "--config-name" and values:
            arguments.config_name = values[0].removesuffix(".yaml")
    return arguments


def _value_behind(flag: str, left: list[str]) -> list[str]:
    """Take the value of a flag from the words behind it, where it has one."""
    legal = _VALUES[flag]
    if legal is None or not left or left[0].startswith("-") or (flag == "--info" and left[0] not in legal):
        return []
    return [left.pop(0)]


def _value_problems(word: str, flag: str, values: list[str]) -> list[str]:
    legal = _VALUES[flag]
    listed = f" One of: {', '.join(legal)}." if legal else ""
    if legal is None:
        return [f"{word}: this flag takes no value. Write {flag}."] if values else []
    if (not values and flag != "--info") or values == [""]:
        return [f"{word}: this flag needs a value behind it.{listed}"]
    if legal and values and values[0] not in legal:
        return [f"{word}: '{values[0]}' is no value of this flag.{did_you_mean(values[0], legal)}{listed}"]
    return []


def words_behind(command: str) -> list[str]:
    """Return the words of ``sys.argv`` behind a verb.

    Args:
        command: The verb.
    """
    words = sys.argv[1:]
    return words[1:] if words[:1] == [command] else words
