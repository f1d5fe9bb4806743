"""Targets: what ``_target_`` names, imported; and which of them a configuration that others wrote may build.

A configuration that comes from a run's folder or a checkpoint may build our parts and well-known base classes only.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from graft.errors import ConfigError, GraftError, did_you_mean

OUR_PARTS = (
    *("graft.tasks", "graft.losses", "graft.metrics", "graft.data", "graft.models", "graft.peft"),
    *("graft.objectives", "graft.optim", "graft.callbacks", "graft.engine", "graft.module"),
)
"""Where in graft the parts lie that a configuration may build; not what runs commands or reads configs."""

SAFE_BASES = frozenset(
    {
        "torch.optim.optimizer.Optimizer",
        "torch.optim.lr_scheduler.LRScheduler",
        "peft.config.PeftConfigMixin",
        "pytorch_lightning.callbacks.callback.Callback",
        "pytorch_lightning.loggers.logger.Logger",
        "pytorch_lightning.trainer.trainer.Trainer",
        "pytorch_lightning.core.module.LightningModule",
        "pytorch_lightning.core.datamodule.LightningDataModule",
        "pytorch_lightning.strategies.strategy.Strategy",
        "pytorch_lightning.profilers.profiler.Profiler",
    }
)
"""A class derived from one of these may be built from a saved configuration, whatever package it is in."""


class TargetProblem(Exception):
    """Why a target cannot be had."""


def check_targets(cfg: DictConfig | Mapping[str, Any], *, trust: Sequence[str] = ()) -> None:
    """Refuse a saved configuration that would build anything but parts.

    A target passes when the object it names was defined in one of graft's part packages (being reachable
    through graft, as ``graft.paths.os.system`` is, does not count), is a class derived from the base classes
    of optimizers, schedules, adapter configs and Lightning's parts, or was defined in a trusted package.
    Modules of the standard library and of the current folder are never imported for it. Code that comes with a
    model on the hub is not run either.

    Args:
        cfg: The configuration of a run directory or a checkpoint.
        trust: Further packages whose functions and classes may be built, such as ``my_lab``, and models whose
            own code may run, such as ``owner/name``.

    Raises:
        ConfigError: With every target that is refused.
    """
    plain = _resolved(cfg)
    problems = list(_foreign_code(plain, trust))
    for path, target in targets_in(plain):
        if (reason := _why_unsafe(target, trust)) is None:
            continue
        package = target.partition(".")[0]
        remedy = f"If you know that code and trust it: trust=[{package}]."
        if package in {"graft", *sys.stdlib_module_names}:
            remedy = "Do not use this configuration, unless you know why it says so."
        problems.append(f"{path}: '{target}' is not built from a saved configuration: {reason}\n    {remedy}")
    if problems:
        raise ConfigError(problems)


def find(target: str) -> Any:
    """Import the object that a target names.

    Args:
        target: A dotted path.

    Returns:
        The object.

    Raises:
        TargetProblem: If there is none, or importing its module fails.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise TargetProblem(f"'{target}' is no dotted path. Write package.module.name.")
    found: Any = _import(parts[0], target)
    if found is None:
        raise TargetProblem(f"there is no package '{parts[0]}' for '{target}'. Install it, or correct the name.")
    # An attribute before a module of that name, as Hydra does it: what is checked must be what is built.
    for depth, part in enumerate(parts[1:], start=1):
        inside = _attribute(found, part, target)
        if inside is None and isinstance(found, ModuleType):
            inside = _import(".".join(parts[: depth + 1]), target)
        if inside is None:
            names = [name for name in dir(found) if not name.startswith("_")]
            raise TargetProblem(f"'{'.'.join(parts[:depth])}' has nothing called '{part}'.{did_you_mean(part, names)}")
        found = inside
    return found


def _attribute(found: Any, name: str, target: str) -> Any:
    try:
        return getattr(found, name, None)
    except Exception as error:  # packages that import their names lazily
        raise _failed(target, found.__name__, error) from None


def _import(name: str, target: str) -> ModuleType | None:
    """Import a module; None when there is no such module, an error when there is one and it fails."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise TargetProblem(
            f"'{target}' needs the package '{error.name}', which is not installed. "
            "Install it, or choose another option."
        ) from None
    except Exception as error:
        raise _failed(target, name, error) from None


def _failed(target: str, module: str, error: Exception) -> TargetProblem:
    detail = str(error) if isinstance(error, GraftError) else f"{type(error).__name__}: {error}"
    return TargetProblem(f"importing '{module}' for '{target}' fails: {detail}")


def _resolved(cfg: DictConfig | Mapping[str, Any]) -> Any:
    """Return plain values: an interpolation could make a node with a target out of a text."""
    opened = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    try:
        return OmegaConf.to_container(opened, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the saved configuration cannot be resolved: {str(error).splitlines()[0]}.") from None


def targets_in(node: Any) -> Iterator[tuple[str, str]]:
    """Find the targets in plain values.

    Args:
        node: Nested dicts and lists.

    Yields:
        The path of each ``_target_``, and what it names.
    """
    for path, inner in _mappings(node):
        if "_target_" in inner:
            yield f"{path}_target_", str(inner["_target_"])


def _mappings(node: Any, path: str = "") -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield every mapping with its path and a dot, if it has a path."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from _mappings(value, f"{path}{key}.")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _mappings(value, f"{path}{index}.")


def _foreign_code(node: Any, trust: Sequence[str]) -> Iterator[str]:
    for path, inner in _mappings(node):
        name = str(inner.get("name"))
        if inner.get("trust_remote_code") and name not in trust:
            yield (
                f"{path}trust_remote_code: the code that comes with '{name}' is not run because a saved configuration "
                f"says so.\n    If you know that code and trust it: trust=[{name}]."
            )


def _lies_here(package: str) -> bool:
    """Return whether importing a package would run a file of the current folder, as ``python -m graft`` allows."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""]
    installed = Path(sys.prefix).resolve()
    return any(
        Path(place).resolve().is_relative_to(Path.cwd()) and not Path(place).resolve().is_relative_to(installed)
        for place in places
        if place
    )


def _why_unsafe(target: str, trust: Sequence[str]) -> str | None:
    package = target.partition(".")[0]
    if package in sys.stdlib_module_names:
        return "it lies in Python's standard library."
    if package not in ("graft", *trust) and _lies_here(package):
        return "it lies in the current folder, where anything may have been put."
    try:
        found = find(target)
    except TargetProblem as problem:
        return str(problem)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return "it is no class or function."
    home = found.__module__
    allowed = [*OUR_PARTS, *trust]
    if any(home == one or home.startswith(f"{one}.") for one in allowed):
        return None
    if inspect.isclass(found) and any(f"{base.__module__}.{base.__qualname__}" in SAFE_BASES for base in found.__mro__):
        return None
    return f"it is defined in '{home}', no part of graft, and no optimizer, schedule, adapter or Lightning part."
