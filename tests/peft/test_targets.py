from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graft.errors import ConfigError, IncompatibleError
from graft.models.tiny import tiny_model
from graft.peft.targets import resolve_targets, shortest_names
from graft.step import ModelNeeds

Tiny = Callable[[str], Any]

ATTENTION = {
    "bert": {"query", "key", "value", "attention.output.dense"},
    "roberta": {"query", "key", "value", "attention.output.dense"},
    "distilbert": {"q_lin", "k_lin", "v_lin", "out_lin"},
    "deberta_v2": {"query_proj", "key_proj", "value_proj", "attention.output.dense"},
    "electra": {"query", "key", "value", "attention.output.dense"},
    "modernbert": {"Wqkv", "attn.Wo"},
    "gpt2": {"c_attn", "attn.c_proj"},
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "qwen": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "t5": {"q", "k", "v", "o"},
    "bart": {"q_proj", "k_proj", "v_proj", "self_attn.out_proj", "encoder_attn.out_proj"},
}
MLP = {
    "bert": {"intermediate.dense", "0.output.dense", "1.output.dense"},
    "distilbert": {"lin1", "lin2"},
    "gpt2": {"c_fc", "mlp.c_proj"},
    "llama": {"gate_proj", "up_proj", "down_proj"},
    "t5": {"wi", "wo"},
    "bart": {"fc1", "fc2"},
}


@pytest.mark.parametrize("family", ATTENTION)
def test_attention_is_the_four_projections_of_any_architecture(family: str, tiny: Tiny) -> None:
    model = tiny(family).model
    found = resolve_targets(model, "attention")
    assert set(shortest_names(model, found)) == ATTENTION[family]


@pytest.mark.parametrize("family", MLP)
def test_mlp_is_the_rest_and_all_linear_both(family: str, tiny: Tiny) -> None:
    model = tiny(family).model
    attention, mlp = resolve_targets(model, "attention"), resolve_targets(model, "mlp")
    assert set(shortest_names(model, mlp)) == MLP[family]
    assert set(resolve_targets(model, "all_linear")) == {*attention, *mlp}


def test_embeddings_are_those_that_are_looked_up(tiny: Tiny) -> None:
    assert resolve_targets(tiny("bert").model, "embeddings") == ["bert.embeddings.word_embeddings"]
    tables = resolve_targets(tiny("bart").model, "embeddings")
    assert tables == ["model.encoder.embed_tokens", "model.decoder.embed_tokens"]


def test_set_that_is_empty_for_a_model_is_refused() -> None:
    for family, auto in (("vit", "AutoModelForImageClassification"), ("wav2vec2", "AutoModelForCTC")):
        model = tiny_model(family, needs=ModelNeeds(auto)).model
        with pytest.raises(IncompatibleError, match="has no 'embeddings' to adapt"):
            resolve_targets(model, "embeddings")


def test_names_match_by_their_end_and_never_inside_the_head(tiny: Tiny) -> None:
    model = tiny("roberta").model
    assert resolve_targets(model, ["1.attention.self.query"]) == ["roberta.encoder.layer.1.attention.self.query"]
    dense = resolve_targets(model, ["dense"], exclude=["classifier"])
    assert len(dense) == 6
    assert not any(name.startswith("classifier") for name in dense)


def test_regular_expression_matches_whole_names(tiny: Tiny) -> None:
    model = tiny("llama").model
    assert resolve_targets(model, r".*layers\.1\.self_attn\.(q|v)_proj") == [
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]


def test_every_name_that_matches_nothing_is_an_error_with_near_ones(tiny: Tiny) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_targets(tiny("bert").model, ["query", "valeu", "zzz"])
    first, second = caught.value.problems
    assert first.startswith("peft.targets[1]: no module of BertForSequenceClassification is named 'valeu'.")
    assert "Near to it: value" in first
    assert "peft.targets[2]" in second
    assert "Its modules: " in second


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("atention", "Did you mean 'attention'?"),
        ("nowhere.*", "matches no module of BertForSequenceClassification"),
        ("(", "is no regular expression"),
    ],
)
def test_text_that_is_neither_a_set_nor_matches_is_an_error(written: str, said: str, tiny: Tiny) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_targets(tiny("bert").model, written)
    assert said in str(caught.value)


def test_empty_list_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="the list is empty"):
        resolve_targets(tiny("bert").model, [])


def test_shortest_names_mean_these_modules_and_no_other(tiny: Tiny) -> None:
    model = tiny("bert").model
    chosen = resolve_targets(model, r".*layer\.1\.attention\.self\.query")
    assert shortest_names(model, chosen) == ["1.attention.self.query"]
    again = resolve_targets(model, shortest_names(model, resolve_targets(model, "mlp")))
    assert again == resolve_targets(model, "mlp")
