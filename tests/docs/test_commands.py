"""Every command on a page is right: it composes, every key of it is known, and its parts work together.

A page is a session in a folder of its own: the files that it shows are there, and its commands run in order. What
trains is composed and checked; ``graft configs`` and ``graft completion`` run. A command that stands in the header of a
YAML too is checked there (``tests/contracts``).
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from graft import paths
from graft.commands import completion, configs
from graft.commands.arguments import Arguments, read_arguments
from graft.config.catalog import header
from graft.config.check import check_config
from graft.config.compat import check_parts
from graft.config.overrides import check_overrides
from graft.config.process import command_line
from graft.config.search import session
from graft.config.written import rewrite_overrides
from graft.errors import ConfigError, GraftError
from tests.docs.pages import DOCS, PAGES, Command, blocks, commands
from tests.docs.workspace import place_files

RUN = {"configs": configs.main, "completion": completion.main}
HEADERS = {
    command.words
    for path in paths.conf_dir().rglob("*.yaml")
    for command in commands("```\n" + "\n".join(line for line in header(path) if line.startswith("  ")) + "\n```\n")
}


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page.read_text())], ids=lambda page: page.name)
def test_every_command_of_a_page_is_right(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text(encoding="utf-8")
    place_files(text, tmp_path, monkeypatch)
    new = [command for command in commands(text) if command.words not in HEADERS]
    wrong = [problem for command in new if (problem := problem_of(command))]
    assert wrong == []
    capsys.readouterr()


def problem_of(command: Command) -> str | None:
    """Say what is wrong with a command, and where it stands."""
    try:
        _try(command.words)
    except (GraftError, SystemExit) as error:
        return f"line {command.line}: {command}: {error}"
    return None


def _try(words: tuple[str, ...]) -> None:
    verb = words[0] if words else "--help"
    if verb in RUN:
        with command_line(["graft", *words]):
            RUN[verb]()
    elif not verb.startswith("-") and "--help" not in words:
        arguments = read_arguments(words[1:])
        _check(verb, arguments)


def _check(verb: str, arguments: Arguments) -> None:
    folders = tuple(str(Path(folder).resolve()) for folder in arguments.config_dirs)
    cfg = _composed(verb, tuple(arguments.overrides), folders, arguments.multirun)
    if cfg is not None:
        check_config(cfg)
        check_parts(cfg)


@functools.cache
def _composed(verb: str, overrides: tuple[str, ...], folders: tuple[str, ...], multirun: bool) -> DictConfig | None:
    """Compose what trains, the first job of a sweep, with a value wherever one is needed; only check other verbs."""
    check_overrides(verb, overrides, config_dirs=folders, multirun=multirun)
    if verb != "train" or "resume=true" in overrides:
        return None
    first = [one.partition(",")[0] if multirun else one for one in overrides]
    with session(folders):
        cfg = compose(verb, overrides=rewrite_overrides(first))
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, "1", force_add=True)
    return cfg


def test_a_command_that_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for every kind of mistake that a page can hold."""
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (("train", "peft=lorra"), "Did you mean 'lora'?"),
        (("train", "optimizer.lrr=1"), "takes no 'lrr'"),
        (("train", "run.names=a"), "Did you mean 'name'?"),
        (("train", "seed=0,1"), "several values need a sweep"),
        (("train", "task=text_regression", "task/loss=focal"), "does not fit"),
        (("train", "--config-dir", "my_conf"), "there is no folder"),
        (("evaluate", "run=a", "splt=test"), "Did you mean 'split'?"),
        (("configs", "pefd"), "2"),
        (("trained",), "trained"),
    ):
        assert said in str(problem_of(Command(1, words)))


def test_the_error_that_a_page_shows_is_the_one_that_comes() -> None:
    (shown,) = [block.text for block in blocks((DOCS / "configuration.md").read_text()) if block.language == "text"]
    with pytest.raises(ConfigError) as caught:
        check_overrides("train", ["peft=lorra", "optimizer.lrr=3"], complete=True)
    assert shown.strip() == f"ConfigError: {caught.value}"
