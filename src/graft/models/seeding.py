"""Random numbers of their own for what is initialised.

A head or an adapter does not depend on what ran before it. Numbers are drawn on the CPU, so that they do not
depend on the device either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a fresh CPU generator state inside the block; the state outside is untouched.

    Args:
        seed: The seed, 0 included; None leaves everything as it is.

    Yields:
        Nothing.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
