"""Predictions of a loaded run, in the batches, on the device and in the precision of its evaluation.

From Python::

    loaded = load_run("a1b2c3d4")
    predict_rows(loaded, [{"text": "Profit rose sharply in the third quarter."}])

``graft predict`` streams a file through the same function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from lightning_fabric.utilities import move_data_to_device

from graft.data.columns import features_only
from graft.data.encoded import EncodedRows
from graft.data.files import table_of
from graft.data.sampling import WINDOW, windowed_order
from graft.runs.load import LoadedRun
from graft.step import Prediction


def predict_rows(loaded: LoadedRun, rows: Sequence[Mapping[str, Any]]) -> list[Prediction]:
    """Predict rows given as dictionaries.

    Args:
        loaded: A run with its weights.
        rows: The texts of each, named as in the run's data or as in the task's schema (``text``, ``text_pair``).

    Returns:
        One prediction a row, such as ``{"label", "probability", "probabilities"}``, in the order of the rows.

    Raises:
        DataError: If a text is missing or empty.
    """
    return predict_table(loaded, table_of(rows, "the rows")) if rows else []


def predict_table(loaded: LoadedRun, table: pa.Table) -> list[Prediction]:
    """Predict the rows of a table; see ``predict_rows``.

    Args:
        loaded: A run with its weights.
        table: The rows.

    Returns:
        One prediction a row.

    Raises:
        DataError: If a text is missing or empty.
    """
    if table.num_rows == 0:
        return []
    run, strategy = loaded.run, loaded.run.trainer.strategy
    assert run.module.model is not None
    # Device and precision as when the trainer evaluates, so that the numbers are the same.
    model = strategy.precision_plugin.convert_module(run.module.model).to(strategy.root_device)
    features = features_only(table, run.task.schema, columns=run.data.columns)
    encoded = EncodedRows.build([run.task.encode(features.to_pydict())])
    predictions: list[Prediction] = [{}] * len(encoded)
    order = windowed_order(encoded.lengths, batch_size=run.data.eval_batch_size, window=WINDOW)
    for start in range(0, len(order), run.data.eval_batch_size):
        rows = order[start : start + run.data.eval_batch_size].tolist()
        batch = strategy.precision_plugin.convert_input(run.task.collate([encoded[index] for index in rows]))
        batch = move_data_to_device(batch, strategy.root_device)
        with torch.inference_mode(), strategy.precision_plugin.forward_context():
            for index, prediction in zip(rows, run.task.predict(model, batch), strict=True):
                predictions[index] = prediction
    return predictions
