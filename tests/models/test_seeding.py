from __future__ import annotations

import torch

from graft.models.seeding import seeded


def test_same_seed_gives_same_numbers_whatever_was_drawn_before() -> None:
    with seeded(0):
        first = torch.rand(3)
    torch.rand(17)
    with seeded(0):
        second = torch.rand(3)
    with seeded(1):
        other = torch.rand(3)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_numbers_outside_do_not_notice() -> None:
    torch.manual_seed(5)
    plain = torch.rand(3)
    torch.manual_seed(5)
    with seeded(0):
        torch.rand(100)
    assert torch.equal(torch.rand(3), plain)


def test_no_seed_draws_from_the_global_state() -> None:
    torch.manual_seed(5)
    plain = torch.rand(3)
    torch.manual_seed(5)
    with seeded(None):
        assert torch.equal(torch.rand(3), plain)
