"""What the pages show as working examples works: parts from outside the repository train, and Python blocks run."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from graft.callbacks.csv import read_metrics
from graft.callbacks.predictions import read_predictions
from graft.commands.arguments import read_arguments
from graft.commands.evaluate import evaluate
from graft.commands.train import Result, train
from graft.config.catalog import list_options
from graft.config.compose import compose_config, load_config
from graft.errors import CheckpointError, ConfigError, DataError
from graft.runs.load import load_run
from graft.runs.predict import predict_rows
from tests.docs.pages import DOCS, Command, blocks, commands
from tests.docs.workspace import place_files

SMALL = ["model=tiny_bert", "trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1"]
SMALL += ["trainer.limit_test_batches=1", "trainer.log_every_n_steps=1", "logger=[csv]"]


def examples(page: str) -> list[Any]:
    """Return the commands of a page that train with a config folder of the user's."""
    found = [one for one in commands((DOCS / page).read_text(encoding="utf-8")) if "--config-dir" in one.words]
    return [pytest.param(page, one, id=" ".join(one.words[3:])) for one in found if one.words[0] == "train"]


def run(command: Command) -> Result:
    """Train as a command says, on a tiny model and a few batches."""
    arguments = read_arguments(command.words[1:])
    overrides = [*arguments.overrides, *SMALL]
    return train(compose_config("train", overrides, config_dirs=arguments.config_dirs))


def logged(result: Result, name: str) -> list[float]:
    return [float(line[name]) for line in read_metrics(result.dir / "metrics.csv") if line.get(name)]


def recorded(result: Result) -> list[dict[str, Any]]:
    return list(read_predictions(result.dir / "predictions" / "test.jsonl"))


@pytest.mark.parametrize(("page", "command"), [*examples("extending.md"), *examples("objective.md")])
def test_a_part_from_outside_the_repository_trains(
    page: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_files((DOCS / page).read_text(encoding="utf-8"), tmp_path, monkeypatch)
    result = run(command)
    losses = logged(result, "train/loss")
    assert losses
    assert all(map(math.isfinite, losses))
    assert "val/loss" in result.metrics
    if "gradient_norm" in str(command):
        assert min(logged(result, "train/gradient_norm")) > 0
    if "confidence_penalty" in str(command):
        assert 0 < logged(result, "train/confidence_penalty/entropy")[0] <= 1.1  # at most the log of 3 classes
    if "flooding" in str(command):
        assert losses == pytest.approx(logged(result, "train/flooding/plain_loss"))  # the loss is above the level
    if "reviews" in str(command):
        assert load_run(result.dir).info.sizes == {"train": 6, "validation": 2}


def test_every_option_that_the_page_shows_is_listed_with_its_first_comment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = place_files((DOCS / "extending.md").read_text(encoding="utf-8"), tmp_path, monkeypatch)
    own = [one for group in list_options([tmp_path / "my_conf"]).values() for one in group.values() if one.own]
    assert sorted(f"my_conf/{one.group}/{one.name}.yaml" for one in own) == sorted(
        name for name in names if name.startswith("my_conf/")
    )
    assert all(one.summary.endswith(".") for one in own)


def test_code_of_ones_own_is_built_from_a_saved_run_only_when_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_files((DOCS / "extending.md").read_text(encoding="utf-8"), tmp_path, monkeypatch)
    (command,) = [one.values[1] for one in examples("extending.md") if "task=pairwise_ranking" in one.values[1].words]
    result = run(command)
    with pytest.raises(ConfigError, match=r"'my_lab\.ranking\.PairwiseRanking' is not built") as refused:
        evaluate(load_config("evaluate", [f"run={result.dir}"]))
    assert "trust=[my_lab]" in str(refused.value)
    trusted = load_config("evaluate", [f"run={result.dir}", "trust=[my_lab]"])
    assert evaluate(trusted) == {name: value for name, value in result.metrics.items() if name.startswith("test/")}

    loaded = load_run(result.dir, trust=["my_lab"])
    rows = [{"first": record["first"], "second": record["second"]} for record in recorded(result)]
    said = predict_rows(loaded, rows)
    assert said == [{key: record[key] for key in ("better", "margin")} for record in recorded(result)]
    swapped = predict_rows(loaded, [{"first": row["second"], "second": row["first"]} for row in rows])
    assert [one["margin"] for one in swapped] == pytest.approx([-one["margin"] for one in said], abs=1e-6)


def test_the_loss_that_the_page_shows_is_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_files((DOCS / "extending.md").read_text(encoding="utf-8"), tmp_path, monkeypatch)
    poly1 = importlib.import_module("my_lab.losses").poly1
    logits, labels = (
        torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]),
        torch.tensor([0, 0]),
    )  # p of the true class: 1/2, 3/4
    cross_entropies, lacks = (math.log(2.0), math.log(4.0 / 3.0)), (0.5, 0.25)
    weights = torch.tensor([2.0, 7.0])
    for epsilon in (0.0, 1.0, 2.0):
        mean = sum(ce + epsilon * lack for ce, lack in zip(cross_entropies, lacks, strict=True)) / 2
        assert float(poly1(logits, labels, epsilon=epsilon)) == pytest.approx(mean)
        assert float(poly1(logits, labels, epsilon=epsilon, class_weights=weights)) == pytest.approx(2 * mean)


@pytest.fixture(scope="module")
def notebook_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run the Python blocks of the notebook page one after the other; returns the folder and the names they made."""
    folder = tmp_path_factory.mktemp("notebook")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("GRAFT_LOGS", raising=False)
        for block in blocks((DOCS / "notebook.md").read_text(encoding="utf-8")):
            if block.language == "python":
                exec(compile("\n" * block.line + block.text, "notebook.md", "exec"), names)
    return folder, names


def test_the_python_blocks_of_the_notebook_page_give_what_they_say(notebook_page: tuple[Path, dict[str, Any]]) -> None:
    folder, names = notebook_page
    assert names["result"].metrics["test/accuracy"] > 0
    steps = [step for step, _ in names["losses"]]
    assert steps == list(range(64 // names["composed"].cfg.data.batch_size))
    assert names["loaded"].info.label_names == ("negative", "neutral", "positive")
    assert len((folder / "predicted.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert OmegaConf.is_config(names["cfg"])
    assert 0 < len(names["worst"]) <= 10
    assert names["cost"]["train"]["samples"] == 64


def test_a_run_from_python_is_named_and_recorded_as_one_of_the_command_line(
    notebook_page: tuple[Path, dict[str, Any]],
) -> None:
    folder = notebook_page[1]["result"].dir
    overrides = OmegaConf.to_container(OmegaConf.load(folder / "overrides.yaml"))
    assert overrides == list(notebook_page[1]["composed"].overrides)
    assert "model=tiny_bert" in overrides
    assert OmegaConf.load(folder / "choices.yaml").model == "tiny_bert"


def test_a_run_is_loaded_by_its_id_from_the_folder_that_runs_are_written_to(
    notebook_page: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = notebook_page
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GRAFT_LOGS", raising=False)
    assert load_run(names["result"].dir.name).dir == names["result"].dir
    monkeypatch.setenv("GRAFT_LOGS", str(folder / "elsewhere"))
    with pytest.raises(CheckpointError, match="elsewhere"):
        load_run(names["result"].dir.name)


def test_rows_are_predicted_in_their_order_as_the_run_itself_predicted_them(
    notebook_page: tuple[Path, dict[str, Any]],
) -> None:
    _, names = notebook_page
    records = recorded(names["result"])
    said = predict_rows(names["loaded"], [{"text": record["text"]} for record in records])
    assert said == [{key: record[key] for key in ("label", "probability", "probabilities")} for record in records]
    assert predict_rows(names["loaded"], []) == []


@pytest.mark.parametrize(("row", "said"), [({"txt": "good"}, "no column 'text'"), ({"text": " "}, "empty")])
def test_a_row_that_cannot_be_predicted_is_refused(
    row: dict[str, str], said: str, notebook_page: tuple[Path, dict[str, Any]]
) -> None:
    with pytest.raises(DataError, match=said):
        predict_rows(notebook_page[1]["loaded"], [row])
