"""``graft <verb> --help`` in plain words: what can be chosen and what to type, read from the config files."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from graft import paths
from graft.commands.arguments import read_arguments
from graft.commands.report import reported
from graft.config import catalog
from graft.config.root import SEVERAL, key_meanings
from graft.errors import ConfigError

_FLAGS = (
    ("-m", "sweep: one job for each combination of values, as in -m peft=lora,full seed=0,1,2"),
    ("--cfg job", "print the composed configuration and stop; with --resolve, interpolations filled in"),
    ("--info defaults", "print which files the configuration is composed of"),
    (
        "--config-dir DIR",
        "a folder of your own configs; its files come before ours ($GRAFT_CONF_DIR likewise)",
    ),
    ("--config-name NAME", "start from another primary config"),
)


def print_help(verb: str, words: Sequence[str]) -> None:
    """Print the help of a verb.

    Args:
        verb: The verb.
        words: What stands behind it; ``--config-dir`` adds the user's options to the list.
    """
    with reported():
        sys.stdout.write(verb_help(verb, read_arguments(words).config_dirs))


def verb_help(verb: str, config_dirs: Sequence[str] = ()) -> str:
    """Write the help of a verb that is a Hydra application.

    Args:
        verb: The verb, which is the name of its primary config.
        config_dirs: The user's config folders.

    Returns:
        The text.

    Raises:
        ConfigError: If the verb has no primary config.
    """
    user = catalog.user_folders(config_dirs)
    primary = catalog.primary(verb, user)
    if primary is None:
        raise ConfigError(f"{verb}: there is no {verb}.yaml in {', '.join(map(str, [*user, paths.conf_dir()]))}.")
    head = catalog.header(primary)
    examples = [line.strip() for line in head[1:] if line.startswith("  ")]
    parts = [
        f"usage: graft {verb} [GROUP=OPTION ...] [KEY=VALUE ...] [FLAG ...]",
        head[0] if head else "",
        _groups(verb, user),
        _keys(verb, primary, user),
        "Examples\n" + "\n".join(f"  {line}" for line in examples) if examples else "",
        "Flags\n" + "\n".join(_row(flag, meaning, 20) for flag, meaning in _FLAGS),
        "'graft configs' lists every option; 'graft configs show peft=lora' prints one with its values.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _groups(verb: str, user: Sequence[Path]) -> str:
    options, meanings = catalog.list_options(user), key_meanings()
    choices = catalog.default_choices(verb, user)
    blocks = []
    for group, choice in choices.items():
        if group == "hydra" or group not in options:
            continue
        several = "  (several: " + group + "=[a,b])" if group in SEVERAL else ""
        lines = [_fill(f"{group}: {meanings.get(group, '')}{several}".rstrip(": "), "  ", "    ")]
        width = max(len(name) for name in options[group]) + 2
        for name, option in options[group].items():
            chosen = name == choice or (isinstance(choice, list) and name in choice)
            lines.append(_row(f"{'*' if chosen else ' '} {name}", option.summary, width + 2))
        blocks.append("\n".join(lines))
    return "What can be chosen (* is the default)\n\n" + "\n\n".join(blocks) if blocks else ""


def _keys(verb: str, primary: Path, user: Sequence[Path]) -> str:
    comments, meanings = catalog.key_comments(primary), key_meanings()
    own = catalog.read_yaml(primary)
    groups = set(catalog.list_options(user)) & set(catalog.default_choices(verb, user))
    known = list(own)
    if "root_schema" in own.get("defaults", []):
        known = [*known, *(key for key in meanings if key in _SINGLE)]
    lines = [
        _row(f"  {key}{_default(own, key)}", comments.get(key) or meanings.get(key, ""), 24)
        for key in dict.fromkeys(known)
        if key != "defaults" and key not in groups
    ]
    nested = "  Any parameter of a chosen part can be set too, listed or not: GROUP.PARAMETER=VALUE." if groups else ""
    return "\n".join(["Keys", *lines, *([nested] if nested else [])])


_SINGLE = ("seed", "run", "resume", "ckpt_path", "offline", "trust")


def _default(own: dict[str, object], key: str) -> str:
    value = own.get(key)
    if key not in own or isinstance(value, dict | list):
        return ""
    return " (required)" if value == "???" else f"={'null' if value is None else str(value).lower()}"


def _row(name: str, meaning: str, width: int) -> str:
    label = f"    {name}".ljust(width + 4)
    if len(label) > width + 4:
        label += " "
    return _fill(label + meaning, "", " " * (width + 4))


def _fill(text: str, first: str, later: str) -> str:
    width = min(shutil.get_terminal_size((110, 24)).columns, 130)
    return textwrap.fill(
        text,
        width=max(width, 60),
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
