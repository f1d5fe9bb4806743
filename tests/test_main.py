"""The command itself: its verbs, its help, and how little it imports to answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graft import __version__
from graft.__main__ import VERBS

_ASK = """
import sys
sys.argv = ["graft", *sys.argv[1:]]
from graft.__main__ import main
try:
    main()
finally:
    heavy = {"torch", "hydra", "omegaconf", "transformers", "rich"}
    print("IMPORTED", *sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def ask(*words: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command in an interpreter of its own; return it, and which heavy packages it imported."""
    ended = subprocess.run(
        [sys.executable, "-c", _ASK, *words], capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )
    errors, _, imported = ended.stderr.rpartition("IMPORTED")
    ended.stderr = errors
    return ended, set(imported.split())


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb_and_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    ended, imported = ask(*words, cwd=tmp_path)
    assert ended.returncode == 0
    for name, verb in VERBS.items():
        assert f"\n  {name} " in ended.stdout
        assert verb.meaning in ended.stdout
    assert not imported
    assert not ended.stderr


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["train", "--version"], ["predict", "run=x", "-V"]])
def test_the_version_is_ours_and_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    ended, imported = ask(*words, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"graft {__version__}\n", "")
    assert not imported


@pytest.mark.parametrize("words", [["train", "--help"], ["help", "train"], ["train", "peft=lora", "-h"]])
def test_the_help_of_a_verb_is_read_from_the_files_alone(words: list[str], tmp_path: Path) -> None:
    ended, imported = ask(*words, cwd=tmp_path)
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: graft train ")
    assert not imported


def test_listing_the_options_imports_nothing_heavy(tmp_path: Path) -> None:
    ended, imported = ask("configs", cwd=tmp_path)
    assert "peft=lora\tLoRA: " in ended.stdout
    assert not imported


@pytest.mark.parametrize("words", [["train", "peft=lroa"], ["train", "data=csv"], ["predict"], ["train", "--mutlirun"]])
def test_a_mistake_is_answered_before_torch_is_imported(words: list[str], tmp_path: Path) -> None:
    ended, imported = ask(*words, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("ConfigError: ")
    assert "Traceback" not in ended.stderr
    assert not imported & {"torch", "transformers"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["train", "--cfg", "job"], ["train", "--info", "defaults"], ["configs", "show", "peft"]]
)
def test_a_configuration_is_shown_without_torch(words: list[str], tmp_path: Path) -> None:
    ended, imported = ask(*words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout
    assert "Warning" not in ended.stderr
    assert not imported & {"torch", "transformers"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("trian", "graft: there is no verb 'trian'. Did you mean 'train'?\n"),
        ("--hlep", "graft: there is no flag '--hlep'. Did you mean '--help'?\n"),
        ("peft=lora", "graft: there is no verb 'peft=lora'.\n"),
    ],
)
def test_a_misspelt_verb_is_answered_with_the_nearest_and_all_others(word: str, answer: str, tmp_path: Path) -> None:
    ended, imported = ask(word, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == answer + f"    The verbs: {', '.join(VERBS)}. 'graft --help' says what they do.\n"
    assert not imported


def test_help_for_a_verb_that_there_is_not_is_answered_likewise(tmp_path: Path) -> None:
    ended, _ = ask("help", "trian", cwd=tmp_path)
    assert ended.returncode == 2
    assert "Did you mean 'train'?" in ended.stderr


def test_the_installed_command_and_the_module_are_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "graft"
    for command in ([str(script)], [sys.executable, "-m", "graft"]):
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert answer.stdout == f"graft {__version__}\n"


def test_output_into_a_pipe_that_closes_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m graft configs | head -n 1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""


def test_help_fits_a_narrow_terminal(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "graft", "train", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80"},
        check=True,
    )
    groups = ended.stdout.partition("What can be chosen")[2].partition("\nKeys\n")[0]
    assert max(map(len, groups.splitlines())) <= 80
