"""A composed configuration, checked against the signatures of what it names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from graft.config.check import check_config, check_given, missing_values
from graft.config.compose import load_config
from graft.errors import ConfigError


def problems(**nodes: Any) -> tuple[str, ...]:
    try:
        check_config(OmegaConf.create(nodes))
    except ConfigError as error:
        return error.problems
    return ()


def problem(**nodes: Any) -> str:
    (one,) = problems(**nodes)
    return one


@pytest.fixture(scope="module")
def default() -> DictConfig:
    return load_config("train", ["model=tiny_bert"])


def test_the_default_configuration_is_right(default: DictConfig) -> None:
    check_config(default)


def test_a_parameter_that_no_yaml_lists_is_right_if_the_signature_has_it(default: DictConfig) -> None:
    cfg = load_config("train", ["model=tiny_bert", "peft.config.lora_dropout=0.1", "trainer.deterministic=true"])
    check_config(cfg)
    assert cfg.peft.config.lora_dropout == 0.1
    assert "lora_dropout" not in default.peft.config


def test_an_unknown_parameter_is_answered_with_the_nearest_and_all_that_there_are() -> None:
    assert problem(scheduler={"_target_": "graft.optim.schedules.cosine", "_partial_": True, "warmpu": 3}) == (
        "scheduler.warmpu: graft.optim.schedules.cosine takes no 'warmpu'. Did you mean 'warmup'?\n"
        "    It takes: optimizer, total_steps, warmup, min_lr_ratio."
    )


def test_a_nested_part_is_checked_at_its_own_path() -> None:
    answer = problem(
        peft={"_target_": "graft.peft.apply.PeftMethod", "config": {"_target_": "peft.LoraConfig", "rr": 1}}
    )
    assert answer.startswith("peft.config.rr: peft.LoraConfig takes no 'rr'. Did you mean 'r'?\n    It takes: ")


def test_a_part_inside_a_list_is_checked_at_its_own_path() -> None:
    answer = problem(
        trainer={
            "_target_": "pytorch_lightning.Trainer",
            "plugins": [{"_target_": "torch.optim.SGD", "_partial_": True, "lrr": 1}],
        }
    )
    assert answer.startswith("trainer.plugins.0.lrr: torch.optim.SGD takes no 'lrr'. Did you mean 'lr'?")


def test_a_target_without_parameters_says_so() -> None:
    assert problem(peft={"_target_": "graft.peft.freeze.Full", "r": 8}).endswith("It takes nothing.")


def test_a_target_that_takes_anything_is_not_checked() -> None:
    assert problems(peft={"_target_": "builtins.dict", "anything": 1}) == ()


def test_a_key_of_hydras_that_is_misspelt_is_answered_with_it() -> None:
    answer = problem(optimizer={"_target_": "torch.optim.SGD", "_partail_": True})
    assert "takes no '_partail_'. Did you mean '_partial_'?" in answer


def test_an_unknown_top_level_key_is_answered_with_the_nearest() -> None:
    assert problem(trainr={"max_epochs": 1}).startswith(
        "trainr: a configuration has no such top-level key. Did you mean 'trainer'?\n    The keys: seed, task, data,"
    )


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("graft.peft.freeze.Ful", "'graft.peft.freeze' has nothing called 'Ful'. Did you mean 'Full'?"),
        ("graft.peft.freez.Full", "'graft.peft' has nothing called 'freez'. Did you mean 'freeze'?"),
        ("nowhere.Thing", "there is no package 'nowhere' for 'nowhere.Thing'. Install it, or correct the name."),
        ("Full", "'Full' is no dotted path. Write package.module.name."),
        ("torch.optim.", "'torch.optim.' is no dotted path. Write package.module.name."),
        ("torch.pi", "'torch.pi' is no class or function. Name one."),
    ],
)
def test_a_target_that_is_not_there_says_where_the_path_ends(target: str, reason: str) -> None:
    assert problem(peft={"_target_": target}) == f"peft._target_: {reason}"


def test_a_target_that_is_no_text_is_refused() -> None:
    assert problem(peft={"_target_": ["a"]}).startswith("peft._target_: ['a'] is no dotted path.")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module that can be imported."""

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)

    monkeypatch.syspath_prepend(str(tmp_path))
    return write


def test_a_module_that_needs_a_package_which_is_not_installed_says_which(module: Any) -> None:
    module("graft_test_needs", "import not_installed_anywhere\n\nclass Thing: ...\n")
    assert problem(peft={"_target_": "graft_test_needs.Thing"}) == (
        "peft._target_: 'graft_test_needs.Thing' needs the package 'not_installed_anywhere', which is not installed. "
        "Install it, or choose another option."
    )


def test_a_module_that_fails_to_import_says_why(module: Any) -> None:
    module("graft_test_fails", "raise RuntimeError('no driver')\n")
    assert problem(peft={"_target_": "graft_test_fails.Thing"}) == (
        "peft._target_: importing 'graft_test_fails' for 'graft_test_fails.Thing' fails: RuntimeError: no driver"
    )


def test_a_part_that_was_not_chosen_is_named() -> None:
    assert problem(peft=None) == (
        "peft: nothing is chosen, and nothing can be trained without it. 'graft configs peft' lists what there is."
    )


def test_a_part_without_a_target_is_named() -> None:
    assert problem(optimizer={"lr": 1.0}).startswith("optimizer: it has no _target_, so there is nothing to build.")


def test_a_part_that_is_a_word_is_no_part() -> None:
    assert problem(optimizer="adamw").startswith("optimizer: 'adamw' is no part.")


def test_a_callback_without_a_name_of_its_own_is_told_how_it_is_written() -> None:
    assert problem(callbacks={"_target_": "pytorch_lightning.callbacks.EarlyStopping", "patience": 3}) == (
        "callbacks: each part stands under a name of its own, as in callbacks: {mine: {_target_: package.Class}}. "
        "Not so: _target_, patience."
    )
    assert problem(logger=["csv"]).startswith("logger: each part stands under a name of its own,")
    assert problems(callbacks={"off": None}, logger=None, objective={}) == ()


@pytest.mark.parametrize(("key", "value"), [("seed", "abc"), ("offline", "no"), ("trust", "my_lab")])
def test_a_top_level_value_of_the_wrong_kind_is_refused(key: str, value: str) -> None:
    assert problem(**{key: value}).startswith(f"{key}: '{value}' is n")


def test_a_missing_value_is_named() -> None:
    assert problem(model={"_target_": "graft.models.load.ModelSpec", "name": "???"}) == (
        "model.name: a value is needed here. Set model.name=..."
    )


def test_a_whole_part_that_is_missing_is_named() -> None:
    assert problem(model="???") == "model: a value is needed here. Set model=..."


def test_an_interpolation_that_leads_nowhere_is_named_at_its_place() -> None:
    answer = problem(run={"name": "${no.such}"})
    assert answer.startswith("run.name: Interpolation key 'no.such' not found.")
    assert answer.endswith("Correct the interpolation, or set run.name=...")


def test_an_interpolation_to_a_missing_value_is_reported_once_where_it_is_missing() -> None:
    assert problem(paths={"data": "???"}, run={"name": "${paths.data}"}).startswith("paths.data: a value is needed")


def test_an_unknown_resolver_is_named() -> None:
    assert "run.name: Unsupported interpolation type nope" in problem(run={"name": "${nope:}"})


def test_all_problems_come_together() -> None:
    found = problems(
        trainr=1,
        peft=None,
        model={"_target_": "graft.models.load.ModelSpec", "name": "???", "drpout": 1},
        optimizer={"_target_": "torch.optim.SGDD"},
    )
    assert sorted(one.partition(":")[0] for one in found) == [
        "model.drpout",
        "model.name",
        "optimizer._target_",
        "peft",
        "trainr",
    ]


def test_hydras_own_node_is_left_to_hydra() -> None:
    assert problems(hydra={"launcher": "???", "x": {"_target_": "nowhere.y"}}) == ()


def test_missing_values_are_found_without_importing_a_target() -> None:
    cfg = OmegaConf.create({"model": {"_target_": "nowhere.at.All", "name": "???"}})
    assert missing_values(cfg) == ["model.name: a value is needed here. Set model.name=..."]
    assert missing_values(OmegaConf.create({"model": {"_target_": "nowhere.at.All"}})) == []


def test_what_a_command_must_be_told_comes_with_an_example() -> None:
    cfg = OmegaConf.create({"run": "???", "input": "a.csv"})
    with pytest.raises(ConfigError) as caught:
        check_given(cfg, run="1a2b3c4d", input="rows.csv")
    assert caught.value.problems == ("run: a value is needed here. Set run=1a2b3c4d.",)
    check_given(OmegaConf.create({"run": "x"}), run="1a2b3c4d")
