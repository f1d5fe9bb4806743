"""``graft configs``: list what can be chosen, show an option as it composes, copy one to edit it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from graft import paths
from graft.commands.arguments import read_arguments, words_behind
from graft.commands.report import reported
from graft.config import catalog
from graft.config.catalog import Choice, Option
from graft.config.root import key_meanings
from graft.errors import ConfigError, did_you_mean

USAGE = """usage: graft configs [GROUP ...]
       graft configs show GROUP[=OPTION] [OVERRIDE ...]
       graft configs copy GROUP/OPTION [to=DIR]

List, show and copy what can be chosen.

  graft configs                          every group and option, one line each
  graft configs peft task/loss           these groups only
  graft configs show peft=lora           the option with its values, as a training configuration has it
  graft configs show experiment=NAME     the whole configuration of an experiment
  graft configs copy peft/lora           copy the file into your own folder, to edit it; used from there with
                                         graft train --config-dir DIR peft=lora

DIR is your folder of configs: to=DIR, else $GRAFT_CONF_DIR, else ./conf.
--config-dir DIR adds its options to what is listed and shown.
"""


def main() -> None:
    """Run the command line's ``configs``."""
    arguments = read_arguments(words_behind("configs"))
    words = arguments.overrides
    with reported(traceback_wanted=arguments.wants_traceback):
        if "--help" in arguments.flags:
            sys.stdout.write(USAGE)
            return
        user = catalog.user_folders(arguments.config_dirs)
        foreign = [f"{flag}: 'graft configs' has no such flag. See 'graft configs --help'." for flag in arguments.flags]
        if foreign or arguments.problems:
            raise ConfigError([*arguments.problems, *foreign])
        if words[:1] == ["show"]:
            sys.stdout.write(show_option(words[1:], arguments.config_dirs))
        elif words[:1] == ["copy"]:
            source, target = copy_option(words[1:], user)
            _print_copied(source, target)
        else:
            _print_list(
                _chosen_groups(words[1:] if words[:1] == ["list"] else words, user),
                catalog.read_primary("train", user).choices,
            )


def _chosen_groups(words: Sequence[str], user: Sequence[Path]) -> dict[str, dict[str, Option]]:
    groups = catalog.list_options(user)
    known = [*groups, "show", "copy"]
    unknown = [
        f"{word}: there is no group '{word}'.{did_you_mean(word, known)}\n    The groups: {_listed(groups)}."
        for word in words
        if word not in groups
    ]
    if unknown:
        raise ConfigError(unknown)
    return {group: groups[group] for group in words} if words else groups


def _print_list(groups: Mapping[str, Mapping[str, Option]], defaults: Mapping[str, Choice]) -> None:
    """Print a table to a terminal, and lines of ``group=option``, tab and description to a pipe."""
    if not sys.stdout.isatty():
        for group, options in groups.items():
            for name, option in options.items():
                sys.stdout.write(f"{group}={name}\t{option.summary}\n")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    meanings = key_meanings()
    console = Console()
    for group, options in groups.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, option in options.items():
            choice = defaults.get(group)
            chosen = name == choice or (isinstance(choice, list) and name in choice)
            own = " (yours)" if option.own else ""
            table.add_row("*" if chosen else " ", f"[cyan]{escape(name)}[/cyan]{own}", escape(option.summary))
        console.print(f"[bold]{escape(group)}[/bold]  {escape(meanings.get(group, ''))}")
        console.print(table)
        console.print()
    console.print("* is chosen by 'graft train' where nothing is said. Show one: graft configs show peft=lora")


def show_option(words: Sequence[str], config_dirs: Sequence[str] = ()) -> str:
    """Compose a training configuration with an option and return that option's part of it.

    Args:
        words: ``["peft=lora"]``, further overrides after it; a group alone stands for its default.
        config_dirs: The user's config folders.

    Returns:
        YAML, interpolations filled in; the whole configuration for an option that is not a part of it.

    Raises:
        ConfigError: If there is no such group or option.
    """
    if not words:
        raise ConfigError("show: say which option, as in 'graft configs show peft=lora'.")
    # Imported here: listing does without Hydra.
    from omegaconf import OmegaConf

    from graft.config.compose import compose_config

    group, equals, choice = words[0].partition("=")
    user = catalog.user_folders(config_dirs)
    if group not in (groups := catalog.list_options(user)):
        raise ConfigError(
            f"show: there is no group '{group}'.{did_you_mean(group, groups)}\n    The groups: {_listed(groups)}."
        )
    composed = compose_config("train", words if equals else words[1:], config_dirs=config_dirs)
    if not equals:
        chosen = composed.choices.get(group) or catalog.read_primary("train", user).choices.get(group)
        choice = f"[{','.join(chosen)}]" if isinstance(chosen, list) else str(chosen or "")
    if not choice:
        listed = _listed(groups[group])
        raise ConfigError(f"show: no {group} is chosen by itself. Say which.\n    The options: {listed}.")
    option = groups[group].get(choice.strip("[]"))
    whole = option is not None and option.whole
    node = composed.cfg if whole else OmegaConf.select(composed.cfg, group.replace("/", "."))
    head = f"# {group}={choice}" + (f"  ({option.path})" if option is not None else "") + "\n"
    points = "".join(f"# goes through {key}={values}\n" for key, values in composed.sweep.items())
    shown = OmegaConf.to_yaml(node, resolve=True) if OmegaConf.is_config(node) else f"{node}\n"
    return head + points + shown


def copy_option(words: Sequence[str], user: Sequence[Path]) -> tuple[Option, Path]:
    """Copy the file of an option to the user's folder; a file that is there is never overwritten.

    Args:
        words: ``["peft/lora"]`` or ``["peft=lora"]``, and ``to=DIR`` for another folder.
        user: The user's config folders; without ``to=`` the first, or ``./conf`` when there is none.

    Returns:
        What was copied, and where to.

    Raises:
        ConfigError: If there is no such option, or the file is there already.
    """
    targets = [word.removeprefix("to=") for word in words if word.startswith("to=")]
    names = [word for word in words if not word.startswith("to=")]
    if len(names) != 1 or len(targets) > 1:
        raise ConfigError("copy: say one option, as in 'graft configs copy peft/lora to=my_conf'.")
    option = _find(names[0], user)
    folder = Path(targets[0]).expanduser() if targets else (user[0] if user else Path("conf"))
    target = folder / option.group / f"{option.name}.yaml"
    if folder.resolve() == paths.conf_dir().resolve():
        raise ConfigError(f"copy: {folder} is the folder of the shipped configs. Give one of your own with to=DIR.")
    if target.exists():
        raise ConfigError(
            f"copy: {target} is there already and is not overwritten. "
            "Edit it, delete it, or give another folder with to=DIR."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(option.path, target)
    return option, target


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _find(name: str, user: Sequence[Path]) -> Option:
    groups = catalog.list_options(user)
    known = {f"{one.group}/{one.name}": one for options in groups.values() for one in options.values()}
    wanted = name.replace("=", "/").removesuffix(".yaml")
    if wanted not in known:
        group = wanted.rpartition("/")[0]
        options = f"\n    The options: {_listed(groups[group])}." if group in groups else ""
        raise ConfigError(f"copy: there is no option '{name}'.{did_you_mean(wanted, known)}{options}")
    return known[wanted]


def _print_copied(option: Option, target: Path) -> None:
    folder = str(target)[: -len(f"/{option.group}/{option.name}.yaml")] or "."
    own = paths.user_conf_dir()
    used = "" if own is not None and own == Path(folder).resolve() else f" --config-dir {shlex.quote(folder)}"
    print(f"{target}: copied from {option.path}")
    print(f"Edit it; it is used with: graft train{used} {option.group}={option.name}")
