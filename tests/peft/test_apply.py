from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import peft as peft_library
from graft.errors import ConfigError, IncompatibleError
from graft.models.state import load_trainable_state, save_for_others, trainable_state
from graft.models.tiny import tiny_model
from graft.peft.apply import PeftMethod
from graft.step import ModelNeeds

Tiny = Callable[[str], Any]
Saved = Callable[..., tuple[Path, Any]]
Changed = Callable[[nn.Module, dict[str, Tensor]], set[str]]

HEADS = {
    "bert": ["classifier"],
    "roberta": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
    "deberta_v2": ["pooler", "classifier"],
    "electra": ["classifier"],
    "gpt2": ["score"],
    "llama": ["score"],
    "qwen": ["score"],
    "t5": ["classification_head"],
    "bart": ["classification_head"],
}
# adapted layers: 2 blocks (4 in an encoder-decoder, whose decoder attends twice) of four projections, fused
# in GPT-2
LAYERS = {"gpt2": 2 * 2, "t5": 2 * 4 + 2 * 8, "bart": 2 * 4 + 2 * 8}


def lora(*, targets: Any = "attention", seed: int | None = 0, **settings: Any) -> PeftMethod:
    return PeftMethod(partial(peft_library.LoraConfig, r=4, **settings), targets=targets, seed=seed)


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("family", HEADS)
def test_lora_trains_exactly_the_adapter_and_the_head(family: str, tiny: Tiny, changed: Changed) -> None:
    case = tiny(family)
    head = "|".join(HEADS[family])
    model = case.adapt(lora())
    intended = trainable(model)
    adapters = {name for name in intended if re.search(r"\.lora_[AB]\.default\.weight$", name)}
    assert len(adapters) == 2 * LAYERS.get(family, 8)
    assert len(intended - adapters) == len(case.needs.new_parameters)
    copies = re.compile(rf"base_model\.model\.({head})\.modules_to_save\.default\.")
    assert all(copies.match(name) for name in intended - adapters)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert all(module.training for module in model.modules())
    assert changed(model, case.batch) == intended


@pytest.mark.parametrize("family", HEADS)
def test_exported_adapter_gives_equal_logits_in_plain_peft(
    family: str, saved: Saved, changed: Changed, tmp_path: Path
) -> None:
    folder, case = saved(family)
    model = case.adapt(lora())
    changed(model, case.batch)
    save_for_others(model, tmp_path / "adapter")
    torch.manual_seed(99)  # another head than the one that was trained, if the saved one were lost
    base: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    base.config.pad_token_id = case.model.config.pad_token_id
    plain = peft_library.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        expected, found = model.eval()(**case.batch).logits, plain.eval()(**case.batch).logits
    assert torch.equal(expected, found)


@pytest.mark.parametrize("family", HEADS)
def test_trained_state_restores_the_model_over_another_head(family: str, saved: Saved, changed: Changed) -> None:
    _, case = saved(family, seed=1)
    model = case.adapt(lora())
    changed(model, case.batch)
    state = {name: tensor.clone() for name, tensor in trainable_state(model).items()}
    assert set(state) == trainable(model)
    _, again = saved(family, seed=2)
    restored = again.adapt(lora(seed=2))
    load_trainable_state(restored, state)
    with torch.no_grad():
        expected, found = model.eval()(**case.batch).logits, restored.eval()(**case.batch).logits
    assert torch.equal(expected, found)


def test_exported_config_names_the_base_and_short_targets(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("bert")
    case.model.name_or_path = "acme/tiny"
    save_for_others(case.adapt(lora()), tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["base_model_name_or_path"] == "acme/tiny"
    assert sorted(written["target_modules"]) == ["attention.output.dense", "key", "query", "value"]
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_lora_yaml_survives_hydra_and_is_saved(tiny: Tiny, tmp_path: Path) -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from graft.paths import conf_dir

    written = OmegaConf.load(conf_dir() / "peft" / "lora.yaml")
    written.targets = ["query", "value"]
    method = instantiate(written, _convert_="all")
    save_for_others(tiny("bert").adapt(method), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (8, 16, "LORA")


def test_trained_parts_over_a_half_precision_base_are_float32(saved: Saved) -> None:
    _, case = saved("deberta_v2", saved_as=torch.bfloat16, dtype="bfloat16")
    model = case.adapt(lora())
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    assert {dtypes[name] for name in trainable(model)} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if name not in trainable(model)} == {torch.bfloat16}


def test_seed_decides_the_adapter(tiny: Tiny) -> None:
    def first_matrix(seed: int) -> Tensor:
        torch.rand(seed + 1)
        model = tiny("bert").adapt(lora(seed=seed))
        found: Tensor = next(p for name, p in model.named_parameters() if "lora_A" in name)
        return found.detach()

    assert torch.equal(first_matrix(0), first_matrix(0))
    assert not torch.equal(first_matrix(0), first_matrix(1))


def test_head_of_the_checkpoint_can_be_kept(tiny: Tiny) -> None:
    case = tiny("distilbert")
    old = ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS")
    frozen = PeftMethod(peft_library.LoraConfig, targets=["q_lin"], train_head=False)(case.model, old)
    assert all("lora_" in name for name in trainable(frozen))
    trained = PeftMethod(peft_library.LoraConfig, targets=["q_lin"])(tiny("distilbert").model, old)
    heads = {name for name in trainable(trained) if "lora_" not in name}
    assert len(heads) == 4


def test_head_found_by_the_end_of_its_name_does_not_train_another(tiny: Tiny) -> None:
    """``peft`` matches "classifier" at the end of "pre_classifier" as well."""
    case = tiny("distilbert")
    needs = ModelNeeds("", "SEQ_CLS", new_parameters=("classifier.weight", "classifier.bias"))
    model = PeftMethod(peft_library.LoraConfig, targets=["q_lin"], train_head=False)(case.model, needs)
    assert not any("pre_classifier" in name for name in trainable(model))
    assert sum("classifier" in name for name in trainable(model)) == 2


def test_new_pooler_inside_the_base_is_trained_and_saved(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors import safe_open

    case = tiny("bert")
    new = (*case.needs.new_parameters, "bert.pooler.dense.weight", "bert.pooler.dense.bias")
    needs = ModelNeeds(case.needs.auto_class, "SEQ_CLS", new_parameters=new)
    model = lora()(case.model, needs)
    assert any("bert.pooler" in name for name in trainable(model))
    save_for_others(model, tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        kept = list(file.keys())
    assert "base_model.model.bert.pooler.dense.weight" in kept
    assert "base_model.model.classifier.bias" in kept


def test_language_model_head_stays_frozen() -> None:
    loaded = tiny_model("gpt2", needs=ModelNeeds("AutoModelForCausalLM", "CAUSAL_LM"))
    model = lora()(loaded.model, ModelNeeds("AutoModelForCausalLM", "CAUSAL_LM"))
    assert all("lora_" in name for name in trainable(model))


def test_second_adapter_on_one_base_is_refused(tiny: Tiny) -> None:
    case = tiny("bert")
    wrapped = case.adapt(lora())
    for model in (wrapped, case.model):  # peft changes the base in place
        with pytest.raises(IncompatibleError, match="carries an adapter already"):
            lora()(model, case.needs)


def test_typo_among_the_targets_is_refused_with_near_names(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"peft.targets\[1\].*'vallue'.*Near to it: value"):
        tiny("bert").adapt(lora(targets=["query", "vallue"]))


def test_typo_among_further_modules_to_save_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"peft\.config\.modules_to_save\[0\].*'poler'.*Near to it: pooler"):
        tiny("bert").adapt(lora(modules_to_save=["poler"]))


def test_further_modules_to_save_are_trained(tiny: Tiny) -> None:
    model = tiny("bert").adapt(lora(modules_to_save=["pooler"]))
    assert any("bert.pooler.modules_to_save" in name for name in trainable(model))


def test_targets_written_twice_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"Write it as peft\.targets"):
        tiny("bert").adapt(lora(target_modules=["query"]))


def test_config_that_could_not_be_saved_is_refused_before_training(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"peft\.config\.rank_pattern: .* cannot be saved"):
        tiny("bert").adapt(lora(rank_pattern={"query": torch.tensor(3)}))


def test_layers_that_the_method_does_not_support_are_refused(tiny: Tiny) -> None:
    with pytest.raises(IncompatibleError, match="LoraConfig cannot be applied to BertFor"):
        tiny("bert").adapt(lora(targets="norms"))


def test_new_parameter_beside_pretrained_ones_is_refused() -> None:
    model = tiny_model("wav2vec2", needs=ModelNeeds("AutoModelForAudioClassification")).model
    needs = ModelNeeds("AutoModelForAudioClassification", new_parameters=("wav2vec2.masked_spec_embed",))
    with pytest.raises(IncompatibleError, match=r"wav2vec2\.masked_spec_embed lie beside pretrained ones"):
        lora()(model, needs)


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        (partial(peft_library.PromptTuningConfig, num_virtual_tokens=4), None),
        (partial(peft_library.IA3Config, feedforward_modules=[]), "attention"),
        (partial(peft_library.LNTuningConfig), "norms"),
        (partial(peft_library.LoHaConfig, r=2), "all_linear"),
    ],
    ids=["prompt_tuning", "ia3", "ln_tuning", "loha"],
)
def test_other_methods_go_the_same_way(
    config: Callable[..., Any],
    targets: str | None,
    saved: Saved,
    changed: Changed,
    tmp_path: Path,
) -> None:
    folder, case = saved("bert")
    model = case.adapt(PeftMethod(config, targets=targets))
    assert changed(model, case.batch) == trainable(model)
    assert "base_model.model.classifier.modules_to_save.default.weight" in {
        name.replace("base_model.classifier", "base_model.model.classifier") for name in trainable(model)
    }
    save_for_others(model, tmp_path / "adapter")
    torch.manual_seed(99)
    base: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    plain = peft_library.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        expected, found = model.eval()(**case.batch).logits, plain.eval()(**case.batch).logits
    assert torch.allclose(expected, found, atol=1e-6)


def test_targets_for_a_method_without_any_are_refused(tiny: Tiny) -> None:
    method = PeftMethod(partial(peft_library.PromptTuningConfig, num_virtual_tokens=2), targets="attention")
    with pytest.raises(ConfigError, match="PromptTuningConfig adapts no modules"):
        tiny("bert").adapt(method)


def test_method_that_cannot_save_a_new_head_is_refused(tiny: Tiny) -> None:
    with pytest.raises(IncompatibleError, match="AdaptionPromptConfig cannot save a head"):
        tiny("llama").adapt(PeftMethod(peft_library.AdaptionPromptConfig))
