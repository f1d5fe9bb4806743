"""The errors that users see: what is wrong, where, and what to do about it.

Every message follows one pattern: ``<path in the config or file>: <what is wrong, with the value got>. <what to do>``.
The command line prints them without a traceback and exits with status 2.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType


class GraftError(Exception):
    """An error with a remedy; its text is written for the user.

    Args:
        problems: One problem, or several that were found together.
    """

    title = "problem"

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(self._render())

    def _render(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        listed = "\n\n".join("  " + problem.replace("\n", "\n  ") for problem in self.problems)
        return f"{len(self.problems)} {self.title}s:\n\n{listed}"


class ConfigError(GraftError):
    """The configuration cannot work: unknown key, missing value, unknown option."""

    title = "problem in the configuration"

    def _render(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        listed = "\n\n".join("  " + problem.replace("\n", "\n  ") for problem in self.problems)
        return f"{len(self.problems)} problems in the configuration:\n\n{listed}"


class DataError(GraftError):
    """A file or a row cannot be used: missing column, wrong encoding, unknown label."""


class IncompatibleError(GraftError):
    """Parts that are right by themselves and cannot work together."""


class CheckpointError(GraftError):
    """A checkpoint or run directory that is damaged, cut off, or belongs to another model."""


class MissingDependencyError(GraftError):
    """An optional package is not installed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` with a leading blank, or an empty string when nothing is near.

    Args:
        word: What was written.
        known: The legal words.

    Returns:
        A sentence to append to a message.
    """
    near = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def require(package: str, *, extra: str, what: str) -> ModuleType:
    """Import an optional package inside the one function that needs it.

    Args:
        package: Name to import.
        extra: The extra of this project that installs it.
        what: What needs it, as the user wrote it, for example ``optimizer=schedule_free``.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise MissingDependencyError(
            f"{what} needs the package '{package}', which is not installed.\n    pip install \"graft[{extra}]\""
        ) from None
