"""A few numbers for each row of a data set, merged where the rows are: arrays here, RDDs and DataFrames on the executors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.kinds import is_dataframe, is_distributed

_COLUMN = "measured_by_kerasoft"


def merged(model: Any, data: Any, merge: str, batch_size: int, feature_cols: Any) -> np.ndarray:
    """The numbers that `model` gives for each row, merged over the rows.

    Args:
        model: with one output, (rows, numbers).
        data: arrays in the structure of the model's inputs, an RDD, or a DataFrame.
        merge: "sum", "min" or "max".

    Returns:
        float64 (numbers,).
    """
    how = {"sum": np.sum, "min": np.min, "max": np.max}[merge]
    if not is_distributed(data):
        return how(np.asarray(model.predict(data, batch_size=batch_size, verbose=0), np.float64), axis=0)
    scored = model.predict(data, batch_size=batch_size, feature_cols=feature_cols, **_named(data))
    rows = scored.select(_COLUMN).rdd.map(lambda row: row[0]) if is_dataframe(data) else scored

    def of_partition(part: Any) -> Any:
        total = None
        for row in part:
            row = np.asarray(row, np.float64)
            total = row if total is None else how([total, row], axis=0)
        if total is not None:
            yield total

    return how(np.stack(rows.mapPartitions(of_partition).collect()), axis=0)


def _named(data: Any) -> dict[str, str]:
    return {"output_col": _COLUMN} if is_dataframe(data) else {}
