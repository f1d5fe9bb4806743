"""One call from overrides to a configuration: repeatable, with the user's folders before ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from graft import paths
from graft.config.check import check_config
from graft.config.compose import compose_config, load_config, pin_paths
from graft.config.process import command_line
from graft.config.versions import version_base
from graft.errors import ConfigError

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below the test's folder."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    return write


def test_a_configuration_has_what_was_chosen_and_changed_and_no_node_of_hydras() -> None:
    cfg = load_config("train", ["peft=lora", "peft.config.r=4", "optimizer.lr=3e-4", "seed=7"])
    assert cfg.peft.config.r == 4
    assert cfg.optimizer.lr == 3e-4
    assert cfg.seed == 7
    assert "hydra" not in cfg


def test_it_can_be_called_again_and_again_and_forgets_the_call_before() -> None:
    first = load_config("train", ["peft=full", "seed=3"])
    second = load_config()
    assert first.peft["_target_"].endswith(".Full")
    assert second.peft["_target_"].endswith(".PeftMethod")
    assert second.seed == 0
    assert not GlobalHydra.instance().is_initialized()


def test_it_works_after_an_error_too() -> None:
    with pytest.raises(ConfigError):
        load_config("train", ["peft=lroa"])
    assert load_config("train", ["peft=norms"]).peft["_target_"].endswith(".Norms")
    assert not GlobalHydra.instance().is_initialized()


def test_it_works_inside_a_running_hydra_application_which_stays_as_it_was(write: Write, tmp_path: Path) -> None:
    write(
        "app.yaml",
        "defaults: [_self_, override hydra/job_logging: none]\n"
        "x: 1\nhydra: {run: {dir: .}, output_subdir: null, job: {chdir: false}}\n",
    )
    seen: dict[str, Any] = {}

    @hydra.main(config_path=str(tmp_path), config_name="app", **version_base())
    def application(cfg: DictConfig) -> None:
        before = HydraConfig.get().job.name
        seen["peft"] = [load_config("train", [f"peft={name}"]).peft["_target_"] for name in ("full", "lora")]
        seen["same"] = HydraConfig.get().job.name == before
        seen["own"] = hydra.compose("app", overrides=["x=2"]).x
        seen["cfg"] = OmegaConf.to_container(cfg)

    with command_line(["app", "x=5"]):
        application()
    assert [one.rpartition(".")[2] for one in seen["peft"]] == ["Full", "PeftMethod"]
    assert seen["same"]
    assert seen["own"] == 2
    assert seen["cfg"] == {"x": 5}


def test_it_needs_no_running_job_and_no_particular_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAFT_LOGS", raising=False)
    resolved = OmegaConf.to_container(load_config(), resolve=True)
    assert isinstance(resolved, dict)
    assert resolved["paths"]["logs"] == str(tmp_path / "logs")
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_process_is_changed() -> None:
    before = (list(sys.argv), dict(os.environ), Path.cwd())
    load_config("train", ["peft=full"])
    assert (list(sys.argv), dict(os.environ), Path.cwd()) == before


def test_choices_and_overrides_are_recorded_as_they_are_meant() -> None:
    composed = compose_config("train", ["peft=full", "optimizer.lr=1e-3", "task/loss=focal"])
    assert composed.choices["peft"] == "full"
    assert composed.choices["task/loss"] == "focal"
    assert composed.choices["optimizer"] == "adamw"
    assert composed.overrides == ("peft=full", "optimizer.lr=1e-3", "task/loss=focal")
    assert composed.sweep == {}


def test_what_a_sweep_goes_through_is_told() -> None:
    assert compose_config("train", ["sweep=seeds"]).sweep == {"seed": "0,1,2,3,4"}


def test_a_file_of_the_users_shadows_ours_and_everything_else_stays(write: Write, tmp_path: Path) -> None:
    write("peft/lora.yaml", "# Mine.\n_target_: graft.peft.freeze.Full\n")
    write("optimizer/mine.yaml", "# Mine.\n_target_: torch.optim.SGD\n_partial_: true\nlr: 0.5\n")
    cfg = load_config("train", ["model=tiny_bert", "optimizer=mine"], config_dir=tmp_path)
    assert cfg.peft == {"_target_": "graft.peft.freeze.Full"}
    assert cfg.optimizer.lr == 0.5
    assert cfg.trainer == load_config().trainer
    check_config(cfg)
    assert load_config().peft["_target_"].endswith(".PeftMethod")


def test_a_file_of_the_users_may_build_on_one_of_ours(write: Write, tmp_path: Path) -> None:
    write("trainer/long.yaml", "# Mine.\ndefaults: [default, _self_]\nmax_epochs: 30\n")
    write("data/reviews.yaml", "# Mine.\ndefaults: [csv, _self_]\nsource: {train: reviews.csv}\n")
    cfg = load_config("train", ["trainer=long", "data=reviews", "data/split=holdout"], config_dir=tmp_path)
    assert (cfg.trainer.max_epochs, cfg.trainer.gradient_clip_val) == (30, 1.0)
    assert cfg.data.source.train == "reviews.csv"
    assert cfg.data.split["_target_"].endswith(".holdout")


def test_our_file_takes_the_users_version_of_what_it_builds_on(write: Write, tmp_path: Path) -> None:
    write("trainer/default.yaml", "# Mine.\n_target_: pytorch_lightning.Trainer\nmax_epochs: 7\n")
    cfg = load_config("train", ["trainer=cpu"], config_dir=tmp_path)
    assert cfg.trainer == {"_target_": "pytorch_lightning.Trainer", "max_epochs": 7, "accelerator": "cpu"}


def test_the_folder_given_wins_over_that_of_the_environment_and_both_over_ours(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sgd = "# Mine.\n_target_: torch.optim.SGD\n_partial_: true\nlr: "
    write("given/optimizer/sgd.yaml", f"{sgd} 1\n")
    write("env/optimizer/sgd.yaml", f"{sgd} 2\n")
    write("env/optimizer/adamw.yaml", f"{sgd} 3\n")
    monkeypatch.setenv("GRAFT_CONF_DIR", str(tmp_path / "env"))
    given = tmp_path / "given"
    assert load_config("train", ["optimizer=sgd"], config_dir=given).optimizer.lr == 1
    assert load_config("train", ["optimizer=sgd"]).optimizer.lr == 2
    assert load_config("train", [], config_dir=given).optimizer.lr == 3
    assert load_config("train", ["optimizer=lion"], config_dir=given).optimizer["_target_"] == "graft.optim.lion.Lion"


def test_an_experiment_of_the_users_is_a_whole_setting_beaten_by_the_command_line(write: Write, tmp_path: Path) -> None:
    write(
        "experiment/mine.yaml",
        "# @package _global_\n# Mine.\ndefaults:\n- override /peft: full\n- override /logger: [csv]\n"
        "seed: 5\noptimizer: {lr: 0.25}\n",
    )
    cfg = load_config("train", ["experiment=mine", "optimizer.lr=0.5"], config_dir=tmp_path)
    assert cfg.peft["_target_"].endswith(".Full")
    assert list(cfg.logger) == ["csv"]
    assert (cfg.seed, cfg.optimizer.lr) == (5, 0.5)


def test_a_misspelt_key_in_an_experiment_is_found_by_the_check(write: Write, tmp_path: Path) -> None:
    write("experiment/mine.yaml", "# @package _global_\n# Mine.\ntrainr: {max_epochs: 1}\n")
    with pytest.raises(
        ConfigError, match=r"trainr: a configuration has no such top-level key\. Did you mean 'trainer'"
    ):
        check_config(load_config("train", ["model=tiny_bert", "experiment=mine"], config_dir=tmp_path))


def test_a_folder_that_is_not_there_is_answered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config-dir: there is no folder"):
        load_config("train", [], config_dir=tmp_path / "nope")


def test_a_broken_file_of_the_users_is_answered_with_its_place(write: Write, tmp_path: Path) -> None:
    write("optimizer/mine.yaml", "# Mine.\nlr: [1, 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config("train", ["optimizer=mine"], config_dir=tmp_path)
    assert "a config file is no valid YAML" in str(caught.value)
    assert str(tmp_path / "optimizer/mine.yaml") in str(caught.value)


def test_folders_become_absolute_in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model").mkdir()
    cfg = load_config(
        "train",
        ["model=custom", "model.name=my_model", "data=csv", "data.source.train=a.csv", "paths.data=d", "paths.logs=l"],
    )
    pinned = pin_paths(cfg)
    assert pinned.paths == {"data": str(tmp_path / "d"), "logs": str(tmp_path / "l")}
    assert pinned.model.name == str(tmp_path / "my_model")
    assert pinned.data.source.directory == str(tmp_path)
    assert (cfg.model.name, cfg.paths.data, cfg.data.source.get("directory")) == ("my_model", "d", None)


def test_a_file_of_label_names_and_a_folder_of_data_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data=csv", "data.source.train=a.csv", "data.label_names=names.txt", "++data.source.directory=sets"]
    data = pin_paths(load_config("train", words)).data
    assert (data.label_names, data.source.directory) == (str(tmp_path / "names.txt"), str(tmp_path / "sets"))
    assert pin_paths(load_config("train", [*words, "data.label_names=[a,b]"])).data.label_names == ["a", "b"]


def test_a_home_folder_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pin_paths(load_config("train", ["paths.data=~/sets"])).paths.data == str(tmp_path / "sets")


def test_names_on_a_hub_and_folders_already_given_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hub = pin_paths(load_config("train", ["model=custom", "model.name=owner/name", "data=hub", "data.source.name=o/n"]))
    assert (hub.model.name, hub.data.source.name) == ("owner/name", "o/n")
    ours = pin_paths(load_config())
    assert ours.data.source.directory == str(paths.conf_dir() / "data" / "financial_news")


def test_a_saved_data_set_and_a_local_hub_folder_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    assert pin_paths(load_config("train", ["data=saved", "data.source.path=set"])).data.source.path == str(
        tmp_path / "set"
    )
    assert pin_paths(load_config("train", ["data=hub", "data.source.name=set"])).data.source.name == str(
        tmp_path / "set"
    )


def test_a_pinned_configuration_means_the_same_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAFT_LOGS", raising=False)
    pinned = pin_paths(load_config())
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pinned.paths.logs == str(tmp_path / "logs")
    assert pinned.paths.data == str(tmp_path / "data")
