"""Checks a composed configuration before anything is built: a target's signature is its node's schema.

Every problem is reported at once: unknown keys with the nearest legal one, missing values and parts, targets that
cannot be imported, interpolations that lead nowhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from graft.config.root import PARTS, SEVERAL, Root, top_level_keys, wrong_kind
from graft.config.targets import TargetProblem, find
from graft.errors import ConfigError, did_you_mean

HYDRA_KEYS = frozenset(
    {"_target_", "_args_", "_partial_", "_recursive_", "_convert_", "_isolate_", "_execution_whitelist_"}
)
"""Keys beside a ``_target_`` that mean something to ``hydra.utils.instantiate``."""


def check_config(cfg: DictConfig) -> None:
    """Check every key of a training configuration.

    Args:
        cfg: A composed configuration. Imports the targets that it names.

    Raises:
        ConfigError: With all problems.
    """
    problems = [problem for key in map(str, cfg) if (problem := _top_level_problem(cfg, key)) is not None]
    for path, node in _containers(cfg, problems):
        if isinstance(node, DictConfig) and "_target_" in node:
            problems.extend(_signature_problems(path, node))
    if problems:
        raise ConfigError(problems)


def missing_values(cfg: DictConfig) -> list[str]:
    """Find every ``???`` that was not filled and every interpolation that leads nowhere; imports nothing.

    Args:
        cfg: A composed configuration.

    Returns:
        One message a value.
    """
    problems: list[str] = []
    for _ in _containers(cfg, problems):
        pass
    return problems


def check_given(cfg: DictConfig, **examples: str) -> None:
    """Check that a command was told what it cannot know.

    Args:
        cfg: The command's configuration.
        examples: What to write, by the keys that need a value.

    Raises:
        ConfigError: With every key that has none.
    """
    missing = [key for key in examples if OmegaConf.is_missing(cfg, key)]
    if missing:
        raise ConfigError([f"{key}: a value is needed here. Set {key}={examples[key]}." for key in missing])


def _top_level_problem(cfg: DictConfig, key: str) -> str | None:
    """Return what is wrong with a top-level key before any target is looked at."""
    legal = top_level_keys()
    if key == "hydra" or OmegaConf.is_missing(cfg, key) or OmegaConf.is_interpolation(cfg, key):
        return None
    node = cfg[key]
    if key not in legal:
        return (
            f"{key}: a configuration has no such top-level key.{did_you_mean(key, legal)}\n"
            f"    The keys: {', '.join(legal)}."
        )
    if key in PARTS:
        return _part_problem(key, node)
    if key in SEVERAL:
        return _several_problem(key, node)
    plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    wrong = wrong_kind(plain, getattr(Root(), key))
    return f"{key}: '{plain}' {wrong}." if wrong else None


def _part_problem(key: str, node: Any) -> str | None:
    listed = f"'graft configs {key}' lists what there is."
    if node is None:
        return f"{key}: nothing is chosen, and nothing can be trained without it. {listed}"
    if not isinstance(node, DictConfig):
        return f"{key}: '{node}' is no part. {listed}"
    if "_target_" not in node:
        return f"{key}: it has no _target_, so there is nothing to build. {listed}"
    return None


def _several_problem(key: str, node: Any) -> str | None:
    if node is None or (OmegaConf.is_list(node) and not node):  # objective=[], while the group has no option
        return None
    wrong = f"{key}: each part stands under a name of its own, as in {key}: {{mine: {{_target_: package.Class}}}}."
    if not isinstance(node, DictConfig):
        return f"{wrong} Found: {node}."
    nameless = [
        str(name)
        for name in node
        if not OmegaConf.is_missing(node, name)
        and node[name] is not None
        and not (isinstance(node[name], DictConfig) and "_target_" in node[name])
    ]
    return f"{wrong} Not so: {', '.join(nameless)}." if nameless else None


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


def _signature_problems(path: str, node: DictConfig) -> list[str]:
    target = node["_target_"]
    if not isinstance(target, str):
        return [f"{_join(path, '_target_')}: {target!r} is no dotted path. Write package.module.name."]
    try:
        found = find(target)
    except TargetProblem as problem:
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


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
