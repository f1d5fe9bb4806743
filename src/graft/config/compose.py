"""One call from overrides to a composed configuration, for notebooks, tests and the command line.

    cfg = load_config("train", ["peft=lora", "optimizer.lr=3e-4"])

Safe to call any number of times in one process, and inside a running Hydra application.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from graft.config.overrides import check_overrides, plain_message
from graft.config.search import session
from graft.config.written import clean_overrides, rewrite_overrides
from graft.errors import ConfigError


@dataclass(frozen=True)
class Composed:
    """A composed configuration and how it came about.

    Attributes:
        cfg: The configuration, without Hydra's own node.
        choices: The option of each group that has one.
        overrides: What was changed, without plus signs.
        sweep: What a sweep goes through, by key.
    """

    cfg: DictConfig
    choices: dict[str, Any]
    overrides: tuple[str, ...]
    sweep: dict[str, Any]


def compose_config(
    command: str = "train", overrides: Sequence[str] = (), *, config_dirs: Sequence[str | Path] = ()
) -> Composed:
    """Compose the configuration of a command, with the record of the choices made.

    Args:
        command: The command, which is the name of its primary config.
        overrides: As on the command line.
        config_dirs: Folders of the user's own configs, before ours; the first wins.

    Returns:
        The configuration, not resolved, the choices and the overrides.

    Raises:
        ConfigError: With all problems of the overrides.
    """
    check_overrides(command, overrides, config_dirs=config_dirs)
    with session(config_dirs):
        try:
            cfg = compose(command, overrides=rewrite_overrides(overrides), return_hydra_config=True)
        except (HydraException, yaml.YAMLError) as error:
            raise ConfigError(plain_message(error)) from error
    choices, sweep = _plain(cfg.hydra.runtime.choices), _plain(cfg.hydra.sweeper.get("params"))
    with open_dict(cfg):
        del cfg["hydra"]
    return Composed(
        cfg=cfg,
        choices=choices,
        overrides=tuple(clean_overrides(overrides)),
        sweep=sweep,
    )


def _plain(node: DictConfig | None) -> dict[str, Any]:
    plain = OmegaConf.to_container(node) if node is not None else {}
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def load_config(
    command: str = "train", overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> DictConfig:
    """Compose the configuration of a command.

    Args:
        command: The command, which is the name of its primary config.
        overrides: As on the command line: ``["peft=lora", "optimizer.lr=3e-4"]``.
        config_dir: A folder of the user's own configs, before ours.

    Returns:
        The configuration, not resolved and not checked against the targets (``check_config`` does that).

    Raises:
        ConfigError: With all problems of the overrides.
    """
    return compose_config(command, overrides, config_dirs=[] if config_dir is None else [config_dir]).cfg


def pin_paths(cfg: DictConfig) -> DictConfig:
    """Make folders absolute, so that a saved configuration means the same wherever it is loaded.

    Args:
        cfg: A composed configuration.

    Returns:
        A copy with absolute ``paths``, model folders and data folders.
    """
    pinned = copy.deepcopy(cfg)
    with open_dict(pinned):
        for name, folder in pinned.paths.items():
            pinned.paths[name] = _absolute(folder)
        source = pinned.data.get("source") or OmegaConf.create()
        if "train" in source:
            source.directory = _absolute(source.get("directory") or ".")
        if isinstance(pinned.data.get("label_names"), str):
            pinned.data.label_names = _absolute(pinned.data.label_names)
        # A hub's name and a folder stand under the same key; what is a folder here is meant as one.
        for node, key in ((pinned.model, "name"), (source, "path"), (source, "name")):
            if node.get(key) is not None and Path(node[key]).expanduser().is_dir():
                node[key] = _absolute(node[key])
    return pinned


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
