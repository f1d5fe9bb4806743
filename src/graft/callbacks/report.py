"""What trains and what it takes, said at the start of a run.

Chosen with ``callbacks=[report,...]``. Weights and gradients are counted; the optimizer's state is measured
after the first step, since it depends on the optimizer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from graft.atomic import write_text
from graft.callbacks.cost import parameter_counts, peak_cuda, peak_rss
from graft.log import get_logger

log = get_logger(__name__)


@final
class Report(Callback):
    """Logs trainable and total parameters and memory, and writes all of it to ``parameters.txt``.

    Args:
        run_dir: The run's folder; None only logs.
    """

    def __init__(self, run_dir: Path | None = None) -> None:
        super().__init__()
        self._path = None if run_dir is None else Path(run_dir) / "parameters.txt"
        self._measured = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report parameters, weights and gradients."""
        self._measured = False
        if not trainer.is_global_zero:
            return
        for line in summary(pl_module):
            log.info("%s", line)
        if self._path is not None:
            write_text(self._path, "\n".join([*summary(pl_module), "", *trained_parts(pl_module)]) + "\n")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the optimizer's state and the peak, once, after the first optimizer step."""
        del pl_module, outputs, batch, batch_idx
        if self._measured or trainer.global_step == 0:
            return
        self._measured = True
        if trainer.is_global_zero:
            state = sum(optimizer_bytes(optimizer) for optimizer in trainer.optimizers)
            peak = peak_cuda() or peak_rss()
            log.info("after the first step: optimizer state %s, peak memory %s", _mib(state), _mib(peak))


def summary(module: nn.Module) -> list[str]:
    """Say in two lines what trains and what weights and gradients take.

    Args:
        module: The module to train.

    Returns:
        Lines of text.
    """
    trainable, total = parameter_counts(module)
    by_dtype: dict[str, int] = defaultdict(int)
    for parameter in module.parameters():
        by_dtype[str(parameter.dtype).removeprefix("torch.")] += parameter.numel() * parameter.element_size()
    gradients = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    weights = ", ".join(f"{_mib(size)} {dtype}" for dtype, size in sorted(by_dtype.items()))
    return [
        f"trains {trainable:,} of {total:,} parameters ({100 * trainable / max(total, 1):.2f} %)",
        f"weights {weights}; gradients {_mib(gradients)}",
    ]


def trained_parts(module: nn.Module) -> list[str]:
    """List the trained parameters, those that differ only in a block's number as one line.

    Args:
        module: The module to train.

    Returns:
        Lines of text: how many values, how many tensors, the name with ``*`` for a number.
    """
    sizes: dict[str, list[int]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            sizes[re.sub(r"\.\d+(?=\.)", ".*", name)].append(parameter.numel())
    return [f"{sum(values):>14,}  {len(values):>4} x  {name}" for name, values in sizes.items()]


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the memory of an optimizer's state in bytes.

    Args:
        optimizer: An optimizer after its first step.

    Returns:
        The size of all tensors it keeps a parameter.
    """
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
