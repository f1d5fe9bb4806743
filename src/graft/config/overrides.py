"""What is written behind a command, ``peft=lora optimizer.lr=3e-4``: made ready for Hydra, and checked first.

Our YAML files write only what we decide, so most parameters of a part are not in the composed config, and
Hydra would want ``+`` to set them. Here every dotted key is force-added instead, and the checks that Hydra
then no longer makes are made with better words: under a part by ``check_config``, elsewhere by
``check_overrides``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf

from graft.config import catalog
from graft.config.root import SEVERAL, top_level_keys
from graft.config.search import session
from graft.errors import ConfigError, did_you_mean

_DOTTED = re.compile(r"[A-Za-z_][\w$-]*(\.[\w$-]+)+\s*=")
_SHOWN = 40


def rewrite_overrides(overrides: Iterable[str]) -> list[str]:
    """Force-add every dotted key, so that a parameter which no YAML lists can be set like one that is.

    Args:
        overrides: As the user wrote them.

    Returns:
        The same with ``++`` before plain dotted keys. Keys with a sign of their own and Hydra's own keys
        stay.
    """
    return [
        f"++{one}" if _DOTTED.match(one) and not one.startswith("hydra.") else one
        for one in (o.strip() for o in overrides)
    ]


def clean_overrides(overrides: Iterable[str]) -> list[str]:
    """Strip the plus signs, to show and record overrides as they are meant.

    Args:
        overrides: As Hydra recorded them.

    Returns:
        The same without leading ``+``; a ``~`` stays, because it means something else.
    """
    return [one.lstrip("+") for one in overrides]


def check_overrides(
    command: str,
    overrides: Sequence[str],
    *,
    config_dirs: Sequence[str | Path] = (),
    multirun: bool = False,
) -> None:
    """Find everything that is wrong with overrides, before Hydra stops at the first.

    Args:
        command: The command, which is the name of its primary config.
        overrides: As the user wrote them.
        config_dirs: The user's folders.
        multirun: Whether several values make a sweep.

    Raises:
        ConfigError: With all problems: bad grammar, unknown group, option or key.
    """
    with session(config_dirs) as loader:
        check = _Check(command, loader, catalog.user_folders(config_dirs), multirun=multirun)
        parsed = check.parse(overrides)
        for one in parsed:
            check.one(one)
        if not check.problems:
            check.together(parsed)
    if check.problems:
        raise ConfigError(list(dict.fromkeys(check.problems)))


@final
class _Check:
    """Collects the problems of one command line.

    Args:
        command: The command.
        loader: Hydra's loader, which knows the groups and options.
        user: The user's folders.
        multirun: Whether several values make a sweep.
    """

    def __init__(self, command: str, loader: ConfigLoader, user: Sequence[Path], *, multirun: bool) -> None:
        self.problems: list[str] = []
        self._command = command
        self._loader = loader
        self._multirun = multirun
        self._searchpath: list[str] = []
        self._groups: dict[str, list[str]] = {}
        self._keys = _legal_keys(command, user)
        self._chosen = [group for group in catalog.default_choices(command, user) if "/" not in group]

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
            if options := self._list(group, ObjectType.CONFIG):
                yield group, options
            yield from self._find_groups(group)

    def _list(self, group: str, kind: ObjectType) -> list[str]:
        return self._loader.get_group_options(
            group, results_filter=kind, config_name=self._command, overrides=self._searchpath
        )

    def one(self, override: Override) -> None:
        """Check an override by itself.

        Args:
            override: A parsed override.
        """
        key = override.key_or_group
        if not self._multirun and override.is_sweep_override():
            self._no_sweep(override)
        elif key in self._groups:
            self._option(override)
        elif "/" in key:
            self.problems.append(
                f"{_shown(override)}: there is no group '{key}'.{did_you_mean(key, self._groups)}\n"
                f"    The groups: {_listed(self._groups)}."
            )
        else:
            self._key(override, key.partition(".")[0])

    def _key(self, override: Override, first: str) -> None:
        known = list(dict.fromkeys([*self._keys, *self._chosen]))
        if first not in known:
            self.problems.append(
                f"{_shown(override)}: '{self._command}' has no key '{first}'.{did_you_mean(first, known)}\n"
                f"    Its keys and groups: {_listed(known)}."
            )

    def _no_sweep(self, override: Override) -> None:
        key, _, value = _shown(override).partition("=")
        way = ""
        if key in SEVERAL:
            way = f" To choose several, write '{key}=[{value}]'."
        elif key not in self._groups:
            way = f" A list is written '{key}=[{value}]', a text with a comma \"{key}='{value}'\"."
        self.problems.append(
            f"{_shown(override)}: several values need a sweep: graft {self._command} -m {key}={value}.{way}"
        )

    def _option(self, override: Override) -> None:
        group, options = override.key_or_group, self._groups[override.key_or_group]
        names = _option_names(override)
        if "/" not in group and group not in self._chosen and not override.is_add():
            self.problems.append(
                f"{_shown(override)}: '{self._command}' does not choose a {group}."
                f"{did_you_mean(group, self._chosen)}\n    Its groups: {_listed(self._chosen)}."
            )
            return
        if isinstance(override.value(), list) and group not in SEVERAL and not override.is_sweep_override():
            self.problems.append(
                f"{_shown(override)}: {group} takes one option. To try several, sweep over them: "
                f"graft {self._command} -m {group}={','.join(names)}."
            )
        for name in names:
            folder, _, last = name.removesuffix(".yaml").rpartition("/")
            if last in (self._groups.get(f"{group}/{folder}", []) if folder else options):
                continue
            free = " Any other checkpoint: model.name=<name or folder>." if group == "model" else ""
            self.problems.append(
                f"{_shown(override)}: {group} has no option '{name}'.{did_you_mean(name, options)}\n"
                f"    The options: {_listed(options)}.{free}"
            )

    def together(self, parsed: Sequence[Override]) -> None:
        """Compose the choices and check that each value has a place in them.

        Args:
            parsed: The overrides, each right by itself.
        """
        choices = [one for one in parsed if one.key_or_group in self._groups]
        try:
            base = compose(self._command, overrides=[*self._searchpath, *map(_first_point, choices)])
        except HydraException as error:
            self.problems.append(_plain_message(error))
            return
        if any(one.is_sweep_override() for one in choices):
            return  # a key may have its place under another point of the sweep
        plain = OmegaConf.to_container(base, resolve=False, throw_on_missing=False)
        assert isinstance(plain, dict)
        for one in parsed:
            if one.key_or_group not in self._groups and not one.is_delete():
                self._place({str(key): node for key, node in plain.items()}, one)

    def _place(self, base: dict[str, Any], override: Override) -> None:
        parts = override.key_or_group.split(".")
        if len(parts) == 1 and (override.is_add() or override.is_force_add()):
            return
        node: Any = base
        for depth, part in enumerate(parts):
            path = ".".join(parts[:depth])
            if path in SEVERAL:
                node = node or {}  # nothing is chosen
            elif not isinstance(node, dict) or not node or "_target_" in node:
                return  # a part, whose signature check_config reads; or open, because nothing is said of it
            if part not in node:
                self._no_place(override, path, part, list(node))
                return
            node = node[part]

    def _no_place(self, override: Override, path: str, part: str, known: list[str]) -> None:
        near = did_you_mean(part, known)
        if path in SEVERAL:
            chosen = ", ".join(known) or "none"
            can = part in self._groups.get(path, [])
            way = f" Choose it: '{path}=[{','.join([*known, part])}]'." if can else ""
            self.problems.append(
                f"{_shown(override)}: '{part}' is not among the chosen {path} ({chosen}).{near or way}"
            )
        elif path:
            self.problems.append(
                f"{_shown(override)}: {path} has no key '{part}'.{near}\n    It has: {_listed(known)}."
            )
        else:
            self.problems.append(
                f"{_shown(override)}: '{self._command}' has no key '{part}'.{near}\n    It has: {_listed(known)}."
            )


def _legal_keys(command: str, user: Sequence[Path]) -> dict[str, None]:
    """Return the top-level keys of a command: its own, and Root's where it lists root_schema."""
    primary = catalog.primary(command, user)
    own = catalog.read_yaml(primary) if primary else {}
    closed = top_level_keys() if "root_schema" in own.get("defaults", []) else ()
    return dict.fromkeys([*closed, *(key for key in own if key != "defaults")])


def _option_names(override: Override) -> list[str]:
    if override.is_delete() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return []
    values: list[Any]
    if override.is_sweep_override():
        values = list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    else:
        values = [override.value()]
    flat = [name for value in values for name in (value if isinstance(value, list) else [value])]
    return [name.text if isinstance(name, QuotedString) else str(name) for name in flat if name is not None]


def _first_point(override: Override) -> str:
    text = override.input_line or ""
    if not override.is_sweep_override():
        return text
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _plain_message(error: HydraException) -> str:
    cause = f"\n{error.__cause__}" if error.__cause__ is not None else ""
    return f"{error}{cause}".strip()


def _shown(override: Override) -> str:
    return clean_overrides([override.input_line or override.key_or_group])[0]


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more (graft configs lists all)" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
