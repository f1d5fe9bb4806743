"""What a user can do wrong, through the real command line: one message, status 2, no traceback, nothing spoilt."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.commands.shell import Ended, graft
from tests.commands.tiny_run import TinyRun, contents, rows, untouched, write_csv, write_data

QUICK = ("model=tiny_bert", "trainer=smoke", "trainer.accelerator=cpu", "logger=[csv,wandb]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyRun]:
    with untouched(tmp_path_factory.getbasetemp(), "a command that was refused wrote into a finished run") as made:
        yield made


def refused(ended: Ended, kind: str, *said: str) -> str:
    """Check that a command was refused in one message, and return it."""
    assert ended.status == 2, ended.err
    assert "Traceback" not in ended.err
    assert "Error executing job" not in ended.err
    assert ended.out == ""
    (message,) = re.findall(rf"^{kind}: (.*)", ended.err, flags=re.DOTALL | re.MULTILINE)
    for part in said:
        assert part in message, message
    assert message.rstrip().endswith((".", "?", "utf-8."))
    return str(message)


def failed_runs(folder: Path) -> list[tuple[str, str]]:
    found = [json.loads(path.read_text()) for path in (folder / "logs").glob("*/*/status.json")]
    return [(status["state"], status["reason"]) for status in found]


# ---- files ----------------------------------------------------------------------------------------------------------


def missing_file(folder: Path) -> None:
    (folder / "data" / "validation.csv").rename(folder / "data" / "validatoin.csv")


def missing_column(folder: Path) -> None:
    write_csv(folder / "data" / "validation.csv", [{"text": "it rose", "lable": "good"}])


def unknown_label(folder: Path) -> None:
    write_csv(folder / "data" / "validation.csv", [*rows(4, seed=0), {"id": 5, "text": "it rose", "label": "goood"}])


def empty_text(folder: Path) -> None:
    write_csv(folder / "data" / "validation.csv", [{"text": "it rose", "label": "good"}, {"text": " ", "label": "bad"}])


def wrong_encoding(folder: Path) -> None:
    (folder / "data" / "validation.csv").write_bytes("text,label\nit rose,good\ncaf\u00e9,bad\n".encode("latin-1"))


def invalid_json(folder: Path) -> None:
    (folder / "data" / "validation.csv").unlink()
    good = json.dumps({"text": "it rose", "label": "good"})
    (folder / "data" / "validation.jsonl").write_text(f'{good}\n\n{good}\n{{"text": "x", "label" "bad"}}\n')


def empty_split(folder: Path) -> None:
    (folder / "data" / "validation.csv").write_text("text,label\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing_file, ("data.source.validation: ", "data/validation.csv", "Did you mean 'validatoin.csv'?")),
        (
            missing_column,
            ("data.columns.label", "data/validation.csv", "no column 'label'", "Columns: text, lable", "Set data."),
        ),
        (unknown_label, ("data/validation.csv, row 5", "'goood' was never seen in training", "Did you mean 'good'?")),
        (empty_text, ("data/validation.csv, row 2", "the text 'text' is empty", "Fill these rows in, or remove them.")),
        (wrong_encoding, ("data/validation.csv: byte 27 (line 3) is 0xe9", "not UTF-8", "iconv -f")),
        (invalid_json, ("data/validation.jsonl", "line 4", "no valid JSON")),
        (
            empty_split,
            ("validation split", "data/validation.csv held no row", "Check the file, or leave the split out"),
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_training_data_is_named_and_noted(
    spoil: Callable[[Path], None], said: tuple[str, ...], tmp_path: Path
) -> None:
    words = write_data(tmp_path / "data", sizes=(24, 8, 8))
    spoil(tmp_path)
    if spoil is invalid_json:
        words = tuple(word.replace("validation.csv", "validation.jsonl") for word in words)
        words = (*words, "data.source.format=null")
    message = refused(graft("train", *words, *QUICK, cwd=tmp_path), "DataError", *said)
    ((state, reason),) = failed_runs(tmp_path)
    assert state == "failed"
    assert reason == " ".join(f"DataError: {message}".split())[:300]
    assert not list(tmp_path.glob("logs/*/*/wandb")), "a tracker was told of a run that never began"


def test_problems_of_all_splits_come_together(tmp_path: Path) -> None:
    words = write_data(tmp_path / "data", sizes=(24, 8, 8))
    empty_text(tmp_path)
    write_csv(tmp_path / "data" / "test.csv", [{"id": 0, "text": "it rose", "label": "goood"}])
    ended = graft("train", *words, *QUICK, cwd=tmp_path)
    refused(ended, "DataError", "2 problems", "validation.csv, row 2", "test.csv, row 1", "'goood'")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", None, ("a.csv: there is no such file. Did you mean 'b.csv'?",)),
        ("a.csv", b"words,n\nit rose,1\n", ("no column 'text'", "Columns: words, n", "Set data.columns.text=")),
        ("a.csv", b'text\nit rose\n" "\n', ("a.csv, row 2", "the text 'text' is empty")),
        ("a.txt", "it rose\ncaf\u00e9\n".encode("latin-1"), ("a.txt: byte 11 (line 2) is 0xe9", "iconv -f")),
        ("a.txt", "it rose\n".encode("utf-16"), ("a.txt: byte 0 (line 1)", "iconv -f utf-16 -t utf-8")),
        ("a.jsonl", b'{"text": "it rose"}\n{"text": }\n', ("a.jsonl: line 2 is no valid JSON",)),
        ("a.jsonl", b'{"text": "it rose"}\n[1, 2]\n', ("a.jsonl: line 2 is a list", "object")),
        ("a.parquet", b"PAR1 cut off", ("a.parquet", "no parquet file")),
        ("a.csv.gz", b"\x1f\x8b cut off", ("a.csv.gz", "no complete gzip file")),
        ("a.unknown", b"x", ("a.unknown", "does not tell the format", ".jsonl")),
    ],
)
def test_bad_input_for_predictions_is_named_and_writes_nothing(
    name: str, content: bytes | None, said: tuple[str, ...], run: TinyRun, tmp_path: Path
) -> None:
    (tmp_path / "b.csv").write_text("text\n")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "o.jsonl").write_text("older\n")
    words = ("predict", f"run='{run.dir}'", f"input={name}", "output=o.jsonl")
    refused(graft(*words, cwd=tmp_path), "DataError", *said)
    assert (tmp_path / "o.jsonl").read_text() == "older\n"


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [("evaluate",), ("predict", "input=a.txt"), ("train", "resume=true")])
def test_run_that_is_not_there_names_the_nearest(verb: tuple[str, ...], run: TinyRun, tmp_path: Path) -> None:
    name = run.dir.name.replace("_", "-", 1)
    (tmp_path / "a.txt").write_text("it rose\n")
    ended = graft(*verb, f"run={name}", f"paths.logs='{run.logs}'", cwd=tmp_path)
    refused(ended, "CheckpointError", f"there is no folder '{name}'", f"Did you mean '{run.dir.name}'?")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt"}


def cut(name: str, share: float) -> Callable[[TinyRun], None]:
    def damage(run: TinyRun) -> None:
        path = run.dir / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def without(*names: str) -> Callable[[TinyRun], None]:
    def damage(run: TinyRun) -> None:
        for name in names:
            path = run.dir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def only(*names: str) -> Callable[[TinyRun], None]:
    def damage(run: TinyRun) -> None:
        without(*(path.name for path in run.dir.iterdir() if path.name not in names))(run)

    return damage


CUT_OFF = [
    (only(), "has no config.yaml, so it is no run, or was cut off at its start."),
    (only("config.yaml", "status.json"), "has no checkpoint, so there are no weights to load."),
    (without("data_info.json"), "has no data_info.json; the run was cut off before its data was read."),
    (cut("data_info.json", 0.5), "data_info.json: cannot be read"),
    (cut("config.yaml", 0.5), "config.yaml: has no "),
    (cut("config.yaml", 0.0), "config.yaml: has no seed, task, data"),
    (cut("checkpoints/best.ckpt", 0.5), "best.ckpt: "),
    (cut("checkpoints/best.ckpt", 0.0), "best.ckpt: "),
]


@pytest.mark.parametrize(("damage", "said"), CUT_OFF)
def test_run_that_was_cut_off_says_what_is_missing(
    damage: Callable[[TinyRun], None], said: str, run: TinyRun, tmp_path: Path
) -> None:
    copied = run.copy(tmp_path)
    (copied.dir / "checkpoints" / "last.ckpt").unlink()  # it may be the same file as the best
    damage(copied)
    before = contents(copied.dir)
    ended = graft("evaluate", f"run={copied.dir.name}", cwd=tmp_path)
    message = refused(ended, "CheckpointError", said, str(copied.dir))
    assert re.search(r"[Tt]rain it again|Use another|Give the folder|Copy the run again", message)
    assert contents(copied.dir) == before


def test_killed_run_without_a_checkpoint_says_that_it_was_cut_off(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    without("checkpoints")(copied)
    status = {"state": "running", "pid": 2**22 + 1, "host": socket.gethostname()}
    (copied.dir / "status.json").write_text(json.dumps(status))
    ended = graft("evaluate", f"run={copied.dir.name}", cwd=tmp_path)
    refused(ended, "CheckpointError", "It was cut off while running. Train it again.")


def test_damaged_scores_do_not_hide_the_best_checkpoint(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    cut("checkpoints/scores.json", 0.5)(copied)
    assert graft("evaluate", f"run={copied.dir.name}", cwd=tmp_path).status == 0
    (written,) = (copied.dir / "evaluations").iterdir()
    assert json.loads(written.read_text())["metrics"] == run.read("metrics.json")["test"]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a run with another model, and of one that trained something else of the same model."""
    folder = tmp_path_factory.mktemp("others")
    words = (*write_data(folder / "data", sizes=(24, 8, 8)), *QUICK, "logger=[csv]")
    for name, change in (("roberta", "model=tiny_roberta"), ("head", "peft=head_only")):
        ended = graft("train", *words, change, f"run.name={name}", cwd=folder)
        assert ended.status == 0, ended.err
        (checkpoint,) = (folder / "logs" / name).glob("*/checkpoints/best.ckpt")
        shutil.copy(checkpoint, folder / f"{name}.ckpt")
    return folder


def test_checkpoint_of_another_model_is_refused(run: TinyRun, others: Path, tmp_path: Path) -> None:
    ended = graft("evaluate", f"run='{run.dir}'", f"which={others}/roberta.ckpt", cwd=tmp_path)
    refused(
        ended,
        "CheckpointError",
        f"{others}/roberta.ckpt: ",
        "was trained on the base 'tiny_roberta'",
        "but 'tiny_bert' was loaded",
        "Set model to the one it was trained on.",
    )


def test_checkpoint_of_another_method_is_refused(run: TinyRun, others: Path, tmp_path: Path) -> None:
    ended = graft("predict", f"run='{run.dir}'", f"which={others}/head.ckpt", "input=a.txt", cwd=tmp_path)
    refused(ended, "CheckpointError", f"{others}/head.ckpt: ", "are missing in it", "load it with the configuration of")


def test_checkpoint_that_would_run_code_is_refused(run: TinyRun, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "graft": Path("/")}, tmp_path / "bad.ckpt")
    ended = graft("evaluate", f"run='{run.dir}'", f"which={tmp_path}/bad.ckpt", cwd=tmp_path)
    refused(ended, "CheckpointError", f"{tmp_path}/bad.ckpt: ", "only unpickling could read")


def test_configuration_that_would_run_code_is_refused(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    path = copied.dir / "config.yaml"
    text = path.read_text()
    assert "graft.data.splits.keep" in text
    path.write_text(text.replace("graft.data.splits.keep", "os.system"))
    ended = graft("evaluate", f"run={copied.dir.name}", cwd=tmp_path)
    refused(ended, "ConfigError", "data.split", "'os.system' is not built from a saved configuration")


# ---- the trainer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param(
            "trainer.accelerator=gpu",
            "No supported gpu backend found!",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ("trainer.precision=bf32", "bf32"),
        ("trainer.strategy=ddpp", "ddpp"),
    ],
)
def test_trainer_that_cannot_work_here_is_refused_with_the_reason(setting: str, said: str, tmp_path: Path) -> None:
    words = write_data(tmp_path / "data", sizes=(24, 8, 8))
    ended = graft("train", *words, *QUICK, setting, cwd=tmp_path)
    refused(ended, "ConfigError", "trainer: its settings cannot work here", said, "Check trainer.accelerator")


def test_sweep_over_several_processes_is_refused(tmp_path: Path) -> None:
    words = write_data(tmp_path / "data", sizes=(24, 8, 8))
    several = ("trainer.devices=2", "trainer.strategy=ddp", "seed=0,1")
    ended = graft("train", "-m", *words, *QUICK, *several, cwd=tmp_path)
    assert ended.status == 2
    assert ended.err.count("a sweep runs its jobs in one process, and this one would use 2.") == 2
    assert "Traceback" not in ended.err
    assert [state for state, _ in failed_runs(tmp_path)] == ["failed", "failed"]


# ---- resuming -------------------------------------------------------------------------------------------------------


def test_settings_that_make_another_experiment_are_all_listed(run: TinyRun, tmp_path: Path) -> None:
    changes = ("seed=1", "optimizer.lr=1e-3", "peft=full", "trainer.max_epochs=9", "data.batch_size=8")
    ended = graft("train", f"run='{run.dir}'", "resume=true", *changes, cwd=tmp_path)
    message = refused(ended, "ConfigError", "4 problems", "seed=1: this would make it another experiment")
    for part in (
        "the run has seed=0.",
        "the run has optimizer.lr=0.005.",
        "peft=full: this would make it another experiment; the run has its own peft.",
        "the run has data.batch_size=16.",
    ):
        assert part in message
    assert "max_epochs" not in message


def test_end_before_the_epoch_that_was_reached_is_refused(run: TinyRun, tmp_path: Path) -> None:
    ended = graft("train", f"run='{run.dir}'", "resume=true", "trainer.max_epochs=2", cwd=tmp_path)
    refused(
        ended, "ConfigError", "trainer.max_epochs=2: the run has reached epoch 3 already. Leave it out, or set more."
    )


def test_other_data_than_the_run_began_with_is_refused(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    config = copied.dir / "config.yaml"
    data = write_data(tmp_path / "data")
    assert data
    path = tmp_path / "data" / "train.csv"
    path.write_text(path.read_text().replace("rose", "Rose", 1))
    config.write_text(config.read_text().replace(f"directory: {run.cwd}", f"directory: {tmp_path}"))
    before = contents(copied.dir)
    ended = graft("train", f"run={copied.dir.name}", "resume=true", "trainer.max_epochs=4", cwd=tmp_path)
    refused(ended, "DataError", "the rows of csv are not those that the run began with", "Restore the files")
    assert contents(copied.dir) == before


def test_run_that_is_still_going_on_is_not_taken_up(run: TinyRun, tmp_path: Path) -> None:
    copied = run.copy(tmp_path)
    status = {"state": "running", "pid": 1, "host": socket.gethostname()}
    (copied.dir / "status.json").write_text(json.dumps(status))
    before = contents(copied.dir)
    ended = graft("train", f"run={copied.dir.name}", "resume=true", cwd=tmp_path)
    refused(ended, "CheckpointError", str(copied.dir), "the run is still going on, in process 1.", "end it first.")
    assert contents(copied.dir) == before


def test_resuming_asks_which_run(tmp_path: Path) -> None:
    ended = graft("train", *QUICK, "resume=true", cwd=tmp_path)
    refused(ended, "ConfigError", "resume: say which run, as in graft train run=<folder or id> resume=true.")
    assert list(tmp_path.iterdir()) == []


# ---- the verbs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate",), ("run: ",)),
        (("predict",), ("run: ", "input: ")),
        (("evaluate", "rnu=x"), ("'rnu'", "Did you mean 'run'?")),
        (("predict", "run=x", "inptu=y"), ("'inptu'", "Did you mean 'input'?")),
    ],
)
def test_what_a_verb_needs_is_asked_for(words: tuple[str, ...], said: tuple[str, ...], tmp_path: Path) -> None:
    refused(graft(*words, cwd=tmp_path), "ConfigError", *said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("output=o.xlsx",), "output: 'o.xlsx' ends in no known format."),
        (("output=a.txt",), "output: 'a.txt' ends in no known format."),
        (("output=a.csv", "input=a.csv"), "output: 'a.csv' is the input too"),
        (("format=xls",), "format: no file format is called 'xls'"),
    ],
)
def test_output_and_format_are_checked(words: tuple[str, ...], said: str, run: TinyRun, tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt"):
        (tmp_path / name).write_text("text\nit rose\n")
    words = ("input=a.csv", *words) if "input=a.csv" not in words else words
    refused(graft("predict", f"run='{run.dir}'", *words, cwd=tmp_path), "ConfigError", said)
    assert (tmp_path / "a.csv").read_text() == "text\nit rose\n"


def test_traceback_is_shown_when_it_is_asked_for(tmp_path: Path) -> None:
    ended = graft("evaluate", "run=nothing", cwd=tmp_path, env={"HYDRA_FULL_ERROR": "1"})
    assert ended.status == 2
    assert "Traceback" in ended.err
    assert "there is no folder 'nothing'" in ended.err
