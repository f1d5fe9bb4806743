"""What can be chosen is a promise to users, so the list is committed: an option that goes or comes shows in a diff.

After a change that is meant, write the list anew with

    python -m tests.test_options
"""

from __future__ import annotations

from pathlib import Path

from graft.config.catalog import list_options

COMMITTED = Path(__file__).with_name("options.txt")


def current() -> list[str]:
    """Return every shipped option as ``group/option``, in the order of the catalog."""
    return [f"{group}/{name}" for group, options in list_options().items() for name in options]


def difference(committed: list[str], found: list[str]) -> str:
    """Say what came and what went, and how to commit it; empty when nothing did."""
    gone = [f"  gone: {one}" for one in committed if one not in found]
    new = [f"  new: {one}" for one in found if one not in committed]
    if not gone and not new:
        return ""
    remedy = "If that is meant, run `python -m tests.test_options`, and say it in CHANGELOG.md."
    return "\n".join([f"the options are not those of {COMMITTED.name}:", *gone, *new, remedy])


def test_the_options_are_the_committed_list() -> None:
    committed = COMMITTED.read_text(encoding="utf-8").splitlines()
    assert not difference(committed, current()), difference(committed, current())
    assert committed == current()  # in order, and nothing twice


def test_a_difference_names_what_came_and_what_went_and_the_remedy() -> None:
    told = difference(["peft/lora", "peft/lost"], ["peft/lora", "peft/mine"])
    assert told.splitlines()[1:3] == ["  gone: peft/lost", "  new: peft/mine"]
    assert "python -m tests.test_options" in told


if __name__ == "__main__":
    COMMITTED.write_text("\n".join(current()) + "\n", encoding="utf-8")
