"""Overrides as they are written, ``peft=lora optimizer.lr=3e-4``: made ready for Hydra, and read.

Our YAML files write only what we decide, so most parameters of a part are not in the composed config, and
Hydra would want ``+`` to set them. Here every key below another is force-added instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.errors import HydraException

_BELOW = re.compile(r"[A-Za-z_][\w$-]*((\.[\w$-]+)+\s*=|\s*=\s*\{)")  # key.key=, or key={
_TEXT = re.compile(r"[^\[\]{},'\"\\]+")


def rewrite_overrides(overrides: Iterable[str]) -> list[str]:
    """Force-add what lies below a key, so that a parameter which no YAML lists can be set like one that is.

    Args:
        overrides: As the user wrote them.

    Returns:
        The same with ``++`` before plain dotted keys and mappings, and quotes around a value that is a text with
        characters of Hydra's grammar, as in ``input=rows (1).csv``. Keys with a sign of their own and Hydra's
        own keys stay.
    """
    parser = OverridesParser.create()
    return [
        f"++{one}" if _BELOW.match(one) and not one.startswith("hydra.") else one
        for one in (_quoted(o.strip(), parser) for o in overrides)
    ]


def _quoted(text: str, parser: OverridesParser) -> str:
    """Put quotes around a value that Hydra cannot read and that is no list, mapping or sweep gone wrong."""
    if _reads(text, parser):
        return text
    key, equals, value = text.partition("=")
    quoted = f'{key}="{value}"'
    return quoted if equals and _TEXT.fullmatch(value) and _reads(quoted, parser) else text


def _reads(text: str, parser: OverridesParser) -> bool:
    try:
        parser.parse_override(text)
    except HydraException:
        return False
    return True


def clean_overrides(overrides: Iterable[str]) -> list[str]:
    """Strip the plus signs, to show and record overrides as they are meant.

    Args:
        overrides: As Hydra recorded them.

    Returns:
        The same without leading ``+``; a ``~`` stays, because it means something else.
    """
    return [one.lstrip("+") for one in overrides]


def option_names(override: Override) -> list[str | None]:
    """Return the options that an override of a group chooses, all points of a sweep together.

    Args:
        override: A parsed override.

    Returns:
        Names; None for a null. Nothing for a sweep over a pattern.
    """
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return []
    values: list[Any]
    if override.is_sweep_override():
        values = list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    else:
        values = [override.value()]
    flat = [name for value in values for name in (value if isinstance(value, list) else [value])]
    texts = [name.text if isinstance(name, QuotedString) else name for name in flat]
    return [None if text is None else str(text) for text in texts]


def leaves(override: Override) -> Iterator[tuple[list[str], Any]]:
    """Split an override into the keys that it sets, ``run={name: a, tags: []}`` into two.

    Args:
        override: A parsed override of a key.

    Yields:
        The parts of a key, and its value.
    """

    def below(parts: list[str], value: Any) -> Iterator[tuple[list[str], Any]]:
        if not isinstance(value, Mapping) or not value:
            yield parts, value
            return
        for key, inner in value.items():
            yield from below([*parts, str(key)], inner)

    yield from below(override.key_or_group.split("."), override.value())


def first_point(override: Override) -> str:
    """Return an override as written, or with the first value of its sweep.

    Args:
        override: A parsed override.
    """
    text = override.input_line or ""
    if not override.is_sweep_override():
        return text
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def shown(override: Override) -> str:
    """Return an override as the user wrote it.

    Args:
        override: A parsed override.
    """
    return clean_overrides([override.input_line or override.key_or_group])[0]
