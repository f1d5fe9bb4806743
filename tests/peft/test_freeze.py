from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graft.errors import ConfigError, IncompatibleError
from graft.models.tiny import tiny_model
from graft.peft.freeze import Biases, Full, HeadOnly, LastBlocks, Norms, Regex
from graft.step import ModelNeeds

Tiny = Callable[[str], Any]
Changed = Callable[[nn.Module, dict[str, Tensor]], set[str]]

HEADS = {
    "bert": r"classifier\.",
    "roberta": r"classifier\.",
    "distilbert": r"(pre_)?classifier\.",
    "deberta_v2": r"(pooler|classifier)\.",
    "electra": r"classifier\.",
    "gpt2": r"score\.",
    "llama": r"score\.",
    "qwen": r"score\.",
    "t5": r"classification_head\.",
    "bart": r"classification_head\.",
}
WITH_BIASES = [family for family in HEADS if family not in {"llama", "qwen", "t5"}]
NORMS = r".*\.(LayerNorm|layer_norm|\w+_layer_norm|layernorm_embedding|ln_\w|norm|[qk]_norm|\w+_layernorm)\.\w+$"
LAST_BLOCK = {
    "bert": r"bert\.(encoder\.layer\.1|pooler)\.",
    "roberta": r"roberta\.encoder\.layer\.1\.",
    "distilbert": r"distilbert\.transformer\.layer\.1\.",
    "deberta_v2": r"deberta\.encoder\.(layer\.1|LayerNorm)\.",
    "electra": r"electra\.encoder\.layer\.1\.",
    "gpt2": r"transformer\.(h\.1|ln_f)\.",
    "llama": r"model\.(layers\.1|norm)\.",
    "qwen": r"model\.(layers\.1|norm)\.",
    "t5": r"transformer\.decoder\.(block\.1|final_layer_norm)\.",
    "bart": r"model\.decoder\.layers\.1\.",
}


def assert_trains_exactly(model: nn.Module, batch: dict[str, Tensor], expected: str, changed: Changed) -> None:
    """Check flags, dtype, dropout and what two steps change, against a pattern written by hand."""
    names = [name for name, _ in model.named_parameters()]
    intended = {name for name in names if re.match(expected, name)}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == intended
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert all(module.training for module in model.modules())
    assert changed(model, batch) == intended


@pytest.mark.parametrize("family", HEADS)
def test_full_trains_everything(family: str, tiny: Tiny, changed: Changed) -> None:
    case = tiny(family)
    assert_trains_exactly(case.adapt(Full()), case.batch, r".*", changed)


@pytest.mark.parametrize("family", HEADS)
def test_head_only_trains_the_whole_head(family: str, tiny: Tiny, changed: Changed) -> None:
    case = tiny(family)
    assert_trains_exactly(case.adapt(HeadOnly()), case.batch, HEADS[family], changed)


@pytest.mark.parametrize("family", WITH_BIASES)
def test_biases_train_with_the_head(family: str, tiny: Tiny, changed: Changed) -> None:
    case = tiny(family)
    assert_trains_exactly(case.adapt(Biases()), case.batch, rf"{HEADS[family]}|.*\.bias$", changed)


@pytest.mark.parametrize("family", HEADS)
def test_norms_train_with_the_head(family: str, tiny: Tiny, changed: Changed) -> None:
    case = tiny(family)
    assert_trains_exactly(case.adapt(Norms()), case.batch, rf"{HEADS[family]}|{NORMS}", changed)


@pytest.mark.parametrize("family", HEADS)
def test_last_block_trains_with_what_follows_it(family: str, tiny: Tiny, changed: Changed) -> None:
    case = tiny(family)
    expected = rf"{HEADS[family]}|{LAST_BLOCK[family]}"
    assert_trains_exactly(case.adapt(LastBlocks(number=1)), case.batch, expected, changed)


@pytest.mark.parametrize("family", HEADS)
def test_matching_parameters_train_with_the_head(family: str, tiny: Tiny, changed: Changed) -> None:
    case = tiny(family)
    pattern = r"\.0\.(.*\.)?(q|q_lin|query|query_proj|q_proj|c_attn)\.weight"
    expected = rf"{HEADS[family]}|.*{pattern}"
    assert_trains_exactly(case.adapt(Regex([pattern])), case.batch, expected, changed)
    assert sum(p.requires_grad for _, p in case.model.named_parameters()) > len(case.needs.new_parameters)


def test_head_that_the_checkpoint_brought_along_trains_too(tiny: Tiny) -> None:
    case = tiny("bert")
    HeadOnly()(case.model, ModelNeeds("AutoModelForSequenceClassification"))
    trained = [name for name, p in case.model.named_parameters() if p.requires_grad]
    assert trained == ["classifier.weight", "classifier.bias"]


def test_new_parameter_inside_the_base_trains_in_any_case(tiny: Tiny) -> None:
    case = tiny("bert")
    HeadOnly()(case.model, ModelNeeds("", new_parameters=("bert.pooler.dense.weight",)))
    assert case.model.bert.pooler.dense.weight.requires_grad


def test_new_parameter_that_is_not_there_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(IncompatibleError, match=r"new parameters nowhere\.weight are not in BertFor"):
        Full()(tiny("bert").model, ModelNeeds("", new_parameters=("nowhere.weight",)))


def test_model_without_biases_is_refused_with_a_way_out(tiny: Tiny) -> None:
    with pytest.raises(IncompatibleError, match=r"LlamaFor\w+ has no biases .* Choose peft=norms"):
        tiny("llama").adapt(Biases())


def test_model_without_a_head_leaves_nothing_to_train() -> None:
    model = tiny_model("gpt2", needs=ModelNeeds("AutoModelForCausalLM")).model
    with pytest.raises(IncompatibleError, match="nothing of GPT2LMHeadModel is left to train"):
        HeadOnly()(model, ModelNeeds("AutoModelForCausalLM"))


def test_number_of_blocks_is_checked(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="at least 1 block is needed, got 0"):
        LastBlocks(number=0)
    with pytest.raises(ConfigError, match=r"BertFor\w+ has 2 blocks, got 3"):
        tiny("bert").adapt(LastBlocks(number=3))


def test_all_patterns_that_match_nothing_are_named(tiny: Tiny) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny("bert").adapt(Regex(["bias$", "quary", "nowhere"]))
    assert len(caught.value.problems) == 2
    assert "peft.patterns[1]: 'quary' matches no parameter" in caught.value.problems[0]
    assert "Did you mean 'query'?" in caught.value.problems[0]


def test_patterns_are_checked_before_a_model_is_there() -> None:
    with pytest.raises(ConfigError, match=r"peft.patterns\[0\]: '\(' is no regular expression"):
        Regex(["("])
    with pytest.raises(ConfigError, match="expected a list of patterns, got 'bias'"):
        Regex("bias")


def test_frozen_half_precision_base_gets_a_float32_head(tiny: Tiny) -> None:
    case = tiny("bert")
    case.model.to(torch.bfloat16)
    model = case.adapt(HeadOnly())
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if name.startswith("classifier.")} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if name.startswith("bert.")} == {torch.bfloat16}
