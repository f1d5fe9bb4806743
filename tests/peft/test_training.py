from __future__ import annotations

import pytest
import torch
from torch import nn

from graft.errors import IncompatibleError
from graft.peft.training import ready, train_only


def test_exactly_the_named_parameters_train_in_float32() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).to(torch.float16)
    train_only(model, {"1.bias"})
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["1.bias"]
    assert [p.dtype for p in model.parameters()] == [torch.float16] * 3 + [torch.float32]


def test_dropout_is_on_even_where_everything_around_it_is_frozen() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 2)).eval()
    train_only(model, {"2.weight"})
    assert all(module.training for module in model.modules())


def test_frozen_batch_norm_keeps_its_statistics_and_a_trained_one_does_not() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    train_only(model, {"1.weight"})
    model(torch.full((4, 2), 3.0))
    frozen, trained = (model.get_buffer(f"{index}.running_mean").tolist() for index in range(2))
    assert frozen == [0.0, 0.0]
    assert trained != [0.0, 0.0]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(IncompatibleError, match="nothing of Linear is left to train"):
        ready(nn.Linear(2, 2).requires_grad_(False))
