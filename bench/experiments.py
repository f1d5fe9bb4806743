"""Accuracy on real data: graft beside the Hugging Face Trainer, on the same rows in the same order.

An experiment is a file in ``conf/experiment/``, the only place that names its hyper-parameters. graft runs
it through the command line; the Trainer gets the same values (``extract.py``) and graft's batches
(``--order graft``). Every process has one thread, and two run at a time: on two cores that is more work
done than one process with two threads. Finished results are skipped, unless the experiment's configuration
has changed since.

    python bench/experiments.py                               all, three seeds
    python bench/experiments.py --only mrpc stsb --seeds 0 1  some
    python bench/experiments.py --table                       print the table of what is there
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from measure import Outcome, run_process, threads_environment

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SHARED_DATA = HERE.parent.parent / "shared" / "data"
CONTENDERS = ("graft", "hf")


@dataclass(frozen=True)
class Target:
    """What an experiment is compared by.

    Attributes:
        metric: Name of the metric, with its split.
        published: Figures of others, as the README of the data quotes them.
    """

    metric: str
    published: str


EXPERIMENTS: dict[str, Target] = {
    "sst2": Target("val/accuracy", "MiniLM-L6xH384 91.5, BERT-base 93.2 (dev)"),
    "sst2_lora": Target("val/accuracy", "MiniLM-L6xH384 91.5, BERT-base 93.2 (dev, full)"),
    "stsb": Target("test/spearman", "BERT-Small 77.0, BERT-base 85.8 (test)"),
    "mrpc": Target("val/f1", "MiniLM-L6xH384 88.9, BERT-base 87.3 (dev)"),
    "banking77": Target("test/accuracy", "BERT-fixed 87.2, BERT-tuned 93.7 (test)"),
    "go_emotions": Target("test/f1_macro", "BERT-base 46 (paper), 50.3 (test)"),
    "financial_phrasebank": Target("test/accuracy", "FinBERT 86 (all data, another split)"),
}


@dataclass(frozen=True)
class Job:
    """One training run of one contender.

    Attributes:
        experiment: File name in ``conf/experiment/``.
        seed: Of everything random.
        contender: ``graft`` or ``hf``.
        overrides: Further overrides of the configuration.
        threads: Threads of the process.
        results: Folder of all results.
    """

    experiment: str
    seed: int
    contender: str
    overrides: tuple[str, ...]
    threads: int
    results: Path

    @property
    def name(self) -> str:
        """What files of this job are called."""
        return f"{self.experiment}-seed{self.seed}-{self.contender}"

    @property
    def path(self) -> Path:
        """Where its result lies when it is done."""
        return self.results / "experiments" / f"{self.name}.json"

    @property
    def all_overrides(self) -> list[str]:
        """The configuration, as on graft's command line."""
        return [f"experiment={self.experiment}", f"seed={self.seed}", *self.overrides]

    @property
    def fingerprint(self) -> str:
        """A hash of the composed configuration."""
        return _fingerprint(tuple(self.all_overrides))

    def stored(self) -> dict[str, Any] | None:
        """Return the result if it is there and of this configuration."""
        if not self.path.is_file():
            return None
        found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return found if found["fingerprint"] == self.fingerprint else None


@cache
def _fingerprint(overrides: tuple[str, ...]) -> str:
    from omegaconf import OmegaConf

    from graft.config.compose import load_config

    return hashlib.sha256(OmegaConf.to_yaml(load_config("train", list(overrides))).encode()).hexdigest()[:16]


def extract(overrides: Sequence[str], folder: Path, *, environment: dict[str, str]) -> dict[str, Any]:
    """Write graft's rows and settings for the other contenders.

    Args:
        overrides: As of graft train.
        folder: Where to.
        environment: Variables to set.

    Returns:
        The settings.

    Raises:
        RuntimeError: If that fails.
    """
    command = [sys.executable, str(HERE / "extract.py"), "--out", str(folder), *overrides]
    _checked(run_process(command, environment=environment, log=folder / "extract"), command)
    found: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return found


def arguments_of(settings: dict[str, Any], folder: Path, *, leave_out: Sequence[str] = ()) -> list[str]:
    """Return settings as command-line arguments of a contender.

    Args:
        settings: What :func:`extract` returns.
        folder: The rows.
        leave_out: Names that this contender does not take.

    Returns:
        Arguments.
    """
    made = ["--rows", str(folder)]
    for name, own in settings.items():
        if name not in leave_out:
            made += [f"--{name.replace('_', '-')}", str(own)]
    return made


def run_graft(overrides: Sequence[str], folder: Path, *, environment: dict[str, str]) -> tuple[dict[str, Any], Outcome]:
    """Train with graft through its command line and read what the run left.

    Args:
        overrides: As of graft train.
        folder: An empty or missing folder for the run.
        environment: Variables to set.

    Returns:
        ``metrics``, ``cost`` and ``run_dir``; and how the process went.

    Raises:
        RuntimeError: If the run fails.
    """
    command = [sys.executable, "-m", "graft", "train", *overrides]
    outcome = run_process(command, environment={**environment, "GRAFT_LOGS": str(folder)}, log=folder / "graft")
    _checked(outcome, command)
    (cost,) = folder.glob("**/cost.json")
    metrics = json.loads((cost.parent / "metrics.json").read_text(encoding="utf-8"))
    found = {
        "metrics": metrics["best"] | metrics["test"],
        "cost": json.loads(cost.read_text(encoding="utf-8")),
        "run_dir": str(cost.parent),
    }
    return found, outcome


def run_hf(
    settings: dict[str, Any], folder: Path, *, log: Path, environment: dict[str, str]
) -> tuple[dict[str, Any], Outcome]:
    """Train with the Hugging Face Trainer, in graft's order.

    Args:
        settings: What :func:`extract` returns.
        folder: The rows.
        log: Path without suffix for what it prints.
        environment: Variables to set.

    Returns:
        Its JSON line; and how the process went.

    Raises:
        RuntimeError: If the run fails.
    """
    command = [sys.executable, str(HERE / "hf_trainer.py"), "--preset", "tuned", "--order", "graft", "--cpu"]
    command += ["--evaluate", "validation,test", *arguments_of(settings, folder)]
    outcome = run_process(command, environment=environment, log=log)
    _checked(outcome, command)
    return outcome.last_json(), outcome


def _checked(outcome: Outcome, command: Sequence[str]) -> None:
    if outcome.returncode:
        tail = "\n".join((outcome.stderr or outcome.stdout).strip().splitlines()[-15:])
        raise RuntimeError(f"exit status {outcome.returncode}: {' '.join(command)}\n{tail}")


def run_job(job: Job) -> None:
    """Run a job and store its result.

    Args:
        job: What to run.
    """
    environment = threads_environment(job.threads)
    attempt = job.results / "experiments" / job.name
    number = len(list(attempt.parent.glob(f"{job.name}.run*"))) if attempt.parent.is_dir() else 0
    folder = attempt.with_suffix(f".run{number}")
    if job.contender == "graft":
        found, outcome = run_graft(job.all_overrides, folder, environment=environment)
    else:
        settings = extract(job.all_overrides, folder, environment=environment)
        found, outcome = run_hf(settings, folder, log=folder / "hf", environment=environment)
        for rows in folder.glob("*.jsonl"):
            rows.unlink()  # large, and graft writes them again at any time
        found["settings"] = settings
    about = {"fingerprint": job.fingerprint, "seconds": outcome.seconds, "cpu_seconds": outcome.cpu_seconds}
    job.path.write_text(json.dumps({**found, **about}, indent=1) + "\n", encoding="utf-8")


def jobs_of(args: argparse.Namespace) -> Iterator[Job]:
    """Yield the jobs that were asked for, the runs of one experiment and seed beside each other."""
    overrides = (f"paths.data={args.data}", *args.override)
    for experiment in args.only:
        for seed in args.seeds:
            for contender in args.contenders:
                yield Job(experiment, seed, contender, overrides, args.threads, args.results)


def _attempt(job: Job) -> str | None:
    """Run a job unless it is done; return what went wrong."""
    if job.stored() is not None:
        print(f"{job.name}: already there", flush=True)
        return None
    try:
        run_job(job)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"{job.name}: failed\n{error}", file=sys.stderr, flush=True)
        return job.name
    found = job.stored() or {}
    metric = EXPERIMENTS[job.experiment].metric
    print(f"{job.name}: {metric} {found['metrics'][metric]:.4f} in {found['seconds']:.0f} s", flush=True)
    return None


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation} ({len(values)})"


def table(jobs: Sequence[Job]) -> str:
    """Return a Markdown table of the results that are there.

    Args:
        jobs: What was asked for.

    Returns:
        Means and sample deviations over seeds in points, and the mean difference of pairs with the same seed.
    """
    lines = [
        "| experiment | metric | graft | HF Trainer | graft - HF, by seed | published |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for experiment in dict.fromkeys(job.experiment for job in jobs):
        target = EXPERIMENTS[experiment]
        by: dict[str, dict[int, float]] = {contender: {} for contender in CONTENDERS}
        for job in jobs:
            found = job.stored() if job.experiment == experiment else None
            if found is not None:
                by[job.contender][job.seed] = 100 * found["metrics"][target.metric]
        both = [by["graft"][seed] - by["hf"][seed] for seed in by["graft"] if seed in by["hf"]]
        cells = [_mean(list(by["graft"].values())), _mean(list(by["hf"].values())), _mean(both)]
        lines.append(f"| {experiment} | {target.metric} | {' | '.join(cells)} | {target.published} |")
    return "\n".join(lines)


def main() -> int:
    """Run what is missing and print the table.

    Returns:
        Exit status: 1 if a job failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=tuple(EXPERIMENTS), default=list(EXPERIMENTS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    add("--parallel", type=int, default=2, help="processes at a time")
    add("--threads", type=int, default=1, help="threads of a process")
    add("--data", type=Path, default=SHARED_DATA, help="folder of the data sets (paths.data)")
    add("--results", type=Path, default=RESULTS)
    add(
        "--override",
        action="append",
        default=[],
        help="further override of every experiment, may be repeated",
    )
    add("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    jobs = list(jobs_of(args))
    failed: list[str] = []
    if not args.table:
        with ThreadPoolExecutor(args.parallel) as pool:
            failed = [name for name in pool.map(_attempt, jobs) if name]
    print(table(jobs))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
