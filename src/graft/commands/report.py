"""Errors as the command line shows them: a message for the user's, a traceback for ours, an exit status.

A problem of the user's ends with status 2 and its message, anything else with status 1 and its traceback, an
interrupt with 130, a termination signal with 143. ``HYDRA_FULL_ERROR=1`` or a ``debug=...`` option shows
every traceback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from graft.errors import GraftError


@contextmanager
def reported(*, traceback_wanted: bool = False) -> Iterator[None]:
    """Turn an exception that leaves the block into a message and an exit status.

    Args:
        traceback_wanted: Whether problems of the user's come with a traceback.

    Yields:
        Nothing.

    Raises:
        SystemExit: With status 2 for a problem of the user's, 130 for an interrupt, 143 for a termination
        signal.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except SystemExit as error:
        # Told to terminate, Lightning raises a SystemExit without a status, which would count as success.
        if type(error).__name__ == "SIGTERMException" and error.code is None:
            raise SystemExit(143) from None
        raise
    except BrokenPipeError:
        raise  # nobody is left to be told
    except Exception as error:
        show(error, traceback_wanted=traceback_wanted)
        raise SystemExit(status(error)) from None


def status(error: BaseException) -> int:
    """Return the exit status of an error: 2 for one of the user's, 1 for one of ours.

    Args:
        error: What was raised.
    """
    return 2 if isinstance(error, GraftError) or _of_a_config(error) else 1


def _of_a_config(error: BaseException) -> bool:
    """Return whether Hydra could not compose, or a config file is no YAML."""
    # Not imported here: where the module was not, it cannot be its error.
    hydra, yaml = sys.modules.get("hydra.errors"), sys.modules.get("yaml")
    return (hydra is not None and isinstance(error, hydra.HydraException)) or (
        yaml is not None and isinstance(error, yaml.YAMLError)
    )


def show(error: Exception, *, traceback_wanted: bool = False) -> None:
    """Print an error to standard error.

    Args:
        error: What was raised.
        traceback_wanted: Whether problems of the user's come with a traceback.
    """
    if status(error) == 2 and not traceback_wanted:
        name = type(error).__name__ if isinstance(error, GraftError) else "ConfigError"
        cause = f"\n{error.__cause__}" if _of_a_config(error) and error.__cause__ else ""
        print(f"{name}: {str(error).strip()}{cause}", file=sys.stderr)
        return
    traceback.print_exception(error)
