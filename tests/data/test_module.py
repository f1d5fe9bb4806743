from __future__ import annotations

import codecs
import json
import multiprocessing
import os
import pickle
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.testing import assert_close

from graft.data import module
from graft.data.info import DataInfo
from graft.data.module import DataModule
from graft.data.schemas import MultiLabelRow
from graft.data.sources import Files, InMemory
from graft.data.splits import holdout
from graft.errors import ConfigError, DataError
from graft.losses.classification import cross_entropy
from graft.models.tiny import tiny_tokenizer
from graft.tasks.text_classification import TextClassification
from tests.data import letters
from tests.data.letters import WORDS, data, rows

SPLITS = ("train", "validation", "test")


def ready(source: Any = None, **settings: Any) -> DataModule:
    made = data(source, **settings)
    made.setup("predict")
    return made


def refusal(made: DataModule, stage: str | None = "predict") -> tuple[str, ...]:
    with pytest.raises((DataError, ConfigError)) as caught:
        made.setup(stage)
    return caught.value.problems


def row_numbers(batches: Iterable[Any]) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


# ---- loading ----


def test_rows_and_their_encoding_are_in_the_order_of_the_source() -> None:
    made = ready()
    for split, count in zip(SPLITS, (23, 7, 5), strict=True):
        assert made.rows(split).to_pydict() == {
            "text": [row["text"] for row in rows(count)],
            "label": [("no", "yes").index(row["label"]) for row in rows(count)],
        }
        for index, row in enumerate(rows(count)):
            encoded = made.encoded(split)[index]
            assert encoded["row"] == index
            assert encoded["input_ids"].tolist() == [ord(letter) - 96 for letter in row["text"]]
    assert made.info.sizes == {"train": 23, "validation": 7, "test": 5}
    assert (made.info.label_names, made.info.label_counts) == (("no", "yes"), (12, 11))


def test_everything_is_read_once_and_encoded_when_a_stage_needs_it() -> None:
    calls: list[str] = []

    class Counting:
        def load(self) -> Any:
            calls.append("load")
            return InMemory({split: rows(3) for split in SPLITS}).load()

    def encode(columns: Any) -> dict[str, list[Any]]:
        calls.append("encode")
        return letters.encode(columns)

    made = data(Counting(), encode=encode, bind=lambda info: calls.append(f"bind {info.sizes['train']}"))
    made.setup("predict")
    assert calls == ["load", "bind 3"]
    made.setup("fit")
    assert calls == ["load", "bind 3", "encode", "encode"]
    made.setup("validate")
    made.setup("test")
    assert calls == ["load", "bind 3", "encode", "encode", "encode"]


def test_rows_are_encoded_in_batches() -> None:
    sizes: list[int] = []

    def encode(columns: Any) -> dict[str, list[Any]]:
        sizes.append(len(columns["text"]))
        return letters.encode(columns)

    ready(InMemory({"train": rows(2300)}), encode=encode).encoded("train")
    assert sizes == [1000, 1000, 300]


def test_a_long_encoding_with_its_progress_bar_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ready().encoded("train")
    monkeypatch.setattr(module, "_BAR_FROM", 1)
    monkeypatch.setattr(module, "_CHUNK", 5)
    found = ready().encoded("train")
    assert [found[index]["input_ids"].tolist() for index in range(23)] == [
        expected[index]["input_ids"].tolist() for index in range(23)
    ]


def test_a_task_that_loses_rows_is_found_out() -> None:
    made = ready(encode=lambda columns: {"input_ids": [[1]] * (len(columns["text"]) - 1)})
    with pytest.raises(ValueError, match=r"the task encoded 23 rows to columns of \{'input_ids': 22\}"):
        made.encoded("train")


def test_a_missing_split_says_how_to_get_it() -> None:
    only_train = InMemory({"train": rows(4)})
    assert refusal(data(only_train, name="mine"), "fit") == (
        "data: mine has no validation split, only train. Cut it from the training rows with data/split=holdout, or "
        "name it, for example data.source.validation=<file>.",
    )
    assert "cut it with data/split=holdout data.split.test=0.1" in refusal(data(only_train), "test")[0]
    only_test = data(InMemory({"test": rows(4)}), label_names=["no", "yes"])
    assert [problem.partition(",")[0] for problem in refusal(only_test, "fit")] == [
        "data: data has no train split",
        "data: data has no validation split",
    ]
    with pytest.raises(DataError, match="data has no other split, only train"):
        ready(only_train).rows("other")


def test_splits_that_can_be_cut_need_not_be_there() -> None:
    made = data(InMemory({"train": rows(20)}), split=partial(holdout, validation=0.2))
    made.setup("fit")
    assert made.info.sizes == {"train": 16, "validation": 4}


def test_other_splits_are_named_and_not_used(logged: pytest.LogCaptureFixture) -> None:
    ready(InMemory({"train": rows(4), "extra": rows(2)}))
    assert "data data: the splits extra are not used" in logged.text
    assert refusal(data(InMemory({"dev": rows(4)}))) == (
        "data: data has none of the splits train, validation, test, only dev. Name them, for example "
        "data.source.splits={train: dev}.",
    )


def test_an_error_names_the_file_and_row_even_of_rows_that_were_cut(here: Path) -> None:
    lines = ["text,label", *(f"text {index},{'ab'[index % 2]}" for index in range(30))]
    lines[21] = ",a"
    (here / "train.csv").write_text("\n".join(lines))
    (problem,) = refusal(data(Files(train="train.csv"), split=partial(holdout, validation=0.3)))
    assert "split, train.csv, row 21: the text 'text' is empty." in problem


def test_problems_of_the_settings_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        data(batch_size=0, micro_batches=0, eval_batch_size=-1, num_workers=-1, bucket=-2)
    assert caught.value.problems == (
        "data.batch_size: 0 is too low. Set it to 1 or more.",
        "data.micro_batches: 0 is too low. Set it to 1 or more.",
        "data.eval_batch_size: -1 is too low. Set it to 1 or more.",
        "data.num_workers: -1 is too low. Set it to 0 or more.",
        "data.bucket: -2 is too low. Set it to 0 or more.",
    )


def test_the_facts_are_not_there_before_the_data_is_read() -> None:
    with pytest.raises(RuntimeError, match=r"after setup\(\)"):
        data().info  # noqa: B018


# ---- limit ----


def test_a_limit_takes_training_rows_only_and_keeps_all_label_names() -> None:
    kinds = [{"text": "a", "label": f"kind {index}"} for index in range(20)]
    made = ready(InMemory({"train": kinds, "test": kinds}), limit=3)
    assert made.info.sizes == {"train": 3, "test": 20}
    assert made.info.label_names == tuple(sorted(row["label"] for row in kinds))
    assert made.info.label_counts is not None
    assert sum(made.info.label_counts) == 3


def test_a_fraction_is_chosen_by_its_own_seed() -> None:
    def texts(**settings: Any) -> list[str]:
        source = InMemory({"train": [{"text": f"{index}", "label": index % 2} for index in range(100)]})
        return list(ready(source, limit=0.1, **settings).rows("train").column("text").to_pylist())

    assert len(texts()) == 10
    assert texts(seed=1) == texts(seed=2)
    assert texts(limit_seed=1) != texts(limit_seed=2)


# ---- label names ----


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", b"yes\n\n maybe \r\nno\n"),
        ("names.txt", codecs.BOM_UTF8 + b"yes\nmaybe\nno"),
        ("names.json", b'["yes", "maybe", "no"]'),
    ],
)
def test_label_names_may_be_in_a_file(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    (here / name).write_bytes(content)
    made = data(label_names=name)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")  # a relative path starts from where the module was made
    made.setup("predict")
    assert made.info.label_names == ("yes", "maybe", "no")
    assert made.rows("train").column("label").to_pylist()[:2] == [2, 0]


def test_label_names_may_be_in_the_configuration() -> None:
    made = ready(label_names=["yes", "no"])
    assert made.info.label_names == ("yes", "no")
    assert made.info.label_counts == (11, 12)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file names.json. Did you mean 'name.json'? Names themselves are written as a list"),
        (b'["a",', "names.json cannot be read (Expecting value: line 1 column 6 (char 5))"),
        (b'["the\xe9"]', "names.json cannot be read ('utf-8' codec can't decode byte 0xe9 in position 5"),
        (b'{"a": 0}', "names.json holds no list of names"),
        (b"[]", "names.json holds no list of names"),
    ],
)
def test_a_bad_file_of_label_names_says_what_is_wrong(here: Path, content: bytes | None, said: str) -> None:
    (here / "name.json").write_text("")
    if content is not None:
        (here / "names.json").write_bytes(content)
    (problem,) = refusal(data(label_names="names.json"))
    assert problem.startswith(f"data.label_names: {said}")


def test_several_labels_in_a_cell_are_split() -> None:
    source = InMemory({"train": [{"text": "a", "labels": "x|y"}, {"text": "b", "labels": ""}]})
    made = ready(source, schema=MultiLabelRow, separator="|", label_names=["y", "x"])
    assert made.rows("train").column("labels").to_pylist() == [[1, 0], []]


# ---- a model that is trained already ----


def trained(*names: str) -> DataInfo:
    return DataInfo(label_names=names, label_counts=None, sizes={}, fingerprint="", name="trained on")


def test_labels_follow_the_outputs_of_a_trained_model() -> None:
    bound: list[DataInfo] = []
    made = data(label_names=["no", "yes"], bind=bound.append)
    made.follow(trained("yes", "perhaps", "no"))
    made.setup("predict")
    assert made.info.label_names == ("yes", "perhaps", "no")
    assert made.rows("test").column("label").to_pylist() == [2, 0, 2, 0, 2]
    assert made.encoded("test")[0]["label"] == 2
    assert bound == [], "the task is bound to the data that the model was trained on"


def test_a_label_that_a_trained_model_does_not_know_is_an_error() -> None:
    made = data(InMemory({"test": rows(3)}))
    made.follow(trained("yes", "not"))
    assert refusal(made) == (
        "test split, rows 1, 3: the label 'no' is no output of the model. Did you mean 'not'?\n"
        "Labels: yes, not. Correct it, or leave these rows out.",
    )


def test_one_split_with_fewer_labels_is_enough_for_a_trained_model() -> None:
    made = data(InMemory({"test": [{"text": "a", "label": "yes"}]}))
    made.follow(trained("no", "yes"))
    made.setup("test")
    assert made.rows("test").column("label").to_pylist() == [1]


# ---- batches ----


@pytest.mark.parametrize("split", SPLITS)
def test_workers_do_not_change_the_batches(split: str) -> None:
    def batches(workers: int) -> list[dict[str, Tensor]]:
        made = ready(num_workers=workers, batch_size=4, eval_batch_size=2)
        loader = made.train_dataloader() if split == "train" else made.eval_dataloader(split)
        return [dict(batch) for _ in range(2) for batch in loader]

    plain, worked = batches(0), batches(2)
    assert len(plain) == len(worked) == {"train": 12, "validation": 8, "test": 6}[split]
    for one, other in zip(plain, worked, strict=True):
        assert_close(one, other, rtol=0, atol=0)


def classifier() -> TextClassification:
    return TextClassification(tiny_tokenizer("bert"), loss=partial(cross_entropy))


def test_what_a_worker_needs_survives_pickling() -> None:
    task = classifier()
    made = ready(encode=task.encode, collate=task.collate)
    encoded, collate = pickle.loads(pickle.dumps((made.encoded("test"), task.collate)))
    expected = dict(next(iter(made.eval_dataloader("test"))))
    order = expected["row"].tolist()
    assert_close(dict(collate([encoded[index] for index in order])), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_workers_may_be_started_afresh_instead_of_forked() -> None:
    # near the default from Python 3.14 on
    task = classifier()
    made = ready(num_workers=1, encode=task.encode, collate=task.collate)
    loader = made.eval_dataloader("test")
    loader.loader.multiprocessing_context = "spawn"
    expected = ready(encode=task.encode, collate=task.collate).eval_dataloader("test")
    assert_close([dict(batch) for batch in loader], [dict(batch) for batch in expected], rtol=0, atol=0)


def test_no_more_workers_are_started_than_there_are_cores(logged: pytest.LogCaptureFixture) -> None:
    cores = len(os.sched_getaffinity(0))
    made = ready(num_workers=cores + 3)
    assert made.train_dataloader().loader.num_workers == cores
    assert f"data.num_workers: {cores} instead of {cores + 3}, as many as there are cores" in logged.text


def test_evaluation_batches_are_longest_first_and_hold_every_row() -> None:
    made = ready(eval_batch_size=2)
    lengths = [len(WORDS[(7 * index + index // 5) % 6]) for index in range(7)]
    order = sorted(range(7), key=lambda index: -lengths[index])
    assert row_numbers(made.val_dataloader()) == [order[:2], order[2:4], order[4:6], order[6:]]
    assert sorted(chain.from_iterable(row_numbers(made.test_dataloader()))) == list(range(5))


def test_processes_share_the_rows_and_the_optimizer_steps() -> None:
    def of(rank: int) -> DataModule:
        made = ready(batch_size=6, micro_batches=3, eval_batch_size=2)
        made.trainer = SimpleNamespace(global_rank=rank, world_size=2, overfit_batches=0.0)  # type: ignore[assignment]
        return made

    whole = ready(batch_size=6)
    ranks = [row_numbers(of(rank).train_dataloader()) for rank in range(2)]
    assert [len(batches) for batches in ranks] == [11, 11]  # 3 full batches in 3 steps, 5 rows in 2
    steps = [[*one, *other] for one, other in zip(*ranks, strict=True)]
    expected = [set(batch) for batch in row_numbers(whole.train_dataloader())]
    assert [set(chain.from_iterable(steps[start : start + 3])) for start in (0, 3, 6, 9)] == expected
    evaluated = chain.from_iterable(chain.from_iterable(row_numbers(of(rank).val_dataloader()) for rank in range(2)))
    assert sorted(evaluated) == list(range(7))


def test_the_order_of_training_follows_the_seed_and_zero_is_one() -> None:
    def order(seed: int) -> list[list[int]]:
        return row_numbers(ready(batch_size=4, seed=seed).train_dataloader())

    assert order(0) == order(0) != order(1)


def test_loaders_leave_the_random_numbers_of_the_run_alone() -> None:
    made = ready()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for loader in (made.train_dataloader(), made.val_dataloader()):
        assert len(list(loader)) == len(loader)
    assert_close(torch.rand(2), expected, rtol=0, atol=0)


class Recorder(pl.LightningModule):
    """Trains one number and writes down which rows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[list[int]]] = {}

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        del index
        self.seen.setdefault(self.current_epoch, []).append(batch["row"].tolist())
        return self.weight.square()

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """Look at a batch."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    made: DataModule, epochs: int, *, save: str | None = None, resume: str | None = None, overfit: int = 0
) -> Recorder:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        overfit_batches=overfit,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    recorder = Recorder()
    trainer.fit(recorder, made, ckpt_path=resume, weights_only=True)
    if save is not None:
        trainer.save_checkpoint(save)
    return recorder


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore::FutureWarning")
def test_lightning_sees_a_new_order_each_epoch_and_a_resumed_run_the_same(workers: int) -> None:
    settings = {"batch_size": 4, "num_workers": workers}
    unbroken = fit(data(**settings), 3).seen
    assert len({json.dumps(batches) for batches in unbroken.values()}) == 3
    assert all(sorted(chain.from_iterable(batches)) == list(range(23)) for batches in unbroken.values())
    fit(data(**settings), 1, save="one.ckpt")
    assert fit(data(**settings), 3, resume="one.ckpt").seen == {1: unbroken[1], 2: unbroken[2]}


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore::FutureWarning")
def test_no_worker_outlives_its_run() -> None:
    # left to the garbage collector, which has closed their queues by then, each would be waited for in vain
    before = set(multiprocessing.active_children())
    fit(data(num_workers=1), 2)
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore::FutureWarning")
def test_a_batch_to_overfit_is_the_same_each_epoch() -> None:
    seen = fit(data(batch_size=4), 3, overfit=2).seen
    assert seen[0] == seen[1] == seen[2] == row_numbers(ready(batch_size=4).train_dataloader())[:2]


# ---- fingerprint ----


def test_the_fingerprint_tells_whether_the_same_rows_were_used() -> None:
    def fingerprint(**settings: Any) -> str:
        return ready(**settings).info.fingerprint

    same = [fingerprint(), fingerprint(batch_size=5, seed=9, name="other"), fingerprint(limit=1.0)]
    others = [
        fingerprint(limit=22),
        fingerprint(limit=22, limit_seed=1),
        fingerprint(label_names=["yes", "no"]),
        fingerprint(split=partial(holdout, test=0.0, validation=0.0), source=InMemory({"train": rows(23)})),
        fingerprint(columns={"text_pair": "text"}),
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 6
