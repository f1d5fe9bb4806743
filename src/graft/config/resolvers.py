"""The interpolations that shipped configs may use besides OmegaConf's own, such as ``${graft.conf:}/data``.

None of them needs a running Hydra job (no ``${hydra:...}``), so a config composes the same in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from omegaconf import OmegaConf

from graft import paths

RESOLVERS: Mapping[str, Callable[[], str]] = {
    "graft.conf": lambda: str(paths.conf_dir()),
    "graft.logs": lambda: str(paths.logs_dir()),
}
"""By name: ``graft.conf`` is the folder of the shipped configs, ``graft.logs`` the folder of the runs."""


def register_resolvers() -> None:
    """Make the interpolations known to OmegaConf; calling it again changes nothing."""
    for name, function in RESOLVERS.items():
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, function)
