"""Listing, showing and copying what can be chosen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from graft import paths
from graft.commands import configs
from graft.config.catalog import list_options
from graft.config.process import command_line

Output = tuple[int, str, str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Runs ``graft configs`` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAFT_CONF_DIR", raising=False)

    def run(*words: str) -> Output:
        code = 0
        with command_line(["graft", "configs", *words]):
            try:
                configs.main()
            except SystemExit as error:
                code = int(error.code or 0)
        return (code, *capsys.readouterr())

    return run


class Run:
    """The type of the fixture ``run``."""

    def __call__(self, *words: str) -> Output: ...  # type: ignore[empty-body]


def test_every_option_is_listed_on_a_line_of_its_own_for_a_pipe(run: Run) -> None:
    code, out, err = run()
    options = [option for group in list_options().values() for option in group.values()]
    assert out.splitlines() == [f"{one.group}={one.name}\t{one.summary}" for one in options]
    assert (code, err) == (0, "")


@pytest.mark.parametrize("words", [["peft", "task/loss"], ["list", "peft", "task/loss"]])
def test_only_the_groups_asked_for_are_listed(run: Run, words: list[str]) -> None:
    _, out, _ = run(*words)
    assert {line.partition("=")[0] for line in out.splitlines()} == {"peft", "task/loss"}


def test_a_terminal_gets_tables_with_the_defaults_marked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = run("peft", "logger")
    lines = [" ".join(re.sub(r"\x1b\[[0-9;]*m", "", line).split()) for line in out.splitlines()]
    assert "peft What of the model is trained: everything, its head, or an adapter." in lines
    assert any(line.startswith("* lora LoRA: ") for line in lines)
    assert any(line.startswith("full Full fine-tuning") for line in lines)
    assert any(line.startswith("* csv ") for line in lines)
    assert lines[-1].startswith("* is chosen by 'graft train' where nothing is said.")


def test_the_users_options_are_listed_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine/peft").mkdir(parents=True)
    (tmp_path / "mine/peft/zebra.yaml").write_text("# Striped.\n", encoding="utf-8")
    assert "peft=zebra\tStriped.\n" in run("peft", "--config-dir", "mine")[1]
    assert "zebra" not in run("peft")[1]
    monkeypatch.setenv("GRAFT_CONF_DIR", str(tmp_path / "mine"))
    assert "peft=zebra\tStriped.\n" in run("peft")[1]


@pytest.mark.parametrize("words", [["optimzer"], ["peft", "optimzer"]])
def test_a_misspelt_group_is_answered_with_the_nearest(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "optimzer: there is no group 'optimzer'. Did you mean 'optimizer'?\n    The groups: callbacks, " in err


def test_a_misspelt_action_is_answered_with_the_nearest(run: Run) -> None:
    assert "Did you mean 'show'?" in run("shwo")[2]


def test_an_option_is_shown_as_a_configuration_has_it(run: Run) -> None:
    code, out, _ = run("show", "peft=lora", "peft.config.r=3")
    assert code == 0
    assert out.startswith(f"# peft=lora  ({paths.conf_dir() / 'peft/lora.yaml'})\n")
    assert yaml.safe_load(out)["config"]["r"] == 3


def test_interpolations_are_filled_in(run: Run) -> None:
    shown = yaml.safe_load(run("show", "data=financial_news")[1])
    assert shown["source"]["directory"] == str(paths.conf_dir() / "data/financial_news")
    assert "batch_size" in shown  # from the file it builds on


def test_a_nested_option_is_shown_by_itself(run: Run) -> None:
    assert yaml.safe_load(run("show", "task/loss=focal")[1]) == {
        "_target_": "graft.losses.classification.focal",
        "_partial_": True,
    }


def test_a_group_alone_stands_for_its_default(run: Run) -> None:
    assert run("show", "peft")[1].startswith("# peft=lora  (")
    several = run("show", "logger")[1]
    assert several.startswith("# logger=[csv,wandb]\n")
    assert list(yaml.safe_load(several)) == ["csv", "wandb"]


def test_a_group_without_a_default_asks_which(run: Run) -> None:
    code, _, err = run("show", "debug")
    assert code == 2
    assert err == (
        "ConfigError: show: no debug is chosen by itself. Say which.\n    The options: fast, overfit, profile.\n"
    )


def test_an_option_that_changes_everything_is_shown_whole(run: Run) -> None:
    shown = yaml.safe_load(run("show", "debug=fast")[1])
    assert shown["data"]["limit"] == 64
    assert list(shown["logger"]) == ["csv"]
    assert {"seed", "model", "trainer"} <= set(shown)


def test_a_sweep_is_shown_with_what_it_goes_through(run: Run) -> None:
    assert "\n# goes through seed=0,1,2,3,4\n" in run("show", "sweep=seeds")[1]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["show"], "show: say which option, as in 'graft configs show peft=lora'."),
        (["show", "pfet=lora"], "show: there is no group 'pfet'. Did you mean 'peft'?"),
        (["show", "peft=lroa"], "peft=lroa: peft has no option 'lroa'. Did you mean 'lora'?"),
        (["show", "peft=lora", "pfet=1"], "pfet=1: 'train' has no key 'pfet'. Did you mean 'peft'?"),
        (["copy"], "copy: say one option, as in 'graft configs copy peft/lora to=my_conf'."),
        (["copy", "peft/lora", "peft/full"], "copy: say one option, as in"),
        (["copy", "peft/lroa"], "copy: there is no option 'peft/lroa'. Did you mean 'peft/lora'?\n    The options: "),
        (["-m"], "--multirun: 'graft configs' has no such flag. See 'graft configs --help'."),
        (["--nope", "peft"], "--nope: there is no such flag."),
        (["--config-dir"], "--config-dir: this flag needs a value behind it."),
        (["--config-dir", "nope"], "--config-dir: there is no folder '"),
    ],
)
def test_a_mistake_is_answered(run: Run, words: list[str], answer: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"ConfigError: {answer}")


@pytest.mark.parametrize("name", ["peft/lora", "peft=lora", "peft/lora.yaml"])
def test_a_copy_is_the_file_itself_and_says_how_to_use_it(run: Run, tmp_path: Path, name: str) -> None:
    code, out, _ = run("copy", name, "to=my conf")
    assert code == 0
    copied = tmp_path / "my conf/peft/lora.yaml"
    assert copied.read_bytes() == (paths.conf_dir() / "peft/lora.yaml").read_bytes()
    assert out.splitlines() == [
        f"my conf/peft/lora.yaml: copied from {paths.conf_dir() / 'peft/lora.yaml'}",
        "Edit it; it is used with: graft train --config-dir 'my conf' peft=lora",
    ]


def test_a_file_that_is_there_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "conf/peft/lora.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# edited\n", encoding="utf-8")
    code, _, err = run("copy", "peft/lora")
    assert code == 2
    assert err.startswith("ConfigError: copy: conf/peft/lora.yaml is there already and is not overwritten.")
    assert mine.read_text(encoding="utf-8") == "# edited\n"


def test_the_shipped_folder_is_never_copied_to(run: Run) -> None:
    code, _, err = run("copy", "peft/lora", f"to={paths.conf_dir()}")
    assert code == 2
    assert "is the folder of the shipped configs. Give one of your own with to=DIR." in err


def test_the_users_own_folder_is_where_copies_go_by_default(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("GRAFT_CONF_DIR", str(tmp_path / "own"))
    _, out, _ = run("copy", "task/loss/focal")
    assert (tmp_path / "own/task/loss/focal.yaml").is_file()
    assert out.endswith("Edit it; it is used with: graft train task/loss=focal\n")


def test_a_copy_can_be_chosen_where_it_was_copied_to(run: Run, tmp_path: Path) -> None:
    run("copy", "trainer/smoke", "to=mine")
    copied = tmp_path / "mine/trainer/smoke.yaml"
    copied.write_text(copied.read_text(encoding="utf-8") + "max_steps: 2\n", encoding="utf-8")
    shown = run("show", "trainer=smoke", "--config-dir", "mine")[1]
    assert shown.startswith(f"# trainer=smoke  ({copied})\n")
    assert yaml.safe_load(shown)["max_steps"] == 2
    assert yaml.safe_load(shown)["max_epochs"] == 1


def test_help_says_all_three(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert out.startswith("usage: graft configs [GROUP ...]\n       graft configs show ")
    assert "graft configs copy" in out
