"""One logger, one format, rank zero only."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TextIO


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the moment: a progress bar that is drawn there takes its place."""

    @property
    def stream(self) -> TextIO:
        """Standard error as it is now."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Do nothing: the constructor sets it once."""


class _RankZero(logging.Filter):
    """Lets a record pass on the first process only."""

    def filter(self, record: logging.LogRecord) -> bool:
        del record
        return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module.

    Args:
        name: ``__name__`` of the caller.

    Returns:
        A logger below ``graft``, which writes to standard error.
    """
    root = logging.getLogger("graft")
    if not any(isinstance(handler, _Stderr) for handler in root.handlers):  # others may have added theirs
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", datefmt="%H:%M:%S"))
        handler.addFilter(_RankZero())
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        root.propagate = False
    return logging.getLogger(name)


def quiet_lightning() -> None:
    """Keep Lightning's banners, tips and advice that does not apply off the screen; warnings of substance stay."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(f"{name}.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*is deprecated.*",  # Lightning calls torch's tree functions by their old names
        ".*does not have many workers.*",  # text is collated faster than a worker can hand it over
        ".*Checkpoint directory .* exists and is not empty.*",  # it does when a run is resumed
        ".*could not find the monitored key in the returned metrics.*",  # before the first validation
        ".*smaller than the logging interval.*",
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # our metrics are gathered before they are logged
        ".*functional.all_gather is deprecated.*",  # called by Lightning
    ):
        warnings.filterwarnings("ignore", message=message)
