"""Every peft YAML on every tiny model of text: what trains, what a checkpoint holds, and what is loaded from it.

A base is saved to a folder first, so that the head is new and depends on the run's seed: what is not saved comes back
at random with another seed, and the predictions differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import transformers
from omegaconf import DictConfig
from torch import Tensor, nn

import peft as peft_library
from graft.build import Run
from graft.engine.checkpoint import read_checkpoint
from graft.errors import IncompatibleError
from graft.models.state import save_for_others
from graft.models.tiny import TinyModel
from graft.step import ModelNeeds
from tests.contracts.parts import build, config, options_of

HEADS = {
    "bert": r"classifier",
    "roberta": r"classifier",
    "distilbert": r"(pre_)?classifier",
    "deberta_v2": r"(pooler|classifier)",
    "electra": r"classifier",
    "bart": r"classification_head",
    "gpt2": r"score",
    "llama": r"score",
    "qwen": r"score",
}
"""The modules that the base's checkpoint does not hold, by family."""

LAST = {
    "bert": r"(layer\.1\.|bert\.pooler)",
    "roberta": r"layer\.1\.",
    "distilbert": r"layer\.1\.",
    "deberta_v2": r"(layer\.1\.|encoder\.LayerNorm)",
    "electra": r"layer\.1\.",
    "bart": r"decoder\.layers\.1\.",
    "gpt2": r"(h\.1\.|ln_f)",
    "llama": r"(layers\.1\.|model\.norm)",
    "qwen": r"(layers\.1\.|model\.norm)",
}
"""The last block and what comes after it, by family."""

METHODS = options_of("peft")
SETTINGS: dict[str, dict[str, Any]] = {
    "regex": {"peft.patterns": [r"\.1\..*weight$"]},
    "last_blocks": {"peft.number": 1},
}
WITHOUT_BIASES = ("llama", "qwen")
CASES = [
    pytest.param(
        (method, family),
        id=f"{method}-{family}",
        marks=() if family in ("bert", "gpt2") or method == "lora" else pytest.mark.slow,
    )
    for method in METHODS
    for family in HEADS
    if not (method == "biases" and family in WITHOUT_BIASES)
]


Bases = Callable[[str], Path]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Save the bare base of a family with its tokenizer, once."""
    root = tmp_path_factory.mktemp("bases")

    def base(family: str) -> Path:
        if not (root / family).is_dir():
            tiny = TinyModel(family=family)
            model: Any = tiny.load(ModelNeeds("AutoModel")).model
            model.save_pretrained(root / family)
            tiny.processor().save_pretrained(root / family)
        return root / family

    return base


@dataclass
class Before(pl.Callback):
    """Keeps the weights as they were before the first step."""

    weights: dict[str, Tensor] = field(default_factory=dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in pl_module.model.named_parameters()}


@dataclass(frozen=True)
class Trained:
    """A run of one epoch, and what it left."""

    method: str
    family: str
    base: Path
    run: Run
    before: dict[str, Tensor]
    checkpoint: Path

    @property
    def model(self) -> Any:
        return self.run.module.model

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bases: Bases) -> Trained:
    """Train every method on every family for five steps."""
    method, family = request.param
    run_dir = tmp_path_factory.mktemp(f"{method}_{family}")
    cfg = settings_of(method, bases(family))
    before = Before()
    run = build(cfg, run_dir=run_dir, callbacks=[before])
    run.trainer.fit(run.module, datamodule=run.data)
    return Trained(method, family, bases(family), run, before.weights, run_dir / "checkpoints" / "best.ckpt")


def settings_of(method: str, base: Path, *, seed: int = 1) -> DictConfig:
    values = {"model.name": str(base), "trainer.max_epochs": 1, "optimizer.lr": 1e-2, "seed": seed}
    choices = (f"peft={method}", "model=custom", "callbacks=[checkpoint]", "logger=[]")
    return config(*choices, settings={**values, **SETTINGS.get(method, {})})


def intended(method: str, model: nn.Module, family: str) -> set[str]:
    """Return what a method says that it trains, told by names alone."""
    names = [name for name, _ in model.named_parameters()]
    head = {name for name in names if re.match(rf"(base_model\.model\.)?{HEADS[family]}\.", name)}
    if method == "lora":
        head = {name for name in head if ".modules_to_save.default." in name}
    patterns = {
        "full": r"",
        "head_only": r"(?!)",
        "biases": r"bias$",
        "norms": r"(norm|ln_\w+|LayerNorm|layernorm_embedding)\.(weight|bias)$",
        "last_blocks": rf"{LAST[family]}",
        "regex": r"\.1\..*weight$",
        "lora": r"\.lora_[AB]\.default\.weight$",
    }
    return head | {name for name in names if re.search(patterns[method], name)}


def scores(run: Run) -> Tensor:
    """Return the logits of the validation rows."""
    model = run.module.model
    assert model is not None
    model.eval()
    with torch.no_grad():
        return torch.cat([run.task.step(model, batch).scored for batch in run.data.eval_dataloader("validation")])


def test_exactly_the_intended_parameters_move(trained: Trained) -> None:
    moved = {name for name, weight in trained.model.named_parameters() if not torch.equal(weight, trained.before[name])}
    assert moved == set(trained.trainable)
    assert moved == intended(trained.method, trained.model, trained.family)


def test_the_new_head_trains_and_is_saved(trained: Trained) -> None:
    head = [name for name in trained.trainable if re.match(rf"(base_model\.model\.)?{HEADS[trained.family]}\.", name)]
    saved = read_checkpoint(trained.checkpoint)["state_dict"]
    assert head
    assert all(torch.equal(saved[f"model.{name}"], trained.trainable[name]) for name in head)


def test_all_that_trains_is_float32_and_has_dropout_on(trained: Trained) -> None:
    assert {weight.dtype for weight in trained.trainable.values()} == {torch.float32}
    trained.model.train()
    assert all(module.training for module in trained.model.modules())


def test_a_checkpoint_holds_what_trains_and_little_else(trained: Trained) -> None:
    """C1, C12: not the frozen base, neither as weights nor inside saved settings of the module."""
    saved = torch.load(trained.checkpoint, map_location="cpu", weights_only=True)
    assert {name.removeprefix("model.") for name in saved["state_dict"]} >= set(trained.trainable)
    assert not {"hyper_parameters", "datamodule_hyper_parameters"} & set(saved)
    trained_bytes = sum(weight.nbytes for weight in trained.trainable.values())
    moments = 2 * trained_bytes  # Adam's
    overhead = 32_768 + 1500 * 3 * len(
        trained.trainable
    )  # random states; for each tensor a zip entry and its alignment
    assert trained.checkpoint.stat().st_size < 2 * trained_bytes + moments + overhead


def test_a_run_reloaded_with_another_seed_predicts_bit_for_bit_the_same(trained: Trained) -> None:
    again = build(settings_of(trained.method, trained.base, seed=2))
    again.data.setup("fit")
    again.module.configure_model()
    expected = scores(trained.run)
    assert not torch.equal(scores(again), expected)  # another seed is another head
    again.module.on_load_checkpoint(read_checkpoint(trained.checkpoint))
    assert torch.equal(scores(again), expected)


def test_an_export_loads_with_plain_libraries_and_predicts_bit_for_bit_the_same(
    trained: Trained, tmp_path: Path
) -> None:
    save_for_others(trained.model, tmp_path)
    expected = scores(trained.run)
    torch.manual_seed(99)
    auto = transformers.AutoModelForSequenceClassification
    if (tmp_path / "adapter_config.json").is_file():
        bare: Any = auto.from_pretrained(trained.base, num_labels=3)
        bare.config.pad_token_id = trained.model.config.pad_token_id
        loaded: Any = peft_library.PeftModel.from_pretrained(bare, tmp_path)
    else:
        loaded = auto.from_pretrained(tmp_path)
    trained.run.module.model, kept = loaded, trained.run.module.model
    try:
        assert torch.equal(scores(trained.run), expected)
    finally:
        trained.run.module.model = kept


@pytest.mark.parametrize("family", WITHOUT_BIASES)
def test_a_model_without_biases_says_what_to_choose(family: str, bases: Bases) -> None:
    run = build(settings_of("biases", bases(family)))
    run.data.setup("fit")
    with pytest.raises(IncompatibleError, match=r"has no biases outside its head\. Choose peft=norms"):
        run.module.configure_model()


def test_every_method_is_in_the_table_above() -> None:
    """A new YAML must say here what it is meant to train."""
    model = torch.nn.ModuleDict({"classifier": torch.nn.Linear(2, 2)})
    for method in METHODS:
        intended(method, model, "bert")
