"""Tables that the verbs print."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def print_metrics(metrics: Mapping[str, float], *, title: str) -> None:
    """Print metrics as a table with one row a metric and one column a split.

    Args:
        metrics: Values by ``<split>/<metric>``.
        title: Written above it.
    """
    splits = sorted({name.partition("/")[0] for name in metrics}, reverse=True)
    names = list(dict.fromkeys(name.partition("/")[2] for name in metrics))
    table = Table("metric", *splits, title=title, title_justify="left")
    for name in names:
        cells = [metrics.get(f"{split}/{name}") for split in splits]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in cells))
    # A path in the title must stay in one piece, to be copied.
    Console(soft_wrap=True).print(table)
