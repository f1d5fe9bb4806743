"""What the pages say is so: links lead somewhere, every option is described, every paper is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graft import paths
from graft.config.catalog import header, list_options, read_yaml
from graft.config.resolvers import usual_lr
from graft.config.root import SEVERAL
from tests.docs.pages import DOCS, PAGES, REPOSITORY, anchors, blocks, commands, first_cells, links, prose

GROUPS = list_options()

PAGE_OF = {
    "callbacks": "callbacks",
    "data": "data",
    "data/split": "data",
    "debug": "trainer",
    "experiment": "experiment-and-sweep",
    "hydra": "configuration",
    "logger": "logger",
    "model": "model",
    "module": "trainer",
    "objective": "objective",
    "optimizer": "optimization",
    "param_groups": "optimization",
    "paths": "configuration",
    "peft": "peft",
    "scheduler": "optimization",
    "sweep": "experiment-and-sweep",
    "task": "task",
    "task/loss": "task",
    "trainer": "trainer",
}
"""The page that describes a group."""


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.name


def told(group: str) -> list[str]:
    """Return the options that the tables of a group's page describe, as ``group=option``."""
    found = first_cells(read(DOCS / f"{PAGE_OF[group]}.md"))
    if group in SEVERAL:
        return [f"{group}={one}" for one in found if re.fullmatch(r"\w+", one)]
    return [one for one in found if one.startswith(f"{group}=")]


def test_every_group_has_a_page() -> None:
    assert GROUPS.keys() <= PAGE_OF.keys()


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_described_once_on_the_page_of_its_group(group: str) -> None:
    assert sorted(told(group)) == [f"{group}={name}" for name in GROUPS[group]]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_that_is_named_in_a_text_is_there(page: Path) -> None:
    text = read(page)
    own = {Path(block.file).with_suffix("").as_posix() for block in blocks(text) if block.file}
    wrong = []
    for group, value in re.findall(r"(?:`|'|\s)([a-z_]+(?:/[a-z_]+)?)=([\w\[\],]+)(?=[`'\s])", text):
        names = value.strip("[]").split(",") if group in GROUPS else []
        wrong += [
            f"{group}={name}"
            for name in names
            if name not in {"", "null"} and name not in GROUPS[group] and f"my_conf/{group}/{name}" not in own
        ]
    assert set(wrong) <= {"peft=lorra"}  # the example of an error


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in links(read(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(read(target))):
            lost.append(link)
    assert lost == []


def test_the_usual_learning_rates_on_the_page_are_those_that_are_taken() -> None:
    rows = re.findall(r"^\| `peft=(\w+)` \|.*\| ([\d.e-]+) \|$", read(DOCS / "peft.md"), flags=re.MULTILINE)
    assert {name: float(rate) for name, rate in rows} == {
        name: usual_lr(read_yaml(option.path)["_target_"]) for name, option in GROUPS["peft"].items()
    }


def test_the_index_lists_every_page() -> None:
    listed = {link for link in links(read(DOCS / "index.md")) if not link.startswith("http")}
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= listed


def test_the_readme_leads_to_the_pages() -> None:
    assert "docs/index.md" in links(read(REPOSITORY / "README.md"))


def test_every_paper_in_the_header_of_a_yaml_is_in_the_list_of_papers() -> None:
    rows = [line for line in read(DOCS / "papers.md").splitlines() if "`conf/" in line]
    missing = []
    for path in sorted(paths.conf_dir().rglob("*.yaml")):
        name = f"`conf/{path.relative_to(paths.conf_dir()).as_posix()}`"
        for url in re.findall(r"https?://[^\s;,)]+", "\n".join(header(path))):
            if not any(name in row and f"({url.rstrip('.')})" in row for row in rows):
                missing.append(f"{name}: {url}")
    assert missing == []


def test_every_file_in_the_list_of_papers_is_there() -> None:
    files = re.findall(r"`((?:conf|src)/[^`]+)`", read(DOCS / "papers.md"))
    assert len(files) > 40
    assert [file for file in files if not (REPOSITORY / file).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_plain_text_without_a_place_of_one_machine(page: Path) -> None:
    text = read(page)
    assert text.isascii()
    assert not re.search(r"(?<![\w.])/(home|work|root|Users|tmp|mnt)/", text)
    assert max(map(len, prose(text).splitlines())) < 400


def test_commands_are_read_as_a_shell_reads_them() -> None:
    page = """
Say `graft train` or

```
graft train 'callbacks=[a,b]' run.name="two words"   # a comment
cat x | graft predict run=<folder or id> input=- && graft configs
eval "$(graft completion bash)"
make demo
```

`my_conf/peft/mine.yaml`:

```
graft no command, but the content of a file
```

```python
graft = "no command"
```
"""
    assert [(one.line, one.words) for one in commands(page)] == [
        (5, ("train", "callbacks=[a,b]", "run.name=two words")),
        (6, ("predict", "run=a1b2c3d4", "input=-")),
        (6, ("configs",)),
        (7, ("completion", "bash")),
    ]
    assert [block.file for block in blocks(page)] == [None, "my_conf/peft/mine.yaml", None]
