from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from graft.errors import CheckpointError
from graft.models.state import load_trainable_state, save_for_others, trainable_state
from graft.models.tiny import tiny_model
from graft.step import ModelNeeds

NEEDS = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": 3})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.frozen_norm = nn.BatchNorm1d(2)
        self.out = nn.Linear(2, 2, bias=False)
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = self.out.weight
        self.norm.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.frozen.requires_grad_(False)
        self.frozen_norm.requires_grad_(False)


def test_state_holds_what_trains_with_its_statistics_and_tied_weights_once() -> None:
    assert set(trainable_state(Net())) == {
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
        "out.weight",
    }


def test_state_copied_into_another_model_makes_it_equal() -> None:
    first, second = Net(), Net()
    first.norm(torch.randn(8, 2))
    load_trainable_state(second, trainable_state(first))
    assert torch.equal(second.out.weight, first.out.weight)
    assert second.tied.weight is second.out.weight
    assert torch.equal(second.norm.running_mean, first.norm.running_mean)  # type: ignore[arg-type]
    assert not torch.equal(second.frozen.weight, first.frozen.weight)


def test_every_kind_of_mismatch_is_named_and_nothing_is_copied() -> None:
    model = Net()
    before = {name: tensor.clone() for name, tensor in trainable_state(model).items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    state["norm.wieght"] = state.pop("norm.weight")
    state["out.weight"] = torch.zeros(3, 2)
    with pytest.raises(CheckpointError) as caught:
        load_trainable_state(model, state)
    missing, reshaped, unexpected = caught.value.problems
    assert "1 of the 6 trained tensors of this model are missing in it: norm.weight" in missing
    assert "out.weight ((3, 2) saved, (2, 2) in the model)" in reshaped
    assert "not trained in this model: norm.wieght" in unexpected
    assert "graft evaluate run=" in missing
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable_state(model).items())


def test_long_lists_of_problems_are_cut() -> None:
    loaded = tiny_model("bert", needs=NEEDS)
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        load_trainable_state(loaded.model, {})


def test_state_is_as_small_on_disk_as_its_numbers() -> None:
    model = nn.Linear(4, 4, bias=False)
    model.weight = nn.Parameter(torch.zeros(1000, 4)[:4])
    file = io.BytesIO()
    torch.save(trainable_state(model), file)
    assert len(file.getvalue()) < 4000  # 64 bytes of numbers, where the whole storage has 16 000


def test_other_modules_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Linear is no model of transformers or peft"):
        save_for_others(nn.Linear(2, 2), tmp_path)


def test_exported_model_loads_with_plain_transformers_and_gives_equal_logits(tmp_path: Path) -> None:
    import transformers

    model = tiny_model("gpt2", needs=NEEDS).model.eval()
    save_for_others(model, tmp_path / "new" / "folder")
    names = {file.name for file in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"config.json", "model.safetensors"}
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "new" / "folder")
    ids = torch.tensor([[5, 6, 7], [8, 0, 0]])
    assert torch.equal(plain.eval()(ids).logits, model(ids).logits)  # the padding token came along
