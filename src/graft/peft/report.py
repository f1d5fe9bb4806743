"""How much of a model trains, and where: said before training starts and kept with the run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from graft.models import blocks


@dataclass(frozen=True)
class Report:
    """Counts of parameters, in numbers and not in bytes; tied weights count once.

    Attributes:
        trainable: Parameters that train.
        total: All parameters, those of adapters included.
        by_part: Part of the model (``embeddings``, ``blocks``, ``head``, ``other``) -> trainable and total.
        bytes_frozen: Memory of the weights that stay, in bytes.
        bytes_trainable: Memory of the weights that train, in bytes, without gradients and optimizer state.
    """

    trainable: int
    total: int
    by_part: dict[str, tuple[int, int]]
    bytes_frozen: int
    bytes_trainable: int

    @property
    def fraction(self) -> float:
        """The trained share of all parameters, between 0 and 1."""
        return self.trainable / self.total

    def text(self) -> str:
        """Return one line for a person."""
        where = ", ".join(f"{part} {trained:,}" for part, (trained, _) in self.by_part.items() if trained)
        return f"training {self.trainable:,} of {self.total:,} parameters ({self.fraction:.2%}): {where}"


def report(model: nn.Module) -> Report:
    """Count the parameters of a model.

    Args:
        model: A model with ``requires_grad`` set, wrapped or not.

    Returns:
        The counts.
    """
    found = blocks.parts(model)
    places = {"embeddings": found.embeddings, "blocks": found.blocks, "head": found.head}
    counts: dict[str, tuple[int, int]] = dict.fromkeys((*places, "other"), (0, 0))
    size = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        part = next((part for part, modules in places.items() if blocks.lies_in(name, modules)), "other")
        trained, total = counts[part]
        counts[part] = (trained + parameter.numel() * parameter.requires_grad, total + parameter.numel())
        size[parameter.requires_grad] += parameter.numel() * parameter.element_size()
    return Report(
        trainable=sum(trained for trained, _ in counts.values()),
        total=sum(total for _, total in counts.values()),
        by_part=counts,
        bytes_frozen=size[False],
        bytes_trainable=size[True],
    )
