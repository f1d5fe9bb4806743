"""What can be chosen: the groups and options, YAML files in the shipped and in the user's config folders.

Read from the files alone, without Hydra, so that help is printed at once. An option's description is the
first comment line of its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from graft import paths
from graft.errors import ConfigError, did_you_mean

Choice = str | list[str] | None
"""What a defaults list gives a group: an option, several, or nothing."""


@dataclass(frozen=True)
class Option:
    """One YAML file that can be chosen.

    Attributes:
        group: The group, such as ``task/loss``.
        name: The option, such as ``focal``.
        summary: The first comment line of the file.
        path: The file.
        own: Whether it lies in the user's folder.
        whole: Whether it changes the whole configuration (``# @package _global_``).
    """

    group: str
    name: str
    summary: str
    path: Path
    own: bool
    whole: bool


def user_folders(config_dirs: Sequence[str | Path] = ()) -> list[Path]:
    """Return the user's config folders, the one that wins first.

    Args:
        config_dirs: Folders given on the command line or by the caller; ``$GRAFT_CONF_DIR`` comes after them.

    Returns:
        Absolute paths.

    Raises:
        ConfigError: If one is no folder.
    """
    given = [Path(one).expanduser().resolve() for one in config_dirs]
    names = ["--config-dir"] * len(given)
    if (own := paths.user_conf_dir()) is not None:
        given.append(own)
        names.append("$GRAFT_CONF_DIR")
    problems = [
        f"{name}: there is no folder '{folder}'. Start one with: graft configs copy peft/lora to={folder}"
        for name, folder in zip(names, given, strict=True)
        if not folder.is_dir()
    ]
    if problems:
        raise ConfigError(problems)
    return list(dict.fromkeys(given))


def header(path: Path) -> list[str]:
    """Return the comment lines at the top of a YAML file, without ``#`` and without the ``@package`` line.

    Args:
        path: The file.

    Returns:
        The lines as written, a leading blank removed.
    """
    return _header(_text(path))


def _header(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not re.match(r"#\s*@package", line):
            lines.append(line[1:].removeprefix(" ").rstrip())
    return lines


def list_options(user: Sequence[Path] = ()) -> dict[str, dict[str, Option]]:
    """Find every group with its options.

    Args:
        user: The user's folders, the one that wins first.

    Returns:
        Options by name, by group; both sorted. An option of the user's shadows ours of the same name.
    """
    found: dict[str, dict[str, Option]] = {}
    for folder in [paths.conf_dir(), *reversed(user)]:
        for option in _options_in(folder, own=folder != paths.conf_dir()):
            found.setdefault(option.group, {})[option.name] = option
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def _options_in(folder: Path, *, own: bool) -> Iterator[Option]:
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        if group == "." or any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
            continue
        text = _text(path)
        lines = _header(text)
        whole = re.search(r"^#\s*@package\s+_global_\s*$", text, re.MULTILINE) is not None
        yield Option(group, path.stem, lines[0] if lines else "", path, own, whole)


@dataclass(frozen=True)
class Primary:
    """A command's primary config, together with those that it includes by their name.

    Attributes:
        path: The file.
        values: Its keys with their values.
        comments: What is written beside them.
        choices: The default of each group, in the order of the defaults lists, a nested group after its parent.
        trains: Whether it is a training configuration, closed by ``root_schema``.
    """

    path: Path
    values: dict[str, Any]
    comments: dict[str, str]
    choices: dict[str, Choice]
    trains: bool


def read_primary(command: str, user: Sequence[Path] = ()) -> Primary:
    """Read the primary config of a command, the user's before ours.

    Args:
        command: The command, which is the name of its primary config.
        user: The user's folders, the one that wins first.

    Returns:
        What it says.

    Raises:
        ConfigError: If there is none, or it is no YAML.
    """
    folders = [*user, paths.conf_dir()]
    path = _find(command, folders)
    if path is None:
        near = did_you_mean(command, [file.stem for folder in folders for file in folder.glob("*.yaml")])
        raise ConfigError(f"there is no primary config {command}.yaml in {', '.join(map(str, folders))}.{near}")
    options = list_options(user)
    read = Primary(path, {}, {}, {}, trains=False)

    def follow(file: Path, parent: str) -> bool:
        trains = False
        for group, choice in _defaults(file, parent):
            if group is None:
                included = _find(choice, folders) if isinstance(choice, str) and not parent else None
                trains |= choice == "root_schema" or (included is not None and follow(included, ""))
                continue
            read.choices[group] = choice
            for name in [choice] if isinstance(choice, str) else choice or []:
                if (option := options.get(group, {}).get(name)) is not None:
                    follow(option.path, group)
        if not parent:
            own = read_yaml(file)
            read.values.update((key, value) for key, value in own.items() if key != "defaults")
            read.comments.update(key_comments(file))
        return trains

    return replace(read, trains=follow(path, ""))


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    return next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)


def _defaults(file: Path, parent: str) -> Iterator[tuple[str | None, Choice]]:
    """Yield the entries of a defaults list: a group with its choice, or None with another file's name."""
    entries: Any = read_yaml(file).get("defaults") or []
    for entry in entries:
        if not isinstance(entry, Mapping):
            yield None, entry
            continue
        for key, choice in entry.items():
            group = str(key).removeprefix("optional ").removeprefix("override ").partition("@")[0]
            yield (group.removeprefix("/") if group.startswith("/") or not parent else f"{parent}/{group}"), choice


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file as plain values.

    Args:
        path: The file.

    Returns:
        Its mapping; empty for an empty file.

    Raises:
        ConfigError: If it is no YAML, with the place, or no mapping.
    """
    try:
        loaded = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is no valid YAML. {error}") from None
    if not isinstance(loaded, dict | None):
        raise ConfigError(f"{path}: a mapping of keys is expected, not {type(loaded).__name__}.")
    return loaded or {}


def key_comments(path: Path) -> dict[str, str]:
    """Return the comments beside the top-level keys of a YAML file.

    Args:
        path: The file.

    Returns:
        ``{"split": "train, validation or test"}`` for a line ``split: test  # train, validation or test``.
    """
    pattern = re.compile(r"^(\w+):.*?\s#\s(.+)$", re.MULTILINE)
    return {key: comment.strip() for key, comment in pattern.findall(_text(path))}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is no UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
