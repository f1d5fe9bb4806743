"""Weights & Biases, chosen with ``logger=[wandb,...]``: online when possible, else offline, never in the way.

A run is online when there is an API key (``WANDB_API_KEY``, ``wandb login``) and the service answers within a
few seconds. Else it is recorded in the run's folder, and one note says how to upload it. Whatever wandb
raises later turns it off with one warning; training goes on. Nothing is left behind for the next run of the
same process: each run has its own ``wandb`` run, no environment variable is written, and ``close`` says how
it ended.
"""

from __future__ import annotations

import math
import netrc
import os
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final
from urllib.parse import urlsplit

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from graft.callbacks.predictions import Record, most_wrong, read_predictions
from graft.log import get_logger

log = get_logger(__name__)

STEP = "trainer/global_step"

_PROBE_SECONDS = 3.0
_INIT_SECONDS = 20.0
_FINISH_SECONDS = 60.0
_LARGEST_CONFUSION = 100  # labels; the chart is a table of their square, and wandb draws at most 10,000 rows


@final
class Wandb(Logger):
    """One ``wandb`` run, on the first process only.

    Args:
        run_dir: The run's folder; wandb's files lie in ``<run>/wandb``.
        project: Name of the W&B project.
        entity: User or team; the key's default without it.
        offline: Whether to record only.
        run_name: Readable name.
        group: Runs of one configuration share it, whatever their seed.
        job_type: Such as ``train``.
        tags: Words to filter by.
        config: The resolved configuration, shown as a tree.
        run_id: Identity of the run; a resumed run that gives the same one is continued.
        monitor: Metric whose best value is the summary, such as ``val/accuracy``.
        mode: Whether more or less of it is better.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        project: str = "graft",
        entity: str | None = None,
        offline: bool = False,
        run_name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        monitor: str | None = None,
        mode: Literal["max", "min"] = "max",
    ) -> None:
        super().__init__()
        self._dir = Path(run_dir)
        self._offline = offline
        self._monitor = monitor
        self._mode = mode
        self._settings = {
            "project": project,
            "entity": entity,
            # Longer ones are refused by the service, and a name is no reason to lose a run.
            "name": run_name and run_name[:128],
            "group": group and group[:128],
            "job_type": job_type and job_type[:64],
            "tags": [tag[:64] for tag in tags if tag],
            "config": dict(config or {}),
            "id": run_id,
        }
        self._run: Any | None = None
        self._over = False  # closed, or turned off by an error
        self._shown: int | None = None  # age of the predictions that were sent

    # ---- what Lightning asks of a logger --------------------------------------------------------------

    @property
    def name(self) -> str:
        """The project."""
        return str(self._settings["project"])

    @property
    def version(self) -> str:
        """The run's folder, the same on every rank."""
        return self._dir.name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``wandb`` run, started on first use; None when it is closed or could not be started."""
        if self._run is None and not self._over:
            try:
                self._start()
            except Exception as error:  # a tracker's failure, of any kind, must not stop training
                self._turn_off("start", error)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the whole configuration was given at the start."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values.

        Args:
            metrics: Values by name.
            step: The training step they belong to.
        """
        values = dict(metrics) if step is None else {**metrics, STEP: step}
        self._try("log metrics", lambda run: run.log(values))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the predictions of the test, once they are written.

        Args:
            status: How fitting or testing ended; a failure sends nothing.
        """
        path = self._dir / "predictions" / "test.jsonl"
        if status != "success" or self._run is None or not path.is_file():
            return
        age = path.stat().st_mtime_ns
        if age != self._shown:
            self._shown = age
            self._try("log predictions", lambda run: run.log(_charts(path)))

    @rank_zero_only
    def close(self, exit_code: int) -> None:
        """End the run; anything logged later is ignored.

        Args:
            exit_code: 0 for success; anything else marks the run as failed.
        """
        self._try("finish", lambda run: run.finish(exit_code=exit_code))
        self._run, self._over = None, True

    # ---- wandb ----------------------------------------------------------------------------------------

    def _try(self, what: str, call: Callable[[Any], object]) -> None:
        run = self.experiment
        if run is None or self._over:
            return
        try:
            call(run)
        except Exception as error:  # as above
            self._turn_off(what, error)

    def _turn_off(self, what: str, error: Exception) -> None:
        self._run, self._over = None, True
        log.warning(
            "wandb: could not %s (%s). Logging to W&B is off for the rest of this run; training and other "
            "loggers go on.",
            what,
            _one_line(error),
        )

    def _start(self) -> None:
        import wandb

        settings = wandb.setup().settings
        if settings.mode == "disabled":
            self._over = True
            return
        reason = self._reason_for_offline(settings)
        if reason is None:
            try:
                self._run = self._init(wandb, "online")
            except Exception as error:  # whatever the reason, the run can be recorded
                reason = f"starting online failed ({_one_line(error)})"
        if self._run is None:
            self._run = self._init(wandb, "offline")
            log.info(
                "wandb: %s, so the run is recorded offline. Upload it with\n    wandb sync %s",
                reason,
                Path(self._run.dir).parent,
            )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        if self._monitor is not None:
            self._run.define_metric(self._monitor, step_metric=STEP, summary=self._mode)

    def _init(self, wandb: Any, mode: Literal["online", "offline"]) -> Any:
        wanted = {
            "console": "off",  # the bar's redrawing would be parsed and uploaded line by line
            "silent": True,  # what a person needs to know of it, we say
            "init_timeout": _INIT_SECONDS,
            "finish_timeout": _FINISH_SECONDS,
        }
        known = wandb.Settings.model_fields
        self._dir.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            **self._settings,
            dir=str(self._dir),
            mode=mode,
            resume="allow" if mode == "online" else None,  # offline there is nothing to ask
            reinit="create_new",  # never take over, or end, another run of this process
            settings=wandb.Settings(**{name: value for name, value in wanted.items() if name in known}),
        )

    def _reason_for_offline(self, settings: Any) -> str | None:
        if self._offline:
            return "offline is set"
        if settings.mode in ("offline", "dryrun"):
            return f"WANDB_MODE is {settings.mode}"
        url = str(settings.base_url)
        if not _has_credentials(settings, url):
            return "there is no API key (set WANDB_API_KEY or run 'wandb login')"
        problem = unreachable(url, seconds=_PROBE_SECONDS)
        return None if problem is None else f"{url} does not answer ({problem})"


def unreachable(url: str, *, seconds: float) -> str | None:
    """Ask whether a service answers, within a bound that name resolution cannot exceed either.

    Args:
        url: Address of the service; proxies of the environment are used.
        seconds: How long to wait.

    Returns:
        None when anything answers, else the reason in one line.
    """
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                outcome.append(None)
        except urllib.error.HTTPError as error:
            outcome.append(None if error.code < 500 else f"status {error.code}")
        except (OSError, ValueError) as error:
            outcome.append(_one_line(error))

    # Resolving a name has no timeout of its own, so it must not run in this thread.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1.0)
    return outcome[0] if outcome else f"nothing within {seconds:.0f} s"


def _has_credentials(settings: Any, url: str) -> bool:
    # wandb.init would ask for a missing key on the terminal, and wait. ``wandb.api.api_key`` warns that it is
    # deprecated.
    if settings.api_key or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for c in candidates if c and (p := Path(c).expanduser()).is_file()), None)
    if path is None:
        return False
    try:
        hosts = netrc.netrc(str(path)).hosts
    except (netrc.NetrcParseError, OSError):
        return False
    return not hosts.keys().isdisjoint({urlsplit(url).netloc, "api.wandb.ai"})


def _charts(path: Path) -> dict[str, Any]:
    import wandb

    charts: dict[str, Any] = {}
    worst = most_wrong(path, 100)
    if worst:
        columns = list(dict.fromkeys(name for record in worst for name in record if name != "probabilities"))
        rows = [[_cell(record.get(name)) for name in columns] for record in worst]
        charts["test/most_wrong"] = wandb.Table(columns=columns, data=rows)
    pairs, names = _confusion(path)
    if pairs and len(names) <= _LARGEST_CONFUSION:
        place = {name: index for index, name in enumerate(names)}
        targets = [place[target] for (target, _), n in pairs.items() for _ in range(n)]
        said = [place[label] for (_, label), n in pairs.items() for _ in range(n)]
        charts["test/confusion"] = wandb.plot.confusion_matrix(
            y_true=targets, preds=said, class_names=names, title="Confusion matrix of the test split"
        )
    elif pairs:
        confused = [[*pair, n] for pair, n in pairs.most_common() if pair[0] != pair[1]]
        charts["test/confusion"] = wandb.Table(columns=["target", "predicted", "rows"], data=confused[:1000])
    return charts


def _confusion(path: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Count target and predicted label, for predictions of one label a row; names in the task's order."""
    pairs: Counter[tuple[str, str]] = Counter()
    names: list[str] = []
    for record in read_predictions(path):
        if not _has_one_label(record):
            return Counter(), []
        names = names or list(record["probabilities"])
        pairs[record["target"], record["label"]] += 1
    return pairs, names


def _has_one_label(record: Record) -> bool:
    words = isinstance(record.get("target"), str) and isinstance(record.get("label"), str)
    return words and "probabilities" in record


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
