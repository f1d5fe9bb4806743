"""Hydra made ready for us: resolvers, root schema, and the user's config folders before the shipped one.

Hydra puts ``--config-dir`` after an application's own folder, where it could add options and never replace
one. A search path plugin puts the user's folders first, so a file of theirs shadows ours and everything else
stays.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import final

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from graft import paths
from graft.config.catalog import user_folders
from graft.config.resolvers import register_resolvers
from graft.config.root import Root
from graft.config.versions import version_base

_folders: ContextVar[tuple[Path, ...]] = ContextVar("graft_user_folders", default=())


@final
class UserFolders(SearchPathPlugin):
    """Puts the user's config folders before the shipped one, in our own applications only."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Insert the folders in front of ours.

        Args:
            search_path: Where Hydra will look, changed in place.
        """
        ours = str(paths.conf_dir())
        if not any(
            one.provider == "main" and one.path.removeprefix("file://") == ours for one in search_path.get_path()
        ):
            return
        for folder in _folders.get():
            search_path.prepend("user", f"file://{folder}", anchor=SearchPathQuery(provider="main"))


@functools.cache
def register() -> None:
    """Make resolvers, root schema and search path plugin known to Hydra; calling it again changes nothing."""
    register_resolvers()
    Plugins.instance().register(UserFolders)
    # Open, so that check_config can report an unknown key together with every other problem.
    schema = OmegaConf.structured(Root, flags={"struct": False})
    ConfigStore.instance().store(name="root_schema", node=schema, provider="graft")


@contextmanager
def searching(config_dirs: Sequence[str | Path] = ()) -> Iterator[None]:
    """Let Hydra find the user's folders while the block runs.

    Args:
        config_dirs: The user's folders, the one that wins first; ``$GRAFT_CONF_DIR`` comes after them.

    Yields:
        Nothing.
    """
    register()
    token = _folders.set(tuple(user_folders(config_dirs)))
    try:
        yield
    finally:
        _folders.reset(token)


@contextmanager
def session(config_dirs: Sequence[str | Path] = ()) -> Iterator[ConfigLoader]:
    """Open Hydra's compose API on our folders; a Hydra application that is running stays as it was.

    Args:
        config_dirs: The user's folders, the one that wins first.

    Yields:
        Hydra's loader; ``hydra.compose`` works inside the block.
    """
    running = GlobalHydra.instance().hydra
    job_name = JobRuntime.instance().get("name")
    GlobalHydra.instance().clear()
    try:
        with (
            searching(config_dirs),
            initialize_config_dir(str(paths.conf_dir()), job_name="graft", **version_base()),
        ):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().clear()
        if running is not None:
            GlobalHydra.instance().initialize(running)
        JobRuntime.instance().set("name", job_name)
