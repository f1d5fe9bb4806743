"""Completion in a real shell: the script that graft prints, and what a TAB then gives."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graft.commands import completion
from graft.commands.completion import complete
from graft.config.process import command_line

_BASH = r"""
eval "$(graft completion bash)"
complete -p graft
press_tab() {
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    read -ra COMP_WORDS <<< "$1"
    [[ $1 == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    local entry; entry=$(complete -p graft); entry=${entry##*-F }
    ${entry%% *}
    echo "> ${COMPREPLY[*]}"
}
"""


def _env() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def in_bash(*lines: str, cwd: Path) -> list[list[str]]:
    """Press TAB behind each line in a bash that has read the script; return what is offered for each."""
    asked = "\n".join(f"press_tab {shlex.quote(line)}" for line in lines)
    ended = subprocess.run(
        ["bash", "--norc", "-c", _BASH + asked],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=_env(),
        timeout=120,
        check=False,
    )
    assert ended.stderr == ""
    first, *answers = ended.stdout.splitlines()
    assert first.startswith("complete ")
    assert first.endswith(" graft")
    return [answer.removeprefix("> ").split() for answer in answers]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_groups_options_and_keys(tmp_path: Path) -> None:
    (tmp_path / "mine/peft").mkdir(parents=True)
    (tmp_path / "mine/peft/zebra.yaml").write_text("# Striped.\n", encoding="utf-8")
    verbs, verb, group, options, deep, own, shells = in_bash(
        "graft ",
        "graft tr",
        "graft train opti",
        "graft train peft=l",
        "graft train peft=lora peft.config.r",
        "graft train --config-dir mine peft=z",
        "graft completion z",
        cwd=tmp_path,
    )
    assert {"train", "evaluate", "predict", "configs", "completion"} <= set(verbs)
    assert verb == ["train"]
    assert "optimizer=" in group
    assert options == ["peft=last_blocks", "peft=lora"]
    assert deep == ["peft.config.r="]
    assert own == ["peft=zebra"]
    assert shells == ["zsh"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_the_script(tmp_path: Path) -> None:
    script = 'eval "$(graft completion zsh)"; print -- ${_comps[graft]}; COMP_LINE="graft tr" graft -sc query=bash'
    ended = subprocess.run(
        ["zsh", "-f", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=_env(),
        timeout=120,
        check=False,
    )
    assert ended.stderr == ""
    bound, offered = ended.stdout.splitlines()
    assert "hydra_bash_completion" in bound
    assert offered == "train"


def answer(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    with command_line(["graft", *words]):
        try:
            completion.main()
        except SystemExit as error:
            code = int(error.code or 0)
    return (code, *capsys.readouterr())


def test_zsh_gets_the_same_script_behind_what_it_needs_to_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    bash = answer("completion", "bash", capsys=capsys)[1]
    zsh = answer("completion", "zsh", capsys=capsys)[1]
    assert zsh.endswith(bash)
    assert "bashcompinit" in zsh.removesuffix(bash)
    assert "compinit" in zsh.removesuffix(bash)
    assert "complete" in bash


def test_the_script_can_be_asked_for_as_from_any_hydra_application(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("-sc", "install=bash", capsys=capsys) == answer("completion", "bash", capsys=capsys)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_what_was_installed_can_be_taken_away_again(tmp_path: Path) -> None:
    script = (
        'eval "$(graft completion bash)"; eval "$(graft completion bash)"; complete -p graft; '
        'eval "$(graft -sc uninstall=bash)"; complete -p graft; type -t hydra_bash_completion'
    )
    ended = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=_env(), check=False
    )
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == "bash: line 1: complete: graft: no completion specification\n"


@pytest.mark.parametrize("words", [["completion"], ["completion", "--help"]])
def test_help_says_what_to_write_where(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(*words, capsys=capsys)
    assert (code, err) == (0, "")
    assert 'eval "$(graft completion bash)"     in ~/.bashrc' in out
    assert 'eval "$(graft completion zsh)"      in ~/.zshrc' in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["completion", "bsah"], "completion: there is none for 'bsah'. Did you mean 'bash'? There is: bash, zsh."),
        (["completion", "fish"], "completion: there is none for 'fish'. There is: bash, zsh."),
        (["-sc"], "-sc: say what, as in 'graft -sc install=bash'."),
        (["-sc", "instal=bash"], "-sc: 'instal' is neither install, uninstall nor query."),
    ],
)
def test_a_mistake_is_answered(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(*words, capsys=capsys) == (2, "", f"ConfigError: {message}\n")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("graft", ["train", "evaluate", "predict", "configs", "completion"]),
        ("graft e", ["evaluate"]),
        ("graft nope ", []),
        ("graft configs ", ["show", "copy"]),
        ("graft configs s", ["show"]),
        ("graft configs show peft=he", ["peft=head_only"]),
        ("graft train -m seed=0,1 peft=f", ["peft=full"]),
        ("graft train --config-dir m", []),
        ("graft train peft=nope optimizer=s", ["optimizer=schedule_free", "optimizer=sgd"]),
    ],
)
def test_what_is_offered(line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_a_mistake_before_the_word_offers_nothing_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "graft train --config-dir /nowhere/at/all peft=f")
    assert answer("-sc", "query=bash", capsys=capsys) == (0, "", "")
