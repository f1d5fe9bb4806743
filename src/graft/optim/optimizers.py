"""Optimizers of libraries, with the settings that pay and one way to call them.

A factory takes parameter groups (``optim/groups.py``) and keywords. What needs no code is named in the YAML
directly: ``optimizer=sgd`` is ``torch.optim.SGD``, ``optimizer=adafactor`` is
``transformers.optimization.Adafactor``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from graft.errors import require
from graft.optim.groups import Group

_DEVICES_WITH_FUSED_ADAMW = frozenset({"cpu", "cuda", "mps", "xpu"})


def adamw(
    groups: Sequence[Group],
    *,
    lr: float,
    weight_decay: float = 0.01,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    fused: bool | None = None,
) -> Optimizer:
    """AdamW with torch's fused kernel, where there is one.

    Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101. The fused kernel reads and writes every
    tensor once; torch's own default is slower on the CPU and on CUDA.

    Args:
        groups: Parameter groups; their own ``lr`` and ``weight_decay`` win.
        lr: Learning rate.
        weight_decay: Decoupled weight decay: a step shrinks a weight by ``lr * weight_decay`` of itself.
        betas: Decay rates of the running means of the gradient and of its square.
        eps: Added to the denominator.
        fused: Whether to use the fused kernel; None means wherever torch has one (floating point parameters
            on CPU, CUDA, MPS or XPU).

    Returns:
        A ``torch.optim.AdamW``.
    """
    if fused is None:
        fused = all(_can_fuse(parameter) for group in groups for parameter in group["params"])
    optimizer = torch.optim.AdamW(
        cast("Iterable[dict[str, object]]", groups),
        lr=lr,
        weight_decay=weight_decay,
        betas=(betas[0], betas[1]),
        eps=eps,
        fused=fused,
    )
    # The fused kernel could unscale gradients itself, and for that Lightning refuses to clip them in every mixed
    # precision, bf16 too. So told, gradients are unscaled before they are clipped, as for any other optimizer.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def schedule_free(
    groups: Sequence[Group],
    *,
    lr: float,
    weight_decay: float = 0.0,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    warmup_steps: int = 0,
) -> Optimizer:
    """AdamW without a schedule: an average of the iterates takes the place of the decaying learning rate.

    Defazio et al. 2024, https://arxiv.org/abs/2405.15682, their own package. Wants ``scheduler=constant``
    (warm-up there or here, not in both) and a learning rate 1 to 10 times that of AdamW with a schedule. The
    weights differ between training and evaluation, so the optimizer is a ``graft.optim.modes.ModeAware``:
    whoever trains with it calls ``graft.optim.modes.follow`` at the boundaries.

    Args:
        groups: Parameter groups; their own ``lr`` and ``weight_decay`` win.
        lr: Learning rate.
        weight_decay: Weight decay, at the point where gradients are taken.
        betas: Weight of the average in the point where gradients are taken, and decay rate of the squared
            gradient.
        eps: Added to the denominator.
        warmup_steps: Steps of linear warm-up inside the optimizer.

    Returns:
        A ``schedulefree.AdamWScheduleFree``, in evaluation mode as its authors leave it.
    """
    schedulefree = require("schedulefree", extra="optim", what="optimizer=schedule_free")
    optimizer: Optimizer = schedulefree.AdamWScheduleFree(
        groups,
        lr=lr,
        weight_decay=weight_decay,
        betas=(betas[0], betas[1]),
        eps=eps,
        warmup_steps=warmup_steps,
    )
    return optimizer


def _can_fuse(parameter: Tensor) -> bool:
    """Whether torch has a fused AdamW kernel for this parameter."""
    return parameter.device.type in _DEVICES_WITH_FUSED_ADAMW and parameter.is_floating_point()
