"""Text classification in plain PyTorch, written without graft: what its loss curve is compared with.

Nothing here is shared with ``src/graft``: rows are tokenized, padded, scored and stepped by hand. The
batches come in as lists of row indices, so that both see the same rows in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from peft import LoraConfig, get_peft_model


@dataclass(frozen=True)
class Lora:
    """The settings of an adapter.

    Attributes:
        r: Rank.
        alpha: Scale, times the rank.
        targets: Names of the adapted modules.
        save: Names of the modules that train as a whole.
    """

    r: int
    alpha: int
    targets: tuple[str, ...]
    save: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        lr: Peak learning rate.
        weight_decay: On matrices; none on biases and normalisation weights.
        warmup: Share of the steps of the whole schedule.
        total_steps: Steps of the whole schedule, of which the batches may be the first.
        clip: Largest gradient norm.
        max_length: In tokens.
    """

    lr: float
    weight_decay: float
    warmup: float
    total_steps: int
    clip: float
    max_length: int


def build_model(folder: Path, *, num_labels: int, lora: Lora | None) -> nn.Module:
    """Load a checkpoint without dropout, in training mode.

    Args:
        folder: Model and tokenizer.
        num_labels: Outputs of the head.
        lora: Adapter; None trains everything.

    Returns:
        The model.
    """
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=num_labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype=torch.float32,
        local_files_only=True,
    )
    if lora is not None:
        config = LoraConfig(
            task_type="SEQ_CLS",
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=0.0,
            target_modules=list(lora.targets),
            modules_to_save=list(lora.save),
        )
        model = get_peft_model(model, config)
    trained: nn.Module = model.train()
    return trained


def train(
    model: nn.Module,
    folder: Path,
    *,
    texts: Sequence[str],
    labels: Sequence[int],
    batches: Sequence[Sequence[int]],
    settings: Settings,
) -> list[float]:
    """Train on given batches, one step each.

    Args:
        model: What :func:`build_model` returns, changed in place.
        folder: The tokenizer's.
        texts: All rows.
        labels: Their classes.
        batches: Indices of rows.
        settings: How to train.

    Returns:
        The loss of each batch, before its step.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    optimizer = torch.optim.AdamW(_groups(model, settings), lr=settings.lr, fused=True)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses = []
    for step, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * _share_of_lr(step, settings)
        inputs = _inputs(tokenizer, [texts[row] for row in rows], settings.max_length)
        logits = model(**inputs).logits
        loss = nn.functional.cross_entropy(logits, torch.tensor([labels[row] for row in rows]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _inputs(tokenizer: Any, texts: Sequence[str], max_length: int) -> Mapping[str, Tensor]:
    ids = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts]
    longest = max(map(len, ids))
    padding = tokenizer.pad_token_id
    return {
        "input_ids": torch.tensor([row + [padding] * (longest - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
    }


def _groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    spared = {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        for own, _ in module.named_parameters(recurse=False)
        if isinstance(module, nn.LayerNorm) or own == "bias"
    }
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    decayed = [parameter for name, parameter in trained.items() if name not in spared]
    rest = [parameter for name, parameter in trained.items() if name in spared]
    return [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _share_of_lr(step: int, settings: Settings) -> float:
    warmup = math.ceil(settings.warmup * settings.total_steps)
    if step < warmup:
        return step / warmup
    return (settings.total_steps - step) / (settings.total_steps - warmup)
