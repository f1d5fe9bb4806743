"""What a run has trained, as tensors: for checkpoints without the frozen base, and for other programs.

A checkpoint holds the trainable parameters and the buffers beside them, so a LoRA run saves its adapter and
head and not the base again; loading is strict on exactly that set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graft.errors import CheckpointError
from graft.models.load import quiet_transformers

_SHOWN = 4
_REMEDY = (
    "It was written by a run with another model or another way of adapting it: load it with the "
    "configuration of its own run (`graft evaluate run=<directory>`), or start anew."
)


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: trainable parameters, and the buffers of modules that hold one.

    Args:
        model: Any model, with ``requires_grad`` set on what trains.

    Returns:
        Name -> detached tensor that shares the model's memory. Weights that are tied appear once, under their
        first name. A tensor that is a view into a larger storage is copied, since saving it would save all of
        it.
    """
    return {name: _compact(tensor) for name, tensor in _trained(model).items()}


def load_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a saved state into the model; nothing is copied unless everything fits.

    Args:
        model: A model adapted in the same way as the one that was saved.
        state: What ``trainable_state`` returned.

    Raises:
        CheckpointError: If a tensor is missing, unexpected, or of another shape; all such problems at once.
    """
    targets = _trained(model)
    missing = [name for name in targets if name not in state]
    unexpected = [name for name in state if name not in targets]
    reshaped = [
        f"{name} ({tuple(state[name].shape)} saved, {tuple(target.shape)} in the model)"
        for name, target in targets.items()
        if name in state and state[name].shape != target.shape
    ]
    found = [
        f"checkpoint: {len(names)} of the {len(targets)} trained tensors {problem}: {_some(names)}. {_REMEDY}"
        for names, problem in (
            (missing, "of this model are missing in it"),
            (reshaped, "have another shape"),
        )
        if names
    ]
    if unexpected:
        found.append(
            f"checkpoint: {len(unexpected)} of its {len(state)} tensors are not trained in this model: "
            f"{_some(unexpected)}. {_REMEDY}"
        )
    if found:
        raise CheckpointError(found)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(state[name])


def save_for_others(model: nn.Module, folder: Path, *, save_embeddings: bool = False) -> None:
    """Save a model for plain ``transformers`` or ``peft``, as safetensors.

    A model that ``peft`` wrapped becomes an adapter folder (``adapter_config.json``,
    ``adapter_model.safetensors``), anything else a model folder (``config.json``, ``model.safetensors``). The
    tokenizer is left to the caller.

    Args:
        model: A model from ``load_model``, adapted or not.
        folder: Where to; made if needed.
        save_embeddings: Put the embeddings into an adapter too. Needed when tokens were added to the
            vocabulary: ``peft`` finds that out by asking the hub, which we never do.

    Raises:
        CheckpointError: If the model is neither of the two.
    """
    import peft

    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        if isinstance(model, peft.PeftModel):
            model.save_pretrained(str(folder), save_embedding_layers=save_embeddings)
        elif isinstance(model, PreTrainedModel):
            model.save_pretrained(str(folder))
        else:
            raise CheckpointError(
                f"export: {type(model).__name__} is no model of transformers or peft, so they could not load "
                "it. Use the checkpoint of the run in place of the export."
            )


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors themselves: trainable parameters by first name, then the buffers beside them."""
    found: dict[str, Tensor] = {
        name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    for prefix, module in model.named_modules():
        beside = [name for name, buffer in module.named_buffers(recurse=False) if buffer is not None]
        if not beside or not any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            continue
        # Buffers that can be computed again are not in a state dict, and are not saved here either.
        saved = module.state_dict()
        found |= {_join(prefix, name): module.get_buffer(name) for name in beside if name in saved}
    return found


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _compact(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    is_view = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    return tensor.clone() if is_view else tensor


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
