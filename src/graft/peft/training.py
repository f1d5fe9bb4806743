"""What every way of adapting ends with: exactly the chosen parameters train, in float32, with dropout on."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from graft.errors import IncompatibleError
from graft.models import blocks
from graft.step import ModelNeeds


def head_of(model: nn.Module, needs: ModelNeeds) -> list[str]:
    """Return the parameters that train in any case: new ones and the rest of the task's head.

    Args:
        model: A model from ``load_model``, not yet wrapped.
        needs: Says which parameters the checkpoint did not hold.

    Returns:
        Names in the order of the model.

    Raises:
        IncompatibleError: If a new parameter is not in the model.
    """
    named = [name for name, _ in model.named_parameters()]
    lost = sorted(set(needs.new_parameters) - set(named))
    if lost:
        raise IncompatibleError(
            f"peft: the new parameters {', '.join(lost)} are not in {type(model).__name__}, so they would "
            "stay untrained. Adapt the model that load_model returned, with its new_parameters."
        )
    chosen = {*needs.new_parameters, *blocks.head_parameters(model)}
    return [name for name in named if name in chosen]


def train_only(model: nn.Module, names: Collection[str]) -> nn.Module:
    """Let exactly these parameters train.

    Args:
        model: Any model; changed in place.
        names: Names of parameters.

    Returns:
        The same model.

    Raises:
        IncompatibleError: If nothing is left to train.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return ready(model)


def ready(model: nn.Module) -> nn.Module:
    """Prepare a model whose ``requires_grad`` is set: float32 where it trains, dropout on, statistics kept.

    Half precision has too few digits for small updates, so what trains is float32 even over a bfloat16 base.
    Batch norms that do not train keep the statistics of the checkpoint: they would change and not be saved.

    Args:
        model: Any model; changed in place.

    Returns:
        The same model.

    Raises:
        IncompatibleError: If nothing trains.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise IncompatibleError(
            f"peft: nothing of {type(model).__name__} is left to train. Choose peft=full, or peft=regex with "
            "the parameters to train."
        )
    for parameter in trained:
        parameter.data = parameter.data.to(torch.float32)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not _trains(module):
            module.eval()
    return model


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
