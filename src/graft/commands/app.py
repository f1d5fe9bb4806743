"""Runs a verb of the command line as a Hydra application, over overrides that were checked and made ready."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, final

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from graft import paths
from graft.commands.arguments import Arguments, read_arguments, words_behind
from graft.commands.report import reported, show, status
from graft.config.overrides import check_overrides
from graft.config.process import command_line, environment
from graft.config.search import searching
from graft.config.versions import version_base
from graft.config.written import clean_overrides, rewrite_overrides
from graft.errors import ConfigError


def run_verb(command: str, module: str) -> None:
    """Check what stands behind a verb, then import what does the work.

    The check comes first, so that a misspelt option is answered before torch is imported.

    Args:
        command: The verb.
        module: The module whose ``main`` runs it.
    """
    arguments = read_arguments(words_behind(command))
    with reported(traceback_wanted=arguments.wants_traceback):
        _check(command, arguments)
        if arguments.shows_only:
            run_command(command, _nothing)
        else:
            importlib.import_module(module).main()


def run_command(command: str, task_function: Callable[[DictConfig], Any]) -> None:
    """Run a verb as a Hydra application over ``sys.argv``.

    Args:
        command: The verb, which is the name of its primary config.
        task_function: Does the work; what it returns goes to a sweeper.

    Raises:
        SystemExit: With a status that is not zero, if the work failed.
    """
    arguments = read_arguments(words_behind(command))
    with reported(traceback_wanted=arguments.wants_traceback):
        _check(command, arguments)
        job = _Job(task_function, traceback_wanted=arguments.wants_traceback)
        # sweep=... asks for several jobs by itself; Hydra wants the flag.
        sweeps = arguments.multirun and not arguments.shows_only and "--multirun" not in arguments.flags
        flags = [*arguments.flags, "--multirun"] if sweeps else arguments.flags
        prepared = [sys.argv[0], *flags, *rewrite_overrides(arguments.overrides)]
        application = hydra.main(config_path=str(paths.conf_dir()), config_name=command, **version_base())(job)
        # Hydra would print a traceback and exit; so told it raises, and one place here decides what is shown.
        with searching(arguments.config_dirs), command_line(prepared), environment("HYDRA_FULL_ERROR", "1"):
            application()
        job.report()


def _check(command: str, arguments: Arguments) -> None:
    problems = list(arguments.problems)
    if arguments.checked:
        try:
            _check_once(
                str(paths.conf_dir()),
                arguments.config_name or command,
                tuple(arguments.overrides),
                tuple(arguments.config_dirs),
                arguments.multirun,
                not arguments.shows_only,
            )
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)


@functools.lru_cache(maxsize=1)
def _check_once(
    conf_dir: str,  # noqa: ARG001  part of the key
    command: str,
    overrides: tuple[str, ...],
    config_dirs: tuple[str, ...],
    multirun: bool,
    complete: bool,
) -> None:
    check_overrides(command, overrides, config_dirs=config_dirs, multirun=multirun, complete=complete)


@final
class _Job:
    """What Hydra calls, once for a run and once for every job of a sweep; a job that fails does not stop the others.

    Args:
        task_function: Does the work.
        traceback_wanted: Whether problems of the user's come with a traceback.
    """

    def __init__(self, task_function: Callable[[DictConfig], Any], *, traceback_wanted: bool) -> None:
        functools.update_wrapper(self, task_function)  # Hydra names the job by the module of what it calls
        self._task_function = task_function
        self._traceback_wanted = traceback_wanted
        self._words = list(sys.argv)
        self._full_error = os.environ.get("HYDRA_FULL_ERROR")
        self._process = os.getpid()
        self._jobs = 0
        self._failed: dict[str, int] = {}

    def __call__(self, cfg: DictConfig) -> Any:
        """Do the work; an error is shown here, where Hydra's own frames are not part of its traceback yet.

        Args:
            cfg: The composed configuration.

        Returns:
            What a sweeper optimises; None for a job that failed.
        """
        self._jobs += 1
        # A part may start processes that repeat the command: they need the user's words and environment.
        with command_line(self._words), environment("HYDRA_FULL_ERROR", self._full_error):
            try:
                return self._task_function(cfg)
            except Exception as error:
                self._note(error)
                if os.getpid() != self._process:
                    raise  # a launcher's own process: what is noted here would be lost
                return None

    def _note(self, error: Exception) -> None:
        config = HydraConfig.get()
        name = "the run"
        if config.mode == RunMode.MULTIRUN:
            name = f"job {config.job.num}: {' '.join(clean_overrides(config.overrides.task))}"
            print(f"\n{name}", file=sys.stderr)
        show(error, traceback_wanted=self._traceback_wanted)
        self._failed[name] = status(error)

    def report(self) -> None:
        """End the process with a status that is not zero if anything failed.

        Raises:
            SystemExit: With status 1 if one of the errors is ours, 2 if all are the user's.
        """
        if not self._failed:
            return
        if self._jobs > 1:
            listed = "\n".join(f"  {name}" for name in self._failed)
            print(f"\n{len(self._failed)} of the sweep's {self._jobs} jobs failed:\n{listed}", file=sys.stderr)
        raise SystemExit(min(self._failed.values()))


def _nothing(_: DictConfig) -> None:
    """Stand in for a verb whose configuration is only shown."""
