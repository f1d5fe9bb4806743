from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from graft.commands.train import Result, train
from graft.config.compose import compose_config
from graft.errors import ConfigError
from graft.models.tiny import TinyModel
from graft.runs.record import content_hash, group_hash
from graft.step import ModelNeeds
from tests.callbacks.wandb_file import WandbFile, offline_runs
from tests.commands.shell import Command, graft
from tests.commands.tiny_run import LABELS, SETTINGS, TinyRun, one_thread, rows, trained, write_data

QUICK = ("model=tiny_bert", "trainer=smoke", "trainer.accelerator=cpu", "data.eval_batch_size=8", "logger=[csv]")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return trained(tmp_path_factory.getbasetemp())


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, ...]:
    return write_data(tmp_path / "data", sizes=(48, 16, 16))


def trained_here(*overrides: str) -> Result:
    composed = compose_config("train", overrides)
    return train(composed.cfg, choices=composed.choices, overrides=composed.overrides)


def status(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return held


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- what a run leaves ----------------------------------------------------------------------------------------------


def test_run_ends_by_printing_its_folder_and_metrics(run: TinyRun) -> None:
    first, *metrics = run.out.splitlines()
    assert Path(first) == run.dir
    row = next(line for line in metrics if "accuracy" in line)
    test, val = run.read("metrics.json")["test"]["test/accuracy"], run.read("metrics.json")["best"]["val/accuracy"]
    assert [cell.strip() for cell in row.strip("\u2502").split("\u2502")] == ["accuracy", f"{val:.4f}", f"{test:.4f}"]


def test_log_of_a_run_has_few_lines_and_no_control_codes(run: TinyRun) -> None:
    assert len(run.err.splitlines()) < 20
    assert "\x1b" not in run.err + run.out
    assert "\r" not in run.err
    assert "warn" not in run.err.lower()


def test_configuration_is_resolved_and_means_the_same_anywhere(run: TinyRun) -> None:
    text = (run.dir / "config.yaml").read_text()
    assert "${" not in text
    config = yaml.safe_load(text)
    assert config["optimizer"]["lr"] == 5e-3
    assert config["data"]["source"]["directory"] == str(run.cwd)
    assert config["paths"]["logs"] == str(run.logs)
    assert config["run"] == {"name": "tiny/run", "tags": ["first", "second"]}
    assert run.dir.name.endswith(f"_{content_hash(config)}")


def test_overrides_choices_and_environment_are_recorded(run: TinyRun) -> None:
    assert yaml.safe_load((run.dir / "overrides.yaml").read_text()) == list(run.words)
    choices = yaml.safe_load((run.dir / "choices.yaml").read_text())
    wanted = {"model": "tiny_bert", "data": "csv", "peft": "lora", "trainer": "cpu", "task/loss": "cross_entropy"}
    assert wanted.items() <= choices.items()
    environment = run.read("env.json")
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["command"][1:] == ["train", *run.words]
    assert environment["cwd"] == str(run.cwd)


def test_status_says_that_and_when_the_run_was_done(run: TinyRun) -> None:
    held = run.read("status.json")
    assert (held["state"], held["reason"], held["resumed"]) == ("done", None, [])
    assert held["started"] <= held["ended"]


def test_every_validation_is_in_the_history_and_the_best_is_the_checkpoints(run: TinyRun) -> None:
    metrics = run.read("metrics.json")
    history = metrics["history"]
    assert [entry["step"] for entry in history] == [13, 26, 39]
    scores = run.read("checkpoints/scores.json")
    best = min(history, key=lambda entry: entry["val/calibration_error"])
    assert best is not history[-1], "the best must not be the last, or other tests show nothing"
    assert scores["scores"] == {"best.ckpt": pytest.approx(best["val/calibration_error"])}
    assert metrics["best"] == {name: value for name, value in best.items() if name != "step"}


def test_table_of_metrics_holds_the_same_numbers(run: TinyRun) -> None:
    lines = table(run.dir / "metrics.csv")
    validations = [line for line in lines if line["val/loss"]]
    history = run.read("metrics.json")["history"]
    for name in ("val/loss", "val/accuracy", "val/auroc"):
        assert [float(line[name]) for line in validations] == [entry[name] for entry in history]
    (test,) = [line for line in lines if line["test/loss"]]
    assert float(test["test/loss"]) == run.read("metrics.json")["test"]["test/loss"]
    losses = [line for line in lines if line["train/loss"]]
    assert [int(line["step"]) for line in losses] == [4, 9, 14, 19, 24, 29, 34]


def test_predictions_of_the_test_split_add_up_to_its_metrics(run: TinyRun) -> None:
    predicted = run.lines("predictions/test.jsonl")
    given = rows(600, seed=2)
    assert [line["row"] for line in predicted] == list(range(600))
    assert [(line["text"], line["target"]) for line in predicted] == [(row["text"], row["label"]) for row in given]
    right = sum(line["label"] == line["target"] for line in predicted) / 600
    metrics = run.read("metrics.json")["test"]
    assert metrics["test/accuracy"] == pytest.approx(right, abs=1e-6)
    assert {line["label"] for line in predicted} > {predicted[0]["label"]}, "a constant prediction shows nothing"
    for line in predicted:
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        assert sum(line["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert line["target_probability"] == line["probabilities"][line["target"]]
    loss = -sum(torch.tensor(line["target_probability"]).log() for line in predicted) / 600
    assert metrics["test/loss"] == pytest.approx(float(loss), abs=1e-5)


def test_data_is_told_by_a_fingerprint_of_its_content(run: TinyRun, tmp_path: Path) -> None:
    info = run.read("data_info.json")
    assert info["label_names"] == list(LABELS)
    assert info["sizes"] == {"train": 200, "validation": 90, "test": 600}
    names = [row["label"] for row in rows(200, seed=0)]
    assert info["label_counts"] == [names.count(name) for name in LABELS]
    fingerprints = []
    for change in (False, True):
        words = write_data(tmp_path / "data")
        if change:
            path = tmp_path / "data" / "test.csv"
            path.write_text(path.read_text().replace("rose", "Rose", 1))
        result = trained_here(*words, *QUICK, f"paths.logs={tmp_path}/logs", "callbacks=[]")
        fingerprints.append(json.loads((result.dir / "data_info.json").read_text())["fingerprint"])
    assert fingerprints[0] == info["fingerprint"]
    assert fingerprints[1] != info["fingerprint"]


def test_cost_counts_rows_tokens_steps_and_parameters(run: TinyRun) -> None:
    cost = run.read("cost.json")
    assert cost["train"]["samples"] == 600
    assert cost["train"]["optimizer_steps"] == 39
    tokenizer = TinyModel(family="bert").processor()
    tokens = sum(len(ids) for ids in tokenizer([row["text"] for row in rows(600, seed=2)])["input_ids"])
    assert cost["test"]["samples"] == 600
    assert cost["test"]["tokens"] == tokens
    assert cost["parameters"]["trainable"] == 4195  # 8 * 2 blocks * 32 * 2 * 4 matrices, and 32 * 3 + 3 of the head
    assert cost["seconds"]["total"] == pytest.approx(sum(cost["seconds"].values()) - cost["seconds"]["total"], abs=0.01)
    assert cost["peak_memory_bytes"]["rss"] > 2**26
    assert cost["train"]["samples_per_second"] == pytest.approx(600 / cost["seconds"]["train"], rel=0.01)


def test_best_checkpoint_holds_what_was_trained_and_nothing_pickled(run: TinyRun) -> None:
    checkpoint = torch.load(run.dir / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 13
    assert sum(tensor.numel() for tensor in checkpoint["state_dict"].values()) == 4195
    assert checkpoint["graft"]["base"]["name"] == "tiny_bert"
    names = {path.name for path in (run.dir / "checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt", "scores.json"} <= names
    assert not [name for name in names if name.startswith(".") or name.endswith(".tmp")]


def test_nothing_is_left_but_what_is_said(run: TinyRun) -> None:
    assert {path.name for path in run.dir.iterdir()} == {
        *("config.yaml", "overrides.yaml", "choices.yaml", "env.json", "status.json", "data_info.json"),
        *("metrics.json", "metrics.csv", "cost.json", "parameters.txt"),
        *("checkpoints", "predictions", "model", "wandb"),
    }
    assert {path.name for path in run.cwd.iterdir()} == {"data", "logs"}
    assert [path.name for path in (run.dir / "predictions").iterdir()] == ["test.jsonl"]


# ---- what others can load -------------------------------------------------------------------------------------------


def same_as_predicted(folder: Path, model: Any) -> None:
    """Compare a model with the run's own predictions of the test split."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    lines = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    batch = tokenizer([line["text"] for line in lines], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model.eval()(**batch).logits.softmax(-1)
    names = [model.config.id2label[index] for index in range(found.shape[1])]
    told = torch.tensor([[line["probabilities"][name] for name in names] for line in lines])
    assert found.std(0).min() > 1e-4, "equal predictions for all rows show nothing"
    torch.testing.assert_close(found, told, atol=2e-6, rtol=1e-5)


def checkpoint_of(folder: Path) -> Path:
    """Write a tiny encoder as plain transformers would."""
    spec = TinyModel(family="bert", weights_seed=3)
    model: Any = spec.load(ModelNeeds("AutoModel", None)).model
    model.save_pretrained(folder)
    spec.processor().save_pretrained(folder)
    return folder


def test_adapter_loads_with_plain_peft_and_predicts_the_same(
    tmp_path: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft

    checkpoint_of(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    result = trained_here(*data, *QUICK, "model=custom", "model.name=encoder", "optimizer.lr=1e-2")
    monkeypatch.chdir("/")
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained(
        str(result.dir / "model"), num_labels=3, id2label=dict(enumerate(LABELS))
    )
    same_as_predicted(result.dir, model)


def test_full_model_loads_with_plain_transformers_and_predicts_the_same(
    tmp_path: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.chdir(tmp_path)
    result = trained_here(*data, *QUICK, "peft=full", "optimizer.lr=1e-3")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(result.dir / "model")
    same_as_predicted(result.dir, model)


# ---- names ----------------------------------------------------------------------------------------------------------


def test_names_that_need_quoting_make_a_run_that_can_be_used(tmp_path: Path, data: tuple[str, ...]) -> None:
    name = "a b/\u00fc\"c'=" + "x" * 400
    quoted = name.replace("'", "\\'")
    ended = graft("train", *data, *QUICK, f"run.name='{quoted}'", "run.tags=alone", cwd=tmp_path)
    assert ended.status == 0, ended.err
    (folder,) = (tmp_path / "logs").glob("*/*")
    assert folder.parent.name == "a_b_c_" + "x" * 74
    assert OmegaConf.load(folder / "config.yaml").run.name == name
    assert graft("evaluate", f"run={folder.name[-8:]}", cwd=tmp_path).status == 0


def test_text_in_place_of_the_runs_node_is_explained(tmp_path: Path, data: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"run: 'mine' would name a run to go on with, .* set run\.name\."):
        trained_here(*data, *QUICK, f"paths.logs={tmp_path}/logs", "run=mine")
    assert not (tmp_path / "logs").exists()


# ---- other settings -------------------------------------------------------------------------------------------------


def test_without_checkpoints_the_last_weights_are_tested_and_their_metrics_told(
    tmp_path: Path, data: tuple[str, ...]
) -> None:
    result = trained_here(
        *data, *QUICK, f"paths.logs={tmp_path}/logs", "callbacks=[]", "trainer.max_epochs=2", "optimizer.lr=2e-2"
    )
    held = json.loads((result.dir / "metrics.json").read_text())
    assert len(held["history"]) == 2
    assert held["best"] == {name: value for name, value in held["history"][-1].items() if name != "step"}
    assert result.objective == held["best"]["val/accuracy"]
    assert not (result.dir / "checkpoints").exists()


def test_run_without_validation_or_test_has_no_metrics_and_no_objective(tmp_path: Path, data: tuple[str, ...]) -> None:
    result = trained_here(
        *data, *QUICK, f"paths.logs={tmp_path}/logs", "trainer.limit_val_batches=0", "data.source.test=null"
    )
    assert result.metrics == {}
    assert result.objective is None
    assert status(result.dir)["state"] == "done"
    assert (result.dir / "model" / "adapter_model.safetensors").is_file()


# ---- ends that were not wanted --------------------------------------------------------------------------------------

LONG = (*SETTINGS, "trainer.max_epochs=2000", "callbacks.checkpoint.save_top_k=1")


def begun(tmp_path: Path, *words: str) -> tuple[Command, Path]:
    """Start a run that would train for long, and wait until it has a checkpoint and the next epoch goes on."""
    command = Command(("train", *write_data(tmp_path / "data", sizes=(64, 16, 16)), *LONG, *words), cwd=tmp_path)
    command.wait_for(lambda: "step 12:" in command.err)
    (folder,) = (tmp_path / "logs").glob("*/*")
    return command, folder


def test_interrupt_from_the_keyboard_is_noted_and_leaves_a_run_to_use(tmp_path: Path) -> None:
    command, folder = begun(tmp_path, "logger=[csv]")
    command.send(signal.SIGINT)
    ended = command.end(seconds=30)
    assert ended.status == 130
    assert ended.err.rstrip().endswith("interrupted")
    assert "Traceback" not in ended.err
    held = status(folder)
    assert (held["state"], held["reason"]) == ("interrupted", "interrupted from the keyboard")
    assert held["ended"] is not None
    assert not (folder / "traceback.txt").exists()
    assert json.loads((folder / "cost.json").read_text())["train"]["samples"] > 0
    assert graft("evaluate", f"run={folder}", "which=last", cwd=tmp_path).status == 0


def test_termination_is_noted_as_preemption_and_told_to_wandb(tmp_path: Path) -> None:
    command, folder = begun(tmp_path, "logger=[csv,wandb]")
    command.send(signal.SIGTERM)
    ended = command.end(seconds=60)
    assert ended.status == 143
    assert "Traceback" not in ended.err
    assert (status(folder)["state"], status(folder)["reason"]) == ("preempted", "stopped by SIGTERM")
    (file,) = offline_runs(folder)
    assert WandbFile(file).exit_code == 143


def test_termination_while_the_data_is_read_is_noted_too(tmp_path: Path) -> None:
    (tmp_path / "slow_source.py").write_text(
        "import os, signal, time\n"
        "class Slow:\n"
        "    def __init__(self, splits):\n"
        "        pass\n"
        "    def load(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
    )
    program = [sys.executable, "-m", "graft", "train", "model=tiny_bert", "logger=[]", "callbacks=[]"]
    done = subprocess.run(
        [*program, "data=in_memory", "data.source._target_=slow_source.Slow", "data.source.splits={}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 143, done.stderr
    (folder,) = (tmp_path / "logs").glob("*/*")
    assert (status(folder)["state"], status(folder)["reason"]) == ("preempted", "stopped by SIGTERM")


def test_killed_run_leaves_a_folder_that_can_be_read_and_resumed(tmp_path: Path) -> None:
    command, folder = begun(tmp_path, "logger=[csv]")
    command.send(signal.SIGKILL)
    killed = command.end(seconds=30)
    assert killed.status == -signal.SIGKILL
    held = status(folder)
    assert (held["state"], held["ended"]) == ("running", None)
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] >= 8
    assert table(folder / "metrics.csv")
    assert graft("evaluate", f"run={folder}", cwd=tmp_path).status == 0
    reached = int(re.findall(r"step (\d+):", killed.err)[-1]) // 4
    ended = graft("train", f"run={folder}", "resume=true", f"trainer.max_epochs={reached + 2}", cwd=tmp_path)
    assert ended.status == 0, ended.err
    assert status(folder)["state"] == "done"


FAILING = """
import pytorch_lightning as pl

class Boom(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 2:
            raise RuntimeError("the loss\\nwent wrong")
"""


def test_failure_is_noted_with_its_reason_and_told_to_wandb(tmp_path: Path, data: tuple[str, ...]) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    (tmp_path / "conf" / "callbacks").mkdir(parents=True)
    (tmp_path / "conf" / "callbacks" / "boom.yaml").write_text("boom: {_target_: failing.Boom}\n")
    words = (*data, *QUICK, "callbacks=[checkpoint,predictions,boom]", "logger=[csv,wandb]", "--config-dir", "conf")
    ended = graft("train", *words, cwd=tmp_path)
    assert ended.status == 1
    assert "RuntimeError: the loss" in ended.err
    (folder,) = (tmp_path / "logs").glob("*/*")
    assert (status(folder)["state"], status(folder)["reason"]) == ("failed", "RuntimeError: the loss went wrong")
    assert 'raise RuntimeError("the loss' in (folder / "traceback.txt").read_text()
    (file,) = offline_runs(folder)
    assert WandbFile(file).exit_code == 1


STOPPING = """
import pytorch_lightning as pl

class Stop(pl.Callback):
    def on_train_batch_end(self, *args):
        raise KeyboardInterrupt

class StopWhileWriting(pl.Callback):
    def on_train_batch_end(self, *args):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos")  # torch.save, when the file it writes cannot be ended
"""


@pytest.mark.parametrize("name", ["Stop", "StopWhileWriting"])
def test_later_interrupts_are_heard_after_a_run_was_interrupted(
    name: str, tmp_path: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stopping.py").write_text(STOPPING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stopping", raising=False)
    before = signal.getsignal(signal.SIGINT)
    words = (*data, *QUICK, f"paths.logs={tmp_path}/logs", f"callbacks.cost._target_=stopping.{name}")
    with pytest.raises(KeyboardInterrupt):
        trained_here(*words)
    assert signal.getsignal(signal.SIGINT) is before  # Lightning leaves the process deaf to them
    (folder,) = (tmp_path / "logs").glob("*/*")
    assert status(folder)["state"] == "interrupted"


# ---- going on -------------------------------------------------------------------------------------------------------


def test_resumed_run_goes_on_in_its_folder_with_each_step_once(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    before = copied.read("metrics.json")
    words = (f"run={copied.dir.name[-8:]}", "resume=true", "trainer.max_epochs=4", "callbacks.progress.log_every=9")
    ended = graft("train", *words, f"paths.logs={copied.logs}", cwd=tmp_path)
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[0] == str(copied.dir)
    assert [path.name for path in (tmp_path / "logs").glob("*/*")] == [copied.dir.name]

    history = copied.read("metrics.json")["history"]
    assert history[:3] == before["history"]
    assert [entry["step"] for entry in history] == [13, 26, 39, 52]
    assert copied.read("cost.json")["train"]["samples"] == 800
    lines = table(copied.dir / "metrics.csv")
    assert [int(line["step"]) for line in lines if line["val/loss"]] == [12, 25, 38, 51]
    assert [int(line["step"]) for line in lines if line["train/loss"]] == list(range(4, 50, 5))

    (resumed,) = copied.read("status.json")["resumed"]
    assert resumed["changes"] == ["trainer.max_epochs=4", "callbacks.progress.log_every=9"]
    assert copied.read("status.json")["state"] == "done"
    assert OmegaConf.load(copied.dir / "config.yaml").trainer.max_epochs == 4
    assert yaml.safe_load((copied.dir / "overrides.yaml").read_text()) == list(run.words)

    old, new = offline_runs(copied.dir)
    assert WandbFile(old).run.run_id == WandbFile(new).run.run_id == copied.dir.name
    assert WandbFile(new).run.display_name == WandbFile(old).run.display_name


def test_finished_run_that_is_resumed_unchanged_stays_what_it_is(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    words = ("resume=true", "logger=[csv]", *(word for word in run.words if not word.startswith("run.")))
    ended = graft("train", f"run={copied.dir}", *words, cwd=copied.cwd)
    assert ended.status == 0, ended.err
    assert copied.read("metrics.json") == run.read("metrics.json")
    assert copied.lines("predictions/test.jsonl") == run.lines("predictions/test.jsonl")
    assert copied.read("status.json")["resumed"][0]["changes"] == ["logger=[csv]"]


# ---- W&B ------------------------------------------------------------------------------------------------------------


def test_wandb_file_tells_the_whole_run(run: TinyRun) -> None:
    (path,) = offline_runs(run.dir)
    file = WandbFile(path)
    config = yaml.safe_load((run.dir / "config.yaml").read_text())
    told = {name: value for name, value in file.config.items() if name != "_wandb"}
    assert told == config
    assert told["optimizer"]["lr"] == 5e-3
    assert file.run.run_id == run.dir.name
    assert file.run.display_name.startswith("tiny_bert csv train=train.csv ")
    assert "lr=5e-3" in file.run.display_name
    assert file.run.run_group == group_hash(config)
    assert file.run.job_type == "train"
    assert list(file.run.tags) == ["first", "second"]
    assert file.exit_code == 0


def test_wandb_summary_is_the_best_value_and_holds_the_test(run: TinyRun) -> None:
    (path,) = offline_runs(run.dir)
    file = WandbFile(path)
    metric = file.metrics["val/calibration_error"]
    assert metric.step_metric == "trainer/global_step"
    assert metric.summary.min
    rows_of = {name: [row[name] for row in file.history if name in row] for name in ("val/loss", "test/accuracy")}
    metrics = run.read("metrics.json")
    assert rows_of["val/loss"] == [entry["val/loss"] for entry in metrics["history"]]
    assert rows_of["test/accuracy"] == [metrics["test"]["test/accuracy"]]


def test_wandb_has_the_confusion_matrix_and_the_most_wrong_predictions(run: TinyRun) -> None:
    (path,) = offline_runs(run.dir)
    (row,) = [row for row in WandbFile(path).history if "test/most_wrong" in row]
    files = path.parent / "files"
    worst = json.loads((files / row["test/most_wrong"]["path"]).read_text())
    wrong = [line for line in run.lines("predictions/test.jsonl") if line["label"] != line["target"]]
    wrong.sort(key=lambda line: (line["target_probability"], line["row"]))
    assert len(worst["data"]) == min(100, len(wrong))
    assert [line[worst["columns"].index("row")] for line in worst["data"]] == [line["row"] for line in wrong[:100]]
    counted = json.loads(next(files.glob("media/table/test/confusion_table*.json")).read_text())
    names = counted["columns"]
    cells = {(line[names.index("Actual")], line[names.index("Predicted")]): line[-1] for line in counted["data"]}
    predicted = run.lines("predictions/test.jsonl")
    assert cells == {
        (target, label): sum((line["target"], line["label"]) == (target, label) for line in predicted)
        for target in LABELS
        for label in LABELS
    }


def test_runs_of_a_sweep_are_one_group_a_setting_and_one_wandb_run_each(tmp_path: Path, data: tuple[str, ...]) -> None:
    words = (*data, *QUICK, "logger=[wandb]", "callbacks=[]", "data.source.test=null", "data.limit=16")
    ended = graft("train", "-m", *words, "seed=0,1", "optimizer.lr=1e-3,2e-3", cwd=tmp_path)
    assert ended.status == 0, ended.err
    folders = list((tmp_path / "logs" / "runs").iterdir())
    files = [WandbFile(path) for folder in folders for path in offline_runs(folder)]
    assert len(files) == len({file.run.run_id for file in files}) == 4
    found = {(file.config["seed"], file.config["optimizer"]["lr"]): file.run.run_group for file in files}
    assert found[0, 1e-3] == found[1, 1e-3] != found[0, 2e-3] == found[1, 2e-3]
    names = sorted(file.run.display_name for file in files)
    assert len(set(names)) == 4
    assert "seed=0 lr=0.001" in names[0]
    assert {file.exit_code for file in files} == {0}


def test_wandb_service_that_is_away_costs_a_note_and_no_run(tmp_path: Path, data: tuple[str, ...]) -> None:
    env = {"WANDB_MODE": None, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    begin = time.monotonic()
    ended = graft("train", *data, *QUICK, "logger=[csv,wandb]", cwd=tmp_path, env=env)
    assert ended.status == 0, ended.err
    assert time.monotonic() - begin < 30
    (folder,) = (tmp_path / "logs").glob("*/*")
    (path,) = offline_runs(folder)
    notes = [line for line in ended.err.splitlines() if "wandb" in line]
    assert "http://127.0.0.1:9 does not answer" in notes[0]
    assert notes[1].strip() == f"wandb sync {path.parent}"
    assert len(notes) == 2
    assert WandbFile(path).exit_code == 0
    assert status(folder)["state"] == "done"


# ---- the terminal ---------------------------------------------------------------------------------------------------


def screen(raw: str) -> list[str]:
    """What stands on a terminal after these bytes: lines with the effect of the control codes rich uses."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", raw):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b"):
            count = int(re.sub(r"\D", "", token) or 1)
            if token.endswith("A"):
                row = max(0, row - count)
            elif token.endswith("K"):
                lines[row] = ""
        else:
            old = lines[row].ljust(column)
            lines[row] = old[:column] + token + old[column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines if line.strip()]


def test_terminal_shows_one_bar_an_epoch_and_the_metrics(tmp_path: Path, data: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    env.pop("GRAFT_LOGS", None)
    words = ("train", *data, *SETTINGS, "trainer.max_epochs=2", "logger=[csv]", "callbacks.progress.refresh=0.01")
    process = subprocess.Popen(
        [sys.executable, "-m", "graft", *words], cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0, seen.decode()
    raw = seen.decode("utf-8")
    assert raw.count("\r\x1b[2K") > 4, "the bar was never redrawn"
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l"), "the cursor stays hidden"
    lines = screen(raw)
    for epoch in (1, 2):
        (bar,) = [line for line in lines if line.startswith(f"epoch {epoch}/2 ")]
        speed = r"[\d,]+ rows/s, [\d,]+ tokens/s, loss \d\.\d{4}, 0:0\d left"
        assert re.fullmatch(rf"epoch {epoch}/2 \S+ 3/3 +{speed}", bar)
    assert len([line for line in lines if line.startswith("step ")]) == 2
    assert not [line for line in lines if line.startswith("validation")], "the bar of a validation is not removed"
    assert [line for line in lines if line.startswith("test ")]
    assert [line for line in lines if "accuracy" in line and "\u2502" in line]
    assert len(lines) < 40


# ---- several processes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_share_one_run(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", sizes=(64, 17, 33))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    env.pop("GRAFT_LOGS", None)
    words = (*data, "model=tiny_bert", "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1")
    command = [sys.executable, "-m", "graft", "train", *words, "run.name='a b'"]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "logs").glob("*/*")
    assert ended.stdout.count(" accuracy ") == 1
    lines = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(33))
    right = sum(line["label"] == line["target"] for line in lines) / 33
    metrics = json.loads((folder / "metrics.json").read_text())["test"]
    assert metrics["test/accuracy"] == pytest.approx(right, abs=1e-6)
    assert len(offline_runs(folder)) == 1
    assert status(folder)["state"] == "done"
    assert [path.name for path in (folder / "predictions").iterdir()] == ["test.jsonl"]


@pytest.mark.slow
def test_processes_started_from_outside_are_refused(tmp_path: Path, data: tuple[str, ...]) -> None:
    # Read when Lightning is imported, so the process must be a new one.
    env = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "graft", "train", *data, *QUICK]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 2
    assert "this is process 1 of several that were started from outside" in ended.stderr
    assert "Start graft once, with trainer.devices=<how many>" in ended.stderr
    assert not (tmp_path / "logs").exists()
