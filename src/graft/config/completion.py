"""Hydra's shell completion, asked from inside this process: its script, and what can follow a line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra

from graft.config.catalog import read_primary, user_folders
from graft.config.overrides import known_keys
from graft.config.process import command_line, environment
from graft.config.search import session
from graft.config.written import rewrite_overrides


def shell_script(action: str, shell: str) -> str:
    """Return the script that installs or removes the completion of the command ``graft``.

    Args:
        action: ``install`` or ``uninstall``.
        shell: ``bash`` or ``zsh``.

    Returns:
        Shell code.
    """
    return _ask("train", f"{action}={shell}", line="graft ")


def complete_overrides(command: str, before: Sequence[str], last: str, *, config_dirs: Sequence[str] = ()) -> list[str]:
    """Return what can stand in the place of a word that is being typed.

    Args:
        command: The command, which is the name of its primary config.
        before: The words before it; they count, as ``task=...`` decides which losses there are.
        last: What is typed of the word.
        config_dirs: The user's config folders.

    Returns:
        Groups (``peft=``), options (``peft=lora``) and keys (``trainer.max_epochs=``).
    """
    line = " ".join(["graft", *rewrite_overrides(before), last])
    offered = _ask(command, "query=bash", line=line, config_dirs=config_dirs).split()
    known = known_keys(read_primary(command, user_folders(config_dirs)))
    return [word for word in offered if re.split(r"[=./]", word.lstrip("+~"))[0] in known]


def _ask(command: str, question: str, *, line: str, config_dirs: Sequence[str] = ()) -> str:
    answer = io.StringIO()
    with (
        session(config_dirs),
        command_line(["graft"]),  # the name that the script is for
        environment("COMP_LINE", line),
        contextlib.redirect_stdout(answer),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.shell_completion(command, [question])
    return answer.getvalue()
