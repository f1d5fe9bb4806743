"""What stands behind a verb: flags for Hydra, overrides, folders of the user's configs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

_WITH_VALUE = frozenset(
    {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun"}
)
_SHOWS_ONLY = frozenset({"--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--version"})


@dataclass
class Arguments:
    """What stands behind a verb.

    Attributes:
        flags: Hydra's own flags with their values.
        overrides: Everything else, as written.
        config_dirs: The user's config folders.
        config_name: The primary config, where ``--config-name`` gives another than the verb's.
    """

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    config_name: str | None = None

    @property
    def multirun(self) -> bool:
        """Whether several values make a sweep."""
        written = (one.lstrip("+") for one in self.overrides)
        return not {"-m", "--multirun"}.isdisjoint(self.flags) or any(
            one.startswith(("sweep=", "hydra.mode=")) for one in written
        )

    @property
    def shows_only(self) -> bool:
        """Whether Hydra prints something and the verb itself does not run."""
        return any(flag.partition("=")[0] in _SHOWS_ONLY for flag in self.flags)

    @property
    def checked(self) -> bool:
        """Whether the overrides are for our configs, so that they can be checked."""
        other = {
            "--shell-completion",
            "-sc",
            "--hydra-help",
            "--version",
            "--experimental-rerun",
            "--config-path",
            "-cp",
        }
        return not any(flag.partition("=")[0] in other for flag in self.flags)

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
        name, equals, value = word.partition("=")
        if name in {"--config-dir", "-cd"}:
            arguments.config_dirs.append(value if equals else (left.pop(0) if left else ""))
        elif not word.startswith("-"):
            arguments.overrides.append(word)
        else:
            arguments.flags.append(word)
            if not equals and left and (name in _WITH_VALUE or (name in {"--info", "-i"} and "=" not in left[0])):
                value = left.pop(0)
                arguments.flags.append(value)
            if name in {"--config-name", "-cn"}:
                arguments.config_name = value.removesuffix(".yaml")
    return arguments


def words_behind(command: str) -> list[str]:
    """Return the words of ``sys.argv`` behind a verb.

    Args:
        command: The verb.
    """
    words = sys.argv[1:]
    return words[1:] if words[:1] == [command] else words
