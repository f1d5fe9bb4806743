"""The interpolations of shipped configs."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from graft import paths
from graft.config.resolvers import RESOLVERS, register_resolvers


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_resolvers()
    register_resolvers()  # once more changes nothing


def test_every_name_is_known_to_omegaconf() -> None:
    for name in RESOLVERS:
        assert OmegaConf.has_resolver(name)


def test_the_folder_of_the_shipped_configs() -> None:
    cfg = OmegaConf.create({"x": "${graft.conf:}/data"})
    assert cfg.x == f"{paths.conf_dir()}/data"


def test_the_folder_of_the_runs_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = OmegaConf.create({"x": "${graft.logs:}"})
    monkeypatch.setenv("GRAFT_LOGS", str(tmp_path / "runs"))
    assert cfg.x == str(tmp_path / "runs")
    monkeypatch.delenv("GRAFT_LOGS")
    monkeypatch.chdir(tmp_path)
    assert cfg.x == str(tmp_path / "logs")


@pytest.mark.parametrize(
    ("target", "lr"),
    [
        ("graft.peft.freeze.Full", 5e-5),
        ("graft.peft.freeze.HeadOnly", 1e-2),
        ("graft.peft.apply.PeftMethod", 1e-3),
        ("my_lab.Method", 1e-3),
    ],
)
def test_the_usual_learning_rate_follows_what_is_trained(target: str, lr: float) -> None:
    cfg = OmegaConf.create({"peft": {"_target_": target}, "lr": "${graft.usual_lr:${peft._target_}}"})
    assert cfg.lr == lr
