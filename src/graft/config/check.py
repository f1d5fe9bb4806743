"""Checks a composed configuration before anything is built: a target's signature is its node's schema.

``check_config`` reports every problem at once: unknown keys with the nearest legal one, missing values,
targets that cannot be imported, interpolations that lead nowhere. ``check_targets`` guards what others wrote:
a configuration that comes from a run's folder or a checkpoint may build our parts and well-known base classes
only.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from graft.config.root import top_level_keys
from graft.errors import ConfigError, GraftError, did_you_mean

HYDRA_KEYS = frozenset(
    {"_target_", "_args_", "_partial_", "_recursive_", "_convert_", "_isolate_", "_execution_whitelist_"}
)
"""Keys beside a ``_target_`` that mean something to ``hydra.utils.instantiate``."""

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


class _Problem(Exception):
    """Why a target cannot be had."""


def check_config(cfg: DictConfig) -> None:
    """Check every key of a training configuration.

    Args:
        cfg: A composed configuration. Imports the targets that it names.

    Raises:
        ConfigError: With all problems.
    """
    problems: list[str] = []
    legal = top_level_keys()
    for key in map(str, cfg):
        if key not in legal and key != "hydra":
            problems.append(
                f"{key}: a configuration has no such top-level key.{did_you_mean(key, legal)}\n"
                f"    The keys: {', '.join(legal)}."
            )
    for path, node in _containers(cfg, problems):
        if isinstance(node, DictConfig) and "_target_" in node:
            problems.extend(_signature_problems(path, node))
    if problems:
        raise ConfigError(problems)


def check_targets(cfg: DictConfig | Mapping[str, Any], *, trust: Sequence[str] = ()) -> None:
    """Refuse a saved configuration that would build anything but parts.

    A target passes when the object it names was defined in one of graft's part packages (being reachable
    through graft, as ``graft.paths.os.system`` is, does not count), is a class derived from the base classes
    of optimizers, schedules, adapter configs and Lightning's parts, or was defined in a trusted package.
    Modules of the standard library are never imported for it.

    Args:
        cfg: The configuration of a run directory or a checkpoint.
        trust: Further packages whose functions and classes may be built, such as ``my_lab``.

    Raises:
        ConfigError: With every target that is refused.
    """
    problems: list[str] = []
    for path, target in _targets(_resolved(cfg)):
        if (reason := _why_unsafe(target, trust)) is None:
            continue
        package = target.partition(".")[0]
        remedy = f"If you know that code and trust it: trust=[{package}]."
        if package in {"graft", *sys.stdlib_module_names}:
            remedy = "Do not use this configuration, unless you know why it says so."
        problems.append(f"{path}: '{target}' is not built from a saved configuration: {reason}\n    {remedy}")
    if problems:
        raise ConfigError(problems)


def locate(target: str) -> Any:
    """Import the object that a target names.

    Args:
        target: A dotted path, ``package.module.name``.

    Returns:
        The object.

    Raises:
        ConfigError: If there is none, with the nearest name of the module; or if importing its module fails.
    """
    try:
        return _locate(target)
    except _Problem as problem:
        raise ConfigError(f"_target_: {problem}") from None


def _locate(target: str) -> Any:
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise _Problem(f"'{target}' is no dotted path. Write package.module.name.")
    found: Any = _import(parts[0], target)
    if found is None:
        raise _Problem(f"there is no package '{parts[0]}' for '{target}'. Install it, or correct the name.")
    # An attribute before a module of that name, as Hydra does it: what is checked must be what is built.
    for depth, part in enumerate(parts[1:], start=1):
        inside = _attribute(found, part, target)
        if inside is None and isinstance(found, ModuleType):
            inside = _import(".".join(parts[: depth + 1]), target)
        if inside is None:
            names = [name for name in dir(found) if not name.startswith("_")]
            raise _Problem(f"'{'.'.join(parts[:depth])}' has nothing called '{part}'.{did_you_mean(part, names)}")
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
        raise _Problem(
            f"'{target}' needs the package '{error.name}', which is not installed. "
            "Install it, or choose another option."
        ) from None
    except Exception as error:
        raise _failed(target, name, error) from None


def _failed(target: str, module: str, error: Exception) -> _Problem:
    detail = str(error) if isinstance(error, GraftError) else f"{type(error).__name__}: {error}"
    return _Problem(f"importing '{module}' for '{target}' fails: {detail}")


def _containers(node: DictConfig | ListConfig, problems: list[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every mapping and list in a configuration with its path; collect missing and dangling values."""
    yield path, node
    keys: list[Any] = list(range(len(node))) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        where = _join(path, str(key))
        if where == "hydra":
            continue
        if OmegaConf.is_missing(node, key):
            problems.append(f"{where}: a value is needed here. Set {where}=...")
            continue
        try:
            value = node[key]
        except InterpolationToMissingValueError:
            continue  # reported where the value is missing
        except OmegaConfBaseException as error:
            problems.append(f"{where}: {str(error).splitlines()[0]}. Correct the interpolation, or set {where}=...")
            continue
        if isinstance(value, DictConfig | ListConfig) and not OmegaConf.is_interpolation(node, key):
            yield from _containers(value, problems, where)


def _resolved(cfg: DictConfig | Mapping[str, Any]) -> Any:
    """Return plain values: an interpolation could make a node with a target out of a text."""
    opened = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    try:
        return OmegaConf.to_container(opened, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the saved configuration cannot be resolved: {str(error).splitlines()[0]}.") from None


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield _join(path, "_target_"), str(node["_target_"])
        for key, value in node.items():
            yield from _targets(value, _join(path, str(key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, _join(path, str(index)))


def _signature_problems(path: str, node: DictConfig) -> list[str]:
    target = node["_target_"]
    if not isinstance(target, str):
        return [f"{_join(path, '_target_')}: {target!r} is no dotted path. Write package.module.name."]
    try:
        found = _locate(target)
    except _Problem as problem:
        return [f"{_join(path, '_target_')}: {problem}"]
    if not callable(found):
        return [f"{_join(path, '_target_')}: '{target}' is no class or function. Name one."]
    parameters = _parameters(found)
    if parameters is None:
        return []
    written = [str(key) for key in node if str(key) not in HYDRA_KEYS]
    takes = f"    It takes: {', '.join(parameters)}." if parameters else "    It takes nothing."
    legal = [*parameters, *HYDRA_KEYS]
    return [
        f"{_join(path, key)}: {target} takes no '{key}'.{did_you_mean(key, legal)}\n{takes}"
        for key in written
        if key not in parameters
    ]


def _parameters(found: Any) -> list[str] | None:
    """Return the names that a callable takes; None when it takes any."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return None  # written in C: nothing is known of it
    kinds = {one.kind for one in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    nameless = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, one in signature.parameters.items() if one.kind not in nameless]


def _why_unsafe(target: str, trust: Sequence[str]) -> str | None:
    package = target.partition(".")[0]
    if package in sys.stdlib_module_names:
        return "it lies in Python's standard library."
    try:
        found = _locate(target)
    except _Problem as problem:
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


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
