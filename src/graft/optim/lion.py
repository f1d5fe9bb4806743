"""Lion: the sign of an interpolated momentum.

Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", https://arxiv.org/abs/2302.06675.

Chosen with ``optimizer=lion``. Keeps one state tensor a parameter, half of AdamW's. Every coordinate moves by
``lr`` whatever the gradient's size, so the paper uses a learning rate 3 to 10 times smaller than AdamW's and
a weight decay as many times larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


@final
class Lion(Optimizer):
    """Lion with decoupled weight decay.

    With gradient ``g``, momentum ``m`` (0 at first) and weight ``w``, one step is::

        w <- (1 - lr * weight_decay) * w - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate: how far every coordinate moves in a step.
        betas: Weight of the momentum in the direction, and its decay rate.
        weight_decay: A step shrinks a weight by ``lr * weight_decay`` of itself.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Any],
        *,
        lr: float,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": (betas[0], betas[1]), "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: Evaluates the model again and returns the loss.

        Returns:
            The closure's loss, None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads = [p.grad for p in params]
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in params]
        beta1, beta2 = group["betas"]
        lr = group["lr"]

        directions = torch._foreach_lerp(momenta, grads, 1 - beta1)
        torch._foreach_sign_(directions)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_add_(params, directions, alpha=-lr)
        torch._foreach_lerp_(momenta, grads, 1 - beta2)
