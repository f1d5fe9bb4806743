"""Where things are: the shipped configs, the runs, the caches. Nothing else computes such a path."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """Return the folder of the shipped configs: the repository's ``conf/``, else the copy in the package."""
    repository = PACKAGE.parent.parent / "conf"
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else repository


def user_conf_dir() -> Path | None:
    """Return the user's own config folder, ``$GRAFT_CONF_DIR``, or None."""
    value = os.environ.get("GRAFT_CONF_DIR")
    return Path(value).expanduser().resolve() if value else None


def logs_dir() -> Path:
    """Return the folder that runs are written to: ``$GRAFT_LOGS``, else ``logs/`` in the current folder."""
    return Path(os.environ.get("GRAFT_LOGS", "logs")).expanduser().resolve()


def cache_dir() -> Path:
    """Return the folder for encoded data: ``$GRAFT_CACHE``, else ``~/.cache/graft``."""
    return Path(os.environ.get("GRAFT_CACHE", "~/.cache/graft")).expanduser().resolve()
