from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.utilities import rank_zero_only

import graft.callbacks.wandb as module
from graft.callbacks.predictions import Predictions, read_predictions
from graft.callbacks.wandb import Wandb, unreachable
from tests.callbacks.toy_run import NAMES, ToyModule, loader, trainer
from tests.callbacks.wandb_file import WandbFile, offline_runs, read_finished

CONFIG = {"model": {"name": "tiny", "layers": [1, 2]}, "optimizer": {"lr": 3e-4}, "seed": 0, "note": None}


def run_once(run_dir: Path, *, exit_code: int = 0, **about: Any) -> WandbFile:
    """Train three epochs and test, as the train command does it, and read what was recorded."""
    logger = Wandb(run_dir, monitor="val/accuracy", mode="max", **about)
    run = trainer(run_dir, logger=logger, callbacks=[Predictions(run_dir)], max_epochs=3)
    toy = ToyModule([0.5, 0.9, 0.7])
    run.fit(toy, loader(), loader())
    run.test(toy, loader(), verbose=False)
    logger.close(exit_code)
    [path] = offline_runs(run_dir)
    return read_finished(path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WandbFile]:
    run_dir = tmp_path_factory.mktemp("runs") / "2026-01-02_03-04-05_0a1b2c3d"
    about: dict[str, Any] = {
        "config": CONFIG,
        "run_name": "lora r=16",
        "group": "feedbeef",
        "job_type": "train",
        "tags": ["sentiment", "x" * 80],
        "run_id": run_dir.name,
    }
    return run_dir, run_once(run_dir, **about)


def test_the_configuration_is_a_tree(recorded: tuple[Path, WandbFile]) -> None:
    config = recorded[1].config
    config.pop("_wandb")
    assert config == CONFIG


def test_the_run_is_named_grouped_and_tagged(recorded: tuple[Path, WandbFile]) -> None:
    run_dir, file = recorded
    assert (file.run.display_name, file.run.run_group, file.run.job_type) == ("lora r=16", "feedbeef", "train")
    assert list(file.run.tags) == ["sentiment", "x" * 64]
    assert file.run.run_id == run_dir.name
    assert file.run.project == "graft"


def test_the_history_has_every_step(recorded: tuple[Path, WandbFile]) -> None:
    history = recorded[1].history
    steps = [row["trainer/global_step"] for row in history if "train/loss" in row]
    assert steps == list(range(9))
    assert [row["val/accuracy"] for row in history if "val/accuracy" in row] == pytest.approx([0.5, 0.9, 0.7])


def test_the_summary_is_the_best_value_not_the_last(recorded: tuple[Path, WandbFile]) -> None:
    assert recorded[1].summary["val/accuracy"] == pytest.approx({"max": 0.9})


def test_every_metric_is_over_the_training_step(recorded: tuple[Path, WandbFile]) -> None:
    assert recorded[1].metrics["*"].step_metric == "trainer/global_step"


def test_test_metrics_are_in_the_summary(recorded: tuple[Path, WandbFile]) -> None:
    assert recorded[1].summary["test/accuracy"] == 0.25


def table(run_dir: Path, value: dict[str, Any]) -> dict[str, Any]:
    [path] = run_dir.glob(f"wandb/offline-run-*/files/{value['path']}")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_the_most_wrong_predictions_are_a_table(recorded: tuple[Path, WandbFile]) -> None:
    run_dir, file = recorded
    shown = table(run_dir, file.summary["test/most_wrong"])
    assert shown["columns"] == ["row", "label", "probability", "target", "target_probability"]
    written = list(read_predictions(run_dir / "predictions" / "test.jsonl"))
    wrong = sorted(
        (record["target_probability"], record["row"]) for record in written if record["label"] != record["target"]
    )
    assert [row[0] for row in shown["data"]] == [row for _, row in wrong]


def test_the_confusion_matrix_counts_every_row(recorded: tuple[Path, WandbFile]) -> None:
    run_dir, file = recorded
    shown = table(run_dir, file.summary["test/confusion_table"])
    written = list(read_predictions(run_dir / "predictions" / "test.jsonl"))
    expected = {(target, said): 0 for target in NAMES for said in NAMES}
    for record in written:
        expected[record["target"], record["label"]] += 1
    assert {(target, said): n for target, said, n in shown["data"]} == expected


def test_success_is_recorded(recorded: tuple[Path, WandbFile]) -> None:
    assert recorded[1].exit_code == 0


def test_runs_of_one_process_are_runs_of_their_own(tmp_path: Path) -> None:
    before = dict(os.environ)
    for seed in range(3):
        file = run_once(tmp_path / f"run{seed}", config={"seed": seed}, run_id=f"run{seed}")
        assert file.config["seed"] == seed
        assert [row["val/accuracy"] for row in file.history if "val/accuracy" in row] == pytest.approx([0.5, 0.9, 0.7])
    assert os.environ == before


def test_a_failed_run_is_marked_and_the_next_one_is_its_own(tmp_path: Path) -> None:
    logger = Wandb(tmp_path / "a", run_id="a")
    run = trainer(tmp_path / "a", logger=logger)
    try:
        with pytest.raises(RuntimeError, match="went"):
            run.fit(ToyModule(fail_at=1), loader())
    finally:
        logger.close(1)
    assert WandbFile(offline_runs(tmp_path / "a")[0]).exit_code == 1
    assert len(run_once(tmp_path / "b", run_id="b").history) >= 9


def test_nothing_is_logged_after_the_end(tmp_path: Path) -> None:
    logger = Wandb(tmp_path)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(0)
    logger.log_metrics({"a": 2.0}, step=1)
    logger.close(0)
    assert [row["a"] for row in WandbFile(offline_runs(tmp_path)[0]).history] == [1.0]


def test_less_can_be_better(tmp_path: Path) -> None:
    logger = Wandb(tmp_path, monitor="val/loss", mode="min")
    for step, loss in enumerate([0.5, 0.25, 0.75]):
        logger.log_metrics({"val/loss": loss}, step=step)
    logger.close(0)
    assert WandbFile(offline_runs(tmp_path)[0]).summary["val/loss"] == {"min": 0.25}


def test_other_ranks_do_not_touch_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = Wandb(tmp_path / "run", run_id="x")
    _ = logger.experiment
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(0)
    assert not (tmp_path / "run").exists()
    assert (logger.version, logger.save_dir) == ("run", str(tmp_path / "run"))  # as on rank 0


# ---- when wandb fails -------------------------------------------------------------------------------------


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    logger = logging.getLogger("graft")
    logger.addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if r.name.startswith("graft")]
    logger.removeHandler(caplog.handler)


def test_an_error_of_wandb_turns_it_off_with_one_warning(
    tmp_path: Path, heard: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = Wandb(tmp_path)

    def broken(*args: Any, **kwargs: Any) -> None:
        raise BrokenPipeError("the service\nis gone")

    with monkeypatch.context() as patch:
        patch.setattr(logger.experiment, "log", broken)
        run = trainer(tmp_path, logger=logger, max_epochs=2)
        run.fit(ToyModule(), loader(), loader())
    assert run.global_step == 6
    logger.close(0)
    warnings = [line for line in heard() if "could not" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("wandb: could not log metrics (BrokenPipeError: the service is gone)")


def test_a_run_that_wandb_cannot_start_trains_without_it(
    tmp_path: Path, heard: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def broken(*args: Any, **kwargs: Any) -> None:
        raise wandb.errors.UsageError("no")

    monkeypatch.setattr(wandb, "init", broken)
    logger = Wandb(tmp_path)
    run = trainer(tmp_path, logger=logger)
    run.fit(ToyModule(), loader(), loader())
    logger.close(0)
    assert run.global_step == 3
    assert [line for line in heard() if "could not start" in line]


def pretend(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[dict[str, Any]]:
    """Replace wandb's settings, and record how runs are started; online ones fail."""
    import wandb

    init, calls = wandb.init, []
    known = {"mode": "online", "base_url": "http://127.0.0.1:9", "api_key": None, **settings}
    monkeypatch.setattr(wandb, "setup", lambda: SimpleNamespace(settings=SimpleNamespace(**known)))
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("HOME", "/nonexistent")

    def recorded_init(**arguments: Any) -> Any:
        calls.append(arguments)
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("refused")
        return init(**arguments)

    monkeypatch.setattr(wandb, "init", recorded_init)
    return calls


@pytest.fixture
def service() -> Iterator[Callable[[int], str]]:
    servers: list[HTTPServer] = []

    def start(status: int) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_with_a_key_and_an_answer_the_run_is_online_and_can_be_continued(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: Callable[[int], str],
    heard: Callable[[], list[str]],
) -> None:
    calls = pretend(monkeypatch, api_key="k" * 40, base_url=service(404))
    logger = Wandb(tmp_path, run_id="2026_x")
    _ = logger.experiment
    logger.close(0)
    first, second = calls
    assert (first["mode"], first["resume"], first["id"]) == ("online", "allow", "2026_x")
    assert second["mode"] == "offline"  # the pretended service refuses, and the run is recorded all the same
    notes = [line for line in heard() if "wandb sync" in line]
    assert len(notes) == 1
    assert "starting online failed (CommError: refused)" in notes[0]
    assert str(offline_runs(tmp_path)[0].parent) in notes[0]


@pytest.mark.parametrize(
    ("settings", "offline", "reason"),
    [
        ({}, True, "offline is set"),
        ({"mode": "offline"}, False, "WANDB_MODE is offline"),
        ({}, False, "there is no API key"),
        ({"api_key": "k" * 40}, False, "http://127.0.0.1:9 does not answer (URLError"),
    ],
)
def test_the_note_says_why_a_run_is_offline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heard: Callable[[], list[str]],
    settings: dict[str, Any],
    offline: bool,
    reason: str,
) -> None:
    calls = pretend(monkeypatch, **settings)
    logger = Wandb(tmp_path, offline=offline)
    _ = logger.experiment
    logger.close(0)
    assert [call["mode"] for call in calls] == ["offline"]
    [note] = [line for line in heard() if "wandb sync" in line]
    assert note.startswith(f"wandb: {reason}")


def test_a_key_in_netrc_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine wandb.example login user password " + "k" * 40)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    settings = SimpleNamespace(api_key=None)
    assert module._has_credentials(settings, "https://wandb.example")
    assert not module._has_credentials(settings, "https://other.example")


def test_wandb_can_be_switched_off_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pretend(monkeypatch, mode="disabled")
    logger = Wandb(tmp_path)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(0)
    assert calls == []


def test_any_answer_is_an_answer_but_a_broken_gateway(service: Callable[[int], str]) -> None:
    assert unreachable(service(404), seconds=2) is None
    assert unreachable(service(200), seconds=2) is None
    assert unreachable(service(503), seconds=2) == "status 503"


def test_a_service_that_never_answers_costs_a_bounded_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.perf_counter()
        assert unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3) is not None
        assert time.perf_counter() - begin < 1.5


def test_training_goes_on_when_the_service_is_away(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from toy_run import ToyModule, loader, trainer
        from graft.callbacks.wandb import Wandb

        run_dir = Path(sys.argv[1])
        begin = time.perf_counter()
        logger = Wandb(run_dir, run_id="away")
        run = trainer(run_dir, logger=logger)
        run.fit(ToyModule([0.5]), loader(), loader())
        logger.close(0)
        print("steps", run.global_step, "seconds", time.perf_counter() - begin)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_API_KEY": "0123456789" * 4,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[words.index("steps") + 1] == "3"
    assert float(words[words.index("seconds") + 1]) < 30
    assert done.stderr.count("wandb sync") == 1
    assert WandbFile(offline_runs(tmp_path)[0]).exit_code == 0
