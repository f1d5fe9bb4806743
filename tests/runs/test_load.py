from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from graft.errors import CheckpointError, ConfigError
from graft.runs.load import find_checkpoint, load_run, read_saved
from tests.commands.tiny_run import TinyRun, one_thread, untouched


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyRun]:
    with untouched(tmp_path_factory.getbasetemp(), "loading wrote into the run's folder") as made:
        yield made


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("which", ["best", "last"])
def test_loaded_module_evaluates_with_the_trained_weights(which: str, run: TinyRun) -> None:
    loaded = load_run(run.dir, which=which, logs=run.logs)
    model = loaded.run.module.model
    assert model is not None
    assert not any(module.training for module in model.modules())
    told = weights(run.dir / "checkpoints" / f"{which}.ckpt")
    found = dict(model.named_parameters())
    assert told
    assert all(torch.equal(found[name], tensor) for name, tensor in told.items())
    assert loaded.checkpoint == run.dir / "checkpoints" / f"{which}.ckpt"
    assert loaded.info.label_names == ("bad", "good", "so-so")


def test_run_is_loaded_twice_in_one_process_and_from_anywhere(
    run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_run(run.dir.name, logs=run.logs)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(99)
    second = load_run(run.dir.name[-8:], logs=run.logs)
    one, other = first.run.module.model, second.run.module.model
    assert one is not None
    assert other is not None
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert list(tmp_path.iterdir()) == []


def test_settings_change_the_loaded_run_and_not_the_saved_one(run: TinyRun) -> None:
    loaded = load_run(run.dir, logs=run.logs, data=OmegaConf.create({"eval_batch_size": 3}), offline=True)
    assert loaded.run.data.eval_batch_size == 3
    assert loaded.cfg.offline is True
    assert OmegaConf.load(run.dir / "config.yaml").data.eval_batch_size == 8


def test_several_kept_checkpoints_are_told_apart_by_their_scores(tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    for name in ("best.ckpt", "best-v1.ckpt", "last.ckpt"):
        (kept / name).touch()
    (kept / "scores.json").write_text(json.dumps({"best": "best-v1.ckpt"}))
    assert find_checkpoint(tmp_path, "best") == kept / "best-v1.ckpt"
    assert find_checkpoint(tmp_path, "last") == kept / "last.ckpt"
    assert find_checkpoint(tmp_path, "best.ckpt") == kept / "best.ckpt"
    assert find_checkpoint(tmp_path, str(kept / "last.ckpt")) == kept / "last.ckpt"
    # A name that points elsewhere is not followed.
    (kept / "scores.json").write_text(json.dumps({"best": "/etc/passwd"}))
    assert find_checkpoint(tmp_path, "best") == kept / "best.ckpt"


@pytest.mark.parametrize(("which", "there"), [("best", "last.ckpt"), ("last", "best.ckpt"), ("best", "step=3.ckpt")])
def test_other_checkpoint_is_used_where_there_is_only_one_and_that_is_said(
    which: str, there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / there).touch()
    assert find_checkpoint(tmp_path, which).name == there
    assert f"has no {which} checkpoint; {there} is used" in capsys.readouterr().err


def test_folder_without_checkpoints_has_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cut off before its first checkpoint"):
        find_checkpoint(tmp_path, "best")


def test_classes_of_other_packages_are_built_only_when_trusted(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "mylab_loading.py").write_text(
        "from graft.losses.classification import cross_entropy\n\n"
        "def mine(*args, **kwargs):\n    return cross_entropy(*args, **kwargs)\n"
    )
    copied = run.copy(tmp_path)
    path = copied.dir / "config.yaml"
    path.write_text(path.read_text().replace("graft.losses.classification.cross_entropy", "mylab_loading.mine"))
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(ConfigError, match=r"task\.loss.*'mylab_loading\.mine'") as raised:
            read_saved(copied.dir)
        assert "trust=[mylab_loading]" in str(raised.value)
        loaded = load_run(copied.dir, logs=copied.logs, trust=["mylab_loading"])
        assert loaded.run.module.model is not None
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("mylab_loading", None)


def test_loading_leaves_no_distributed_environment_behind(run: TinyRun) -> None:
    before = {
        name for name in os.environ if name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "GRAFT_RUN_DIR")
    }
    load_run(run.dir, logs=run.logs)
    after = {
        name for name in os.environ if name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "GRAFT_RUN_DIR")
    }
    assert before == after
