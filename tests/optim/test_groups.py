"""Parameter groups on tiny models of the real transformers classes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from transformers.trainer_pt_utils import get_parameter_names

import peft
from graft.errors import ConfigError, IncompatibleError
from graft.optim.groups import Group, by_regex, layerwise, lora_plus, no_decay, uniform

_ENCODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 3,
    "pad_token_id": 0,
}


def bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**_ENCODER))


def distilbert() -> Any:
    config = transformers.DistilBertConfig(vocab_size=40, dim=16, n_layers=3, n_heads=2, hidden_dim=24, num_labels=3)
    return transformers.DistilBertForSequenceClassification(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2, n_positions=32, num_labels=3)
    return transformers.GPT2ForSequenceClassification(config)


def gpt2_with_tied_head() -> Any:
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2, n_positions=32)
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    config = transformers.LlamaConfig(**_ENCODER, num_key_value_heads=1)
    return transformers.LlamaForSequenceClassification(config)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def vit() -> Any:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    return transformers.ViTForImageClassification(config)


def wav2vec2() -> Any:
    config = transformers.Wav2Vec2Config(
        **_ENCODER,
        conv_dim=(8, 8),
        conv_kernel=(4, 4),
        conv_stride=(2, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
    )
    return transformers.Wav2Vec2ForSequenceClassification(config)


def lora_bert() -> Any:
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value", "word_embeddings"])
    return peft.get_peft_model(bert(), config)


MODELS = [bert, distilbert, gpt2, gpt2_with_tied_head, llama, t5, vit, wav2vec2, lora_bert]
every_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)

GROUPS: dict[str, Callable[[nn.Module], list[Group]]] = {
    "uniform": lambda model: uniform(model, lr=1e-3, weight_decay=0.1),
    "no_decay": lambda model: no_decay(model, lr=1e-3, weight_decay=0.1),
    "layerwise": lambda model: layerwise(model, lr=1e-3, weight_decay=0.1),
    "by_regex": lambda model: by_regex(model, lr=1e-3, weight_decay=0.1, rules=[{"pattern": "weight", "lr": 1}]),
}


def settings_of(groups: list[Group]) -> dict[str, tuple[float, float]]:
    """Parameter name -> (lr, weight decay)."""
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


@every_model
@pytest.mark.parametrize("kind", GROUPS)
def test_every_trainable_parameter_is_in_exactly_one_group(kind: str, make: Callable[[], nn.Module]) -> None:
    model = make()
    groups = GROUPS[kind](model)
    placed = list(itertools.chain.from_iterable(group["params"] for group in groups))
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(placed) == len(wanted)
    assert {id(p) for p in placed} == wanted
    named = dict(model.named_parameters())
    assert all(named[n] is p for g in groups for n, p in zip(g["names"], g["params"], strict=True))
    assert len({group["name"] for group in groups}) == len(groups)
    torch.optim.AdamW(groups)  # type: ignore[arg-type]  # raises if a parameter is there twice


def test_a_tied_weight_is_there_once() -> None:
    model = gpt2_with_tied_head()
    assert model.lm_head.weight is model.transformer.wte.weight
    [group] = uniform(model, lr=1.0, weight_decay=0.0)
    assert sum(p is model.lm_head.weight for p in group["params"]) == 1


@pytest.mark.parametrize("kind", GROUPS)
def test_a_frozen_parameter_is_never_there(kind: str) -> None:
    model = bert()
    model.bert.encoder.requires_grad_(False)
    names = settings_of(GROUPS[kind](model))
    assert names
    assert not any("encoder" in name for name in names)


@pytest.mark.parametrize("kind", GROUPS)
def test_a_model_with_nothing_to_train_is_refused(kind: str) -> None:
    model = bert().requires_grad_(False)
    with pytest.raises(IncompatibleError, match=r"no trainable parameter.*peft="):
        GROUPS[kind](model)


@every_model
def test_no_decay_spares_what_the_hugging_face_trainer_spares(make: Callable[[], nn.Module]) -> None:
    model = make()
    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]  # Trainer's own
    theirs = set(get_parameter_names(model, [nn.LayerNorm], patterns))
    ours = {name for name, (_, decay) in settings_of(no_decay(model, lr=1.0, weight_decay=0.1)).items() if decay}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # They go by class and name, so that vectors under other names are decayed; ours spares every vector.
    assert ours == {name for name in theirs & set(trained) if trained[name].ndim > 1}


def test_no_decay_keeps_the_learning_rate() -> None:
    groups = no_decay(bert(), lr=3e-4, weight_decay=0.1)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("decay", 3e-4, 0.1),
        ("no_decay", 3e-4, 0.0),
    ]


def test_uniform_decays_everything() -> None:
    [group] = uniform(bert(), lr=3e-4, weight_decay=0.1)
    assert (group["lr"], group["weight_decay"]) == (3e-4, 0.1)


# Three blocks and decay 0.5: head 1, blocks 1/2, 1/4, 1/8 from the top down, embeddings 1/16.
LAYERWISE = {
    "bert": (
        bert,
        "classifier.weight",
        "bert.encoder.layer.{}.output.dense.weight",
        "bert.embeddings.word_embeddings",
    ),
    "gpt2": (gpt2, "score.weight", "transformer.h.{}.mlp.c_fc.weight", "transformer.wte"),
    "llama": (llama, "score.weight", "model.layers.{}.mlp.up_proj.weight", "model.embed_tokens"),
    "vit": (vit, "classifier.weight", "{}.mlp.fc1.weight", "vit.embeddings"),
    "wav2vec2": (
        wav2vec2,
        "classifier.weight",
        "wav2vec2.encoder.layers.{}.feed_forward.output_dense.weight",
        "wav2vec2.feature_extractor",
    ),
    "lora_bert": (
        lora_bert,
        "base_model.model.classifier.modules_to_save.default.weight",
        "base_model.model.bert.encoder.layer.{}.attention.self.query.lora_B.default.weight",
        "base_model.model.bert.embeddings.word_embeddings.lora_embedding_A",
    ),
}


@pytest.mark.parametrize("family", LAYERWISE)
def test_layerwise_rate_halves_from_each_block_to_the_one_below(family: str) -> None:
    make, head, block, embeddings = LAYERWISE[family]
    settings = settings_of(layerwise(make(), lr=1.0, weight_decay=0.1, decay=0.5))

    def rates(part: str) -> set[float]:
        return {lr for name, (lr, _) in settings.items() if part in name}

    if family == "vit":
        first = next(name for name in settings if name.endswith("fc1.weight") and ".0." in name)
        block = first.replace(".0.", ".{}.")
    assert rates(head) == {1.0}
    assert [rates(block.format(index)) for index in (2, 1, 0)] == [{0.5}, {0.25}, {0.125}]
    assert rates(embeddings) == {0.0625}


def test_layerwise_spares_norms_and_biases_of_decay_at_every_depth() -> None:
    settings = settings_of(layerwise(bert(), lr=1.0, weight_decay=0.1, decay=0.5))
    assert settings["bert.encoder.layer.0.output.LayerNorm.weight"] == (0.125, 0.0)
    assert settings["bert.encoder.layer.0.output.dense.weight"] == (0.125, 0.1)
    assert settings["classifier.bias"] == (1.0, 0.0)


def test_layerwise_groups_run_from_the_embeddings_to_the_head() -> None:
    names = [group["name"].removesuffix("_no_decay") for group in layerwise(bert(), lr=1.0, weight_decay=0.1)]
    assert list(dict.fromkeys(names)) == ["embeddings", "block_1", "block_2", "block_3", "head"]


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5])
def test_layerwise_refuses_a_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"param_groups\.decay"):
        layerwise(bert(), lr=1.0, weight_decay=0.0, decay=decay)


def test_layerwise_refuses_a_model_without_blocks() -> None:
    with pytest.raises(IncompatibleError, match=r"no blocks.*by_regex"):
        layerwise(nn.Linear(2, 2), lr=1.0, weight_decay=0.0)


def test_lora_plus_raises_the_rate_of_the_b_matrices_only() -> None:
    settings = settings_of(lora_plus(lora_bert(), lr=1e-3, weight_decay=0.1, ratio=16, embedding_lr=1e-6))
    expected = {
        "lora_A": 1e-3,
        "lora_B": 16e-3,
        "lora_embedding_A": 1e-6,
        "lora_embedding_B": 1e-6,
        "classifier": 1e-3,
    }
    for part, lr in expected.items():
        assert {settings[name][0] for name in settings if f".{part}." in name} == {lr}, part


def test_lora_plus_matches_the_peft_library() -> None:
    model = lora_bert()
    made = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1)
    theirs = {id(p): (g["lr"], g["weight_decay"]) for g in made.param_groups for p in g["params"]}
    groups = lora_plus(model, lr=1e-3, weight_decay=0.1, ratio=16)
    ours = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    vectors = {id(p) for p in model.parameters() if p.ndim == 1}  # the head's bias: theirs gets the raised rate
    assert set(ours) == set(theirs)
    assert {key: ours[key] for key in ours if key not in vectors} == {
        key: theirs[key] for key in theirs if key not in vectors
    }


def test_lora_plus_refuses_a_model_without_lora() -> None:
    with pytest.raises(IncompatibleError, match="peft=lora"):
        lora_plus(bert(), lr=1e-3, weight_decay=0.0)


def test_lora_plus_refuses_a_ratio_of_zero() -> None:
    with pytest.raises(ConfigError, match=r"param_groups\.ratio"):
        lora_plus(lora_bert(), lr=1e-3, weight_decay=0.0, ratio=0)


def test_by_regex_gives_a_parameter_to_the_first_rule_that_finds_it() -> None:
    rules: list[dict[str, Any]] = [
        {"pattern": r"layer\.0\.", "lr": 1e-5},
        {"pattern": "encoder", "lr": 1e-4},
        {"pattern": "classifier", "weight_decay": 0.5},
    ]
    settings = settings_of(by_regex(bert(), lr=1e-3, weight_decay=0.1, rules=rules))
    assert settings["bert.encoder.layer.0.output.dense.weight"] == (1e-5, 0.1)
    assert settings["bert.encoder.layer.0.output.dense.bias"] == (1e-5, 0.0)
    assert settings["bert.encoder.layer.1.output.dense.weight"] == (1e-4, 0.1)
    assert settings["classifier.bias"] == (1e-3, 0.5)  # the rule says how it is decayed
    assert settings["bert.pooler.dense.weight"] == (1e-3, 0.1)
    assert settings["bert.pooler.dense.bias"] == (1e-3, 0.0)


def test_by_regex_warns_of_a_pattern_that_takes_nothing() -> None:
    rules = [{"pattern": "encoder", "lr": 1e-4}, {"pattern": "encodr", "lr": 1e-5}]
    with pytest.warns(UserWarning, match=r"param_groups\.rules\[1\].*'encodr'"):
        by_regex(bert(), lr=1e-3, weight_decay=0.1, rules=rules)


def test_by_regex_reports_all_bad_rules_at_once() -> None:
    rules: list[dict[str, Any]] = [{"patterns": "x"}, {"pattern": "("}, {"pattern": "x", "wd": 1}]
    with pytest.raises(ConfigError) as caught:
        by_regex(bert(), lr=1e-3, weight_decay=0.1, rules=rules)
    text = str(caught.value)
    assert "4 problems" in text
    assert "Did you mean 'pattern'?" in text
    assert "rules[1].pattern: '(' is no regular expression" in text


def test_hidden_matrices_are_those_inside_the_blocks() -> None:
    [group] = uniform(bert(), lr=1.0, weight_decay=0.0)
    hidden = {name for name, flag in zip(group["names"], group["hidden"], strict=True) if flag}
    kinds = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
    assert len(hidden) == 3 * len(kinds)
    assert all(name.startswith("bert.encoder.layer.") and name.endswith(".weight") for name in hidden)
