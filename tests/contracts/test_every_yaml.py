"""Every YAML of ``conf/`` is checked, says what it is, copies no default, and shows commands that are right."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from graft import paths
from graft.commands.arguments import read_arguments
from graft.config.catalog import Option, header, read_yaml
from graft.config.check import check_config
from graft.config.compat import check_parts
from graft.config.overrides import check_overrides
from graft.config.targets import find
from graft.config.written import rewrite_overrides
from graft.errors import ConfigError
from tests.contracts.parts import OPTIONS, assembled, choice, composed

FILES = sorted(path.relative_to(paths.conf_dir()) for path in paths.conf_dir().rglob("*.yaml"))

DECIDED = {
    ("peft/lora", "config.r"): "lora_alpha is chosen for this rank, so the two are written together",
}
"""Values that equal an upstream default and are ours all the same."""


def name_of(option: Option) -> str:
    return f"{option.group}/{option.name}"


def filled(cfg: DictConfig) -> DictConfig:
    """Give a value to whatever the user must give one."""
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, "1", force_add=True)
    return cfg


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every mapping with a ``_target_``."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from nodes(value, f"{path}.{key}".removeprefix("."))


def commands(path: Path) -> list[list[str]]:
    """Return the commands of a YAML's header, each as the words behind ``graft``."""
    found = []
    for line in header(path):
        if not line.startswith("  ") or "graft " not in line:
            continue
        words = shlex.split(line, comments=True)
        words = words[words.index("graft") + 1 :]
        ends = [index for index, word in enumerate(words) if word in ("&&", "|", ";")]
        found.append(words[: ends[0]] if ends else words)
    return found


EXAMPLES = [
    pytest.param(words, id=f"{path}: {' '.join(words)}")
    for path in FILES
    for words in commands(paths.conf_dir() / path)
]


@pytest.mark.parametrize("option", OPTIONS, ids=name_of)
def test_every_option_composes_and_all_that_it_lacks_is_named(option: Option) -> None:
    cfg = assembled(choice(option.group, option.name))
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        with pytest.raises(ConfigError) as caught:
            check_config(cfg)
        assert sorted(caught.value.problems) == [f"{key}: a value is needed here. Set {key}=..." for key in missing]
    check_config(filled(cfg))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_says_in_its_first_line_what_it_is(path: Path) -> None:
    lines = header(paths.conf_dir() / path)
    assert lines
    assert len(lines[0]) > 15
    assert len(lines[0]) < 118
    assert lines[0][-1] in ".?"


@pytest.mark.parametrize("option", OPTIONS, ids=name_of)
def test_no_option_copies_an_upstream_default(option: Option) -> None:
    """A copied default stays behind when the library's own moves, and hides what we decide among what we do not."""
    copied = []
    for path, node in nodes(read_yaml(option.path)):
        if node["_target_"].startswith("graft."):
            continue
        parameters = inspect.signature(find(node["_target_"])).parameters
        for key, value in node.items():
            default = parameters[key].default if key in parameters else inspect.Parameter.empty
            where = f"{path}.{key}".removeprefix(".")
            if default is not inspect.Parameter.empty and default == value and (name_of(option), where) not in DECIDED:
                copied.append(f"{where}: {value}")
    assert copied == []


def test_values_that_are_decided_and_equal_a_default_are_still_there() -> None:
    for option, key in DECIDED:
        node = OmegaConf.create(read_yaml(paths.conf_dir() / f"{option}.yaml"))
        assert OmegaConf.select(node, key) is not None


@pytest.mark.parametrize("words", EXAMPLES)
def test_every_command_in_a_header_is_right(words: list[str]) -> None:
    verb, *rest = words
    assert (paths.conf_dir() / f"{verb}.yaml").is_file()
    arguments = read_arguments(rest)
    assert arguments.config_dirs == []
    if any("." in one.partition("=")[0] for one in arguments.overrides) or arguments.flags or verb != "train":
        check_overrides(verb, arguments.overrides, multirun=arguments.multirun)
    for point in points(arguments.overrides):
        cfg = filled(assembled(*point) if verb == "train" else composed(*point, command=verb))
        if verb == "train":
            check_config(cfg)
            check_parts(cfg)


def test_a_configuration_put_together_is_the_one_that_hydra_composes() -> None:
    """What makes the tests of this folder quick must not make them wrong."""
    for words in (
        ["peft=lora", "peft.config.r=4", "optimizer=sgd"],
        ["task=text_multilabel", "task/loss=asymmetric", "task.loss.gamma_negative=2", "data=go_emotions"],
        ["data=csv", "data/split=kfold", "data.split.fold=1", "data.source.train=a.csv", "callbacks=[report,cost]"],
    ):
        assert assembled(*words) == composed(*words)


def points(overrides: list[str]) -> list[tuple[str, ...]]:
    """Return the first and the last job of a sweep, or the one that there is."""
    parsed = OverridesParser.create().parse_overrides(rewrite_overrides(overrides))
    jobs = [tuple(job) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]
    return list(dict.fromkeys([jobs[0], jobs[-1]]))


@pytest.mark.parametrize("path", [path for path in FILES if path.name.startswith("_")], ids=str)
def test_a_file_that_is_a_part_of_others_is_no_choice(path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{path.parent} has no option '{path.stem}'") as caught:
        check_overrides("train", [f"{path.parent}={path.stem}"])
    assert f"{path.stem}," not in str(caught.value)  # nor is it listed


def test_most_options_show_a_command() -> None:
    """A group whose options need none is one whose options are few and need no setting."""
    silent = {option.group for option in OPTIONS if not commands(option.path)}
    assert silent <= {"callbacks", "hydra", "logger", "module", "paths"}


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.group == "sweep"], ids=name_of)
def test_every_sweep_searches_over_keys_that_there_are(option: Option) -> None:
    params = read_yaml(option.path)["hydra"]["sweeper"]["params"]
    overrides = [f"{key}={value}" for key, value in params.items()]
    check_overrides("train", overrides, multirun=True)
    for point in points(overrides):
        check_config(composed(*point))


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.group == "experiment"], ids=name_of)
def test_every_experiment_is_a_setting_that_works_together(option: Option) -> None:
    cfg = filled(composed(choice(option.group, option.name)))
    check_parts(cfg)
    assert cfg.run.name == option.name  # so that its runs are found under its name


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.whole], ids=name_of)
def test_the_command_line_beats_an_option_that_sets_many_things(option: Option) -> None:
    cfg = composed(choice(option.group, option.name), "optimizer.lr=0.123", "peft=norms")
    assert cfg.optimizer.lr == 0.123
    assert cfg.peft._target_.endswith(".Norms")


@pytest.mark.parametrize("command", [path.stem for path in FILES if path.parent == Path()])
def test_every_primary_config_composes_without_hydras_folders_and_logging(command: str) -> None:
    cfg = composed(command=command)
    assert "hydra" not in cfg
    assert cfg.paths.data == "data"
    if command == "train":
        check_config(cfg)
        check_parts(cfg)


def test_no_file_names_a_folder_of_one_machine() -> None:
    for path in FILES:
        text = (paths.conf_dir() / path).read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(home|work|root|Users|tmp|mnt)/", text), path
