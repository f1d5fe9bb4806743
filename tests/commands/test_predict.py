from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from graft.commands.predict import predict
from graft.commands.train import train
from graft.config.compose import compose_config, load_config
from graft.data.sampling import WINDOW
from graft.errors import ConfigError, DataError
from tests.commands.shell import Command, graft
from tests.commands.tiny_run import TinyRun, one_thread, rows, untouched, write_csv, write_data

CHUNK = 8 * WINDOW  # rows that are read, predicted and written together; the run evaluates 8 at a time


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyRun]:
    with untouched(tmp_path_factory.getbasetemp(), "predicting wrote into the run's folder") as made:
        yield made


def predicted(run: TinyRun, path: Path | str, output: Path, *overrides: str) -> list[dict[str, Any]]:
    words = [f"run='{run.dir}'", f"input='{path}'", f"output='{output}'", *overrides]
    count = predict(load_config("predict", words))
    read = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert count == len(read)
    return read


def test_every_format_gives_exactly_the_predictions_of_the_test(run: TinyRun, tmp_path: Path) -> None:
    told = run.lines("predictions/test.jsonl")
    assert len(told) > CHUNK  # more than one chunk
    table = rows(600, seed=2)
    texts = [row["text"] for row in table]
    lines = "".join(json.dumps(row) + "\n" for row in table)
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(lines)
    (tmp_path / "a.json").write_text(json.dumps(table))
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet", row_group_size=70)
    write_csv(tmp_path / "a.csv", table)
    for name in ("a.csv", "a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "a.txt"):
        found = predicted(run, tmp_path / name, tmp_path / "out.jsonl")
        assert [line["text"] for line in found] == texts, name
        for key in ("label", "probability", "probabilities"):
            assert [line[key] for line in found] == [line[key] for line in told], (name, key)


def test_command_in_another_folder_gives_the_same_through_pipes(run: TinyRun, tmp_path: Path) -> None:
    table = rows(600, seed=2)
    text = "".join(json.dumps({"text": row["text"], "id": row["id"]}) + "\n" for row in table)
    (tmp_path / "in").write_text(text)
    env = {"PL_GLOBAL_SEED": "99"}
    ended = graft("predict", f"run='{run.dir}'", "input=-", "output=-", cwd=tmp_path, env=env, stdin=tmp_path / "in")
    assert ended.status == 0, ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    told = run.lines("predictions/test.jsonl")
    assert [line["probabilities"] for line in found] == [line["probabilities"] for line in told]
    assert [line["id"] for line in found] == list(range(600))
    assert ended.err == ""


def test_columns_of_the_input_stand_before_the_prediction(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1, "text": "it rose", "more": {"a": [1, null]}, "caf\u00e9": "\u20ac"}\n')
    (line,) = predicted(run, tmp_path / "a.jsonl", tmp_path / "o.jsonl")
    assert list(line) == ["n", "text", "more", "caf\u00e9", "label", "probability", "probabilities"]
    assert (line["n"], line["more"], line["caf\u00e9"]) == (1, {"a": [1, None]}, "\u20ac")
    assert "\\u" not in (tmp_path / "o.jsonl").read_text()


def test_column_called_like_a_prediction_is_kept_under_another_name(run: TinyRun, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"text": "it rose", "label": "mine", "probability": "x"}])
    (first,) = predicted(run, tmp_path / "a.csv", tmp_path / "b.jsonl")
    assert (first["input_label"], first["input_probability"]) == ("mine", "x")
    assert first["label"] in ("bad", "good", "so-so")
    # What was predicted can be predicted again, and nothing is lost.
    (second,) = predicted(run, tmp_path / "b.jsonl", tmp_path / "c.jsonl")
    assert (second["input_label"], second["input_input_label"]) == ("mine", first["label"])
    assert second["label"] == first["label"]


def test_mapped_columns_are_read_by_the_runs_own_names(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    config = OmegaConf.load(copied.dir / "config.yaml")
    config.data.columns = {"text": "sentence", "label": "mood"}
    OmegaConf.save(config, copied.dir / "config.yaml")
    write_csv(tmp_path / "theirs.csv", [{"sentence": "it rose", "other": "1"}])
    write_csv(tmp_path / "ours.csv", [{"text": "it rose", "other": "1"}])
    (theirs,) = predicted(copied, tmp_path / "theirs.csv", tmp_path / "o.jsonl")
    (ours,) = predicted(copied, tmp_path / "ours.csv", tmp_path / "o.jsonl")
    assert theirs["probabilities"] == ours["probabilities"]


def test_csv_output_can_be_read_back(run: TinyRun, tmp_path: Path) -> None:
    table = rows(30, seed=2)
    path = write_csv(tmp_path / "a.csv", table)
    words = [f"run='{run.dir}'", f"input={path}", f"output={tmp_path}/new/folder/o.csv"]
    assert predict(load_config("predict", words)) == 30
    with (tmp_path / "new" / "folder" / "o.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    told = run.lines("predictions/test.jsonl")[:30]
    assert [row["text"] for row in found] == [row["text"] for row in table]
    assert [row["label"] for row in found] == [line["label"] for line in told]
    assert set(json.loads(found[0]["probabilities"])) == {"bad", "good", "so-so"}


def test_last_checkpoint_predicts_otherwise(run: TinyRun, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", rows(5, seed=2))
    best = predicted(run, path, tmp_path / "best.jsonl")
    last = predicted(run, path, tmp_path / "last.jsonl", "which=last")
    assert all(one["probabilities"] != other["probabilities"] for one, other in zip(best, last, strict=True))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_precision_of_the_training_holds_for_predictions(precision: str, tmp_path: Path) -> None:
    words = write_data(tmp_path / "data", sizes=(48, 16, 20))
    settings = ("model=tiny_bert", "peft=full", "trainer=smoke", "trainer.accelerator=cpu", "logger=[csv]")
    composed = compose_config(
        "train", [*words, *settings, f"trainer.precision={precision}", f"paths.logs={tmp_path}/logs"]
    )
    folder = train(composed.cfg).dir
    told = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    output = tmp_path / "o.jsonl"
    overrides = [f"run={folder}", f"input={tmp_path}/data/test.csv", f"output={output}"]
    assert predict(load_config("predict", overrides)) == 20
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["probabilities"] for line in found] == [line["probabilities"] for line in told]


# ---- nothing to predict ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", ""), ("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.json", "[]"), ("a.csv", "text\n")]
)
def test_empty_input_gives_an_empty_output(name: str, text: str, run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert predicted(run, tmp_path / name, tmp_path / "o.jsonl") == []


def test_empty_standard_input_ends_well(run: TinyRun, tmp_path: Path) -> None:
    ended = graft("predict", f"run='{run.dir}'", "input=-", cwd=tmp_path)
    assert (ended.status, ended.out, ended.err) == (0, "", "")


def test_csv_file_without_even_a_header_is_refused(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match=r"a\.csv: is empty, not even a header"):
        predicted(run, tmp_path / "a.csv", tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()


# ---- streams --------------------------------------------------------------------------------------------------------


def test_first_chunk_is_out_before_the_input_ends(run: TinyRun, tmp_path: Path) -> None:
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    words = ("predict", f"run='{run.dir}'", "input=-", "output=-")
    command = Command(words, cwd=tmp_path, stdin=tmp_path / "in", stdout=tmp_path / "out")
    seen: list[str] = []

    def read() -> None:
        with (tmp_path / "out").open(encoding="utf-8") as file:
            seen.extend(file)

    table = rows(CHUNK + 1, seed=2)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with (tmp_path / "in").open("w", encoding="utf-8") as file:
        for row in table[:CHUNK]:
            file.write(row["text"] + "\n")
        file.flush()
        command.wait_for(lambda: len(seen) == CHUNK)  # the input is still open
        assert [json.loads(line)["text"] for line in seen] == [row["text"] for row in table[:CHUNK]]
        file.write(table[CHUNK]["text"] + "\n")
    ended = command.end()
    assert ended.status == 0, ended.err
    reader.join(10)
    assert len(seen) == CHUNK + 1


def test_output_file_grows_chunk_by_chunk(run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graft.commands import predict as module

    sizes = []

    def chunks(*args: Any, **kwargs: Any) -> Iterator[pa.Table]:
        for start in range(3):
            path = tmp_path / "o.jsonl"
            sizes.append(len(path.read_text().splitlines()) if path.exists() else None)
            yield pa.table({"text": [f"row {start} rose", "it fell"]})

    monkeypatch.setattr(module, "stream", chunks)
    assert len(predicted(run, "any.txt", tmp_path / "o.jsonl")) == 6
    # When the third chunk is read, the first two are on the disk.
    assert sizes == [None, 2, 4]


def test_chunks_are_let_go_as_they_are_written(run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graft.commands import predict as module

    size = 8 * 2**20
    held: list[int] = []

    def chunks(*args: Any, **kwargs: Any) -> Iterator[pa.Table]:
        begin = pa.total_allocated_bytes()
        for number in range(30):
            held.append(pa.total_allocated_bytes() - begin)
            yield pa.table({"text": ["it rose", "it fell"], "filler": [str(number % 10) * (size // 2)] * 2})

    monkeypatch.setattr(module, "stream", chunks)
    words = [f"run='{run.dir}'", "input=any.txt", f"output={tmp_path}/o.jsonl"]
    assert predict(load_config("predict", words)) == 60
    assert max(held) < 2.5 * size  # of the 30 chunks that went by


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_rows(run: TinyRun, tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom graft.commands.predict import predict\n"
        "from graft.config.compose import load_config\n"
        f"words = ['run={run.dir.name}', 'paths.logs={run.logs}', 'input=-', 'format=text', 'output=out.jsonl']\n"
        "print(predict(load_config('predict', words)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    (tmp_path / "usage.py").write_text(script)
    width, peaks = 5_000, []  # cut by the tokenizer: costs memory to hold, and little time to predict
    for chunks in (2, 22):
        command = [sys.executable, "usage.py"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            for number in range(chunks * CHUNK):
                process.stdin.write(f"{number} rose {'x' * width}\n")
            out, _ = process.communicate(timeout=300)
        count, peak = out.split()
        assert int(count) == chunks * CHUNK
        peaks.append(int(peak) * 1024)
    further = 20 * CHUNK * width  # the text of the further chunks alone
    assert peaks[1] - peaks[0] < further / 4


def test_reader_that_has_seen_enough_ends_the_command_quietly(run: TinyRun, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    write_csv(tmp_path / "a.csv", rows(3 * CHUNK, seed=2))
    command = Command(("predict", f"run='{run.dir}'", "input=a.csv", "output=-"), cwd=tmp_path, stdout=tmp_path / "out")
    with (tmp_path / "out").open() as file:
        file.readline()
    ended = command.end()
    assert (ended.status, ended.err) == (0, "")


# ---- what cannot work -----------------------------------------------------------------------------------------------


def test_bad_row_in_the_first_chunk_leaves_an_older_output_alone(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text("what was there\n")
    (tmp_path / "a.csv").write_text("text,n\nit rose,1\n ,2\n")
    with pytest.raises(DataError, match=r"a\.csv, row 2: the text 'text' is empty"):
        predicted(run, tmp_path / "a.csv", tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_text() == "what was there\n"


def test_bad_row_further_down_is_named_and_what_is_before_it_is_written(run: TinyRun, tmp_path: Path) -> None:
    table = rows(CHUNK + 20, seed=2)
    table[CHUNK + 9]["text"] = ""
    path = write_csv(tmp_path / "a.csv", table)
    with pytest.raises(DataError, match=rf"a\.csv, row {CHUNK + 10}: the text 'text' is empty"):
        predicted(run, path, tmp_path / "o.jsonl")
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == CHUNK


def test_line_that_is_no_json_is_named_in_any_chunk(run: TinyRun, tmp_path: Path) -> None:
    lines = [json.dumps({"text": row["text"]}) for row in rows(CHUNK + 5, seed=2)]
    lines[CHUNK + 2] = '{"text": '
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"a\.jsonl: line {CHUNK + 3} is no valid JSON"):
        predicted(run, tmp_path / "a.jsonl", tmp_path / "o.jsonl")


def test_new_column_further_down_has_no_place_in_a_csv_file(run: TinyRun, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "it rose"})] * CHUNK + [json.dumps({"text": "it fell", "late": 1})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    words = [f"run='{run.dir}'", f"input={tmp_path}/a.jsonl", f"output={tmp_path}/o.csv"]
    with pytest.raises(DataError, match=r"further columns late, .* Write to a name in \.jsonl"):
        predict(load_config("predict", words))


@pytest.mark.parametrize("name", ["o.xlsx", "o", "o.json", "o.csv.gz"])
def test_output_of_another_format_is_refused_with_those_known(name: str, run: TinyRun, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", rows(1, seed=2))
    with pytest.raises(
        ConfigError, match=rf"output: '.*{name}' ends in no known format\. Use a name in \.jsonl or \.csv"
    ):
        predicted(run, path, tmp_path / name)


def test_input_is_never_overwritten(run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path / "a.csv", rows(1, seed=2))
    before = path.read_text()
    (tmp_path / "link.csv").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for output in ("a.csv", "./a.csv", "link.csv"):
        with pytest.raises(ConfigError, match="is the input too, and would be overwritten"):
            predicted(run, path, Path(output))
    assert path.read_text() == before


def test_output_that_cannot_be_written_is_refused_with_the_reason(run: TinyRun, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", rows(1, seed=2))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/o\.jsonl' cannot be written \((Not a directory|File exists)\)"):
        predicted(run, path, tmp_path / "file" / "o.jsonl")


def test_run_and_input_are_asked_for_together() -> None:
    with pytest.raises(ConfigError) as raised:
        predict(load_config("predict", []))
    assert "run: a value is needed here." in str(raised.value)
    assert "input: a value is needed here. Set input=<file>, or input=- for standard input." in str(raised.value)


def test_command_says_how_many_rows_it_wrote(run: TinyRun, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", rows(3, seed=2))
    ended = graft("predict", f"run='{run.dir}'", "input=a.csv", "output=o.jsonl", cwd=tmp_path)
    assert ended.status == 0
    assert ended.out == ""
    assert ended.err.splitlines()[-1] == "3 rows written to o.jsonl"
