from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from graft.config.compose import compose_config
from graft.data.info import DataInfo
from graft.errors import ConfigError, DataError
from graft.runs.resume import TakenUp, check_same_data, take_up
from tests.commands.tiny_run import TinyRun, untouched


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyRun]:
    with untouched(
        tmp_path_factory.getbasetemp(), "taking a run up wrote into its folder before all was checked"
    ) as made:
        yield made


def taken(run: TinyRun, *overrides: str) -> TakenUp:
    asked = compose_config("train", [f"run={run.dir.name[-8:]}", "resume=true", f"paths.logs='{run.logs}'", *overrides])
    return take_up(asked.cfg, asked.overrides)


def test_run_goes_on_as_it_was_from_its_last_checkpoint(run: TinyRun) -> None:
    found = taken(run)
    assert found.dir == run.dir
    assert found.checkpoint == run.dir / "checkpoints" / "last.ckpt"
    assert found.changes == []
    assert list(found.overrides) == list(run.words)
    assert found.choices["model"] == "tiny_bert"
    assert found.cfg == OmegaConf.load(run.dir / "config.yaml")


def test_command_line_of_the_start_may_be_repeated(run: TinyRun) -> None:
    again = [word for word in run.words if not word.startswith("run.")]
    assert taken(run, *again).changes == []
    assert taken(run, *again, "trainer.max_epochs=5").changes == ["trainer.max_epochs=5"]


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("trainer.max_epochs=7", "trainer.max_epochs", 7),
        ("trainer.max_steps=99", "trainer.max_steps", 99),
        ("++trainer.max_time='00:01:00:00'", "trainer.max_time", "00:01:00:00"),
        ("data.num_workers=1", "data.num_workers", 1),
        ("offline=true", "offline", True),
        ("callbacks.progress.log_every=3", "callbacks.progress.log_every", 3),
        ("logger.wandb.offline=true", "logger.wandb.offline", True),
    ],
)
def test_how_long_and_where_may_change(change: str, key: str, value: object, run: TinyRun) -> None:
    found = taken(run, change)
    assert OmegaConf.select(found.cfg, key) == value
    assert found.changes == [change.lstrip("+")]


def test_group_that_is_chosen_anew_replaces_the_old_one(run: TinyRun) -> None:
    found = taken(run, "logger=[csv]", "callbacks=[checkpoint,progress]")
    assert list(found.cfg.logger) == ["csv"]
    assert list(found.cfg.callbacks) == ["checkpoint", "progress"]
    assert found.changes == ["logger=[csv]", "callbacks=[checkpoint,progress]"]


@pytest.mark.parametrize(
    ("change", "has"),
    [
        ("seed=1", "seed=0"),
        ("task.monitor=accuracy", "task.monitor=calibration_error"),
        ("trainer.precision=bf16-mixed", "trainer.precision=None"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches=None"),
        ("task/loss=focal", "its own task.loss"),
        ("ckpt_path=x.ckpt", "ckpt_path=None"),
    ],
)
def test_what_changes_the_result_is_refused_with_what_the_run_has(change: str, has: str, run: TinyRun) -> None:
    with pytest.raises(ConfigError) as raised:
        taken(run, change)
    said = f"{change}: this would make it another experiment; the run has {has}. Leave it out, or start a new run."
    assert str(raised.value) == said


@pytest.mark.parametrize("missing", ["run=null", "run.name=x"])
def test_run_is_asked_for(missing: str) -> None:
    asked = compose_config("train", [missing, "resume=true"])
    with pytest.raises(ConfigError, match=r"say which run, as in graft train run=<folder or id> resume=true\."):
        take_up(asked.cfg, asked.overrides)


def test_folder_called_by_a_number_is_found(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    copied.dir.rename(tmp_path / "logs" / "2024")
    asked = compose_config("train", ["run=2024", "resume=true", f"paths.logs={tmp_path}/logs"])
    assert take_up(asked.cfg, asked.overrides).dir == tmp_path / "logs" / "2024"


def test_data_must_be_what_the_run_began_with(run: TinyRun) -> None:
    info = DataInfo.from_json((run.dir / "data_info.json").read_text())
    check_same_data(run.dir, info)
    held = {**json.loads(info.to_json()), "fingerprint": "0" * 64}
    with pytest.raises(DataError, match=rf"fingerprint {'0' * 12}, not {info.fingerprint[:12]}\)"):
        check_same_data(run.dir, DataInfo.from_json(json.dumps(held)))
