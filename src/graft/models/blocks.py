"""The blocks, embeddings and head of any transformers model, found by its structure and not by its name.

The blocks are the outermost lists of modules with attention inside; the head is what lies outside the base
model. Names are those of the model as it is, so a model that ``peft`` wrapped is read in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Parts:
    """Names of modules, in the order of the model.

    Attributes:
        prefix: What wrappers put before the names of the transformers model itself; empty or ending in a dot.
        embeddings: Modules before the blocks that turn input into vectors.
        blocks: One entry a block; an encoder's before its decoder's.
        norms: Normalisation layers anywhere.
        head: Modules outside the base model: a classifier, a pooler, a language model head.
        language_head: The same as ``head`` if it holds the output embeddings, which a checkpoint brings
            along; else empty.
    """

    prefix: str
    embeddings: tuple[str, ...]
    blocks: tuple[str, ...]
    norms: tuple[str, ...]
    head: tuple[str, ...]
    language_head: tuple[str, ...]


def inner_model(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the transformers model inside any wrappers.

    Args:
        model: A transformers model, one that ``peft`` wrapped, or any other module.

    Returns:
        The prefix of its names (empty or ending in a dot) and the model; the module itself if none is found
        inside.
    """
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            return (f"{name}." if name else ""), module
    return "", model


def parts(model: nn.Module) -> Parts:
    """Find the parts of a model.

    Args:
        model: A transformers model, wrapped or not.

    Returns:
        Names of modules as in ``model.named_modules()``.
    """
    prefix, inner = inner_model(model)
    blocks = _blocks(inner)
    head, language_head = _head(inner)
    norms = [name for name, module in inner.named_modules() if is_norm(module)]
    embeddings = _embeddings(inner, blocks, head)

    def full(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(prefix + name for name in names)

    return Parts(prefix, full(embeddings), full(blocks), full(norms), full(head), full(language_head))


def depth_of(model: nn.Module) -> dict[str, int]:
    """Return how deep each parameter lies: 0 for embeddings, 1 to n for blocks, n + 1 for what comes after.

    A pooler and a final norm come after the blocks, and so does what a wrapper adds outside the model
    (virtual tokens), since it is new. A norm between an encoder and its decoder belongs to the encoder's last
    block.

    Args:
        model: A transformers model, wrapped or not.

    Returns:
        Parameter name -> depth, for every parameter once.
    """
    found = parts(model)
    owner = {name: index for index, name in enumerate(found.blocks, start=1)}
    last = len(found.blocks) + 1
    depths: dict[str, int] = {}
    passed = 0
    for name, _ in model.named_parameters():
        block = next((owner[prefix] for prefix in _prefixes(name) if prefix in owner), None)
        if block is not None:
            passed = max(passed, block)
            depths[name] = block
        elif not name.startswith(found.prefix) or lies_in(name, found.head):
            depths[name] = last
        elif lies_in(name, found.embeddings) or passed == 0:
            depths[name] = 0
        else:
            depths[name] = last if passed == len(found.blocks) else passed
    return depths


def head_parameters(model: nn.Module) -> list[str]:
    """Return the parameters of the task's head; the output embeddings of a language model are not part of it.

    Args:
        model: A transformers model, wrapped or not.

    Returns:
        Names in the order of the model.
    """
    found = parts(model)
    task_head = [name for name in found.head if name not in found.language_head]
    return [name for name, _ in model.named_parameters() if lies_in(name, task_head)]


def lies_in(name: str, modules: Sequence[str]) -> bool:
    """Return whether a parameter or module is one of these modules or lies inside one.

    Args:
        name: Name of a parameter or module.
        modules: Names of modules.

    Returns:
        True if it does.
    """
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a layer, RMS, group or batch norm with weights, of any library.

    Args:
        module: Any module.

    Returns:
        True if its class is named as a norm and it has vectors of its own.
    """
    own = list(module.parameters(recurse=False))
    return "norm" in type(module).__name__.lower() and bool(own) and all(p.ndim == 1 for p in own)


def _blocks(inner: nn.Module) -> list[str]:
    """Return the elements of the outermost lists of modules with attention inside."""
    lists: dict[str, nn.ModuleList] = {}
    for name, module in inner.named_modules():
        if isinstance(module, nn.ModuleList) and _has_attention(module) and not lies_in(name, list(lists)):
            lists[name] = module
    return [f"{name}.{index}" for name, modules in lists.items() for index in range(len(modules))]


def _has_attention(module: nn.Module) -> bool:
    return any("att" in name.lower() for name, _ in module.named_modules())


def _head(inner: nn.Module) -> tuple[list[str], list[str]]:
    """Return the modules with parameters outside the base model, and again if they are a language head."""
    if not isinstance(inner, PreTrainedModel):
        return [], []
    output = inner.get_output_embeddings()
    holding = [
        name for name, module in inner.named_children() if output is not None and output in set(module.modules())
    ]
    if inner.base_model is inner:
        return list(holding), list(holding)
    head = [
        name
        for name, module in inner.named_children()
        if module is not inner.base_model and next(module.parameters(), None) is not None
    ]
    # A language model's head is more than its last layer in some models (BERT's transform), and all of it is
    # pretrained.
    return head, list(head) if holding else []


def _embeddings(inner: nn.Module, blocks: Sequence[str], head: Sequence[str]) -> list[str]:
    """Return the outermost modules that own parameters and feed the blocks.

    That is: named an embedding, or registered before the first block.
    """
    found: list[str] = []
    seen_block = False
    for name, module in inner.named_modules():
        seen_block = seen_block or name in blocks
        owns_parameters = next(module.parameters(recurse=False), None) is not None
        holds_blocks = any(lies_in(block, [name]) for block in blocks) or not name
        if not owns_parameters or holds_blocks or lies_in(name, [*blocks, *head, *found]):
            continue
        if not seen_block or any("embed" in component.lower() for component in name.split(".")):
            found.append(name)
    return found


def _prefixes(name: str) -> list[str]:
    """Return the names of all modules that a parameter lies in, the outermost first."""
    components = name.split(".")
    return [".".join(components[:end]) for end in range(1, len(components))]
