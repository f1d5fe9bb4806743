from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from graft.callbacks.report import Report, optimizer_bytes, summary, trained_parts
from tests.callbacks.toy_run import ToyModule, loader, trainer


def stacked() -> nn.Module:
    blocks = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])  # 2 x 16
    model = nn.ModuleDict({"blocks": blocks, "head": nn.Linear(4, 2)})  # 8 + 2
    blocks[1].to(torch.bfloat16).requires_grad_(False)
    return model


def test_the_summary_counts_values_and_bytes() -> None:
    first, second = summary(stacked())
    assert first == "trains 26 of 42 parameters (61.90 %)"
    assert second == "weights 0.0 MiB bfloat16, 0.0 MiB float32; gradients 0.0 MiB"


def test_large_weights_are_in_mebibytes_by_type() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024, bias=False), nn.Linear(1024, 512, bias=False).half())
    model[1].requires_grad_(False)
    assert summary(model)[1] == "weights 1.0 MiB float16, 4.0 MiB float32; gradients 4.0 MiB"


def test_blocks_that_differ_in_number_only_are_one_line() -> None:
    model = stacked()
    model["blocks"].requires_grad_(True)  # type: ignore[index]
    assert [line.split() for line in trained_parts(model)] == [
        ["32", "2", "x", "blocks.*.weight"],
        ["8", "1", "x", "head.weight"],
        ["2", "1", "x", "head.bias"],
    ]


def test_the_optimizers_state_is_measured() -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == 15 * 4  # one momentum of 4 bytes a value


def test_a_run_reports_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("graft")
    logger.addHandler(caplog.handler)
    try:
        trainer(tmp_path, callbacks=[Report(tmp_path)], max_epochs=2).fit(ToyModule(), loader(), loader())
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("graft")]
    assert said[0] == "trains 15 of 15 parameters (100.00 %)"
    assert sum(line.startswith("after the first step: optimizer state") for line in said) == 1
    assert "model.weight" in (tmp_path / "parameters.txt").read_text()
