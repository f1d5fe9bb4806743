from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from graft.errors import ConfigError, IncompatibleError
from graft.models.tiny import _FAMILIES, TinyModel, tiny_model, tiny_tokenizer
from graft.step import ModelNeeds

NEEDS = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": 3})
READERS = [family for family in _FAMILIES if family not in {"vit", "wav2vec2"}]


@pytest.mark.parametrize("family", READERS)
def test_model_reads_what_its_tokenizer_writes(family: str) -> None:
    spec = TinyModel(family=family)
    model: Any = spec.load(NEEDS).model
    tokenizer = spec.processor()
    batch = tokenizer(["Profit rose.", "It is a much longer sentence."], ["ok", "yes"], padding=True)
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert max(max(row) for row in batch["input_ids"]) < len(tokenizer) <= model.config.vocab_size
    logits = model.eval()(**{key: torch.tensor(value) for key, value in batch.items()}).logits
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("family", READERS)
def test_padding_does_not_change_the_logits(family: str) -> None:
    spec = TinyModel(family=family)
    model, tokenizer = spec.load(NEEDS).model.eval(), spec.processor()
    alone = tokenizer(["Profit rose."], return_tensors="pt")
    padded = tokenizer(["Profit rose.", "It is a much longer sentence."], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected, found = model(**alone).logits[0], model(**padded).logits[0]
    assert torch.allclose(expected, found, atol=1e-4)


def test_image_and_audio_models_read_what_their_processors_write() -> None:
    images = TinyModel(family="vit")
    pixels = images.processor()(torch.zeros(3, 40, 50, dtype=torch.uint8).numpy(), return_tensors="pt")
    needs = ModelNeeds("AutoModelForImageClassification", None, {"num_labels": 3})
    assert images.load(needs).model(**pixels).logits.shape == (1, 3)
    sounds = TinyModel(family="wav2vec2")
    waves = sounds.processor()(torch.zeros(1600).numpy(), sampling_rate=16_000, return_tensors="pt")
    needs = ModelNeeds("AutoModelForAudioClassification", None, {"num_labels": 3})
    assert sounds.load(needs).model(**waves).logits.shape == (1, 3)


def test_head_is_new_and_the_base_is_told_by_its_weights() -> None:
    first, same, other = (tiny_model("bert", needs=NEEDS, seed=seed) for seed in (0, 0, 1))
    assert first.new_parameters == ("classifier.weight", "classifier.bias")
    assert first.base == same.base
    assert first.base.fingerprint != other.base.fingerprint


@pytest.mark.parametrize("family", _FAMILIES)
def test_base_does_not_depend_on_the_number_of_labels(family: str) -> None:
    auto = {"vit": "AutoModelForImageClassification", "wav2vec2": "AutoModelForAudioClassification"}
    three, five = (
        tiny_model(family, needs=ModelNeeds(auto.get(family, NEEDS.auto_class), None, {"num_labels": labels}))
        for labels in (3, 5)
    )
    assert three.base.fingerprint == five.base.fingerprint


def test_model_is_made_in_training_mode_with_the_dropout_asked_for() -> None:
    model = tiny_model("roberta", needs=NEEDS, dropout=0.25).model
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts
    assert {(module.p, module.training) for module in dropouts} == {(0.25, True)}


def test_making_a_model_leaves_the_random_numbers_outside_alone() -> None:
    torch.manual_seed(3)
    plain = torch.rand(2)
    torch.manual_seed(3)
    tiny_model("bert", needs=NEEDS)
    assert torch.equal(torch.rand(2), plain)


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "t5"])
def test_saved_tokenizer_loads_with_plain_transformers(family: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(family)
    tokenizer.save_pretrained(str(tmp_path))
    again = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    text = "Shares of the bank fell!"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.pad_token_id == tokenizer.pad_token_id


def test_tokenizer_can_be_trained_on_given_texts() -> None:
    tokenizer = tiny_tokenizer("bert", texts=["zebra zebra zebra"] * 5, vocab_size=400)
    assert tokenizer.tokenize("zebra") == ["zebra"]
    assert "zebra" not in tiny_tokenizer("bert").get_vocab()


@pytest.mark.parametrize("family", READERS)
def test_tokenizer_is_the_same_each_time(family: str) -> None:
    first, second = (hashlib.sha256(tiny_tokenizer(family).backend_tokenizer.to_str().encode()) for _ in range(2))
    assert first.hexdigest() == second.hexdigest()


def test_unknown_family_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"no tiny 'robberta'. Did you mean 'roberta'\?"):
        tiny_model("robberta", needs=NEEDS)
    with pytest.raises(ConfigError, match="vit reads no text"):
        tiny_tokenizer("vit")
    with pytest.raises(IncompatibleError, match="no AutoModelForImageClassification for bert"):
        tiny_model("bert", needs=ModelNeeds("AutoModelForImageClassification"))
