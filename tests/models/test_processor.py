from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from graft.errors import ConfigError
from graft.models.processor import ensure_pad_token, load_processor
from graft.models.tiny import tiny_model, tiny_tokenizer
from graft.step import ModelNeeds


def saved(folder: Path, family: str, tokenizer: Any = None) -> str:
    model: Any = tiny_model(family, needs=ModelNeeds("AutoModel")).model
    model.save_pretrained(folder)
    (tokenizer or tiny_tokenizer(family)).save_pretrained(str(folder))
    return str(folder)


def test_tokenizer_without_padding_token_pads_with_its_end_of_text(tmp_path: Path) -> None:
    backend = tiny_tokenizer("gpt2").backend_tokenizer
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    assert bare.pad_token is None
    tokenizer = load_processor(saved(tmp_path, "gpt2", bare))
    assert tokenizer.pad_token == "<|endoftext|>"
    ids = tokenizer(["a", "a b c"], padding=True)["input_ids"]
    assert len(ids[0]) == len(ids[1])


def test_tokenizer_with_a_padding_token_keeps_it(tmp_path: Path) -> None:
    assert load_processor(saved(tmp_path, "bert")).pad_token == "[PAD]"


def test_tokenizer_with_neither_token_is_refused() -> None:
    backend = tiny_tokenizer("gpt2").backend_tokenizer
    with pytest.raises(ConfigError, match="neither a padding nor an end-of-text token"):
        ensure_pad_token(transformers.PreTrainedTokenizerFast(tokenizer_object=backend), "acme/tiny")


def test_padding_and_cutting_that_a_file_brings_along_are_taken_off(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bert")
    tokenizer.backend_tokenizer.enable_padding(length=64)
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    loaded = load_processor(saved(tmp_path, "bert", tokenizer))
    assert loaded.backend_tokenizer.padding is None
    assert loaded.backend_tokenizer.truncation is None


def test_padding_side_is_the_one_asked_for(tmp_path: Path) -> None:
    name = saved(tmp_path, "gpt2")
    left = load_processor(name, padding_side="left")(["a", "a b c d"], padding=True)
    assert left["attention_mask"][0][0] == 0
    with pytest.raises(ConfigError, match="expected left or right, got 'middle'"):
        load_processor(name, padding_side="middle")


def test_folder_without_tokenizer_says_so(tmp_path: Path) -> None:
    model: Any = tiny_model("bert", needs=ModelNeeds("AutoModel")).model
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no tokenizer in"):
        load_processor(str(tmp_path))
