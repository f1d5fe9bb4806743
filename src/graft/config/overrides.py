"""What is written behind a command, checked before Hydra stops at the first mistake.

Hydra is told to accept what it does not know (see ``written``), and the checks that it then no longer makes are
made here with better words; under a part by ``check_config``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

import yaml
from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from graft.config import catalog
from graft.config.catalog import Primary
from graft.config.check import check_config, missing_values
from graft.config.root import SEVERAL, top_level_keys, wrong_kind
from graft.config.search import session
from graft.config.written import clean_overrides, first_point, leaves, option_names, rewrite_overrides, shown
from graft.errors import ConfigError, did_you_mean

_SHOWN = 40


def check_overrides(
    command: str,
    overrides: Sequence[str],
    *,
    config_dirs: Sequence[str | Path] = (),
    multirun: bool = False,
    complete: bool = False,
) -> None:
    """Find everything that is wrong with overrides, before Hydra stops at the first.

    Args:
        command: The command, which is the name of its primary config.
        overrides: As the user wrote them.
        config_dirs: The user's folders.
        multirun: Whether several values make a sweep.
        complete: Whether what has to be set must be set. Then all problems are sought: where there is one, also
            those that only the signatures of the parts can show, so targets may be imported.

    Raises:
        ConfigError: With all problems: bad grammar, unknown group, option or key, missing values.
    """
    primary = catalog.read_primary(command, catalog.user_folders(config_dirs))
    with session(config_dirs) as loader:
        check = _Check(command, primary, loader, multirun=multirun)
        check.together([one for one in check.parse(overrides) if check.one(one)], complete=complete)
    if check.problems:
        raise ConfigError(list(dict.fromkeys(check.problems)))


def known_keys(primary: Primary) -> list[str]:
    """Return what may stand first in an override of a command.

    Args:
        primary: Its primary config.

    Returns:
        Keys and groups.
    """
    closed = top_level_keys() if primary.trains else ()
    return list(dict.fromkeys([*closed, *primary.values, *(group.partition("/")[0] for group in primary.choices)]))


@final
class _Check:
    """Collects the problems of one command line.

    Args:
        command: The command.
        primary: Its primary config.
        loader: Hydra's loader, which knows the groups and options.
        multirun: Whether several values make a sweep.
    """

    def __init__(self, command: str, primary: Primary, loader: ConfigLoader, *, multirun: bool) -> None:
        self.problems: list[str] = []
        self._command = command
        self._primary = primary
        self._loader = loader
        self._multirun = multirun
        self._searchpath: list[str] = []
        self._groups: dict[str, list[str]] = {}
        self._chosen = [group for group in primary.choices if "/" not in group]

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Parse what can be parsed.

        Args:
            overrides: As the user wrote them.

        Returns:
            The overrides that are not Hydra's own.
        """
        parser = OverridesParser.create()
        parsed: list[Override] = []
        for text in rewrite_overrides(overrides):
            if text.startswith("hydra.searchpath="):
                self._searchpath = [text]
            try:
                parsed.append(parser.parse_override(text))
            except HydraException as error:
                reason = " ".join(str(error).split("\nSee ")[0].split())
                self.problems.append(
                    f"{clean_overrides([text])[0]}: this cannot be read ({reason}). Write key=value; a value "
                    "with blanks or special characters goes into quotes of both kinds: 'key=\"a b\"'."
                )
        self._groups = dict(self._find_groups())
        return [one for one in parsed if not one.is_hydra_override()]

    def _find_groups(self, parent: str = "") -> Iterable[tuple[str, list[str]]]:
        for name in self._list(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            if group == "hydra":
                continue
            # A file whose name begins with an underscore is a part of others, and no choice.
            if options := [one for one in self._list(group, ObjectType.CONFIG) if not one.startswith("_")]:
                yield group, options
            yield from self._find_groups(group)

    def _list(self, group: str, kind: ObjectType) -> list[str]:
        if not self._searchpath and "searchpath" not in (self._primary.values.get("hydra") or {}):
            # The loader's own answer, which would read the primary config anew for every group.
            sources = self._loader.get_sources()
            return sorted({name for source in sources if source.is_group(group) for name in source.list(group, kind)})
        return self._loader.get_group_options(
            group, results_filter=kind, config_name=self._command, overrides=self._searchpath
        )

    def one(self, override: Override) -> bool:
        """Check an override by itself.

        Args:
            override: A parsed override.

        Returns:
            Whether it is right.
        """
        before, key = len(self.problems), override.key_or_group
        if not self._multirun and override.is_sweep_override():
            self._no_sweep(override)
        elif self._chooses(override):
            self._option(override)
        elif "/" in key:
            self.problems.append(
                f"{shown(override)}: there is no group '{key}'.{did_you_mean(key, self._groups)}\n"
                f"    The groups: {_listed(self._groups)}."
            )
        else:
            self._key(override, key.partition(".")[0])
        return len(self.problems) == before

    def _chooses(self, override: Override) -> bool:
        """Return whether an override is about a group's option, and not about what is in it."""
        return override.key_or_group in self._groups and not isinstance(override.value(), dict)

    def _key(self, override: Override, first: str) -> None:
        known = known_keys(self._primary)
        if first not in known:
            self.problems.append(
                f"{shown(override)}: '{self._command}' has no key '{first}'.{did_you_mean(first, known)}\n"
                f"    Its keys and groups: {_listed(known)}."
            )

    def _no_sweep(self, override: Override) -> None:
        key, _, value = shown(override).partition("=")
        way = ""
        if key in SEVERAL:
            way = f" To choose several, write '{key}=[{value}]'."
        elif key not in self._groups:
            way = f" A list is written '{key}=[{value}]', a text with a comma \"{key}='{value}'\"."
        self.problems.append(
            f"{shown(override)}: several values need a sweep: graft {self._command} -m {key}={value}.{way}"
        )

    def _option(self, override: Override) -> None:
        group, options = override.key_or_group, self._groups[override.key_or_group]
        names = option_names(override)
        if override.is_delete() or None in names:
            self._nothing(override, group)
            return
        if "/" not in group and group not in self._chosen and not override.is_add():
            self.problems.append(
                f"{shown(override)}: '{self._command}' chooses nothing from the group {group}."
                f"{did_you_mean(group, self._chosen)}\n    Its groups: {_listed(self._chosen)}."
            )
            return
        if override.is_add() and group in self._primary.choices:
            self.problems.append(
                f"+{shown(override)}: '{self._command}' chooses from this group anyway. Write it without the plus sign."
            )
        if isinstance(override.value(), list) and group not in SEVERAL and not override.is_sweep_override():
            self.problems.append(
                f"{shown(override)}: {group} takes one option. To try several, sweep over them: "
                f"graft {self._command} -m {group}={','.join(filter(None, names))}."
            )
        for name in filter(None, names):
            folder, _, last = name.removesuffix(".yaml").rpartition("/")
            if last in (self._groups.get(f"{group}/{folder}", []) if folder else options):
                continue
            free = " Any other checkpoint: model.name=<name or folder>." if group == "model" else ""
            self.problems.append(
                f"{shown(override)}: {group} has no option '{name}'.{did_you_mean(name, options)}\n"
                f"    The options: {_listed(options)}.{free}"
            )

    def _nothing(self, override: Override, group: str) -> None:
        """Answer ``group=null`` and ``~group``; Hydra knows the second only, and not for a list."""
        if group in SEVERAL:
            way = f"To choose none, write '{group}=[]'."
        elif self._primary.choices.get(group, "") is None:
            way = "Nothing is chosen there unless you say so; leave it out."
        elif group in top_level_keys():
            way = f"'{self._command}' needs one.\n    The options: {_listed(self._groups[group])}."
        elif not override.is_delete():
            way = f"To choose none, write '~{group}'."
        else:
            return
        self.problems.append(f"{shown(override)}: {group} cannot be left empty like this. {way}")

    def together(self, right: Sequence[Override], *, complete: bool) -> None:
        """Compose the choices and check that each value has a place in them.

        Args:
            right: The overrides that are right by themselves.
            complete: Whether no value may be missing.
        """
        choices = [one for one in right if self._chooses(one)]
        if len(choices) == len(right) and not complete:
            return  # nothing to place
        base = self._compose(choices)
        if base is None or any(one.is_sweep_override() for one in choices):
            return  # a key may have its place under another point of the sweep
        plain = OmegaConf.to_container(base, resolve=False, throw_on_missing=False)
        assert isinstance(plain, dict)
        placed, unlisted = list(choices), False
        for one in right:
            if self._chooses(one):
                continue
            before = len(self.problems)
            for parts, value in [] if one.is_delete() else leaves(one):
                unlisted |= self._place({str(key): node for key, node in plain.items()}, one, parts, value)
            if len(self.problems) == before:
                placed.append(one)
        if complete and not self._multirun:
            self._values(base, placed, signatures=unlisted and bool(self.problems))

    def _compose(self, overrides: Sequence[Override]) -> DictConfig | None:
        try:
            return compose(self._command, overrides=[*self._searchpath, *map(first_point, overrides)])
        except (HydraException, yaml.YAMLError) as error:
            problem = plain_message(error)
        if not self.problems:  # else it may only follow from what is left out
            self.problems.append(problem)
        return None

    def _values(self, base: DictConfig, right: Sequence[Override], *, signatures: bool) -> None:
        """Find values that are missing, and, asked for, keys that no signature has."""
        if not signatures and not self._missing(base):
            return
        if (cfg := self._compose(right)) is None:
            return
        if not signatures:
            self.problems.extend(self._missing(cfg))
            return
        try:
            check_config(cfg)
        except ConfigError as error:
            self.problems.extend(error.problems)

    def _missing(self, cfg: DictConfig) -> list[str]:
        if self._primary.trains:
            return missing_values(cfg)
        # Another command's data may leave open what only training needs.
        meanings = {key: self._primary.comments.get(key, "") for key in self._primary.values}
        return [
            f"{key}: a value is needed here{meaning and f' ({meaning})'}. Set {key}=..."
            for key, meaning in meanings.items()
            if OmegaConf.is_missing(cfg, key)
        ]

    def _place(self, base: dict[str, Any], override: Override, parts: Sequence[str], value: Any) -> bool:
        """Check that a key has a place; return whether only the signature of a part can tell."""
        node: Any = base
        for depth, part in enumerate(parts):
            path = ".".join(parts[:depth])
            if path in SEVERAL:
                node = node or {}  # nothing is chosen
                if override.is_add():
                    return True  # one of the user's own
            elif not isinstance(node, dict) or not node:
                return False  # open, because nothing is said of it
            elif "_target_" in node:
                return part not in node
            if part not in node:
                if path or not (override.is_add() or override.is_force_add()):
                    self._no_place(override, path, part, list(node))
                return False
            node = node[part]
        wrong = wrong_kind(value, node) if len(parts) == 1 and not override.is_sweep_override() else None
        if wrong is not None:
            self.problems.append(f"{shown(override)}: '{value}' {wrong}.")
        return False

    def _no_place(self, override: Override, path: str, part: str, known: list[str]) -> None:
        near = did_you_mean(part, known)
        if path in SEVERAL:
            chosen = ", ".join(known) or "none"
            can = part in self._groups.get(path, [])
            way = f" Choose it: '{path}=[{','.join([*known, part])}]'." if can else ""
            self.problems.append(f"{shown(override)}: '{part}' is not among the chosen {path} ({chosen}).{near or way}")
        elif path:
            self.problems.append(f"{shown(override)}: {path} has no key '{part}'.{near}\n    It has: {_listed(known)}.")
        else:
            self.problems.append(
                f"{shown(override)}: '{self._command}' has no key '{part}'.{near}\n    It has: {_listed(known)}."
            )


def plain_message(error: HydraException | yaml.YAMLError) -> str:
    """Say why Hydra cannot compose a configuration.

    Args:
        error: What it raised.

    Returns:
        Its words, with those of what caused it; file and place for a file that is no YAML.
    """
    if isinstance(error, yaml.YAMLError):
        return f"a config file is no valid YAML. {error}"
    cause = f"\n{error.__cause__}" if error.__cause__ is not None else ""
    return f"{error}{cause}".strip()


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more (graft configs lists all)" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
