from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from graft.build import build_objective, build_optimization, build_run, complete, factory, plain
from graft.engine.checkpoint import AtomicCheckpointIO
from graft.errors import ConfigError
from graft.models.state import save_for_others
from graft.module import Optimization
from tests.contracts.parts import build, config

HERE = __name__


class Part:
    """Keeps what it was made with."""

    def __init__(self, size: int, names: Sequence[str] = (), *, seed: int | None = None, inner: Any = None) -> None:
        self.size = size
        self.names = names
        self.seed = seed
        self.inner = inner


def anything(**given: Any) -> dict[str, Any]:
    return given


def refuses(value: int) -> None:
    raise ConfigError(f"inner.value: {value} is too much. Set it to 2.")


def fails() -> None:
    raise ZeroDivisionError("a bug")


def node(**keys: Any) -> DictConfig:
    target = keys.pop("target", "Part")
    return OmegaConf.create({"_target_": f"{HERE}.{target}", **keys})


# ---- nodes to parts --------------------------------------------------------------------------------------------------


def test_a_part_gets_what_its_signature_names_and_nothing_else() -> None:
    made = complete(node(size=3), seed=7, run_dir="/somewhere", monitor="val/loss")
    assert (made.size, made.seed, made.inner) == (3, 7, None)


def test_a_value_of_the_config_wins_over_what_the_program_knows() -> None:
    assert complete(node(size=3, seed=1), seed=7).seed == 1
    assert complete(node(size=3, seed=0), seed=7).seed == 0
    assert complete(node(size=3, seed=None), seed=7).seed is None  # null is a value, too


def test_a_part_that_takes_anything_is_handed_nothing() -> None:
    """What it would do with all that the program knows cannot be told."""
    assert complete(node(target="anything", size=3), seed=7, run_dir="/somewhere") == {"size": 3}


def test_lists_and_mappings_reach_a_part_as_plain_python() -> None:
    """H16: peft keeps a ListConfig and fails to save it, after training."""
    made = complete(node(size=1, names=["a", "b"], inner={"deep": [{"x": [1]}]}))
    assert type(made.names) is list
    assert type(made.inner) is dict
    assert type(made.inner["deep"][0]["x"]) is list
    json.dumps([made.names, made.inner])


def test_nodes_inside_a_node_are_built() -> None:
    made = complete(node(size=1, inner={"_target_": f"{HERE}.Part", "size": 2}))
    assert isinstance(made.inner, Part)
    assert made.inner.size == 2


def test_a_partial_inside_a_node_stays_one() -> None:
    inner = {"_target_": f"{HERE}.Part", "_partial_": True, "size": 2}
    made = complete(node(size=1, inner=inner))
    assert made.inner(seed=5).seed == 5


def test_a_problem_in_an_inner_part_is_told_as_that_part_tells_it() -> None:
    """Hydra wraps it in words about itself, and the command line would show a traceback."""
    with pytest.raises(ConfigError) as caught:
        complete(node(size=1, inner={"_target_": f"{HERE}.refuses", "value": 3}))
    assert str(caught.value) == "inner.value: 3 is too much. Set it to 2."


def test_a_bug_in_an_inner_part_keeps_its_traceback() -> None:
    with pytest.raises(Exception, match="a bug") as caught:
        complete(node(size=1, inner={"_target_": f"{HERE}.fails"}))
    assert isinstance(caught.value.__cause__ or caught.value, ZeroDivisionError)


def test_a_factory_makes_a_new_part_each_time() -> None:
    make = factory(node(size=1))
    assert make(seed=1) is not make(seed=1)
    assert make(seed=2).seed == 2


def test_building_changes_no_config() -> None:
    before = node(size=1, names=["a"], inner={"_target_": f"{HERE}.Part", "size": 2})
    kept = OmegaConf.to_container(before)
    complete(before, seed=3)
    assert OmegaConf.to_container(before) == kept
    assert isinstance(before.names, ListConfig)


def test_an_adapters_configuration_can_be_saved_before_training(tmp_path: Path) -> None:
    """H16, with the lists that a user can write."""
    cfg = config(
        "peft=lora",
        settings={"peft.targets": ["query", "value"], "peft.config.rank_pattern": {"query": 4}},
    )
    run = build(cfg)
    run.data.setup("fit")
    run.module.configure_model()
    assert run.module.model is not None
    save_for_others(run.module.model, tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["rank_pattern"] == {"query": 4}
    assert sorted(written["target_modules"]) == ["query", "value"]


# ---- what moves the weights ------------------------------------------------------------------------------------------


def optimization_of(**optimizer: Any) -> Any:
    uniform = {"_target_": "graft.optim.groups.uniform", "_partial_": True}
    constant = {"_target_": "graft.optim.schedules.constant", "_partial_": True}
    return build_optimization(*(OmegaConf.create(one) for one in (optimizer, uniform, constant)))


def test_groups_get_the_optimizers_learning_rate_and_decay() -> None:
    made = optimization_of(_target_="torch.optim.SGD", _partial_=True, lr=0.25, weight_decay=0.5)
    (group,) = made.groups(torch.nn.Linear(2, 2))
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.5)


def test_an_optimizer_without_a_learning_rate_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr: a learning rate is needed here.* Set optimizer\.lr=1e-3"):
        optimization_of(_target_="torch.optim.Adadelta", _partial_=True)


def test_an_optimizer_without_a_decay_has_groups_that_do_not_decay() -> None:
    made = optimization_of(_target_="torch.optim.SGD", _partial_=True, lr=0.25)
    (group,) = made.groups(torch.nn.Linear(2, 2))
    assert group["weight_decay"] == 0.0


def test_an_optimizer_is_made_of_its_groups_and_own_settings() -> None:
    made = optimization_of(_target_="torch.optim.SGD", _partial_=True, lr=0.25, momentum=0.75)
    optimizer = made.optimizer(made.groups(torch.nn.Linear(2, 2)))
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.75
    assert made.schedule(optimizer, total_steps=3).get_last_lr() == [0.25]


# ---- the objective ---------------------------------------------------------------------------------------------------


def test_transforms_come_in_the_order_of_the_config() -> None:
    cfg = OmegaConf.create({"second": node(size=2), "first": node(size=1), "third": node(size=3)})
    assert [one.size for one in build_objective(cfg)] == [2, 1, 3]  # type: ignore[attr-defined]


def test_no_objective_is_no_transform() -> None:
    assert build_objective(None) == []
    assert build_objective(OmegaConf.create({})) == []
    assert build_objective(OmegaConf.create({"off": None})) == []


# ---- the run ---------------------------------------------------------------------------------------------------------


def test_building_reads_no_data_and_loads_no_model() -> None:
    run = build(config(settings={"data.source.splits": {"nothing": []}}))
    assert run.module.model is None
    with pytest.raises(RuntimeError, match="there after setup"):
        _ = run.data.info


def test_a_run_without_a_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    choices = ("callbacks=[checkpoint,cost,report,predictions]", "logger=[csv,tensorboard,wandb]")
    cfg = config(*choices, settings={"trainer.max_steps": 1, "trainer.limit_val_batches": 1})
    run = build(cfg, run_dir=None)
    run.trainer.fit(run.module, datamodule=run.data)
    run.trainer.test(run.module, datamodule=run.data, verbose=False)
    assert list(tmp_path.iterdir()) == []
    assert run.trainer.loggers == []


def test_callbacks_and_loggers_are_told_of_the_run(tmp_path: Path) -> None:
    cfg = config(
        "logger=[]",
        settings={
            "callbacks": {"mine": {"_target_": f"{HERE}.Told"}, "off": None},
            "task.monitor": "loss",
        },
    )
    about = {"run_name": "lora", "group": "g", "tags": ["t"], "config": {"a": 1}, "run_id": "id", "job_type": "train"}
    run = build_run(cfg, run_dir=tmp_path, about=about)
    (told,) = [one for one in run.trainer.callbacks if isinstance(one, Told)]  # type: ignore[attr-defined]
    assert told.given == (tmp_path, str(tmp_path / "checkpoints"), "val/loss", "min", 0, "lora", ["t"])
    run.data.setup("fit")
    assert told.rows("train").num_rows == 36


class Told(pl.Callback):
    """A callback that asks for some of what the program knows."""

    def __init__(
        self,
        run_dir: Path,
        dirpath: str,
        monitor: str,
        mode: str,
        seed: int,
        run_name: str,
        tags: Sequence[str],
        rows: Callable[[str], Any],
    ) -> None:
        self.given = (run_dir, dirpath, monitor, mode, seed, run_name, tags)
        self.rows = rows


def test_callbacks_given_in_python_come_before_the_chosen_ones(tmp_path: Path) -> None:
    mine = pl.Callback()
    run = build(config("callbacks=[cost]", "logger=[]"), run_dir=tmp_path, callbacks=[mine])
    kinds = [type(one).__name__ for one in run.trainer.callbacks]  # type: ignore[attr-defined]
    assert kinds.index("Callback") < kinds.index("Cost")


def test_the_seed_reaches_data_head_and_adapter() -> None:
    def made(seed: int) -> tuple[Any, torch.Tensor]:
        run = build(config("peft=lora", settings={"seed": seed}))
        run.data.setup("fit")
        run.module.configure_model()
        assert run.module.model is not None
        adapter = next(value for name, value in run.module.model.named_parameters() if "lora_A" in name)
        return list(run.data.train_dataloader().sampler), adapter.detach()

    first, again, other = made(3), made(3), made(4)
    assert first[0] == again[0] != other[0]
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_a_part_keeps_a_seed_of_its_own() -> None:
    run = build(config(settings={"seed": 3, "data.seed": 11}))
    assert run.data.seed == 11


def test_accumulation_cuts_the_batch_of_a_step() -> None:
    run = build(config(settings={"trainer.accumulate_grad_batches": 4}))
    run.data.setup("fit")
    batches = list(run.data.train_dataloader())
    assert len(batches[0]["row"]) == 2  # 8 rows a step
    assert run.data.micro_batches == run.trainer.accumulate_grad_batches == 4


def test_the_data_is_told_to_who_asks_and_to_the_task() -> None:
    told: list[Any] = []
    run = build_run(config(), run_dir=None, tell=told.append)
    run.data.setup("fit")
    (info,) = told
    assert info.label_names == ("negative", "neutral", "positive")
    assert info.sizes == {"train": 36, "validation": 13, "test": 14}
    assert run.task.needs().config["num_labels"] == 3


def test_checkpoints_go_through_our_own_writer() -> None:
    run = build(config())
    assert isinstance(run.trainer.strategy.checkpoint_io, AtomicCheckpointIO)


def test_lightnings_banners_and_summary_are_off() -> None:
    run = build(config("callbacks=[]", "logger=[]"), run_dir=None)
    kinds = {type(one).__name__ for one in run.trainer.callbacks}  # type: ignore[attr-defined]
    assert not kinds & {"ModelSummary", "TQDMProgressBar", "RichProgressBar", "ModelCheckpoint"}


def test_the_training_step_can_be_handed_to_another_process() -> None:
    """A chain of lambdas could not be pickled, as starting processes needs it."""
    transforms = build_objective(OmegaConf.create({"a": {"_target_": "tests.test_module.Scaled", "factor": 2.0}}))
    (again,) = pickle.loads(pickle.dumps(transforms))
    assert again.factor == 2.0


def test_another_module_with_the_same_constructor_can_take_the_place_of_ours() -> None:
    run = build(config(settings={"module._target_": f"{HERE}.OtherModule"}))
    module: Any = run.module
    assert isinstance(module, OtherModule)
    assert module.task is run.task
    load, adaptation, objective, optimization = module.given
    assert callable(load)
    assert type(adaptation).__name__ == "PeftMethod"
    assert objective == []
    assert isinstance(optimization, Optimization)


class OtherModule(pl.LightningModule):
    """Stands in for a module with, say, manual optimisation."""

    def __init__(self, task: Any, *, load: Any, adaptation: Any, objective: Any, optimization: Any) -> None:
        super().__init__()
        self.task = task
        self.given = (load, adaptation, objective, optimization)


# ---- plain -----------------------------------------------------------------------------------------------------------


def test_a_plain_configuration_is_resolved_and_can_be_written_anywhere() -> None:
    cfg = OmegaConf.create({"a": {"b": [1, "${c}"]}, "c": "x", "missing": "???"})
    assert plain(cfg) == {"a": {"b": [1, "x"]}, "c": "x", "missing": "???"}
    assert type(plain(cfg)["a"]) is dict


def test_a_list_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match="not a mapping"):
        plain(OmegaConf.create([1, 2]))  # type: ignore[arg-type]


def test_a_target_behind_a_partial_is_completed_like_any_other() -> None:
    made = complete(OmegaConf.create({"_target_": f"{HERE}.Part", "_partial_": True, "size": 2}), seed=4)
    assert not isinstance(made, functools.partial)
    assert made.seed == 4
