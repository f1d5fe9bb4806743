"""What a run cost: time, speed, memory, parameters.

Chosen with ``callbacks=[cost,...]``. Nothing is measured by waiting for the device within a step: tokens are
summed where the batch is, and read at the end.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from graft.atomic import write_json
from graft.callbacks.counting import Count
from graft.log import get_logger

log = get_logger(__name__)


@final
class Cost(Callback):
    """Writes ``cost.json``: seconds by phase, samples and tokens a second, peak memory, parameters.

    Training time is what lies between the first and the last step, less validation: it holds the steps,
    waiting for data, and writing checkpoints. A resumed run adds to what it cost before.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "cost.json"
        self._seconds = {"setup": 0.0, "train": 0.0, "validation": 0.0, "test": 0.0}
        self._before: dict[str, float] = {}
        self._counts = {"train": Count(), "test": Count()}
        self._mark = 0.0
        self._phase = ""

    # ---- the clock ------------------------------------------------------------------------------------

    def _enter(self, phase: str) -> None:
        """Book the time since the last change of phase, and begin another; an empty name stops the clock."""
        now = time.perf_counter()
        if self._phase:
            self._seconds[self._phase] += now - self._mark
        self._mark, self._phase = now, phase

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        del trainer, pl_module
        if torch.cuda.is_available() and stage == "fit":
            torch.cuda.reset_peak_memory_stats()
        self._enter("setup")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the set-up: data encoded, model loaded."""
        del trainer, pl_module
        self._enter("train")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        del trainer, pl_module, outputs, batch_idx
        self._counts["train"].add(batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to book on validation."""
        del trainer, pl_module
        self._enter("validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to training."""
        del pl_module
        self._enter("train" if trainer.state.fn == TrainerFn.FITTING else "")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what training cost."""
        self._enter("")
        self._write(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to book on testing."""
        del trainer, pl_module
        self._enter("test")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        del trainer, pl_module, outputs, batch_idx, dataloader_idx
        self._counts["test"].add(batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write again, with the test."""
        self._enter("")
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what a failed run cost; nothing with several processes, the others may not answer."""
        del exception
        self._enter("")
        if trainer.world_size == 1:
            self._write(trainer, pl_module)

    # ---- resuming -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what the run cost so far, on this process."""
        self._enter(self._phase)
        return self._so_far()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Add to what the run cost before it was interrupted."""
        self._before = {name: float(value) for name, value in state_dict.items()}

    def _so_far(self) -> dict[str, float]:
        train = self._counts["train"]
        now = {f"seconds/{name}": seconds for name, seconds in self._seconds.items() if name != "test"}
        now |= {"train/samples": float(train.rows), "train/tokens": float(train.tokens or 0)}
        return {name: value + self._before.get(name, 0.0) for name, value in now.items()}

    # ---- the report -----------------------------------------------------------------------------------

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        spent = self._so_far()
        test = self._counts["test"]
        local = [spent["train/samples"], spent["train/tokens"], float(test.rows), float(test.tokens or 0)]
        samples, tokens, tested, tested_tokens = _over_processes(trainer, local, "sum")
        rss, cuda = _over_processes(trainer, [float(peak_rss()), float(peak_cuda())], "max")
        if not trainer.is_global_zero:
            return
        seconds = {name: spent[f"seconds/{name}"] for name in ("setup", "train", "validation")}
        seconds["test"] = self._seconds["test"]
        trainable, total = parameter_counts(module)
        cost: dict[str, Any] = {
            "seconds": {
                **{name: round(s, 3) for name, s in seconds.items()},
                "total": round(sum(seconds.values()), 3),
            },
            "train": {
                **_speed(samples, tokens, seconds["train"]),
                "optimizer_steps": trainer.global_step,
            },
            "test": _speed(tested, tested_tokens, seconds["test"]) if tested else None,
            "peak_memory_bytes": {"rss": int(rss), "cuda": int(cuda) if torch.cuda.is_available() else None},
            "parameters": {"trainable": trainable, "total": total},
            "processes": trainer.world_size,
        }
        write_json(self.path, cost)
        if not tested and samples:
            speed = cost["train"]
            log.info(
                "trained on %s samples in %.1f s: %s samples/s, %s tokens/s; peak memory %.0f MiB",
                f"{speed['samples']:,}",
                seconds["train"],
                f"{speed['samples_per_second']:,.1f}",
                f"{speed['tokens_per_second'] or 0:,.0f}",
                (cuda or rss) / 2**20,
            )


def parameter_counts(module: torch.nn.Module) -> tuple[int, int]:
    """Count parameters, shared ones once.

    Args:
        module: Any module.

    Returns:
        Trainable and total numbers of values.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def peak_rss() -> int:
    """Return the largest resident memory of this process, without its children, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes, but on macOS


def peak_cuda() -> int:
    """Return the most memory that tensors took on this process's CUDA device, in bytes."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def _speed(samples: float, tokens: float, seconds: float) -> dict[str, float | int | None]:
    return {
        "samples": int(samples),
        "tokens": int(tokens) or None,
        "samples_per_second": round(samples / seconds, 2) if seconds else None,
        "tokens_per_second": round(tokens / seconds, 1) if seconds and tokens else None,
    }


def _over_processes(trainer: Trainer, values: list[float], how: str) -> list[float]:
    if trainer.world_size == 1:
        return values
    reduced = trainer.strategy.reduce(
        torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device), reduce_op=how
    )
    return [float(value) for value in reduced]
