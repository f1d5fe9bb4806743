"""MLflow, chosen with ``logger=[mlflow,...]``: a tracking server, or a database in the run's folder.

MLflow refuses its own file store since version 3, so the local store is SQLite.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger

from graft.errors import require


def mlflow(
    run_dir: Path,
    *,
    tracking_uri: str | None = None,
    run_name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> MLFlowLogger:
    """Return a logger whose experiment is the name of the runs' folder.

    Args:
        run_dir: The run's folder.
        tracking_uri: Where to log; ``$MLFLOW_TRACKING_URI`` by default, and without it ``<run>/mlflow.db``,
            which ``mlflow ui --backend-store-uri sqlite:///<run>/mlflow.db`` shows.
        run_name: Readable name.
        group: Runs of one configuration share it; stored as the tag ``group``.
        tags: Stored as tags with the value ``true``.
        config: The resolved configuration, stored as parameters.

    Returns:
        Lightning's logger.

    Raises:
        MissingDependencyError: If mlflow, or what it needs for SQLite, is not installed.
    """
    require("mlflow", extra="mlflow", what="logger=[mlflow]")
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = None
    if uri is None:
        for package in ("sqlalchemy", "alembic", "sqlparse"):
            require(package, extra="mlflow", what="logger=[mlflow] without a tracking server")
        run_dir.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{run_dir.resolve() / 'mlflow.db'}"
        artifacts = (run_dir.resolve() / "mlflow").as_uri()
    named = {"group": group} if group else {}
    logger = MLFlowLogger(
        experiment_name=run_dir.parent.name or "graft",
        run_name=run_name,
        tracking_uri=uri,
        tags={**named, **dict.fromkeys(tags, "true"), "run_dir": run_dir.name},
        artifact_location=artifacts,
    )
    if config:
        logger.log_hyperparams(dict(config))
    return logger
