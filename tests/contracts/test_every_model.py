"""Every model YAML gives a model that trains, or one clear error where its checkpoint is out of reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from graft.build import complete
from graft.errors import ConfigError, IncompatibleError
from graft.models.load import ModelSpec
from graft.models.tiny import TinyModel
from graft.step import ModelNeeds
from tests.contracts.parts import assembled, build, config, fit, options_of

OTHER_INPUT = {"tiny_vit": "AutoModelForImageClassification", "tiny_wav2vec2": "AutoModelForAudioClassification"}
MODELS = options_of("model")
TINY = [name for name in MODELS if name.startswith("tiny_") and name not in OTHER_INPUT]
OF_THE_HUB = [name for name in MODELS if not name.startswith("tiny_") and name != "custom"]


@pytest.mark.parametrize("model", TINY)
def test_every_tiny_model_trains_all_of_its_parameters(model: str) -> None:
    """Two steps, since a weight behind another that starts at zero gets its first gradient in the second."""
    run = build(config(f"model={model}", "peft=full", settings={"trainer.max_steps": 2, "scheduler.warmup": 0}))
    run.data.setup("fit")
    run.module.configure_model()
    assert run.module.model is not None
    before = {name: weight.detach().clone() for name, weight in run.module.model.named_parameters()}
    run.trainer.fit(run.module, datamodule=run.data)
    after = dict(run.module.model.named_parameters())
    assert after.keys() == before.keys()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert not still
    assert all(torch.isfinite(weight).all() for weight in after.values())


@pytest.mark.parametrize(("model", "auto_class"), OTHER_INPUT.items())
def test_models_of_images_and_sound_are_made_with_their_processors(model: str, auto_class: str) -> None:
    source: TinyModel = complete(assembled(f"model={model}").model)
    made: Any = source.load(ModelNeeds(auto_class, config={"num_labels": 3})).model
    if model == "tiny_vit":
        inputs = source.processor()(np.zeros((2, 40, 40, 3), dtype=np.uint8), return_tensors="pt")
    else:
        inputs = source.processor()([[0.0] * 4000] * 2, sampling_rate=16000, return_tensors="pt")
    assert made(**inputs).logits.shape == (2, 3)


@pytest.mark.parametrize("model", OTHER_INPUT)
def test_a_text_task_refuses_a_model_of_images_or_sound(model: str) -> None:
    with pytest.raises(IncompatibleError, match=r"reads images or sound .* rows of TextClassification are texts"):
        build(config(f"model={model}"))


@pytest.mark.parametrize("model", OF_THE_HUB)
def test_a_checkpoint_out_of_reach_gives_one_error_with_all_ways_out(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cfg = config(f"model={model}", settings={"offline": True, "model.packages": None})
    source: ModelSpec = complete(cfg.model, offline=True, seed=0)
    assert (source.name.count("/"), source.offline, source.seed) == (1, True, 0)
    with pytest.raises(ConfigError) as caught:
        build(cfg)
    (problem,) = caught.value.problems
    assert problem.startswith(f"model.name: {cfg.model.name} is not a folder, not in the Hugging Face cache")
    assert "(offline is set)" in problem
    assert "model.name=/path/to/a/folder" in problem
    assert "\n" not in problem


def test_the_default_model_trains_without_a_hub(minilm: str) -> None:
    cfg = config("model=minilm", settings={"trainer.max_steps": 1, "trainer.limit_val_batches": 1, "offline": True})
    run = fit(cfg)
    assert run.module.base is not None
    assert run.module.base.name == cfg.model.name
    assert run.trainer.global_step == 1


def test_a_checkpoint_in_a_folder_is_a_custom_model(tmp_path: Path) -> None:
    tiny = TinyModel(family="bert")
    tiny.load(ModelNeeds("AutoModel")).model.save_pretrained(tmp_path)  # type: ignore[operator]
    tiny.processor().save_pretrained(tmp_path)
    run = fit(config("model=custom", settings={"model.name": str(tmp_path), "trainer.max_steps": 1}))
    assert run.module.base is not None
    assert run.module.base.name == str(tmp_path)
