"""What every contender and the harness measure alike: time, peak memory, others' share of the CPU.

Standard library only, so that importing it costs a contender nothing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # idle and iowait, in the order of /proc/stat


def process_age() -> float:
    """Return the seconds since this process began, interpreter start and imports included."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - int(fields[19]) / _TICKS


def peak_rss_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Stopwatch:
    """Training speed as all contenders report it: from the end of step 1 to the end of the last step.

    What the first step pays (allocation, thread start, lazy imports) and everything before it is in
    ``seconds_to_first_step``.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.rows = 0
        self.seconds_to_first_step = 0.0
        self._began = 0.0
        self._ended = 0.0

    def step(self, rows: int) -> None:
        """Note the end of an optimizer step.

        Args:
            rows: Rows that it trained on.
        """
        now = time.perf_counter()
        self.steps += 1
        self._ended = now
        if self.steps == 1:
            self._began = now
            self.seconds_to_first_step = process_age()
        else:
            self.rows += rows

    def report(self) -> dict[str, float]:
        """Return ``steps``, ``train_seconds``, ``samples_per_s`` and ``seconds_to_first_step``."""
        seconds = self._ended - self._began
        return {
            "steps": self.steps,
            "train_seconds": seconds,
            "samples_per_s": self.rows / seconds if seconds else float("nan"),
            "seconds_to_first_step": self.seconds_to_first_step,
        }


def print_result(**values: Any) -> None:
    """Print the one JSON line that a contender ends with, adding what is measured at the end of the process.

    Args:
        values: What the contender found.
    """
    print(json.dumps({**values, "total_seconds": process_age(), "peak_rss_mib": peak_rss_mib()}), flush=True)


@dataclass(frozen=True)
class Outcome:
    """How a process went.

    Attributes:
        returncode: Its exit status.
        stdout: What it printed.
        stderr: What it complained of.
        seconds: From start to end.
        cpu_seconds: Of the process and the children that it waited for, user and system.
        peak_rss_mib: Largest resident memory of the process, or of one such child, in MiB.
        foreign: Share of the machine's CPU time that other processes used meanwhile, 0 to 1.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    foreign: float

    def last_json(self) -> dict[str, Any]:
        """Return the last line of the output, a JSON object."""
        found: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        return found


def run_process(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Outcome:
    """Run a command to its end and account for it.

    Args:
        command: Program and arguments.
        environment: Variables to set besides the present ones.
        log: Path without suffix; ``.out`` and ``.err`` hold what the command wrote.

    Returns:
        How it went. ``foreign`` counts every other process, so it says nothing when several are run at once.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    began, busy = time.perf_counter(), _busy_seconds()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    own = usage.ru_utime + usage.ru_stime
    return Outcome(
        returncode=process.returncode,
        stdout=out.read_text(encoding="utf-8", errors="replace"),
        stderr=err.read_text(encoding="utf-8", errors="replace"),
        seconds=seconds,
        cpu_seconds=own,
        peak_rss_mib=usage.ru_maxrss / 1024,
        foreign=max(0.0, _busy_seconds() - busy - own) / (seconds * _cores()),
    )


def _cpu_line() -> list[int]:
    return [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


def _busy_seconds() -> float:
    return sum(ticks for index, ticks in enumerate(_cpu_line()) if index not in _IDLE) / _TICKS


def _cores() -> int:
    return sum(line.startswith("cpu") for line in Path("/proc/stat").read_text().splitlines()) - 1


def threads_environment(threads: int) -> dict[str, str]:
    """Return the variables that hold every contender to the same number of threads, off the network.

    Args:
        threads: Threads of one process.

    Returns:
        Environment variables.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
    }
