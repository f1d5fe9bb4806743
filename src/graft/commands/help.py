"""``graft <verb> --help`` in plain words: what can be chosen and what to type, read from the config files."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

from graft.commands.arguments import read_arguments
from graft.commands.report import reported
from graft.config import catalog
from graft.config.catalog import Choice, Option, Primary
from graft.config.root import PARTS, SEVERAL, Root, key_meanings

_FLAGS = (
    ("-m", "sweep: one job for each combination of values, as in -m peft=lora,full seed=0,1,2"),
    ("--cfg job", "print the composed configuration and stop; with --resolve, interpolations filled in"),
    ("--info defaults", "print which files the configuration is composed of"),
    (
        "--config-dir DIR",
        "a folder of your own configs; its files come before ours ($GRAFT_CONF_DIR likewise)",
    ),
    ("--config-name NAME", "start from NAME.yaml of your folder in place of the verb's own"),
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
    primary = catalog.read_primary(verb, user)
    options = catalog.list_options(user)
    head = catalog.header(primary.path)
    examples = [line.strip() for line in head[1:] if line.startswith("  ")]
    parts = [
        f"usage: graft {verb} [GROUP=OPTION ...] [KEY=VALUE ...] [FLAG ...]",
        head[0] if head else "",
        _groups(primary.choices, options),
        _keys(primary, options),
        "Examples\n" + "\n".join(f"  {line}" for line in examples) if examples else "",
        "Flags\n" + "\n".join(_row(flag, meaning, 20) for flag, meaning in _FLAGS),
        "'graft configs' lists every option; 'graft configs show peft=lora' prints one with its values.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _groups(choices: Mapping[str, Choice], options: Mapping[str, Mapping[str, Option]]) -> str:
    meanings = key_meanings()
    blocks = []
    for group, choice in choices.items():
        if group == "hydra" or group not in options:
            continue
        several = f" Several are written {group}=[a,b]." if group in SEVERAL else ""
        lines = [_fill(f"{group}: {meanings.get(group, '')}{several}".rstrip(": "), "  ", "    ")]
        width = max(len(name) for name in options[group]) + 2
        for name, option in options[group].items():
            chosen = name == choice or (isinstance(choice, list) and name in choice)
            own = " (yours)" if option.own else ""
            lines.append(_row(f"{'*' if chosen else ' '} {name}", option.summary + own, width + 2))
        blocks.append("\n".join(lines))
    return "What can be chosen (* is the default)\n\n" + "\n\n".join(blocks) if blocks else ""


def _keys(primary: Primary, options: Mapping[str, object]) -> str:
    meanings = key_meanings()
    groups = options.keys() & primary.choices.keys()
    known = dict(primary.values)
    if primary.trains:
        known = {key: value for key, value in vars(Root()).items() if key not in (*PARTS, *SEVERAL)} | known
    lines = [
        _row(f"{key}{_default(value)}", primary.comments.get(key) or meanings.get(key, ""), 20)
        for key, value in known.items()
        if key not in groups
    ]
    nested = (
        "    Any parameter of a chosen part can be set too, listed or not: GROUP.PARAMETER=VALUE." if groups else ""
    )
    return "\n".join(["Keys", *lines, *([nested] if nested else [])])


def _default(value: object) -> str:
    if isinstance(value, dict | list) or value is None:
        return ""
    return " (required)" if value == "???" else f"={str(value).lower()}"


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
