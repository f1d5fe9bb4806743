"""What differs between the versions of Hydra that graft runs on."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import hydra
import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from graft.build import factory
from graft.config.compose import load_config
from graft.config.versions import execution_whitelist, register_resolver, version_base


def test_this_hydra_is_one_that_graft_is_for() -> None:
    assert hydra.__version__.startswith(("1.3.8", "1.4."))


def test_composing_and_building_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cfg = load_config("train", ["model=tiny_bert", "peft.config.r=4"])
        for key in ("task", "data", "model", "peft", "optimizer", "param_groups", "scheduler", "module", "trainer"):
            factory(cfg[key])


def test_the_whitelist_is_what_a_node_names_and_nothing_else() -> None:
    node = OmegaConf.create({"_target_": "a.b", "lists": [{"_target_": "${name}"}], "name": "c.d"})
    expected = {} if hydra.__version__.startswith("1.3") else {"_execution_whitelist_": ["a.b", "c.d"]}
    assert execution_whitelist(node) == expected


def test_hydra_refuses_the_worst_targets_even_when_a_configuration_names_them() -> None:
    node = OmegaConf.create({"_target_": "os.system", "command": "echo"})
    with pytest.raises(InstantiationException):
        instantiate(node, **execution_whitelist(node))


def test_the_version_base_is_given_where_it_is_wanted() -> None:
    assert version_base() == ({"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {})


def test_a_resolver_that_is_there_is_kept() -> None:
    register_resolver("graft.test_kept", lambda: "first")
    register_resolver("graft.test_kept", lambda: "second")
    assert OmegaConf.create({"x": "${graft.test_kept:}"}).x == "first"


@pytest.mark.parametrize("targets", ["[query, value]", "attention"])
def test_an_adapters_configuration_is_plain_and_can_be_saved(tmp_path: Path, targets: str) -> None:
    cfg = load_config("train", [f"peft.targets={targets}", "+peft.config.modules_to_save=[classifier]"])
    config = factory(cfg.peft.config)(target_modules=["query"])
    assert type(config.modules_to_save) is list
    config.save_pretrained(str(tmp_path))  # fails on a list of OmegaConf's, at the end of a training
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["modules_to_save"] == ["classifier"]
