from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import peft as peft_library
from graft.peft.apply import PeftMethod
from graft.peft.freeze import HeadOnly
from graft.peft.report import report

Tiny = Callable[[str], Any]


def test_counts_are_those_of_the_parts(tiny: Tiny) -> None:
    case = tiny("bert")
    counts = report(case.adapt(HeadOnly()))
    assert counts.trainable == 3 * 32 + 3
    # 384 words, 512 positions, 2 segments and a norm of 64
    assert counts.by_part["embeddings"] == (0, (384 + 512 + 2) * 32 + 64)
    # 4 projections, 2 layers of the feed-forward part and 2 norms, twice
    assert counts.by_part["blocks"] == (0, 2 * (4 * (32 * 32 + 32) + 32 * 64 + 64 + 64 * 32 + 32 + 2 * 64))
    assert counts.by_part["head"] == (99, 99)
    assert counts.by_part["other"] == (0, 32 * 32 + 32)  # the pooler
    assert counts.total == sum(total for _, total in counts.by_part.values())
    assert counts.bytes_trainable == 99 * 4
    assert counts.text() == f"training 99 of {counts.total:,} parameters ({99 / counts.total:.2%}): head 99"


def test_adapter_counts_to_the_blocks_it_sits_in(tiny: Tiny) -> None:
    case = tiny("bert")
    case.model.to(torch.bfloat16)
    counts = report(case.adapt(PeftMethod(partial(peft_library.LoraConfig, r=2), targets=["query"])))
    assert counts.by_part["blocks"][0] == 2 * (2 * 32 + 32 * 2)
    assert counts.trainable == 256 + 99
    assert counts.bytes_trainable == 4 * counts.trainable
    assert counts.bytes_frozen == 2 * (counts.total - counts.trainable)
