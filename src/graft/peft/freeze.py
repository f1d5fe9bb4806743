"""Adapting without the peft library: which of the model's own parameters train.

The task's head trains in any case. Checkpoints hold only what trains; an export holds the whole model.

Chosen with ``peft=full``, ``head_only``, ``biases``, ``norms``, ``last_blocks`` or ``regex``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from graft.errors import ConfigError, IncompatibleError, did_you_mean
from graft.models import blocks
from graft.peft.training import head_of, train_only
from graft.step import ModelNeeds


@final
@dataclass(frozen=True)
class Full:
    """Train everything."""

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the model with all parameters trainable."""
        head_of(model, needs)
        return train_only(model, {name for name, _ in model.named_parameters()})


@final
@dataclass(frozen=True)
class HeadOnly:
    """Train the task's head on frozen features (a linear probe, where the head is linear).

    Raises:
        IncompatibleError: On call, if the model has no head of its own, as a language model or a bare
            encoder.
    """

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the model with only its head trainable."""
        return train_only(model, head_of(model, needs))


@final
@dataclass(frozen=True)
class Biases:
    """Train the bias vectors and the head (BitFit, Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199).

    Raises:
        IncompatibleError: On call, if the model has no biases, as Llama and T5.
    """

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the model with its biases and head trainable."""
        head = head_of(model, needs)
        biases = [name for name, _ in model.named_parameters() if name.split(".")[-1].endswith("bias")]
        if not set(biases) - set(head):
            raise IncompatibleError(
                f"peft=biases: {type(model).__name__} has no biases outside its head. Choose peft=norms."
            )
        return train_only(model, {*biases, *head})


@final
@dataclass(frozen=True)
class Norms:
    """Train the weights and biases of the normalisation layers and the head.

    Source: Zhao et al. 2024, https://arxiv.org/abs/2312.11420.

    Raises:
        IncompatibleError: On call, if the model has no normalisation layer with weights.
    """

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the model with its normalisation layers and head trainable."""
        layers = set(blocks.parts(model).norms)
        if not layers:
            raise IncompatibleError(
                f"peft=norms: {type(model).__name__} has no normalisation layer with weights. Choose peft=last_blocks."
            )
        norms = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in layers]
        return train_only(model, {*norms, *head_of(model, needs)})


@final
@dataclass(frozen=True)
class LastBlocks:
    """Train the last blocks, what comes after them (a final norm, a pooler) and the head.

    Args:
        number: How many blocks, at least 1. In an encoder-decoder they are counted from the decoder's end.

    Raises:
        ConfigError: If the number is below 1 or, on call, above the model's number of blocks.
    """

    number: int = 2

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ConfigError(
                f"peft.number: at least 1 block is needed, got {self.number}. Choose peft=head_only for 0."
            )

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the model with its last blocks and head trainable."""
        total = len(blocks.parts(model).blocks)
        if self.number > total:
            raise ConfigError(
                f"peft.number: {type(model).__name__} has {total} blocks, got {self.number}. Lower it, or "
                "choose peft=full."
            )
        depths = blocks.depth_of(model)
        deep = {name for name, depth in depths.items() if depth > total - self.number}
        return train_only(model, {*deep, *head_of(model, needs)})


@final
@dataclass(frozen=True)
class Regex:
    """Train the parameters whose names match, and the head.

    Args:
        patterns: Regular expressions, each searched for in the names of parameters (``re.search``).

    Raises:
        ConfigError: If there is no pattern, one is no regular expression or, on call, one matches nothing.
    """

    patterns: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.patterns, str) or not self.patterns:
            raise ConfigError(f"peft.patterns: expected a list of patterns, got {self.patterns!r}. Set ['bias$'].")
        problems = []
        for index, pattern in enumerate(self.patterns):
            try:
                re.compile(pattern)
            except re.error as error:
                problems.append(f"peft.patterns[{index}]: '{pattern}' is no regular expression: {error}. Correct it.")
        if problems:
            raise ConfigError(problems)

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the model with the matching parameters and the head trainable."""
        names = [name for name, _ in model.named_parameters()]
        words = sorted({word for name in names for word in name.split(".") if not word.isdigit()})
        problems = [
            f"peft.patterns[{index}]: '{pattern}' matches no parameter of {type(model).__name__}."
            f"{did_you_mean(pattern, words)} Its names look like {names[0]} and {names[-1]}."
            for index, pattern in enumerate(self.patterns)
            if not any(re.search(pattern, name) for name in names)
        ]
        if problems:
            raise ConfigError(problems)
        matching = {name for name in names if any(re.search(pattern, name) for pattern in self.patterns)}
        return train_only(model, {*matching, *head_of(model, needs)})
