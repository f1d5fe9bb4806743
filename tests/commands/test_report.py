"""Errors as the command line shows them."""

from __future__ import annotations

import signal

import pytest
import yaml
from hydra.errors import ConfigCompositionException

from graft.commands.report import reported, show, status
from graft.errors import ConfigError, DataError


def ended(error: BaseException, *, traceback_wanted: bool = False) -> object:
    """Raise an error in a block whose errors are reported; return the status that the process would end with."""

    def work() -> None:
        with reported(traceback_wanted=traceback_wanted):
            raise error

    with pytest.raises(SystemExit) as caught:
        work()
    return caught.value.code


def test_a_problem_of_the_users_is_its_message_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(DataError("reviews.csv: it is empty. Give another.")) == 2
    assert capsys.readouterr().err == "DataError: reviews.csv: it is empty. Give another.\n"


def test_several_problems_are_numbered_in_the_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(ConfigError(["a: x.", "b: y.\n    z"])) == 2
    assert capsys.readouterr().err == ("ConfigError: 2 problems in the configuration:\n\n  a: x.\n\n  b: y.\n      z\n")


def test_a_problem_of_hydras_is_the_users_too(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigCompositionException("cannot compose")
    error.__cause__ = ValueError("because")
    assert ended(error) == 2
    assert capsys.readouterr().err == "ConfigError: cannot compose\nbecause\n"


def test_a_file_that_is_no_yaml_is_the_users_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(yaml.YAMLError("line 3")) == 2
    assert capsys.readouterr().err == "ConfigError: line 3\n"


def test_an_error_of_ours_is_its_traceback_and_status_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(ZeroDivisionError("a bug")) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("ZeroDivisionError: a bug\n")


def test_a_problem_of_the_users_has_a_traceback_where_one_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(DataError("x"), traceback_wanted=True) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("DataError: x\n")


def test_an_interrupt_is_one_word_and_its_usual_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(KeyboardInterrupt()) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted\n"


def test_lightnings_answer_to_a_termination_signal_is_no_success() -> None:
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    assert ended(SIGTERMException()) == 128 + signal.SIGTERM


@pytest.mark.parametrize("code", [None, 0, 3])
def test_an_exit_stays_what_it_is(code: int | None) -> None:
    assert ended(SystemExit(code)) == code


def test_nothing_is_said_when_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with reported():
        pass
    assert capsys.readouterr() == ("", "")


def test_status_and_show_agree(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ConfigError("x"), ValueError("y")):
        show(error)
        assert (status(error) == 1) == ("ValueError" in capsys.readouterr().err)
