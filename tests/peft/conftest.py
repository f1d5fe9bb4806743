"""Tiny models of the real classes with a batch each, and two steps of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graft.models.load import Loaded, load_model
from graft.models.tiny import TinyModel, tiny_model
from graft.step import Adaptation, ModelNeeds

NEEDS = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": 3})
TEXTS = ["Profit rose sharply.", "Sales fell, and the outlook is weak.", "The company is based in Oslo."]


@dataclass(frozen=True)
class Case:
    """A loaded model, what is needed of it, and a batch."""

    model: Any
    needs: ModelNeeds
    batch: dict[str, Tensor]

    def adapt(self, method: Adaptation) -> Any:
        """Return the adapted model."""
        return method(self.model, self.needs)


def batch_of(family: str) -> dict[str, Tensor]:
    encoded = TinyModel(family=family).processor()(TEXTS, padding=True, return_tensors="pt")
    return {**encoded, "labels": torch.tensor([0, 1, 2])}


def case_of(family: str, loaded: Loaded) -> Case:
    return Case(loaded.model, replace(NEEDS, new_parameters=loaded.new_parameters), batch_of(family))


@pytest.fixture
def tiny() -> Callable[[str], Case]:
    """Make a tiny model of a family, as if loaded from a checkpoint without a head."""
    return lambda family: case_of(family, tiny_model(family, needs=NEEDS))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, Case]]:
    """Save the bare base of a family to a folder, and load it from there with a new head."""

    def make(family: str, *, saved_as: torch.dtype = torch.float32, **options: Any) -> tuple[Path, Case]:
        folder = tmp_path / f"{family}_base"
        base: Any = tiny_model(family, needs=ModelNeeds("AutoModel")).model
        base.to(saved_as).save_pretrained(folder)
        return folder, case_of(family, load_model(str(folder), needs=NEEDS, **options))

    return make


@pytest.fixture
def changed() -> Callable[[Any, dict[str, Tensor]], set[str]]:
    """Train for two steps and name the parameters that moved.

    Two, since half of LoRA has no gradient while the other half is still zero.
    """

    def run(model: nn.Module, batch: dict[str, Tensor]) -> set[str]:
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
        for _ in range(2):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
        return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}

    return run
