"""Muon and AdamW as one optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import nn

from graft.errors import IncompatibleError
from graft.optim.groups import Group, layerwise, no_decay
from graft.optim.muon import MuonAndAdamW, muon
from graft.optim.schedules import linear

pytest.importorskip("torch", minversion="2.9")


def bert() -> transformers.BertForSequenceClassification:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def backward(model: nn.Module) -> float:
    ids = torch.arange(32).reshape(4, 8)
    model.zero_grad()
    loss = model(input_ids=ids, labels=torch.tensor([0, 1, 0, 1])).loss
    loss.backward()
    return float(loss)


def test_matrices_in_blocks_go_to_muon_and_the_rest_to_adamw() -> None:
    model = bert()
    optimizer = muon(no_decay(model, lr=1e-3, weight_decay=0.1), lr=1e-3)
    backward(model)
    optimizer.step()
    state = {name: set(optimizer.state[p]) for name, p in model.named_parameters()}
    adam = {"step", "exp_avg", "exp_avg_sq"}
    assert state["bert.encoder.layer.1.output.dense.weight"] == {"momentum_buffer"}
    assert state["bert.encoder.layer.1.output.dense.bias"] == adam
    assert state["bert.embeddings.word_embeddings.weight"] == adam
    assert state["bert.pooler.dense.weight"] == adam
    assert state["classifier.weight"] == adam


def test_one_step_equals_the_two_optimizers_of_torch_side_by_side() -> None:
    together, apart = bert(), bert()
    optimizer = muon(no_decay(together, lr=1e-3, weight_decay=0.1), lr=1e-3)
    named = dict(apart.named_parameters())
    hidden = [p for n, p in named.items() if ".layer." in n and p.ndim == 2]
    decayed = [p for n, p in named.items() if ".layer." not in n and p.ndim == 2]
    vectors = [p for p in named.values() if p.ndim == 1]
    references = [
        torch.optim.Muon(hidden, lr=1e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=1e-3,
            fused=True,
        ),
    ]
    for _ in range(3):
        backward(together)
        optimizer.step()
        backward(apart)
        for reference in references:
            reference.step()
    assert all(torch.equal(a, b) for a, b in zip(together.parameters(), apart.parameters(), strict=True))


def test_a_schedule_reaches_both_halves() -> None:
    model = bert()
    optimizer = muon(layerwise(model, lr=1.0, weight_decay=0.1, decay=0.5), lr=1.0)
    schedule = linear(optimizer, total_steps=4)
    names = [group["name"] for group in optimizer.param_groups]
    assert {"block_1_muon", "block_2_muon", "head", "embeddings"} <= set(names)
    assert len(set(names)) == len(names)
    before = [group["lr"] for group in optimizer.param_groups]
    weights = [p.detach().clone() for p in model.parameters()]
    for _ in range(4):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.0] * len(before)
    backward(model)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_a_loaded_state_is_used_by_both_halves() -> None:
    model, other = bert(), bert()
    optimizer = muon(no_decay(model, lr=1e-3, weight_decay=0.1), lr=1e-3)
    for _ in range(3):
        backward(model)
        optimizer.step()
    other.load_state_dict(model.state_dict())
    resumed = muon(no_decay(other, lr=1e-3, weight_decay=0.1), lr=1e-3)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, by in ((model, optimizer), (other, resumed)):
        backward(each)
        by.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_the_closure_runs_once() -> None:
    model = bert()
    optimizer = muon(no_decay(model, lr=1e-3, weight_decay=0.1), lr=1e-3)
    losses: list[float] = []

    def closure() -> float:
        losses.append(backward(model))
        return losses[-1]

    assert isinstance(optimizer, MuonAndAdamW)
    assert optimizer.step(closure) == losses[0]
    assert len(losses) == 1


def test_a_head_alone_is_refused() -> None:
    model = bert()
    model.bert.requires_grad_(False)
    with pytest.raises(IncompatibleError, match="optimizer=adamw"):
        muon(no_decay(model, lr=1e-3, weight_decay=0.1), lr=1e-3)


def test_matrices_alone_need_no_adamw() -> None:
    weight = nn.Parameter(torch.eye(3))
    group = Group(name="all", params=[weight], names=["w"], lr=0.1, weight_decay=0.0, hidden=[True])
    optimizer = muon([group], lr=0.1)
    weight.grad = torch.eye(3)
    optimizer.step()
    assert [g["name"] for g in optimizer.param_groups] == ["all_muon"]
    assert not torch.equal(weight, torch.eye(3))
