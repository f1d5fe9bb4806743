from __future__ import annotations

import io
import itertools
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from graft.callbacks.progress import RichProgress
from tests.callbacks.toy_run import ToyModule, batches, loader, trainer


@pytest.fixture
def _heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    logger = logging.getLogger("graft")  # does not propagate to the root, where pytest listens
    logger.addHandler(caplog.handler)
    yield
    logger.removeHandler(caplog.handler)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("graft")]


@pytest.mark.usefixtures("_heard")
def test_without_a_terminal_there_are_a_few_lines_and_no_control_codes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bar = RichProgress(console=Console(file=io.StringIO(), force_terminal=False))
    trainer(tmp_path, callbacks=[bar], max_epochs=2).fit(ToyModule([0.5, 0.75]), loader(), loader())
    lines = messages(caplog)
    assert [line for line in lines if line.startswith("step")] == [
        "step 3: val/accuracy 0.5000, val/loss 0.5000",
        "step 6: val/accuracy 0.7500, val/loss 0.2500",
    ]
    last = [line for line in lines if line.startswith("epoch 2/2, batch 3/3")][-1]
    assert re.search(r"[0-9,]+ rows/s, [0-9,]+ tokens/s, loss \d\.\d{4}, 0:00 left", last)
    assert not any("\x1b" in line for line in lines)


@pytest.mark.usefixtures("_heard")
def test_lines_come_no_more_often_than_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bar = RichProgress(log_every=3600, console=Console(file=io.StringIO(), force_terminal=False))
    trainer(tmp_path, callbacks=[bar]).fit(ToyModule(), loader(batches((1,) * 50)))
    assert len([line for line in messages(caplog) if line.startswith("epoch 1")]) == 1  # its end


def test_a_terminal_gets_a_bar_with_speed_and_loss(tmp_path: Path) -> None:
    drawn = io.StringIO()
    bar = RichProgress(refresh=0.0, console=Console(file=drawn, force_terminal=True, width=140))
    run = trainer(tmp_path, callbacks=[bar], max_epochs=1)
    module = ToyModule([0.5])
    run.fit(module, loader(), loader())
    run.test(module, loader(), verbose=False)
    text = drawn.getvalue()
    for part in ("epoch 1/1", "3/3", "rows/s", "tokens/s", "loss", "left", "validation", "test"):
        assert part in text
    assert "val/accuracy 0.5000" in text


def test_redrawing_takes_at_most_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = RichProgress(refresh=0.0, console=Console(file=io.StringIO(), force_terminal=True, width=140))
    drawn: list[float] = []

    def slow(*args: object, **kwargs: object) -> str:
        drawn.append(time.perf_counter())
        time.sleep(0.002)
        return ""

    monkeypatch.setattr(RichProgress, "_describe", slow)
    trainer(tmp_path, callbacks=[bar]).fit(ToyModule(), loader(batches((1,) * 100)))
    gaps = [after - before for before, after in itertools.pairwise(drawn[:-1])]
    assert all(gap >= 0.2 for gap in gaps)  # a redraw takes 0.002 s at least


def test_a_disabled_bar_shows_nothing(tmp_path: Path) -> None:
    drawn = io.StringIO()
    bar = RichProgress(refresh=0.0, console=Console(file=drawn, force_terminal=True))
    bar.disable()
    trainer(tmp_path, callbacks=[bar]).fit(ToyModule(), loader(), loader())
    assert drawn.getvalue() == ""


def test_a_failure_leaves_the_terminal_usable(tmp_path: Path) -> None:
    drawn = io.StringIO()
    bar = RichProgress(refresh=0.0, console=Console(file=drawn, force_terminal=True))
    with pytest.raises(RuntimeError, match="went"):
        trainer(tmp_path, callbacks=[bar]).fit(ToyModule(fail_at=1), loader())
    assert drawn.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again
