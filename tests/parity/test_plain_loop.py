"""Fifty steps of graft and of a plain PyTorch loop have the same losses."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from graft.build import Run, build_run
from graft.config.compose import load_config
from tests.parity.plain_loop import Lora, Settings, build_model, train

STEPS = 50
BATCH_SIZE = 8
MAX_LENGTH = 48
GOOD = ("good", "fine", "moving", "funny", "bright", "warm")
BAD = ("bad", "dull", "poor", "flat", "cold", "slow")
OTHER = tuple(f"word{number}" for number in range(60))


def _texts(count: int) -> tuple[list[str], list[int]]:
    """Return texts of 2 to 40 words (some longer than the limit) whose class is that of one word in them."""
    chance = random.Random(7)
    texts, labels = [], []
    for _ in range(count):
        label = chance.randrange(2)
        words = [*chance.choices(OTHER, k=chance.randrange(1, 60)), chance.choice((BAD, GOOD)[label])]
        chance.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random two-layer BERT and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_bert")
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER)
    vocabulary = {word: index for index, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.15,
        pad_token_id=0,
    )
    pl.seed_everything(3, verbose=False)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@dataclass
class Recorder(pl.Callback):
    """Notes the rows and the loss of each training batch."""

    rows: list[list[int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def on_train_batch_end(self, *given: Any) -> None:
        _, _, outputs, batch, _ = given
        self.rows.append(batch["row"].tolist())
        self.losses.append(float(outputs["loss"]))


def _write(path: Path, texts: Sequence[str], labels: Sequence[int]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        writer.writerows(zip(texts, labels, strict=True))
    return path


def _graft(folder: Path, rows: Path, peft: str, *, lr: float) -> Run:
    """Build graft's side of the comparison."""
    overrides = [
        "data=csv",
        f"data.source.train={rows}",
        f"data.source.validation={rows}",
        f"data.batch_size={BATCH_SIZE}",
        "model=custom",
        f"model.name={folder}",
        "model.dropout=0.0",
        f"task.max_length={MAX_LENGTH}",
        f"peft={peft}",
        f"optimizer.lr={lr}",
        "optimizer.weight_decay=0.05",
        "scheduler=linear",
        "scheduler.warmup=0.1",
        "trainer=cpu",
        f"trainer.max_steps={STEPS}",
        "trainer.max_epochs=100",
        "trainer.limit_val_batches=0",
        "trainer.gradient_clip_val=1.0",
        "seed=5",
    ]
    if peft == "lora":
        overrides.append("+peft.config.lora_dropout=0.0")
    pl.seed_everything(5, verbose=False)
    return build_run(load_config("train", overrides), run_dir=None)


def _adapter(model: Any) -> Lora:
    """Read graft's adapter settings off the wrapped model."""
    (config,) = model.peft_config.values()
    return Lora(
        r=config.r,
        alpha=config.lora_alpha,
        targets=tuple(sorted(config.target_modules)),
        save=tuple(sorted(config.modules_to_save)),
    )


def _compare(
    folder: Path, tmp_path: Path, peft: str, texts: Sequence[str], labels: Sequence[int], *, lr: float
) -> list[float]:
    """Train both from the same weights on the same batches; return graft's losses."""
    run = _graft(folder, _write(tmp_path / "rows.csv", texts, labels), peft, lr=lr)
    run.data.setup("fit")
    run.module.configure_model()
    model = run.module.model
    assert model is not None
    plain = build_model(folder, num_labels=2, lora=_adapter(model) if peft == "lora" else None)
    plain.load_state_dict(model.state_dict())
    assert _trained(plain) == _trained(model)

    recorder = Recorder()
    run.trainer.callbacks.append(recorder)  # type: ignore[attr-defined]
    run.trainer.fit(run.module, datamodule=run.data)
    settings = Settings(lr=lr, weight_decay=0.05, warmup=0.1, total_steps=STEPS, clip=1.0, max_length=MAX_LENGTH)
    losses = train(plain, folder, texts=texts, labels=labels, batches=recorder.rows, settings=settings)

    assert len(recorder.losses) == STEPS
    assert recorder.losses == pytest.approx(losses, rel=1e-6, abs=0.0)
    return recorder.losses


def _trained(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(("peft", "lr"), [("full", 5e-3), ("lora", 2e-2)])
def test_fifty_steps_have_the_losses_of_a_plain_loop(tiny_bert: Path, tmp_path: Path, peft: str, lr: float) -> None:
    texts, labels = _texts(101)  # over several epochs, and the last batch of each is short

    losses = _compare(tiny_bert, tmp_path, peft, texts, labels, lr=lr)

    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])  # it was training that was compared


@pytest.mark.slow
@pytest.mark.parametrize(("peft", "lr"), [("full", 1e-4), ("lora", 5e-3)])
def test_fifty_steps_of_minilm_on_sst2_have_the_losses_of_a_plain_loop(
    minilm: str, shared: Path, tmp_path: Path, peft: str, lr: float
) -> None:
    with (shared / "data" / "sst2" / "dev.tsv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts, labels = [row["sentence"] for row in rows], [int(row["label"]) for row in rows]

    losses = _compare(Path(minilm), tmp_path, peft, texts, labels, lr=lr)

    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])
