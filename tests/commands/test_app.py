"""A verb as a Hydra application: checked first, errors in plain words, sweeps that go on, the user's folders."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from graft.commands.app import run_command
from graft.config.process import command_line
from graft.errors import DataError
from tests.commands.shell import graft

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Put back what Hydra does to the root logger in a sweep."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``graft train`` in this process with another function for the work; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.delenv("GRAFT_LOGS", raising=False)

    def run(*words: str, work: Callable[[DictConfig], Any] = lambda cfg: None) -> int:
        with command_line(["graft", "train", *words]):
            try:
                run_command("train", work)
            except SystemExit as error:
                return int(error.code or 0)
        return 0

    return run


class Seen:
    """Work that keeps what it was given.

    Args:
        fails: Raises what this returns, if anything.
    """

    def __init__(self, fails: Callable[[DictConfig], Exception | None] = lambda cfg: None) -> None:
        self.cfgs: list[DictConfig] = []
        self.folders: list[Path] = []
        self.__name__ = "work"
        self._fails = fails

    def __call__(self, cfg: DictConfig) -> float:
        self.cfgs.append(cfg)
        self.folders.append(Path.cwd())
        if (error := self._fails(cfg)) is not None:
            raise error
        return 0.5

    def of(self, path: str) -> list[Any]:
        """The values of a key, a job each."""
        return [OmegaConf.select(cfg, path) for cfg in self.cfgs]


def test_a_run_gets_what_was_chosen_and_leaves_nothing_of_hydras_behind(run: Run, tmp_path: Path) -> None:
    seen = Seen()
    assert run("peft=full", "optimizer.lr=0.25", "trainer.deterministic=true", "run={name: a}", work=seen) == 0
    assert seen.of("peft._target_") == ["graft.peft.freeze.Full"]
    assert seen.of("optimizer.lr") == [0.25]
    assert seen.of("trainer.deterministic") == [True]
    assert seen.of("run") == [{"name": "a", "tags": []}]
    assert "hydra" not in seen.cfgs[0]
    assert seen.folders == [tmp_path]
    assert list(tmp_path.iterdir()) == []
    assert not GlobalHydra.instance().is_initialized()


def test_a_run_to_go_on_with_is_named_by_a_path(run: Run) -> None:
    seen = Seen()
    assert run("run=logs/runs/2026-01-31_12-00-00_1a2b3c4d", "resume=true", work=seen) == 0
    assert (seen.of("run"), seen.of("resume")) == (["logs/runs/2026-01-31_12-00-00_1a2b3c4d"], [True])


def test_the_choices_are_known_to_the_work(run: Run) -> None:
    known: list[Any] = []
    run("peft=full", "optimizer.lr=1", work=lambda cfg: known.append(HydraConfig.get()))
    assert known[0].runtime.choices.peft == "full"
    assert list(known[0].overrides.task) == ["peft=full", "++optimizer.lr=1"]


def test_every_mistake_is_reported_before_anything_runs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen()
    assert run("peft=lroa", "--nope", "data=csv", "seed=a", work=seen) == 2
    assert seen.cfgs == []
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ConfigError: 4 problems in the configuration:\n\n  --nope: there is no such flag.")
    for part in ("peft has no option 'lroa'", "data.source.train: a value is needed here", "seed=a: 'a' is no whole"):
        assert part in err
    assert "Traceback" not in err


def test_a_problem_of_the_users_found_in_the_work_is_only_its_message(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("peft.config.r=2", work=Seen(lambda cfg: DataError("a.csv: it is empty."))) == 2
    assert capsys.readouterr().err == "DataError: a.csv: it is empty.\n"


def test_a_bug_shows_its_traceback_without_the_frames_of_hydra(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work=Seen(lambda cfg: ZeroDivisionError("a bug"))) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("ZeroDivisionError: a bug\n")
    assert "/hydra/" not in err
    assert err.count("Traceback") == 1


def test_debugging_shows_the_traceback_of_any_problem(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("debug=fast", work=Seen(lambda cfg: DataError("x"))) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("DataError: x\n")


def test_hydras_variable_shows_the_traceback_of_any_problem(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert run("peft=lroa") == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "Did you mean 'lora'?" in err


def test_the_work_sees_the_users_words_and_environment(run: Run) -> None:
    seen: list[Any] = []
    run("peft=full", "optimizer.lr=1", work=lambda cfg: seen.append((sys.argv, os.environ.get("HYDRA_FULL_ERROR"))))
    assert seen == [(["graft", "train", "peft=full", "optimizer.lr=1"], None)]


def test_an_interrupt_ends_with_its_status(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def work(cfg: DictConfig) -> None:
        raise KeyboardInterrupt

    assert run(work=work) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_sweep_is_every_combination_in_the_folder_it_was_started_from(run: Run, tmp_path: Path) -> None:
    seen = Seen()
    assert run("-m", "peft=head_only,lora", "seed=0,1", "optimizer.lr=0.5", work=seen) == 0
    kinds = [target.rpartition(".")[2] for target in seen.of("peft._target_")]
    assert kinds == ["HeadOnly", "HeadOnly", "PeftMethod", "PeftMethod"]
    assert seen.of("seed") == [0, 1, 0, 1]
    assert seen.folders == [tmp_path] * 4


def test_a_relative_path_means_the_same_in_a_sweep(run: Run, tmp_path: Path) -> None:
    seen = Seen()
    run("-m", "seed=0,1", "data=csv", "data.source.train=rows.csv", work=seen)
    assert seen.of("data.source.train") == ["rows.csv"] * 2
    assert seen.of("paths.logs") == [str(tmp_path / "logs")] * 2
    assert seen.folders == [tmp_path] * 2


@pytest.mark.parametrize("words", [["-m", "sweep=seeds"], ["sweep=seeds"]])
def test_a_sweep_may_be_an_option(run: Run, words: list[str]) -> None:
    seen = Seen()
    assert run(*words, work=seen) == 0
    assert seen.of("seed") == [0, 1, 2, 3, 4]


def test_a_failing_job_is_named_and_the_others_go_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen(lambda cfg: DataError("no rows") if cfg.seed == 1 else None)
    assert run("-m", "seed=0,1,2", "peft.config.r=4", work=seen) == 2
    assert seen.of("seed") == [0, 1, 2]
    err = capsys.readouterr().err
    assert "\njob 1: seed=1 peft.config.r=4\nDataError: no rows\n" in err
    assert err.endswith("\n1 of the sweep's 3 jobs failed:\n  job 1: seed=1 peft.config.r=4\n")
    assert "Traceback" not in err
    assert "Error executing job" not in err


def test_jobs_in_batches_go_on_after_a_failure_too(run: Run) -> None:
    seen = Seen(lambda cfg: DataError("no rows") if cfg.seed == 0 else None)
    assert run("-m", "seed=0,1,2", "hydra.sweeper.max_batch_size=1", work=seen) == 2
    assert seen.of("seed") == [0, 1, 2]


def test_a_bug_in_one_job_decides_the_status_and_shows_its_traceback(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [DataError("no rows"), ZeroDivisionError("a bug")]
    assert run("-m", "seed=0,1", work=Seen(lambda cfg: errors[cfg.seed])) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in err
    assert "2 of the sweep's 2 jobs failed" in err


def test_a_mistake_in_one_point_stops_the_sweep_before_its_first_job(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()
    assert run("-m", "peft=lora,lroa", work=seen) == 2
    assert seen.cfgs == []
    assert "Did you mean 'lora'?" in capsys.readouterr().err


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


_SGD = "# Mine.\n_target_: torch.optim.SGD\n_partial_: true\nlr: "


def test_the_users_folders_come_before_ours_both_at_once_and_in_a_sweep(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "given/optimizer/sgd.yaml", f"{_SGD} 1\n")
    write(tmp_path / "env/optimizer/sgd.yaml", f"{_SGD} 2\n")
    write(tmp_path / "env/optimizer/mine.yaml", f"{_SGD} 3\n")
    monkeypatch.setenv("GRAFT_CONF_DIR", str(tmp_path / "env"))
    seen = Seen()
    assert run("--config-dir", "given", "-m", "optimizer=sgd,mine,lion", work=seen) == 0
    assert seen.of("optimizer.lr")[:2] == [1, 3]
    assert seen.of("optimizer._target_")[2] == "graft.optim.lion.Lion"
    assert seen.of("trainer._target_") == ["pytorch_lightning.Trainer"] * 3


def test_a_primary_config_of_the_users_can_be_started_from(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine/nightly.yaml", "defaults: [train, override /peft: full, _self_]\nseed: 11\n")
    seen = Seen()
    assert run("--config-dir", "mine", "--config-name", "nightly", "optimizer=lion", work=seen) == 0
    assert seen.of("seed") == [11]
    assert seen.of("peft._target_") == ["graft.peft.freeze.Full"]
    assert seen.of("optimizer._target_") == ["graft.optim.lion.Lion"]


def test_a_primary_config_that_there_is_not_is_answered(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config-name", "nightly") == 2
    assert capsys.readouterr().err.startswith("ConfigError: there is no primary config nightly.yaml in ")


def test_a_folder_that_is_not_there_is_answered_with_how_to_start_one(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config-dir", "nope") == 2
    assert capsys.readouterr().err == (
        f"ConfigError: --config-dir: there is no folder '{tmp_path / 'nope'}'. "
        f"Start one with: graft configs copy peft/lora to={tmp_path / 'nope'}\n"
    )


def test_a_configuration_is_printed_with_values_missing_and_the_work_is_not_done(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()
    assert run("data=csv", "peft.config.lora_dropout=0.1", "--cfg", "job", work=seen) == 0
    assert seen.cfgs == []
    shown = OmegaConf.create(capsys.readouterr().out)
    assert isinstance(shown, DictConfig)
    assert shown.peft.config.lora_dropout == 0.1
    assert OmegaConf.is_missing(shown.data.source, "train")


def test_a_real_sweep_trains_what_can_be_trained_and_says_what_could_not(tmp_path: Path) -> None:
    ended = graft(
        *("train", "-m", "peft=head_only,lora", "seed=0,1", "peft.config.r=2"),
        *("model=tiny_bert", "trainer=smoke", "logger=[csv]", "data.limit=64"),
        cwd=tmp_path,
        env={"HYDRA_FULL_ERROR": None, "GRAFT_LOGS": None},
    )
    assert ended.status == 2
    assert "peft.config: graft.peft.freeze.HeadOnly takes no 'config'." in ended.err
    assert "2 of the sweep's 4 jobs failed:\n  job 0: peft=head_only seed=0" in ended.err
    assert "Warning" not in ended.err.replace("UserWarning: The given NumPy array", "")
    assert "Traceback" not in ended.err
    done = (tmp_path / "logs/runs").glob("*/config.yaml")
    assert sorted(OmegaConf.load(path).seed for path in done) == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}
