from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator

import pytest

from graft.log import get_logger, quiet_lightning


@pytest.fixture
def fresh() -> Iterator[logging.Logger]:
    """Give graft's root logger without handlers, and put it back as it was."""
    root = logging.getLogger("graft")
    before = (root.handlers[:], root.level, root.propagate)
    root.handlers.clear()
    yield root
    root.handlers[:], root.level, root.propagate = before


def test_messages_go_to_standard_error_with_the_time(fresh: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("graft.somewhere").info("data: %d rows", 3)
    printed = capsys.readouterr()
    assert printed.out == ""  # standard output is for results, such as predictions
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] data: 3 rows\n", printed.err)


def test_asking_for_loggers_again_does_not_double_the_messages(
    fresh: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("graft.a", "graft.b", "graft.a"):
        get_logger(name)
    get_logger("graft.a").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_messages_follow_standard_error_where_it_is_redirected(
    fresh: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A progress bar takes its place while it is drawn, so that a line of ours does not tear it."""
    log = get_logger("graft.a")
    redirected = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", redirected)
        log.info("above the bar")
    log.info("after it")
    assert "above the bar" in redirected.getvalue()
    assert "after it" not in redirected.getvalue()


def test_a_handler_that_somebody_else_added_does_not_silence_ours(
    fresh: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh.addHandler(logging.NullHandler())
    get_logger("graft.a").info("heard")
    assert "heard" in capsys.readouterr().err


def test_details_for_developers_are_not_shown(fresh: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("graft.a").debug("detail")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_only_the_first_process_speaks(
    variable: str, fresh: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    log = get_logger("graft.a")
    monkeypatch.setenv(variable, "1")
    log.warning("from the second")
    monkeypatch.setenv(variable, "0")
    log.warning("from the first")
    printed = capsys.readouterr().err
    assert "from the first" in printed
    assert "from the second" not in printed


def test_the_first_process_of_the_second_machine_is_silent_too(
    fresh: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = get_logger("graft.a")
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    log.warning("from the second machine")
    assert capsys.readouterr().err == ""


def test_warnings_of_substance_stay_when_lightning_is_quiet() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet_lightning()
        warnings.warn("The 'val_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("Checkpoint directory /x exists and is not empty.", stacklevel=1)
        warnings.warn("It is recommended to use `self.log('val/loss', ..., sync_dist=True)` when ...", stacklevel=1)
        warnings.warn("The loss is not finite.", stacklevel=1)
    assert [str(one.message) for one in seen] == ["The loss is not finite."]


def test_lightning_says_nothing_about_devices_when_it_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    import pytorch_lightning as pl

    def spoken() -> list[str]:
        caplog.clear()
        pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        return caplog.messages

    speakers = [logging.getLogger(f"{name}.utilities.rank_zero") for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [speaker.level for speaker in speakers]
    for speaker in speakers:
        speaker.setLevel(logging.INFO)
        speaker.addHandler(caplog.handler)
    try:
        assert any("GPU available" in message for message in spoken())  # what would be said
        quiet_lightning()
        assert spoken() == []
    finally:
        for speaker, level in zip(speakers, levels, strict=True):
            speaker.removeHandler(caplog.handler)
            speaker.setLevel(level)
