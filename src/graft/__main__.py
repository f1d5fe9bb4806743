"""The ``graft`` command: a table from verbs to modules, each imported only when its verb is called."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from graft import __version__


class Verb(NamedTuple):
    """What a verb is.

    Attributes:
        module: Has ``main()``.
        meaning: One line for the help.
        composed: Whether it is a Hydra application with a primary config of its name.
    """

    module: str
    meaning: str
    composed: bool = True


VERBS: dict[str, Verb] = {
    "train": Verb("graft.commands.train", "fine-tune a model and test it"),
    "evaluate": Verb("graft.commands.evaluate", "the metrics of a finished run, on its own or other data"),
    "predict": Verb("graft.commands.predict", "predictions of a finished run for the rows of a file"),
    "configs": Verb("graft.commands.configs", "list, show and copy what can be chosen", composed=False),
    "completion": Verb("graft.commands.completion", "let the shell complete verbs and options", composed=False),
}
"""Every verb. Another one is one more line."""

_HELP = ("-h", "--help")
_VERSION = ("-V", "--version")


def usage() -> str:
    """Return the help of the command itself."""
    verbs = "\n".join(f"  {name:<12}{verb.meaning}" for name, verb in VERBS.items())
    return f"""usage: graft VERB [GROUP=OPTION ...] [KEY=VALUE ...] [FLAG ...]

Fine-tune transformers by composition: task, data, model, method, optimizer and trainer are switches.

Verbs
{verbs}

Examples
  graft train                                     the default setting: ready data, a small encoder, LoRA
  graft train peft=full optimizer.lr=5e-5 seed=1  another method, another value
  graft train -m peft=head_only,lora seed=0,1,2   a sweep: six runs
  graft configs peft                              the methods there are

'graft VERB --help' says what a verb can be told. 'graft --version' prints {__version__}.
"""


def main() -> None:
    """Run the command line."""
    try:
        _answer(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit complains again
        sys.exit(141)


def _answer(words: list[str]) -> None:
    verb = words[0] if words else "--help"
    if verb == "help" and len(words) > 1:
        verb, words = words[1], [words[1], "--help"]
    if verb in (*_HELP, "help"):
        sys.stdout.write(usage())
    elif verb in _VERSION or (verb in VERBS and not set(_VERSION).isdisjoint(words)):
        print(f"graft {__version__}")
    elif verb in ("-sc", "--shell-completion"):
        _run("completion", [])
    elif verb not in VERBS:
        _unknown(verb)
    else:
        _run(verb, words[1:])


def _run(verb: str, words: list[str]) -> None:
    entry = VERBS[verb]
    if not entry.composed:
        import importlib

        importlib.import_module(entry.module).main()
    elif any(word in _HELP for word in words):
        from graft.commands.help import print_help

        print_help(verb, words)
    else:
        from graft.commands.app import run_verb

        run_verb(verb, entry.module)


def _unknown(verb: str) -> None:
    from graft.errors import did_you_mean

    near = did_you_mean(verb, [*VERBS, *_HELP, *_VERSION])
    print(f"graft: there is no {'flag' if verb.startswith('-') else 'verb'} '{verb}'.{near}", file=sys.stderr)
    print(f"    The verbs: {', '.join(VERBS)}. 'graft --help' says what they do.", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
