"""Muon on the matrices of the hidden layers, AdamW on everything else, as one optimizer.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the scaling that lets both halves
share one learning rate: Liu et al. 2025, "Muon is Scalable for LLM Training",
https://arxiv.org/abs/2502.16982. The update rules are ``torch.optim.Muon`` and ``torch.optim.AdamW``.

Chosen with ``optimizer=muon``; any ``param_groups`` goes with it. Orthogonalises each momentum matrix by five
Newton-Schulz iterations in bfloat16: little beside the forward pass on a GPU, slow on a CPU without bfloat16
units. Keeps one state tensor a hidden matrix, AdamW's two for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast, final, overload

import torch
from torch.optim import Optimizer

from graft.errors import IncompatibleError
from graft.optim.groups import Group
from graft.optim.optimizers import adamw


def muon(
    groups: Sequence[Group],
    *,
    lr: float,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Optimizer:
    """Build the optimizer: each group is split into the hidden matrices and the rest.

    A hidden matrix has two dimensions and lies in one of the model's blocks (``graft.models.blocks``);
    embeddings, head, pooler, biases, normalisation weights and convolutions go to AdamW. LoRA's matrices lie
    in blocks too.

    Args:
        groups: Parameter groups; their own ``lr`` and ``weight_decay`` win.
        lr: Learning rate of both halves. Muon's update is scaled by ``0.2 * sqrt(max(rows, columns))`` to the
            size of AdamW's, so a learning rate found for AdamW fits.
        weight_decay: Decoupled weight decay.
        momentum: Decay rate of Muon's momentum.
        nesterov: Whether Muon looks ahead along the momentum.
        betas: AdamW's decay rates.
        eps: Added to AdamW's denominator.

    Returns:
        One optimizer over all parameters.

    Raises:
        IncompatibleError: If torch has no Muon yet, or no trained parameter is a hidden matrix.
    """
    try:
        from torch.optim import Muon
    except ImportError:
        raise IncompatibleError(
            f"optimizer=muon: needs torch.optim.Muon, which torch {torch.__version__} does not have. "
            'Install a newer one: pip install "torch>=2.9".'
        ) from None
    matrices, others = _split(groups)
    if not matrices:
        raise IncompatibleError(
            "optimizer=muon: no trained parameter is a matrix inside a block, so Muon has nothing to do. "
            "Choose optimizer=adamw, or train more with peft=."
        )
    by_muon = Muon(
        cast("list[dict[str, Any]]", matrices),
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        nesterov=nesterov,
        adjust_lr_fn="match_rms_adamw",
    )
    by_adamw = adamw(others, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps) if others else None
    return MuonAndAdamW(by_muon, by_adamw, lr=lr, weight_decay=weight_decay)


@final
class MuonAndAdamW(Optimizer):
    """Two optimizers that look like one to schedulers, checkpoints and Lightning.

    The groups and the state are this object's own; for a step each half is shown its groups and the common
    state. So a scheduler that writes ``lr`` and a checkpoint that replaces the state reach both.

    Args:
        first: The optimizer of the first groups.
        second: That of the others; None if there are none.
        lr: Base learning rate, for schedules that ask for it.
        weight_decay: Base weight decay.
    """

    def __init__(self, first: Optimizer, second: Optimizer | None, *, lr: float, weight_decay: float) -> None:
        self._halves = [first] if second is None else [first, second]
        self._boundary = len(first.param_groups)
        groups = [group for half in self._halves for group in half.param_groups]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step with both.

        Args:
            closure: Evaluates the model again and returns the loss; called once.

        Returns:
            The closure's loss, None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        shares = (self.param_groups[: self._boundary], self.param_groups[self._boundary :])
        for half, share in zip(self._halves, shares, strict=False):
            half.param_groups = share
            half.state = self.state
            half.step()
        return loss


def _split(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Split every group into the hidden matrices and the rest; empty parts are dropped."""
    matrices: list[Group] = []
    others: list[Group] = []
    for group in groups:
        for found, hidden, name in (
            (matrices, True, f"{group['name']}_muon"),
            (others, False, group["name"]),
        ):
            where = [index for index, flag in enumerate(group["hidden"]) if flag == hidden]
            if where:
                found.append(
                    Group(
                        name=name,
                        params=[group["params"][index] for index in where],
                        names=[group["names"][index] for index in where],
                        lr=group["lr"],
                        weight_decay=group["weight_decay"],
                        hidden=[hidden] * len(where),
                    )
                )
    return matrices, others
