from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from graft.commands.evaluate import evaluate
from graft.config.compose import load_config
from graft.errors import CheckpointError, ConfigError, DataError
from tests.commands.shell import graft
from tests.commands.tiny_run import TinyRun, one_thread, rows, trained, write_csv


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return trained(tmp_path_factory.getbasetemp())


@pytest.fixture
def run(original: TinyRun, tmp_path: Path) -> TinyRun:
    """A copy, since evaluating writes into a run's folder."""
    return original.copy(tmp_path)


OTHER = ("data=csv", "data.eval_batch_size=8")  # in the batches of the run, so that sums are equal to the last bit


def evaluated(run: TinyRun | Path, *overrides: str) -> dict[str, float]:
    folder = run.dir if isinstance(run, TinyRun) else run
    return evaluate(load_config("evaluate", [f"run='{folder}'", *overrides]))


def reported(run: TinyRun, split: str) -> dict[str, float]:
    """What training reported, under the names that evaluation uses."""
    part, prefix = ("test", "test") if split == "test" else ("best", "val")
    return {name.replace(prefix, split, 1): value for name, value in run.read("metrics.json")[part].items()}


@pytest.mark.parametrize("split", ["test", "validation"])
def test_moved_run_gives_exactly_the_metrics_of_its_training(split: str, run: TinyRun, tmp_path: Path) -> None:
    moved = tmp_path / "another place" / "renamed"
    shutil.move(run.dir, moved)
    (tmp_path / "elsewhere").mkdir()
    # Seeds in the environment, a process of its own, another current folder: none of it may matter.
    env = {"PL_GLOBAL_SEED": "4711", "PYTHONHASHSEED": "5", "GRAFT_LOGS": str(tmp_path / "none")}
    ended = graft("evaluate", f"run='{moved}'", f"split={split}", cwd=tmp_path / "elsewhere", env=env)
    assert ended.status == 0, ended.err
    (written,) = (moved / "evaluations").iterdir()
    held = json.loads(written.read_text())
    told = TinyRun(moved, tmp_path, run.words, run.out, run.err)
    assert held["metrics"] == reported(told, split)
    assert held["data"] == told.read("data_info.json")["fingerprint"]
    assert held["checkpoint"] == "best.ckpt"
    value = f"{reported(told, split)[f'{split}/accuracy']:.4f}"
    assert any("accuracy" in line and value in line for line in ended.out.splitlines())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_last_checkpoint_has_the_metrics_of_the_last_validation(run: TinyRun) -> None:
    last = run.read("metrics.json")["history"][-1]
    found = evaluated(run, "which=last", "split=validation")
    assert found == {name.replace("val/", "validation/"): value for name, value in last.items() if name != "step"}
    assert found["validation/loss"] != reported(run, "validation")["validation/loss"]
    path = run.dir / "checkpoints" / "last.ckpt"
    assert evaluated(run, f"which='{path}'", "split=validation") == found


def test_training_rows_can_be_evaluated_too(run: TinyRun) -> None:
    found = evaluated(run, "split=train")
    assert set(found) == {name.replace("test/", "train/") for name in reported(run, "test")}
    assert found["train/loss"] != reported(run, "test")["test/loss"]


def test_more_evaluations_lie_side_by_side(run: TinyRun, tmp_path: Path) -> None:
    for seed in (7, 8):
        write_csv(tmp_path / f"{seed}.csv", rows(20, seed=seed))
        evaluated(run, "data=csv", f"data.source.test={tmp_path}/{seed}.csv")
    evaluated(run)
    held = [json.loads(path.read_text()) for path in (run.dir / "evaluations").iterdir()]
    assert len(held) == 3
    assert len({one["data"] for one in held}) == 3


def test_folder_that_cannot_be_written_to_costs_only_the_file(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    (run.dir / "evaluations").write_text("a file where the folder would be")
    assert evaluated(run) == reported(run, "test")
    assert "the metrics are not written to the run's folder" in capsys.readouterr().err


# ---- other data -----------------------------------------------------------------------------------------------------


def test_labels_in_another_order_mean_the_same(run: TinyRun, original: TinyRun) -> None:
    own = reported(run, "test")
    words = (*OTHER, f"data.source.test='{original.test_file}'")
    assert evaluated(run, *words) == own
    assert evaluated(run, *words, "data.label_names=[so-so,bad,good]") == own


def test_numbers_count_into_the_names_that_the_data_gives(run: TinyRun, tmp_path: Path) -> None:
    names = ["so-so", "bad", "good"]
    numbered = [{**row, "label": names.index(row["label"])} for row in rows(600, seed=2)]
    path = write_csv(tmp_path / "numbers.csv", numbered)
    words = (*OTHER, f"data.source.test={path}", f"data.label_names=[{','.join(names)}]")
    assert evaluated(run, *words) == reported(run, "test")


def test_data_with_some_of_the_labels_is_scored_by_the_models_outputs(run: TinyRun, tmp_path: Path) -> None:
    some = [row for row in rows(300, seed=2) if row["label"] != "bad"]
    path = write_csv(tmp_path / "some.csv", some)
    found = evaluated(run, "data=csv", f"data.source.test={path}")
    predicted = run.lines("predictions/test.jsonl")[:300]
    right = [line["label"] == line["target"] for line in predicted if line["target"] != "bad"]
    assert found["test/accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-6)


def test_other_columns_are_mapped(run: TinyRun, tmp_path: Path) -> None:
    renamed = [{"sentence": row["text"], "mood": row["label"]} for row in rows(600, seed=2)]
    path = write_csv(tmp_path / "renamed.csv", renamed)
    words = (*OTHER, f"data.source.test={path}", "data.columns.text=sentence", "data.columns.label=mood")
    assert evaluated(run, *words) == reported(run, "test")


def test_file_of_the_runs_own_data_is_looked_for_where_the_command_is_run(
    run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    write_csv(tmp_path / "here" / "new.csv", rows(600, seed=2))
    monkeypatch.chdir(tmp_path / "here")
    assert evaluated(run, "data.source.test=new.csv") == reported(run, "test")
    assert evaluated(run, "data.source.test=[new.csv]") == reported(run, "test")


def test_data_folder_is_this_commands_and_not_the_runs(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "sets" / "ours").mkdir(parents=True)
    write_csv(tmp_path / "sets" / "ours" / "test.csv", rows(600, seed=2))
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "ours.yaml").write_text(
        "defaults: [csv, _self_]\nname: ours\neval_batch_size: 8\n"
        "source: {directory: '${paths.data}/ours', train: null, test: test.csv}\n"
    )
    words = ("data=ours", f"paths.data={tmp_path}/sets", "--config-dir", str(tmp_path / "conf"))
    ended = graft("evaluate", f"run='{run.dir}'", *words, cwd=tmp_path)
    assert ended.status == 0, ended.err
    (written,) = (run.dir / "evaluations").glob("ours-test-best-*.json")
    assert json.loads(written.read_text())["metrics"] == reported(run, "test")


# ---- a trainer that was limited, or elsewhere -----------------------------------------------------------------------


def edit(run: TinyRun, **trainer: Any) -> None:
    config = OmegaConf.load(run.dir / "config.yaml")
    for name, value in trainer.items():
        OmegaConf.update(config, f"trainer.{name}", value, force_add=True)
    OmegaConf.save(config, run.dir / "config.yaml")


def test_limits_of_training_hold_for_each_split(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run, limit_val_batches=2, limit_test_batches=0)
    whole = reported(run, "validation")
    part = evaluated(run, "split=validation")
    assert part["validation/loss"] != whole["validation/loss"]
    assert "the run's trainer has a limit: 2 batches of the split are used" in capsys.readouterr().err
    assert evaluated(run, "split=test") == reported(run, "test")  # training left it out, so all of it


def test_run_of_several_devices_is_evaluated_on_one(run: TinyRun) -> None:
    edit(run, devices=4, num_nodes=2, strategy="ddp")
    assert evaluated(run) == reported(run, "test")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_run_of_a_gpu_is_evaluated_where_there_is_none(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run, accelerator="gpu")
    assert evaluated(run) == reported(run, "test")
    assert "there is no GPU here, as the run had; the CPU is used" in capsys.readouterr().err


# ---- what cannot work -----------------------------------------------------------------------------------------------


def test_missing_split_names_those_there_are(run: TinyRun) -> None:
    with pytest.raises(DataError, match=r"no 'validatoin' split\. Did you mean 'validation'\? It has: train, val"):
        evaluated(run, "split=validatoin")


def test_label_that_the_model_has_no_output_for_is_refused(run: TinyRun, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [{"text": "a", "label": "bad"}, {"text": "b", "label": "goood"}])
    with pytest.raises(DataError) as raised:
        evaluated(run, "data=csv", f"data.source.test={path}")
    for part in ("x.csv, row 2", "'goood'", "Did you mean 'good'?", "bad, good, so-so"):
        assert part in str(raised.value)


def test_misspelt_data_setting_is_refused_with_the_nearest(run: TinyRun) -> None:
    with pytest.raises(ConfigError, match=r"data\.eval_batch_sise: .*Did you mean 'eval_batch_size'\?"):
        evaluated(run, "data.eval_batch_sise=3")


def test_other_data_without_any_file_is_refused(run: TinyRun) -> None:
    with pytest.raises(ConfigError, match="no file is given"):
        evaluated(run, "data=csv")


def test_run_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run: a value is needed here\. Set run="):
        evaluate(load_config("evaluate", [f"paths.logs={tmp_path}"]))


def test_missing_checkpoint_is_refused_by_name(run: TinyRun) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoints/bset: there is no such checkpoint"):
        evaluated(run, "which=bset")
