"""Which modules an adapter sits on: a named set that fits any architecture, names, or a regular expression.

=============  =======================================================================================
``attention``  linear layers inside the attention of the blocks: query, key, value and output projection
``mlp``        the other linear layers of the blocks
``all_linear`` both
``norms``      normalisation layers
``embeddings`` the input embeddings
=============  =======================================================================================

Chosen with ``peft.targets``. Every name must match: ``peft`` itself drops a name that matches nothing,
without a word, as long as another one matches.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from graft.errors import ConfigError, IncompatibleError, did_you_mean
from graft.models import blocks

_NEAR = 3


def resolve_targets(
    model: nn.Module,
    targets: str | Sequence[str],
    *,
    exclude: Collection[str] = (),
    where: str = "peft.targets",
) -> list[str]:
    """Return the full names of the modules that are meant.

    Args:
        model: A model that is not wrapped yet.
        targets: A named set, a list of names (a module matches when its name is one of them or ends in
            ``.<name>``), or a regular expression that a whole name matches.
        exclude: Modules that are trained as a whole (the head), which are never targets, nor what is inside
            them.
        where: Path in the config, for messages about names.

    Returns:
        Names in the order of the model, at least one.

    Raises:
        ConfigError: If a name or the expression matches nothing; all of them at once.
        IncompatibleError: If a named set is empty for this model.
    """
    candidates = [name for name, _ in model.named_modules() if name and not blocks.lies_in(name, list(exclude))]
    if isinstance(targets, str):
        if targets in _SETS:
            chosen = _SETS[targets](model)
            found = [name for name in candidates if name in chosen]
            if not found:
                raise IncompatibleError(
                    f"peft.targets: {type(model).__name__} has no '{targets}' to adapt. Choose another of: "
                    f"{', '.join(_SETS)}."
                )
            return found
        return _by_expression(model, targets, candidates)
    problems = [
        f"{where}[{index}]: no module of {type(model).__name__} is named '{name}'.{_near(name, candidates)}"
        for index, name in enumerate(targets)
        if not any(_is_named(candidate, name) for candidate in candidates)
    ]
    if problems or not targets:
        raise ConfigError(problems or "peft.targets: the list is empty. Name a module, or set peft.targets=attention.")
    return [name for name in candidates if any(_is_named(name, target) for target in targets)]


def shortest_names(model: nn.Module, modules: Sequence[str]) -> list[str]:
    """Return the shortest endings that name exactly these modules, so that a saved config can be read.

    Args:
        model: The model that has them.
        modules: Full names of modules.

    Returns:
        Endings such as ``query`` or ``attention.output.dense``, sorted; no other module of the model has one
        of them.
    """
    wanted = set(modules)
    others = [name for name, _ in model.named_modules() if name and name not in wanted]
    endings = set()
    for name in modules:
        components = name.split(".")
        for length in range(1, len(components) + 1):
            ending = ".".join(components[-length:])
            if not any(_is_named(other, ending) for other in others):
                break
        endings.add(ending)
    return sorted(endings)


def _is_named(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _near(name: str, candidates: Sequence[str]) -> str:
    """Return the sets and module names that come near, for a message."""
    words = {word for candidate in candidates for word in _endings(candidate)} | set(_SETS)
    near = difflib.get_close_matches(name, sorted(words), n=_NEAR, cutoff=0.6)
    if near:
        return f" Near to it: {', '.join(near)}."
    shown = sorted({candidate.rsplit(".", 1)[-1] for candidate in candidates if not candidate[-1].isdigit()})
    return f" Its modules: {', '.join(shown)}."


def _endings(name: str) -> list[str]:
    """Return the last one, two and three components of a name, without the numbers of blocks."""
    components = name.split(".")
    endings = [components[-length:] for length in range(1, min(3, len(components)) + 1)]
    return [".".join(ending) for ending in endings if not any(word.isdigit() for word in ending)]


def _by_expression(model: nn.Module, expression: str, candidates: Sequence[str]) -> list[str]:
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise ConfigError(f"peft.targets: '{expression}' is no regular expression: {error}. Correct it.") from None
    found = [name for name in candidates if compiled.fullmatch(name)]
    if not found:
        as_set = did_you_mean(expression, _SETS)
        raise ConfigError(
            f"peft.targets: '{expression}' is no named set ({', '.join(_SETS)}), and as a regular expression "
            f"it matches no module of {type(model).__name__}.{as_set or _near(expression, candidates)}"
        )
    return found


def _linear(model: nn.Module, *, attention: bool | None) -> set[str]:
    """Return the linear layers of the blocks: inside attention, outside it, or all."""
    inside = blocks.parts(model).blocks
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and blocks.lies_in(name, inside)
        and (attention is None or _is_attention(name, inside) == attention)
    }


def _is_attention(name: str, inside: Sequence[str]) -> bool:
    block = next(block for block in inside if blocks.lies_in(name, [block]))
    return "att" in name[len(block) :].lower()


def _embeddings(model: nn.Module) -> set[str]:
    """Return the token embeddings that are looked up.

    An encoder-decoder keeps one table under three names and looks up in that of its encoder and decoder.
    """
    inner: Any = blocks.inner_model(model)[1]
    try:
        table = inner.get_input_embeddings()
    except NotImplementedError:  # a model that reads no tokens
        return set()
    if not isinstance(table, nn.Embedding):
        return set()
    same = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module.weight is table.weight
    }
    return {name for name, module in same.items() if len(same) == 1 or module is not table}


_SETS: Mapping[str, Callable[[nn.Module], set[str]]] = {
    "attention": lambda model: _linear(model, attention=True),
    "mlp": lambda model: _linear(model, attention=False),
    "all_linear": lambda model: _linear(model, attention=None),
    "norms": lambda model: set(blocks.parts(model).norms),
    "embeddings": _embeddings,
}
