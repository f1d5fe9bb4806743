from __future__ import annotations

import sys
from pathlib import Path

import pytest

from graft import errors
from graft.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    GraftError,
    IncompatibleError,
    MissingDependencyError,
    did_you_mean,
    require,
)


def test_one_problem_is_the_whole_message() -> None:
    error = ConfigError("optimizer.lrr: AdamW takes no 'lrr'.")
    assert str(error) == "optimizer.lrr: AdamW takes no 'lrr'."
    assert error.problems == ("optimizer.lrr: AdamW takes no 'lrr'.",)


def test_several_problems_are_counted_and_listed_with_their_further_lines_indented() -> None:
    error = ConfigError(["a: wrong.\n    It takes: b.", "c: missing."])
    assert str(error) == "2 problems in the configuration:\n\n  a: wrong.\n      It takes: b.\n\n  c: missing."
    assert error.problems == ("a: wrong.\n    It takes: b.", "c: missing.")


@pytest.mark.parametrize("kind", [DataError, IncompatibleError, CheckpointError, MissingDependencyError])
def test_other_errors_count_problems_in_the_plural(kind: type[GraftError]) -> None:
    assert str(kind(["one.", "two."])).splitlines()[0] == "2 problems:"


def test_every_error_of_ours_is_a_graft_error() -> None:
    """The command line shows a GraftError without a traceback, and everything else with one."""
    ours = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert len(ours) == 6
    assert all(issubclass(one, GraftError) for one in ours)


def test_the_nearest_word_is_named() -> None:
    assert did_you_mean("step_sz", ["steps", "step_size", "epsilon"]) == " Did you mean 'step_size'?"


def test_nothing_is_named_when_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["steps", "step_size"]) == ""


def test_known_words_may_be_anything_that_has_a_text() -> None:
    known: list[object] = [1, Path("labels")]
    assert did_you_mean("label", known) == " Did you mean 'labels'?"  # type: ignore[arg-type]


def test_a_package_that_is_there_is_imported() -> None:
    assert require("json", extra="any", what="a test").loads("[1]") == [1]


def test_a_missing_package_is_named_with_what_needs_it_and_the_command_that_installs_it() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        require("no_such_package.inside", extra="quant", what="optimizer=adamw_8bit")
    assert str(caught.value) == (
        "optimizer=adamw_8bit needs the package 'no_such_package.inside', which is not installed.\n"
        '    pip install "graft[quant]"'
    )


def test_a_package_that_is_there_but_lacks_another_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installing the extra again would not help, so the import error itself is shown."""
    (tmp_path / "graft_test_broken.py").write_text("import no_such_package_either\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_package_either"):
        require("graft_test_broken", extra="quant", what="a test")
    assert "graft_test_broken" not in sys.modules
