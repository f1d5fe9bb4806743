"""The command line in processes of their own that have imported the heavy packages already.

Every command is a real process with its own arguments, folder, environment, files, signals and exit status. It is
forked from one that has only imported torch and the like, which saves most of the time a command takes to start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("graft.commands.train", "graft.commands.evaluate", "graft.commands.predict"),
        *("peft", "wandb", "transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert"),
    ]
)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: The exit status; minus the number of the signal that killed it.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
    """

    status: int
    out: str
    err: str


class Command:
    """A command that is running.

    Args:
        words: What stands behind ``graft``.
        cwd: The folder it is started in.
        env: Changes to the environment; None removes a variable.
        stdin: A file, or a pipe, to read standard input from.
        stdout: The same for standard output; a file by default.
    """

    def __init__(
        self,
        words: tuple[str, ...],
        *,
        cwd: Path,
        env: Mapping[str, str | None] | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
    ) -> None:
        stem = f".{time.monotonic_ns()}"
        self._out, self._err = cwd / f"{stem}.out", cwd / f"{stem}.err"
        streams = (stdin or Path(os.devnull), stdout or self._out, self._err)
        self.process = _context.Process(target=_command, args=(words, cwd, dict(env or {}), streams))
        self.process.start()

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self._err.read_text(encoding="utf-8") if self._err.exists() else ""

    def wait_for(self, true: Callable[[], object], *, seconds: float = 60.0) -> None:
        """Wait until something is true of a running command."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process.is_alive(), self.err
            assert time.monotonic() < end, self.err
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self, *, seconds: float = 120.0) -> Ended:
        """Wait for the end."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"the command did not end within {seconds} s:\n{self.err}")
        out = self._out.read_text(encoding="utf-8") if self._out.exists() else ""
        ended = Ended(self.process.exitcode, out, self.err)
        for path in (self._out, self._err):
            path.unlink(missing_ok=True)
        return ended


def graft(
    *words: str,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    stdin: Path | None = None,
    stdout: Path | None = None,
) -> Ended:
    """Run a command to its end."""
    return Command(words, cwd=cwd, env=env, stdin=stdin, stdout=stdout).end()


def _command(words: tuple[str, ...], cwd: Path, env: dict[str, str | None], streams: tuple[Path, Path, Path]) -> None:
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))  # as python -m does it
    torch.set_num_threads(1)  # several would wait for each other where the tests share the cores with others
    for name, value in env.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, (path, flag) in enumerate(zip(streams, flags, strict=True)):
        os.dup2(os.open(path, flag, 0o644), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv = ["graft", *words]
    from graft.__main__ import main

    main()
