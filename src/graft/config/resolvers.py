"""The interpolations that shipped configs may use besides OmegaConf's own, such as ``${graft.conf:}/data``.

None of them needs a running Hydra job (no ``${hydra:...}``), so a config composes the same in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graft import paths
from graft.config.versions import register_resolver

_USUAL_LR: Mapping[str, float] = {
    "graft.peft.freeze.Full": 5e-5,
    "graft.peft.freeze.LastBlocks": 5e-5,
    "graft.peft.freeze.HeadOnly": 1e-2,
}
_USUAL_LR_OTHERWISE = 1e-3  # adapters, biases and norms start from nothing or are few


def usual_lr(method: str) -> float:
    """Return a learning rate of AdamW that is usual for what is trained, so that ``peft=...`` alone is a fair switch.

    Args:
        method: The ``_target_`` of the ``peft`` node.
    """
    return _USUAL_LR.get(method, _USUAL_LR_OTHERWISE)


RESOLVERS: Mapping[str, Callable[..., str | float]] = {
    "graft.conf": lambda: str(paths.conf_dir()),
    "graft.logs": lambda: str(paths.logs_dir()),
    "graft.usual_lr": usual_lr,
}
"""By name: the folder of the shipped configs, the folder of the runs, and a learning rate for a method."""


def register_resolvers() -> None:
    """Make the interpolations known to OmegaConf; calling it again changes nothing."""
    for name, function in RESOLVERS.items():
        register_resolver(name, function)
