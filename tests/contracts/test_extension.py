"""Adding things without touching a file of ours: a user's module and a user's config folder, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graft.commands.train import train
from graft.config.check import check_config
from graft.config.compose import compose_config
from graft.errors import ConfigError
from graft.runs.load import load_run

CODE = '''
"""What a lab adds: a task with its row, a loss, a way of adapting, an optimizer, a transform and a callback."""

from typing import Annotated, TypedDict, final

import pytorch_lightning as pl
import torch
from torch import nn

from graft.data.collate import pad, stack
from graft.metrics.classification import SingleLabelMetrics
from graft.peft.training import head_of, train_only
from graft.step import ModelNeeds, StepOutput
from graft.tasks.base import AbstractTask


class ShoutRow(TypedDict):
    """A text and whether it is shouted."""

    text: Annotated[str, "text"]
    label: Annotated[str, "label"]


@final
class Shouting(AbstractTask):
    """Whether a text is shouted."""

    schema = ShoutRow
    monitor = "share_right"
    mode = "max"

    def __init__(self, processor, *, loss, longest: int = 32) -> None:
        self.processor, self.loss, self.longest, self.names = processor, loss, longest, ()

    def bind(self, info):
        self.names = info.label_names

    def needs(self):
        return ModelNeeds("AutoModelForSequenceClassification", "SEQ_CLS", {"num_labels": len(self.names)})

    def encode(self, columns):
        encoded = self.processor(list(columns["text"]), truncation=True, max_length=self.longest)
        features = {"input_ids": encoded["input_ids"]}
        return features | ({"label": list(columns["label"])} if "label" in columns else {})

    def collate(self, features):
        ids = pad([row["input_ids"] for row in features], value=self.processor.pad_token_id)
        batch = {"input_ids": ids, "row": stack([row["row"] for row in features], torch.long)}
        if "label" in features[0]:
            batch["targets"] = stack([row["label"] for row in features], torch.long)
        return batch

    def step(self, model, batch):
        mask = (batch["input_ids"] != self.processor.pad_token_id).long()
        logits = model(input_ids=batch["input_ids"], attention_mask=mask).logits
        return StepOutput(self.loss(logits, batch["targets"]), logits, "logits")

    def new_metrics(self):
        return ShareRight()

    def predict(self, model, batch, output=None):
        output = output or self.step(model, batch)
        return [{"label": self.names[index]} for index in output.scored.argmax(-1).tolist()]

    def targets(self, batch):
        return [self.names[index] for index in batch["targets"].tolist()]


@final
class ShareRight:
    def __init__(self):
        self.reset()

    def reset(self):
        self.right, self.all = 0, 0

    def update(self, output, batch):
        self.right += int((output.scored.argmax(-1) == batch["targets"]).sum())
        self.all += len(batch["targets"])

    def compute(self):
        return {"share_right": self.right / self.all}


def poly(logits, labels, *, class_weights=None, epsilon: float = 1.0):
    """Cross entropy and a first correction (Leng et al. 2022)."""
    right = logits.softmax(-1).gather(1, labels[:, None]).squeeze(1)
    return nn.functional.cross_entropy(logits, labels) + epsilon * (1 - right).mean()


@final
class WordsOnly:
    """Train the word embeddings and the head."""

    def __call__(self, model, needs):
        words = [name for name, _ in model.named_parameters() if "word_embeddings" in name]
        return train_only(model, {*words, *head_of(model, needs)})


class EvenSteps(torch.optim.Optimizer):
    """Moves every weight along its gradient, all equally far."""

    def __init__(self, params, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.sub_(group["lr"] * weight.grad / (weight.grad.norm() + 1e-8))
        return loss


class Twice:
    """Counts every batch twice."""

    def __call__(self, step, model, batch):
        from dataclasses import replace

        output = step(model, batch)
        return replace(output, loss=2 * output.loss)


class Diary(pl.Callback):
    """Writes a line an epoch into the run's folder."""

    def __init__(self, run_dir, word: str = "epoch") -> None:
        self.path, self.word = run_dir / "diary.txt", word

    def on_train_epoch_end(self, trainer, pl_module):
        with self.path.open("a") as file:
            file.write(f"{self.word} {trainer.current_epoch}\\n")
'''

CONFIGS = {
    "data/shouts": """
# Texts that are shouted, or not.

defaults:
  - _loading
  - split: keep
  - _self_

_target_: graft.data.module.DataModule
name: shouts
source:
  _target_: graft.data.sources.Files
  directory: FOLDER
  train: shouts.jsonl
  validation: shouts.jsonl
  test: shouts.jsonl
columns: {text: words, label: loud}
batch_size: 8
""",
    "task/shouting": "# Whether a text is shouted.\n\ndefaults:\n  - loss: poly\n\n_target_: my_lab.parts.Shouting\n",
    "task/loss/poly": "# PolyLoss.\n\n_target_: my_lab.parts.poly\n_partial_: true\nepsilon: 0.5\n",
    "peft/words_only": "# The word embeddings and the head.\n\n_target_: my_lab.parts.WordsOnly\n",
    "optimizer/even_steps": "# Steps of one size.\n\n_target_: my_lab.parts.EvenSteps\n_partial_: true\nlr: 3e-3\n",
    "objective/twice": "# Every batch twice.\n\ntwice:\n  _target_: my_lab.parts.Twice\n",
    "callbacks/diary": "# A diary.\n\ndiary:\n  _target_: my_lab.parts.Diary\n",
}

PARTS = {
    "a data set": "data=shouts",
    "a loss": "task/loss=poly",
    "a way of adapting": "peft=words_only",
    "an optimizer": "optimizer=even_steps",
    "a transform": "objective=[twice]",
    "a callback": "callbacks=[checkpoint,diary]",
}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Make a folder with a package, a config folder and some rows."""
    package = tmp_path / "my_lab"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "parts.py").write_text(CODE, encoding="utf-8")
    for name, text in CONFIGS.items():
        path = tmp_path / "my_conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip().replace("FOLDER", str(tmp_path)), encoding="utf-8")
    texts = [
        ("I did not like this film", "no"),
        ("What a wonderful story!", "yes"),
        ("It is Monday", "no"),
        ("The best", "yes"),
    ]
    rows = [{"words": f"{text} {number}", "loud": loud} for number in range(6) for text, loud in texts]
    (tmp_path / "shouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def graft(lab: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the lab's folder, where its package can be imported."""
    own = {"PYTHONPATH": str(lab), "OMP_NUM_THREADS": "1", "GRAFT_LOGS": str(lab / "logs"), **environment}
    command = [sys.executable, "-m", "graft", *words]
    return subprocess.run(command, cwd=lab, env={**os.environ, **own}, capture_output=True, text=True, check=False)


def test_everything_added_from_outside_trains_through_the_command_line(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [one for part, one in PARTS.items() if part != "a loss"]
    ended = graft(
        lab,
        *("train", "--config-dir", "my_conf", "task=shouting", *chosen),
        *("model=tiny_bert", "trainer=cpu", "trainer.max_epochs=12", "logger=[csv]"),
        *("callbacks.diary.word=day", "task.loss.epsilon=1.5", "optimizer.lr=0.3", "model.dropout=0"),
    )
    assert ended.returncode == 0, ended.stderr
    (run,) = (lab / "logs" / "runs").iterdir()
    assert (run / "diary.txt").read_text(encoding="utf-8") == "".join(f"day {day}\n" for day in range(12))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["test/share_right"] > 0.9

    with pytest.raises(ConfigError, match=r"trust=\[my_lab\]"):
        load_run(run, logs=lab / "logs")  # a run's folder may come from anyone
    monkeypatch.syspath_prepend(str(lab))
    loaded = load_run(run, logs=lab / "logs", trust=["my_lab"]).run
    (again,) = loaded.trainer.test(loaded.module, datamodule=loaded.data, verbose=False)
    assert again == pytest.approx(metrics["test"])


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_added_by_itself(part: str, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(lab))
    monkeypatch.setenv("GRAFT_CONF_DIR", str(lab / "my_conf"))
    rows = "{train: [{text: good, label: a}, {text: bad, label: b}], validation: [{text: good, label: a}]}"
    data = () if part == "a data set" else ("data=in_memory", f"data.source.splits={rows}")
    composed = compose_config(
        "train",
        [
            *("model=tiny_bert", "trainer=cpu", "trainer.max_epochs=1", "logger=[]", *data),
            *([] if part == "a callback" else ["callbacks=[checkpoint]"]),
            *(PARTS[part], f"paths.logs={lab / 'logs'}"),
        ],
    )
    result = train(composed)
    assert result.objective is not None
    assert (result.dir / "checkpoints" / "last.ckpt").is_file()


def test_a_users_part_is_checked_by_its_own_signature(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(lab))
    cfg = compose_config(
        "train",
        ["model=tiny_bert", "task=shouting", "task.longer=3", "optimizer=even_steps", "optimizer.beta=1"],
        config_dirs=[lab / "my_conf"],
    ).cfg
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert [problem.splitlines()[0] for problem in caught.value.problems] == [
        "task.longer: my_lab.parts.Shouting takes no 'longer'. Did you mean 'longest'?",
        "optimizer.beta: my_lab.parts.EvenSteps takes no 'beta'.",
    ]


def test_a_users_file_takes_the_place_of_ours_of_the_same_name(lab: Path) -> None:
    (lab / "my_conf" / "scheduler").mkdir()
    text = "# Ours, warmed up for longer.\n\n_target_: graft.optim.schedules.linear\n_partial_: true\nwarmup: 0.5\n"
    (lab / "my_conf" / "scheduler" / "linear.yaml").write_text(text, encoding="utf-8")
    assert compose_config("train", [], config_dirs=[lab / "my_conf"]).cfg.scheduler.warmup == 0.5
    assert compose_config("train", []).cfg.scheduler.warmup == 0.06
