from __future__ import annotations

import contextlib
import gzip
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graft.data import sources
from graft.data.columns import to_schema
from graft.data.origin import places
from graft.data.schemas import ClassificationRow, MultiLabelRow
from graft.data.sources import Files, Hub, InMemory, SavedDataset
from graft.errors import ConfigError, DataError


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def texts(table: pa.Table) -> list[str]:
    return list(table.column("text").to_pylist())


def problems(source: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        source.load()
    return caught.value.problems


# ---- files ----


def test_each_split_may_be_a_file_of_another_format() -> None:
    write("train.csv", "text,label\none,x\n")
    write("dev.jsonl.gz", gzip.compress(b'{"text": "two", "label": "y"}'))
    tables = Files(train="train.csv", validation="dev.jsonl.gz").load()
    assert {split: table.to_pylist() for split, table in tables.items()} == {
        "train": [{"text": "one", "label": "x"}],
        "validation": [{"text": "two", "label": "y"}],
    }


@pytest.mark.parametrize(
    "given", ["parts", "parts/*.csv", "parts/**/part-?.csv", ["parts/part-1.csv", "parts/part-[23].csv"]]
)
def test_a_split_may_be_a_folder_a_glob_or_a_list_of_these(given: str | list[str]) -> None:
    for number in (3, 1, 2):
        write(f"parts/part-{number}.csv", f"text\nrow {number}\n")
    write("parts/.hidden.csv", "text\nhidden\n")
    assert texts(Files(train=given).load()["train"]) == ["row 1", "row 2", "row 3"]


def test_files_of_a_list_come_in_its_order() -> None:
    for name in ("b", "a"):
        write(f"{name}.txt", name)
    assert texts(Files(train=["b.txt", "a.txt"]).load()["train"]) == ["b", "a"]


def test_a_folder_holds_files_of_all_formats_unless_one_is_given() -> None:
    write("data/a.csv", "text\nfrom csv\n")
    write("data/b.jsonl", '{"text": "from jsonl"}')
    write("data/README.md", "no data")
    write("data/deeper/c.csv", "text\ndeeper\n")
    assert texts(Files(train="data").load()["train"]) == ["from csv", "from jsonl"]
    assert texts(Files(train="data", format="jsonl").load()["train"]) == ["from jsonl"]


def test_files_without_a_suffix_are_read_where_the_format_is_given() -> None:
    write("data/part-0000", '{"text": "one"}')
    write("data/part-0001", '{"text": "two"}')
    assert texts(Files(train="data", format="jsonl").load()["train"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("format", "suffixes"), [(None, ".csv, .tsv, .json, .jsonl, .ndjson, .parquet, .txt"), ("jsonl", ".jsonl, .ndjson")]
)
def test_a_folder_without_data_is_refused(format: str | None, suffixes: str) -> None:
    write("data/README.md", "no data")
    if format is not None:
        write("data/a.csv", "text\n")
    assert problems(Files(train="data", format=format)) == (
        f"data.source.train: the folder data holds no data file ({suffixes}, also with .gz).",
    )


def test_relative_paths_start_from_the_folder_where_the_source_was_made(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    write("a.txt", "one")
    write("sub/b.txt", "two")
    current, inside = Files(train="a.txt"), Files(train="b.txt", directory="sub")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert texts(current.load()["train"]) == ["one"]
    assert texts(inside.load()["train"]) == ["two"]
    assert texts(Files(train=str(here / "a.txt")).load()["train"]) == ["one"]
    assert texts(Files(train="../*.txt").load()["train"]) == ["one"]


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    write("home/a.txt", "one")
    monkeypatch.setenv("HOME", str(here / "home"))
    assert texts(Files(train="~/a.txt").load()["train"]) == ["one"]
    assert texts(Files(train="~/*.txt").load()["train"]) == ["one"]


def test_brackets_in_names_are_no_patterns_where_there_is_such_a_file() -> None:
    write("old [1]/a[2].txt", "one")
    assert texts(Files(train="old [1]/a[2].txt").load()["train"]) == ["one"]
    assert texts(Files(train="*.txt", directory="old [1]").load()["train"]) == ["one"]


def test_how_files_are_written_is_handed_on() -> None:
    write("a.csv", "one;x\ntwo;y\n")
    table = Files(train="a.csv", delimiter=";", column_names=["text", "label"]).load()["train"]
    assert table.to_pydict() == {"text": ["one", "two"], "label": ["x", "y"]}


def test_columns_of_several_files_are_put_together() -> None:
    write("a.jsonl", '{"text": "one", "label": 1}\n')
    write("b.jsonl", '{"text": "two", "label": 2, "more": true}\n')
    table = Files(train=["a.jsonl", "b.jsonl"]).load()["train"]
    assert table.to_pydict() == {"text": ["one", "two"], "label": [1, 2], "more": [None, True]}


def test_a_column_of_other_types_in_other_files_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.jsonl", '{"text": "one", "label": 1}\n{"text": "two", "label": null}\n')
    write("b.jsonl", '{"text": "three", "label": "1"}\n')
    table = Files(train=["a.jsonl", "b.jsonl"]).load()["train"]
    assert table.to_pydict() == {"text": ["one", "two", "three"], "label": ["1", None, "1"]}
    assert places("train", table, np.array([1, 2])) == "train split, a.jsonl, row 2; b.jsonl, row 1"
    # the same inside one file, where a chunk ends between them
    monkeypatch.setattr(sources, "_CHUNK", 1)
    write("c.jsonl", '{"label": 1}\n{"label": "x"}\n')
    assert Files(train="c.jsonl").load()["train"].column("label").to_pylist() == ["1", "x"]


def test_rows_know_their_file_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CHUNK", 2)
    for name in ("a", "b"):
        write(f"{name}.txt", "\n".join(map(str, range(5))))
    table = Files(train=["a.txt", "b.txt", "b.txt"]).load()["train"]
    assert places("train", table, np.array([4, 5, 8, 14])) == (
        "train split, a.txt, row 5; b.txt, rows 1, 4, 5"  # the last of a file that is read twice
    )


def test_a_class_label_in_a_parquet_file_is_known(here: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = datasets.Dataset.from_dict({"text": ["one", "two"], "label": [1, 0]}, features=features)
    rows.to_parquet(here / "a.parquet")
    rows.to_parquet(here / "b.parquet")
    made, names = to_schema(Files(train=["a.parquet", "b.parquet"]).load(), ClassificationRow)
    assert names == ("z", "a")
    assert made["train"].column("label").to_pylist() == [1, 0, 1, 0]


def test_missing_files_of_all_splits_are_named_with_the_nearest(here: Path) -> None:
    write("train.csv", "text\none\n")
    assert problems(Files(train="traim.csv", validation="dev/x.csv", test="*.parquet")) == (
        "data.source.train: there is no file traim.csv. Did you mean 'train.csv'?",
        "data.source.validation: there is no file dev/x.csv. The folder dev does not exist either.",
        "data.source.test: no file matches *.parquet.",
    )


def test_problems_of_all_files_are_reported_at_once() -> None:
    write("a.csv", "text,label\none,x,y\n")
    write("b.csv", b"text,label\ncaf\xe9,x\n")
    write("c.jsonl", "{}\noops\n")
    found = problems(Files(train=["a.csv", "b.csv"], validation="c.jsonl", test="d.csv"))
    assert [problem.split(" has ")[0].split(" is ")[0] for problem in found] == [
        "a.csv: line 2",
        "b.csv: byte 14 (line 2)",
        "c.jsonl: line 2",
        "data.source.test: there",
    ]


def test_a_source_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data.source: no file is given. Set data.source.train=<file"):
        Files()


# ---- split columns ----


def test_a_column_may_say_which_split_a_row_belongs_to(logged: pytest.LogCaptureFixture) -> None:
    write("all.csv", "text,part\na,train\nb,dev\nc,train\nd,valid\ne,test\nf,val\ng,validation\nh, \ni,extra\n")
    tables = Files(train="all.csv", split_column="part").load()
    assert {split: texts(table) for split, table in tables.items()} == {
        "train": ["a", "c"],
        "validation": ["b", "d", "f", "g"],
        "test": ["e"],
        "extra": ["i"],
    }
    assert places("validation", tables["validation"], np.array([1])) == "validation split, all.csv, row 4"
    assert "1 rows say no split in the column part and are not used" in logged.text


def test_a_missing_split_column_names_the_nearest() -> None:
    write("all.csv", "text,split\na,train\n")
    assert problems(Files(train="all.csv", split_column="splits")) == (
        "data.source.split_column: there is no column 'splits'. Did you mean 'split'? Columns: text, split.",
    )


def test_a_split_column_leaves_no_place_for_other_files() -> None:
    with pytest.raises(ConfigError, match=r"read from the column 'part' of data\.source\.train, so"):
        Files(train="a.csv", test="b.csv", split_column="part")


# ---- in memory ----


def test_rows_in_memory_become_tables() -> None:
    tables = InMemory({"train": [{"text": "a", "label": 1}, {"text": "b"}], "test": []}).load()
    assert tables["train"].to_pydict() == {"text": ["a", "b"], "label": [1, None]}
    assert tables["test"].num_rows == 0


def test_rows_in_memory_must_be_objects() -> None:
    assert problems(InMemory({"train": [{"text": "a"}, "b"]})) == (  # type: ignore[list-item]
        "data.source.splits.train: row 2 is 'b' where an object {text: ..., label: ...} is needed.",
    )


# ---- saved data sets ----


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved Dataset, and a saved DatasetDict of the splits train and dev."""
    import datasets

    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("saved")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["worse", "better"]),
            "tags": datasets.List(datasets.ClassLabel(names=["x", "y", "z"])),
        }
    )
    columns = {"text": ["one", "two", "three"], "label": [1, 0, 1], "tags": [[2, 0], [], [1]]}
    rows = datasets.Dataset.from_dict(columns, features=features)
    rows.select([2, 0, 1]).save_to_disk(folder / "single")
    datasets.DatasetDict({"train": rows, "dev": rows.select([0])}).save_to_disk(folder / "several")
    return folder


def test_a_saved_dataset_is_the_training_split_in_its_own_order(saved: Path) -> None:
    made, names = to_schema(SavedDataset(str(saved / "single")).load(), ClassificationRow)
    assert names == ("worse", "better")
    assert made["train"].to_pydict() == {"text": ["three", "one", "two"], "label": [1, 1, 0]}


def test_class_labels_of_lists_are_known(saved: Path) -> None:
    made, names = to_schema(SavedDataset(str(saved / "single")).load(), MultiLabelRow, columns={"labels": "tags"})
    assert names == ("x", "y", "z")
    assert made["train"].column("labels").to_pylist() == [[1], [2, 0], []]


def test_splits_of_a_saved_dataset_dict_are_renamed(saved: Path) -> None:
    every = SavedDataset(str(saved / "several")).load()
    assert {split: table.num_rows for split, table in every.items()} == {"train": 3, "dev": 1}
    chosen = SavedDataset(str(saved / "several"), splits={"train": "train", "validation": "dev"}).load()
    assert {split: table.num_rows for split, table in chosen.items()} == {"train": 3, "validation": 1}


def test_an_unknown_split_names_the_nearest(saved: Path) -> None:
    (problem,) = problems(SavedDataset(str(saved / "several"), splits={"train": "trein"}))
    assert problem.endswith("has no split 'trein'. Did you mean 'train'? Splits: train, dev.")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_a_saved_data_set_is_refused(here: Path, name: str) -> None:
    (here / "empty").mkdir()
    (problem,) = problems(SavedDataset(name))
    assert problem.startswith(f"data.source.path: {name} holds no data set saved with save_to_disk (Directory ")
    assert problem.endswith("For other files choose data=csv, tsv, json, jsonl or parquet.")


# ---- the hub ----


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, here: Path) -> str:
    """An empty cache, and an endpoint where nobody listens."""
    import datasets
    from huggingface_hub import constants

    datasets.disable_progress_bars()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    point_to(endpoint, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache" / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "cache" / "datasets")
    return endpoint


def repository(folder: Path) -> None:
    """Write a data set as it lies on the hub: a card with two configurations, and files."""
    (folder / "data").mkdir(parents=True)
    card = (
        "---\nconfigs:\n"
        "- config_name: main\n  default: true\n  data_files:\n"
        "  - {split: train, path: data/train-*.csv}\n  - {split: validation_matched, path: data/dev.csv}\n"
        "- config_name: other\n  data_files:\n  - {split: train, path: data/dev.csv}\n---\n"
    )
    (folder / "README.md").write_text(card)
    for name, row in (("train-0", "row 0,0"), ("train-1", "row 1,1"), ("dev", "dev row,1")):
        (folder / f"data/{name}.csv").write_text(f"text,label\n{row}\n")


@pytest.mark.usefixtures("hub")
def test_a_local_repository_is_read_without_any_network(here: Path) -> None:
    repository(here / "owner" / "set")
    every = Hub("owner/set").load()
    assert {split: table.to_pylist() for split, table in every.items()} == {
        "train": [{"text": "row 0", "label": 0}, {"text": "row 1", "label": 1}],
        "validation_matched": [{"text": "dev row", "label": 1}],
    }
    chosen = Hub("owner/set", splits={"validation": "validation_matched"}).load()
    assert {split: texts(table) for split, table in chosen.items()} == {"validation": ["dev row"]}
    assert {split: texts(table) for split, table in Hub(str(here / "owner/set"), config="other").load().items()} == {
        "train": ["dev row"]
    }


@pytest.mark.usefixtures("hub")
def test_a_wrong_configuration_or_split_of_a_repository_lists_the_right_ones(here: Path) -> None:
    repository(here / "owner" / "set")
    (problem,) = problems(Hub("owner/set", config="mains"))
    assert "mains" in problem
    assert "main" in problem
    assert "other" in problem
    assert problems(Hub("owner/set", splits={"validation": "validation"})) == (
        f"data.source.splits: {here}/owner/set has no split 'validation'. Did you mean 'validation_matched'? "
        "Splits: train, validation_matched.",
    )


def test_a_hub_that_does_not_answer_is_one_error_at_once(hub: str) -> None:
    import datasets
    from huggingface_hub import constants

    start = time.monotonic()
    (problem,) = problems(Hub("owner/set"))
    assert time.monotonic() - start < 4.0
    assert problem == (
        f"data.source.name: 'owner/set' was not downloaded before and the hub {hub} does not answer. Connect once, or "
        "give a local folder as data.source.name, or choose data=csv, jsonl or parquet with files of your own."
    )
    assert constants.HF_HUB_OFFLINE is datasets.config.HF_HUB_OFFLINE is False, "the flags are put back"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("by_argument", [True, False])
def test_offline_never_asks(by_argument: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", not by_argument)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    (problem,) = problems(Hub("owner/set", offline=by_argument))
    assert problem.startswith("data.source.name: 'owner/set' was not downloaded before and offline is set. Connect")


@pytest.mark.usefixtures("hub")
def test_what_was_downloaded_before_is_used_while_the_hub_is_away(here: Path, logged: pytest.LogCaptureFixture) -> None:
    repository(here / "set")
    Hub("set").load()
    # the cache of a data set from the hub is named after its owner, and its files after the set
    (built,) = (here / "cache/datasets").glob("*/*/0.0.0")
    cached = shutil.copytree(built, here / "cache/datasets/owner___away/main/0.0.0")
    for file in list(cached.rglob("*.arrow")):
        file.rename(file.with_name(f"away-{file.name.partition('-')[2]}"))
    shutil.rmtree(here / "set")
    assert texts(Hub("owner/away").load()["train"]) == ["row 0", "row 1"]
    assert "does not answer; looking for owner/away in the cache" in logged.text


@pytest.mark.usefixtures("hub")
def test_a_hub_that_breaks_off_is_one_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    point_to(f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    (problem,) = problems(Hub("owner/set"))
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    assert problem.startswith("data.source.name: 'owner/set': ")


@pytest.mark.usefixtures("hub")
def test_a_name_server_that_hangs_does_not_hold_up_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: Any) -> socket.socket:
        time.sleep(1.0)
        return socket.socket()

    point_to("http://hub.invalid", monkeypatch)
    monkeypatch.setattr(sources, "_PROBE_SECONDS", 0.1)
    monkeypatch.setattr(socket, "create_connection", hang)
    start = time.monotonic()
    (problem,) = problems(Hub("owner/set"))
    assert time.monotonic() - start < 0.9
    assert "the hub http://hub.invalid does not answer" in problem
