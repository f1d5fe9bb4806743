"""Speed of classification: graft beside a bare loop and the Hugging Face Trainer, tuned and untuned.

Every contender is a process of its own (graft through its command line), on the same rows with the same
batch size, length limit, seed, learning rate and threads. Contenders take turns, round after round, and are
compared within a round; the median of these ratios is what counts. ``foreign`` is the share of the machine
that other processes used meanwhile: distrust a round in which it is above 0.1. Speed is training rows a
second from the end of step 1 to the end of the last step.

    python bench/classification.py --train-rows 4096 --rounds 3
    python bench/classification.py --methods lora --contenders graft bare --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments import HERE, RESULTS, SHARED_DATA, arguments_of, extract, run_graft
from measure import Outcome, run_process, threads_environment

CONTENDERS = ("graft", "bare", "hf_tuned", "hf_default")
TIMED_CALLBACKS = "callbacks=[checkpoint,lr_monitor,progress,report,cost,predictions,stopwatch]"
"""What graft train does by itself, and the clock."""
PACKAGES = ("torch", "transformers", "peft", "pytorch-lightning", "accelerate")


def overrides_of(args: argparse.Namespace, method: str, seed: int) -> list[str]:
    """Return the work as overrides of graft train; the others get theirs from the same configuration.

    Args:
        args: Parsed arguments.
        method: ``full`` or ``lora``.
        seed: Of everything random.

    Returns:
        Overrides.
    """
    return [
        "data=sst2",
        f"paths.data={args.data}",
        f"peft={method}",
        f"optimizer.lr={args.lr[method]}",
        f"data.limit={args.train_rows}",
        f"data.batch_size={args.batch_size}",
        "trainer=cpu",
        "trainer.max_epochs=1",
        f"seed={seed}",
        *args.override,
    ]


def run_one(
    contender: str, overrides: Sequence[str], settings: dict[str, Any], rows: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Run one contender once.

    Args:
        contender: Which.
        overrides: The work, for graft.
        settings: The work, for the others.
        rows: The rows, for the others.
        args: Parsed arguments.

    Returns:
        What was measured.

    Raises:
        RuntimeError: If it fails.
    """
    environment = threads_environment(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        if contender == "graft":
            environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
            timed = [*overrides, "--config-dir", str(HERE / "conf"), TIMED_CALLBACKS]
            found, outcome = run_graft(timed, Path(folder), environment=environment)
            steps = json.loads((Path(found["run_dir"]) / "stopwatch.json").read_text(encoding="utf-8"))
            measured = {**steps, "metrics": found["metrics"]}
        else:
            outcome = _run_other(contender, settings, rows, Path(folder) / contender, environment)
            measured = outcome.last_json()
    return {
        **measured,
        "contender": contender,
        "process_seconds": outcome.seconds,
        "cpu_seconds": outcome.cpu_seconds,
        "peak_rss_mib": outcome.peak_rss_mib,
        "foreign": outcome.foreign,
    }


def _run_other(contender: str, settings: dict[str, Any], rows: Path, log: Path, environment: dict[str, str]) -> Outcome:
    if contender == "bare":
        only_hf = ("bucket", "schedule", "label_smoothing", "select")
        command = [
            sys.executable,
            str(HERE / "bare_loop.py"),
            *arguments_of(settings, rows, leave_out=only_hf),
        ]
    else:
        preset = contender.removeprefix("hf_")
        command = [sys.executable, str(HERE / "hf_trainer.py"), "--preset", preset, "--cpu"]
        command += arguments_of(settings, rows, leave_out=("select",))
    outcome = run_process(command, environment=environment, log=log)
    if outcome.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{outcome.stderr[-3000:]}")
    return outcome


def measure(args: argparse.Namespace, method: str) -> list[dict[str, Any]]:
    """Run all rounds of one method.

    Args:
        args: Parsed arguments.
        method: ``full`` or ``lora``.

    Returns:
        One record a run, with ``round`` and ``method``.
    """
    records = []
    for number in range(args.rounds):
        # Each round has its own seed, so that the order of batches is no constant of the comparison.
        overrides = overrides_of(args, method, seed=number)
        with tempfile.TemporaryDirectory() as folder:
            settings = extract(overrides, Path(folder), environment=threads_environment(args.threads))
            turn = number % len(args.contenders)
            for contender in [*args.contenders[turn:], *args.contenders[:turn]]:
                record = run_one(contender, overrides, settings, Path(folder), args)
                records.append({**record, "round": number, "method": method})
                print(
                    f"{method} round {number} {contender}: {record['samples_per_s']:.1f} samples/s, "
                    f"foreign {record['foreign']:.2f}",
                    file=sys.stderr,
                    flush=True,
                )
    return records


def ratios(records: Sequence[dict[str, Any]], contender: str, key: str = "samples_per_s") -> list[float]:
    """Return graft's figure over a contender's, round by round.

    Args:
        records: Of one method.
        contender: The other one.
        key: What is compared.

    Returns:
        One ratio for each round that both ran in.
    """
    by = {(record["contender"], record["round"]): record[key] for record in records}
    numbers = sorted({record["round"] for record in records})
    return [
        by["graft", number] / by[contender, number]
        for number in numbers
        if ("graft", number) in by and (contender, number) in by
    ]


def table(records: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table.

    Args:
        records: Of all methods.

    Returns:
        Medians over rounds, and graft against each contender as the median of the rounds' ratios.
    """
    lines = [
        "| method | contender | runs | samples/s | graft is x faster | s to first step | process s "
        "| peak RSS MiB | eval samples/s | val accuracy | foreign |",
        "| " + " | ".join(["---"] * 11) + " |",
    ]
    for method in dict.fromkeys(record["method"] for record in records):
        for contender in CONTENDERS:
            same = [record for record in records if record["method"] == method]
            own = [record for record in same if record["contender"] == contender]
            if own:
                lines.append(_line(method, contender, own, ratios(same, contender)))
    return "\n".join(lines)


def _line(method: str, contender: str, own: Sequence[dict[str, Any]], against: Sequence[float]) -> str:
    def median(key: str, digits: int) -> str:
        found = [record[key] for record in own if record.get(key) is not None]
        return f"{statistics.median(found):.{digits}f}" if found else "-"

    faster = "-"
    if against:
        faster = f"{statistics.median(against):.2f} ({min(against):.2f} to {max(against):.2f})"
    accuracy = statistics.mean(record["metrics"]["val/accuracy"] for record in own)
    cells = [
        method,
        contender,
        str(len(own)),
        median("samples_per_s", 1),
        faster,
        median("seconds_to_first_step", 1),
        median("process_seconds", 0),
        median("peak_rss_mib", 0),
        median("eval_samples_per_s", 0),
        f"{accuracy:.4f}",
        f"{max(record['foreign'] for record in own):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(names),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def main() -> None:
    """Measure, print the table, keep the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--methods", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    add("--rounds", type=int, default=3)
    add("--train-rows", type=int, default=2048)
    add("--batch-size", type=int, default=32)
    add("--lr-full", type=float, default=5e-5)
    add("--lr-lora", type=float, default=5e-4)
    add("--threads", type=int, default=2)
    add("--data", type=Path, default=SHARED_DATA, help="folder of the data sets (paths.data)")
    add("--results", type=Path, default=RESULTS)
    add(
        "--override",
        action="append",
        default=[],
        help="further override of the configuration, may be repeated",
    )
    args = parser.parse_args()
    args.lr = {"full": args.lr_full, "lora": args.lr_lora}
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"classification-{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    records: list[dict[str, Any]] = []
    for method in args.methods:
        records += measure(args, method)
        path.write_text(json.dumps({"machine": machine(), "records": records}, indent=1) + "\n", encoding="utf-8")
    print(table(records))
    print(f"\n{path}", file=sys.stderr)


if __name__ == "__main__":
    main()
