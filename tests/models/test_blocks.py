from __future__ import annotations

import pytest
from torch import nn

from graft.models import blocks
from graft.models.tiny import tiny_model
from graft.step import ModelNeeds

NEEDS = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": 3})
IMAGES = ModelNeeds("AutoModelForImageClassification", None, {"num_labels": 3})
SOUNDS = ModelNeeds("AutoModelForAudioClassification", None, {"num_labels": 3})

# family -> (name of a block without its number, number of blocks, head)
EXPECTED = {
    "bert": (["bert.encoder.layer"], ["classifier"]),
    "roberta": (["roberta.encoder.layer"], ["classifier"]),
    "distilbert": (["distilbert.transformer.layer"], ["pre_classifier", "classifier"]),
    "deberta_v2": (["deberta.encoder.layer"], ["pooler", "classifier"]),
    "electra": (["electra.encoder.layer"], ["classifier"]),
    "modernbert": (["model.layers"], ["head", "classifier"]),
    "gpt2": (["transformer.h"], ["score"]),
    "llama": (["model.layers"], ["score"]),
    "qwen": (["model.layers"], ["score"]),
    "t5": (["transformer.encoder.block", "transformer.decoder.block"], ["classification_head"]),
    "bart": (["model.encoder.layers", "model.decoder.layers"], ["classification_head"]),
    "vit": (["vit.layers"], ["classifier"]),
    "wav2vec2": (["wav2vec2.encoder.layers"], ["projector", "classifier"]),
}


def needs_of(family: str) -> ModelNeeds:
    return {"vit": IMAGES, "wav2vec2": SOUNDS}.get(family, NEEDS)


@pytest.mark.parametrize("family", EXPECTED)
def test_blocks_and_head_are_found_in_order(family: str) -> None:
    found = blocks.parts(tiny_model(family, needs=needs_of(family)).model)
    lists, head = EXPECTED[family]
    assert found.blocks == tuple(f"{name}.{index}" for name in lists for index in range(2))
    assert list(found.head) == head
    assert found.language_head == ()
    assert found.prefix == ""


@pytest.mark.parametrize("family", EXPECTED)
def test_every_parameter_has_one_depth_from_embeddings_to_head(family: str) -> None:
    model = tiny_model(family, needs=needs_of(family)).model
    depths = blocks.depth_of(model)
    lists, head = EXPECTED[family]
    last = 2 * len(lists) + 1
    assert list(depths) == [name for name, _ in model.named_parameters()]
    assert set(depths.values()) == set(range(last + 1))
    assert {depth for name, depth in depths.items() if blocks.lies_in(name, head)} == {last}
    for number, block in enumerate((f"{name}.{index}" for name in lists for index in range(2)), start=1):
        assert {depth for name, depth in depths.items() if blocks.lies_in(name, [block])} == {number}


def test_depths_of_what_lies_around_the_blocks() -> None:
    bert = blocks.depth_of(tiny_model("bert", needs=NEEDS).model)
    assert bert["bert.embeddings.LayerNorm.weight"] == 0
    assert bert["bert.pooler.dense.weight"] == 3
    bart = blocks.depth_of(tiny_model("bart", needs=NEEDS).model)
    assert bart["model.decoder.embed_positions.weight"] == 0
    assert bart["model.encoder.layernorm_embedding.weight"] == 0
    t5 = blocks.depth_of(tiny_model("t5", needs=NEEDS).model)
    assert t5["transformer.encoder.final_layer_norm.weight"] == 2  # with the last block of the encoder
    assert t5["transformer.decoder.final_layer_norm.weight"] == 5
    llama = blocks.depth_of(tiny_model("llama", needs=NEEDS).model)
    assert (llama["model.embed_tokens.weight"], llama["model.norm.weight"]) == (0, 3)
    sounds = blocks.depth_of(tiny_model("wav2vec2", needs=SOUNDS).model)
    assert sounds["wav2vec2.masked_spec_embed"] == 0
    assert sounds["wav2vec2.feature_extractor.conv_layers.0.conv.weight"] == 0


def test_language_head_is_told_from_a_task_head() -> None:
    model = tiny_model("gpt2", needs=ModelNeeds("AutoModelForCausalLM", "CAUSAL_LM")).model
    found = blocks.parts(model)
    assert (found.head, found.language_head) == (("lm_head",), ("lm_head",))
    assert blocks.head_parameters(model) == []
    seq2seq = tiny_model("t5", needs=ModelNeeds("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM")).model
    assert blocks.parts(seq2seq).language_head == ("lm_head",)
    masked = tiny_model("bert", needs=ModelNeeds("AutoModelForMaskedLM")).model
    assert blocks.parts(masked).language_head == ("cls",)


def test_bare_encoder_has_no_head() -> None:
    found = blocks.parts(tiny_model("bert", needs=ModelNeeds("AutoModel")).model)
    assert found.head == ()
    assert found.blocks == ("encoder.layer.0", "encoder.layer.1")


def test_parts_of_a_wrapped_model_carry_its_prefix() -> None:
    import peft

    model = tiny_model("bert", needs=NEEDS).model
    plain = blocks.parts(model)
    adapter = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    wrapped = peft.get_peft_model(model, adapter)
    found = blocks.parts(wrapped)
    assert found.prefix == "base_model.model."
    assert found.blocks == tuple(f"base_model.model.{name}" for name in plain.blocks)
    assert found.head == ("base_model.model.classifier",)
    depths = blocks.depth_of(wrapped)
    lora = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_A.default.weight"
    assert depths[lora] == 2
    assert depths["base_model.model.classifier.modules_to_save.default.weight"] == 3


def test_virtual_tokens_of_a_wrapper_count_as_new() -> None:
    import peft

    model = tiny_model("bert", needs=NEEDS).model
    adapter = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    depths = blocks.depth_of(peft.get_peft_model(model, adapter))
    assert depths["prompt_encoder.default.embedding.weight"] == 3


def test_norms_are_layers_with_weights_and_not_what_holds_them() -> None:
    found = blocks.parts(tiny_model("wav2vec2", needs=SOUNDS).model)
    assert "wav2vec2.feature_extractor.conv_layers.0.layer_norm" in found.norms
    assert "wav2vec2.feature_extractor.conv_layers.0" not in found.norms
    assert blocks.is_norm(nn.BatchNorm1d(3))
    assert not blocks.is_norm(nn.LayerNorm(3, elementwise_affine=False))
    assert not blocks.is_norm(nn.Linear(3, 3))
