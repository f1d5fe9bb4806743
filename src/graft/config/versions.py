"""What Hydra 1.3 and 1.4, and the OmegaConf that goes with each, call differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from graft.config.targets import targets_in

_OLD = hydra.__version__.startswith("1.3")


def version_base() -> dict[str, Any]:
    """Return the ``version_base`` argument that this Hydra wants: 1.3 needs one, 1.4 deprecates it."""
    return {"version_base": "1.3"} if _OLD else {}


def execution_whitelist(node: DictConfig) -> dict[str, Any]:
    """Return the argument that lets ``instantiate`` build what a node names: 1.4 warns without a list.

    Which targets may be built is not decided here: ``check_targets`` did that for what others wrote.

    Args:
        node: The node, interpolations and all.

    Returns:
        Nothing for 1.3, which has no such argument.
    """
    if _OLD:
        return {}
    plain = OmegaConf.to_container(node, resolve=True)
    return {"_execution_whitelist_": [target for _, target in targets_in(plain)]}


def register_resolver(name: str, function: Callable[..., Any]) -> None:
    """Make an interpolation known to OmegaConf, if it is not; 2.4 renamed the method.

    Args:
        name: What is written in ``${name:...}``.
        function: Gives its value.
    """
    if not OmegaConf.has_resolver(name):
        getattr(OmegaConf, "register_new_resolver" if _OLD else "register_resolver")(name, function)
