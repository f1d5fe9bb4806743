"""Tables that the verbs print."""

from __future__ import annotations

import pytest

from graft.commands.tables import print_metrics


def test_a_metric_is_a_row_and_a_split_a_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    title = "/a/very/long/folder/that/is/to/be/copied/in/one/piece/logs/runs/2026-01-31_12-00-00_1a2b3c4d"
    print_metrics({"val/accuracy": 0.91234, "test/accuracy": 0.5, "val/loss": float("nan")}, title=title)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.strip() == title
    cells = [
        [cell.strip() for cell in line.strip("\u2503\u2502").replace("\u2503", "\u2502").split("\u2502")]
        for line in lines
    ]
    assert ["metric", "val", "test"] in cells
    assert ["accuracy", "0.9123", "0.5000"] in cells
    assert ["loss", "nan", ""] in cells
