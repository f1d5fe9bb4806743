"""What a run is called: hashes of its configuration, a readable name, a safe folder name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NO_INFLUENCE = ("run", "paths", "logger", "resume", "ckpt_path", "offline")


def content_hash(config: Mapping[str, Any]) -> str:
    """Return a short name for what determines a run's result.

    Args:
        config: The resolved configuration, as plain values.

    Returns:
        8 hexadecimal digits, the first a letter; the same for configurations that differ only in names, places,
        loggers or in how the run was started.
    """
    return _digest({key: value for key, value in config.items() if key not in _NO_INFLUENCE})


def group_hash(config: Mapping[str, Any]) -> str:
    """Return the same without the seed: runs to take a mean over share it.

    Args:
        config: The resolved configuration, as plain values.

    Returns:
        8 hexadecimal digits, the first a letter.
    """
    return content_hash({key: value for key, value in config.items() if key != "seed"})


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    digits = hashlib.sha256(canonical.encode("ascii")).hexdigest()
    # With a digit first, a command line could take it for a number: 12345678, or 1234567e8.
    found = re.search("[a-f][0-9a-f]{7}", digits)
    return found[0] if found else f"a{digits[:7]}"


def run_name(
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    *,
    longest: int = 80,
) -> str:
    """Return a readable name from what differs from the default, such as ``lora r=16 lr=3e-4 seed=1``.

    Args:
        choices: The option of each group.
        overrides: What the command line changed, as ``key=value``.
        defaults: The default option of each group and value of each key; without it, a choice counts when the
            command line made it.
        longest: At most so many characters; where there are more, the longest parts are left out first, with ``...``
            at the end.

    Returns:
        The experiment and the chosen options, then the changed values by the last part of their key, a path by its
        last part too; ``default`` when nothing differs.
    """
    defaults = defaults or {}
    given = dict(_split_override(override) for override in overrides)
    experiment = option_text(choices.get("experiment"))
    parts = [experiment] if experiment else []
    for group, choice in choices.items():
        # The options that an experiment chose are said by its name.
        counts = group in given or (bool(defaults) and not experiment and choice != defaults.get(group))
        option = option_text(choice)
        if counts and option and option not in parts and not _unnamed(group) and choice != defaults.get(group):
            parts.append(option)
    changed = {
        key: value
        for key, value in given.items()
        if key not in choices and not _unnamed(key) and str(defaults.get(key)) != value
    }
    parts += [f"{_short(key, changed)}={value.rpartition('/')[2] or value}" for key, value in changed.items()]
    return _fit(parts, longest) or "default"


def _split_override(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    key = key.lstrip("+~").partition("@")[0].replace("/", ".") if "=" in key else key.lstrip("+~")
    return key, value.strip("'\"")


def option_text(choice: Any) -> str:
    """Return what was chosen in a group as a word.

    Args:
        choice: An option's name, several of them, or None.

    Returns:
        The name, several joined by ``+``, or an empty text.
    """
    if choice is None or choice == "null":
        return ""
    if isinstance(choice, str):
        return choice
    return "+".join(str(one) for one in choice)


def _unnamed(key: str) -> bool:
    return re.split(r"[./]", key)[0] in (
        *_NO_INFLUENCE,
        "hydra",
        "callbacks",
        "trainer",
        "debug",
        "experiment",
    )


def _short(key: str, among: Mapping[str, Any]) -> str:
    last = key.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in among) == 1
    return last if alone else ".".join(key.split(".")[-2:])


def _fit(parts: Sequence[str], longest: int) -> str:
    whole = " ".join(parts)
    if len(whole) <= longest:
        return whole
    kept = list(parts)
    # A short part is a learning rate or a seed, which tells runs apart; a long one is a list or a text.
    while kept and len(" ".join([*kept, "..."])) > longest:
        last_longest = max(range(len(kept)), key=lambda index: (len(kept[index]), index))
        del kept[last_longest]
    return " ".join([*kept, "..."]) if kept else whole[: longest - 3] + "..."


def safe_name(name: str) -> str:
    """Return a name that is one plain folder on any system.

    Args:
        name: Any text.

    Returns:
        Letters, digits, ``.``, ``_`` and ``-`` only, 1 to 80 of them, not beginning with a dot. A text of
        which nothing is left is named by its hash.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].strip("._")
    return safe or f"run_{_digest(name)}"
