"""What a configuration that others wrote may build: parts, and nothing that runs commands or foreign code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from graft.config.targets import check_targets, targets_in
from graft.errors import ConfigError


def refused(cfg: Any, *trust: str) -> tuple[str, ...]:
    try:
        check_targets(cfg, trust=trust)
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.exec",
        "builtins.__import__",
        "importlib.import_module",
        "shutil.rmtree",
        "torch.load",
        "torch.hub.load",
        "pickle.loads",
        "graft.paths.os.system",
        "graft.paths.os.path.join",
        "graft.config.targets.importlib.import_module",
        "graft.models.resolve.urllib.request.urlretrieve",
        "graft.commands.app.run_command",
        "graft.config.process.environment",
        "graft.runs.load.load_run",
        "pytorch_lightning.trainer.trainer.Trainer.fit",
        "pytorch_lightning.trainer.trainer.os.system",
        "transformers.pipeline",
        "numpy.load",
        "joblib.load",
        "functools.partial",
        "hydra.utils.get_class",
        "graft.nowhere.Thing",
        "nowhere.Thing",
        "eval",
        "",
    ],
)
def test_what_is_no_part_is_refused(target: str) -> None:
    (answer,) = refused({"optimizer": {"_target_": target, "_args_": ["echo"]}})
    assert answer.startswith(f"optimizer._target_: '{target}' is not built from a saved configuration: ")


@pytest.mark.parametrize(
    "target",
    [
        "graft.peft.apply.PeftMethod",
        "graft.optim.schedules.cosine",
        "graft.losses.classification.focal",
        "graft.data.sources.Files",
        "graft.module.FineTuneModule",
        "torch.optim.SGD",
        "transformers.optimization.Adafactor",
        "torch.optim.lr_scheduler.StepLR",
        "peft.LoraConfig",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.callbacks.EarlyStopping",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.strategies.DDPStrategy",
    ],
)
def test_a_part_is_allowed(target: str) -> None:
    assert refused({"part": {"_target_": target}}) == ()


def test_every_shipped_configuration_is_allowed_to_be_saved_and_loaded() -> None:
    from graft.config.compose import load_config

    check_targets(load_config("train", ["model=tiny_bert"]))


def test_a_target_is_found_wherever_it_is_hidden() -> None:
    hidden = OmegaConf.create(
        {
            "words": {"a": "os", "b": "system", "target": "${words.a}.${words.b}"},
            "callbacks": {"mine": {"_target_": "${words.target}"}},
            "trainer": {"plugins": [{"deep": [{"_target_": "subprocess.Popen"}]}]},
            "peft": {"_target_": "graft.peft.apply.PeftMethod", "config": {"_target_": "builtins.eval"}},
            "data": "${elsewhere}",
            "elsewhere": {"_target_": "torch.load"},
        }
    )
    assert [one.partition(": ")[0] for one in refused(hidden)] == [
        "callbacks.mine._target_",
        "trainer.plugins.0.deep.0._target_",
        "peft.config._target_",
        "data._target_",
        "elsewhere._target_",
    ]


def test_a_node_made_of_a_text_by_a_resolver_is_found() -> None:
    assert len(refused(OmegaConf.create({"peft": "${oc.decode:'{_target_: os.system}'}"}))) == 1


def test_interpolations_that_cannot_be_resolved_are_refused_too() -> None:
    (answer,) = refused(OmegaConf.create({"peft": {"_target_": "${no.such}"}}))
    assert answer.startswith("the saved configuration cannot be resolved: ")


def test_a_package_that_is_trusted_may_be_built_from_and_says_so_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_graft_lab.py").write_text("def make(): ...\nfrom os import system\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = {"peft": {"_target_": "my_graft_lab.make"}}
    (answer,) = refused(made)
    assert "it is defined in 'my_graft_lab', no part of graft" in answer
    assert answer.endswith("If you know that code and trust it: trust=[my_graft_lab].")
    assert refused(made, "my_graft_lab") == ()
    assert refused(made, "my_graft") != ()
    # Trust is in what a package defines, not in what it imports.
    assert refused({"peft": {"_target_": "my_graft_lab.system"}}, "my_graft_lab") != ()


def test_a_class_of_another_package_passes_by_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_callbacks.py").write_text(
        "from pytorch_lightning import Callback\nclass Mine(Callback): ...\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert refused({"callbacks": {"mine": {"_target_": "my_callbacks.Mine"}}}) == ()


def test_a_module_in_the_current_folder_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_trap.py").write_text("raise SystemExit('the trap was run')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (answer,) = refused({"peft": {"_target_": "my_trap.Thing"}})
    assert "it lies in the current folder, where anything may have been put." in answer
    assert "my_trap" not in sys.modules
    with pytest.raises(SystemExit, match="the trap was run"):
        check_targets({"peft": {"_target_": "my_trap.Thing"}}, trust=["my_trap"])


def test_the_standard_library_is_not_offered_to_be_trusted() -> None:
    (answer,) = refused({"peft": {"_target_": "os.system"}})
    assert answer.endswith(
        "it lies in Python's standard library.\n    Do not use this configuration, unless you know why it says so."
    )
    assert refused({"peft": {"_target_": "os.system"}}, "os") != ()


def test_code_that_comes_with_a_model_needs_trust_in_that_model() -> None:
    model = {"model": {"_target_": "graft.models.load.ModelSpec", "name": "a/b", "trust_remote_code": True}}
    (answer,) = refused(model)
    assert answer.startswith("model.trust_remote_code: the code that comes with 'a/b' is not run")
    assert answer.endswith("trust=[a/b].")
    assert refused(model, "a/b") == ()
    model["model"]["trust_remote_code"] = False
    assert refused(model) == ()


def test_every_refusal_comes_together() -> None:
    assert len(refused({"peft": {"_target_": "os.system"}, "data": {"_target_": "torch.load"}})) == 2


def test_targets_are_found_in_plain_values() -> None:
    node = {"_target_": "a.b", "x": [{"_target_": "c.d"}, 1], "y": {"z": {"_target_": "e.f"}}}
    assert list(targets_in(node)) == [("_target_", "a.b"), ("x.0._target_", "c.d"), ("y.z._target_", "e.f")]
