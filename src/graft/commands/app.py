"""Runs a verb of the command line as a Hydra application, over overrides that were checked and made ready."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from graft import paths
from graft.commands.arguments import Arguments, read_arguments, words_behind
from graft.commands.report import reported, show, status
from graft.config.overrides import check_overrides, clean_overrides, rewrite_overrides
from graft.config.process import command_line, environment
from graft.config.search import searching, version_base


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
    """
    arguments = read_arguments(words_behind(command))
    with reported(traceback_wanted=arguments.wants_traceback):
        _check(command, arguments)
        written = list(sys.argv)
        failed: list[int] = []
        job = _job(task_function, written, failed, traceback_wanted=arguments.wants_traceback)
        application = hydra.main(config_path=str(paths.conf_dir()), config_name=command, **version_base())(job)
        prepared = [sys.argv[0], *arguments.flags, *rewrite_overrides(arguments.overrides)]
        # Hydra would print a traceback and exit; so told it raises, and one place here decides what is shown.
        with searching(arguments.config_dirs), command_line(prepared), environment("HYDRA_FULL_ERROR", "1"):
            try:
                application()
            except Exception as error:
                if not failed:
                    raise
                numbers = ", ".join(map(str, failed))
                print(f"\n{len(failed)} of the sweep's jobs failed: {numbers}", file=sys.stderr)
                raise SystemExit(status(error)) from None


def _check(command: str, arguments: Arguments) -> None:
    if arguments.checked:
        _check_once(
            str(paths.conf_dir()),
            arguments.config_name or command,
            tuple(arguments.overrides),
            tuple(arguments.config_dirs),
            arguments.multirun,
        )


@functools.lru_cache(maxsize=1)
def _check_once(
    conf_dir: str,  # noqa: ARG001  part of the key
    command: str,
    overrides: tuple[str, ...],
    config_dirs: tuple[str, ...],
    multirun: bool,
) -> None:
    check_overrides(command, overrides, config_dirs=config_dirs, multirun=multirun)


def _job(
    task_function: Callable[[DictConfig], Any],
    written: list[str],
    failed: list[int],
    *,
    traceback_wanted: bool,
) -> Callable[[DictConfig], Any]:
    full_error = os.environ.get("HYDRA_FULL_ERROR")

    @functools.wraps(task_function)
    def job(cfg: DictConfig) -> Any:
        # A part may start processes that repeat the command: they need the user's words and environment.
        with command_line(written), environment("HYDRA_FULL_ERROR", full_error):
            try:
                return task_function(cfg)
            except Exception as error:
                config = HydraConfig.get()
                if config.mode == RunMode.MULTIRUN:
                    changed = " ".join(clean_overrides(config.overrides.task))
                    print(f"\njob {config.job.num} failed: {changed}", file=sys.stderr)
                    show(error, traceback_wanted=traceback_wanted)
                    failed.append(config.job.num)
                raise

    return job


def _nothing(_: DictConfig) -> None:
    """Stand in for a verb whose configuration is only shown."""
