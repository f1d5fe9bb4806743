"""``graft completion bash|zsh``: the shell script that completes verbs, groups, options and keys.

    eval "$(graft completion bash)"        # in ~/.bashrc
    eval "$(graft completion zsh)"         # in ~/.zshrc

The script is Hydra's own (``graft -sc install=bash`` prints it too). At each TAB it calls ``graft -sc
query=bash`` with the line typed so far; verbs are completed here, what stands behind a verb by Hydra.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from graft.commands.arguments import read_arguments
from graft.commands.report import reported
from graft.errors import ConfigError, GraftError, did_you_mean

SHELLS = ("bash", "zsh")

USAGE = """usage: graft completion bash|zsh

Print the script that lets the shell complete verbs, groups, options and keys. Put one line where your shell
starts:

  eval "$(graft completion bash)"     in ~/.bashrc
  eval "$(graft completion zsh)"      in ~/.zshrc

The other way round: eval "$(graft -sc uninstall=bash)".
"""


def main() -> None:
    """Run the command line's ``completion``, and ``graft -sc ...``."""
    words = sys.argv[1:]
    with reported():
        if words[:1] == ["completion"]:
            _install(words[1:])
        elif words[1:2] and words[1].startswith("query="):
            with contextlib.suppress(GraftError):  # a message would land in the line that is being typed
                print(" ".join(complete(os.environ.get("COMP_LINE", ""))))
        elif words[1:2]:
            action, _, shell = words[1].partition("=")
            _print_script(action, shell)
        else:
            raise ConfigError("-sc: say what, as in 'graft -sc install=bash'.")


def _install(words: Sequence[str]) -> None:
    if not words or not {"-h", "--help"}.isdisjoint(words):
        sys.stdout.write(USAGE)
    else:
        _print_script("install", words[0])


def _print_script(action: str, shell: str) -> None:
    if shell not in SHELLS:
        raise ConfigError(f"completion: there is none for '{shell}'.{did_you_mean(shell, SHELLS)} There is: bash, zsh.")
    if action not in ("install", "uninstall"):
        raise ConfigError(f"-sc: '{action}' is neither install, uninstall nor query.")
    from graft.config.completion import shell_script

    if shell == "zsh":
        # The script is bash's; zsh reads it with bashcompinit, which needs compinit.
        print("(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }")
        print("autoload -Uz bashcompinit && bashcompinit")
    print(shell_script(action, shell))
    if action == "uninstall":
        print("complete -r graft 2> /dev/null")  # Hydra removes its function, and leaves the shell to look for it


def complete(line: str) -> list[str]:
    """Return what can follow a command line.

    Args:
        line: What was typed, the command's name first; a blank at the end asks for a new word.

    Returns:
        Words that may stand in the place of the last one.
    """
    from graft.__main__ import VERBS

    words = line.split()
    typed = words[1:] if line.endswith(" ") else words[1:-1]  # complete words before the one in question
    last = "" if line.endswith(" ") or len(words) < 2 else words[-1]
    if not typed:
        return [verb for verb in VERBS if verb.startswith(last)]
    if typed[-1] in {"--config-dir", "-cd"}:
        return []  # the shell offers files then
    verb, *before = typed
    if verb == "completion":
        return [shell for shell in SHELLS if shell.startswith(last)]
    if verb == "configs":
        if not before:
            return [word for word in ("show", "copy") if word.startswith(last)]
        verb, before = "train", before[1:]
    elif verb not in VERBS:
        return []
    from graft.config.completion import complete_overrides

    arguments = read_arguments(before)
    multirun = ["-m"] if {"-m", "--multirun"} & set(arguments.flags) else []
    return complete_overrides(verb, [*multirun, *arguments.overrides], last, config_dirs=arguments.config_dirs)
