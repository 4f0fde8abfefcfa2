"""The walk of `adapt` over data: one state filled from arrays, from batches, or on Spark's executors and merged."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...host.states import filled
from ...tensors import is_tensor
from .host_layer import as_host


def is_array(data: Any) -> bool:
    """Whether `data` is all of the data: an array or a list, and no iterable of batches."""
    return isinstance(data, (str, bytes, list, tuple, np.ndarray)) or is_tensor(data)


def batches_of(data: Iterable, steps: int | None) -> Iterable:
    """The first `steps` batches; of tuples the first element, which is x."""
    for batch in itertools.islice(data, steps):
        yield as_host(batch[0] if isinstance(batch, tuple) else batch)


def spark_state(data: Any, fill: Callable[[Any, list], None], start: Any, steps: Any, feature_cols: Any) -> Any:
    """`start` filled with all rows of an RDD or a DataFrame, by one job.

    Args:
        fill: puts a list of rows into a state; runs on the executors.

    Raises:
        ValueError: `steps` is given. EmptyDataError: there is no row.
    """
    if steps is not None:
        raise ValueError("`steps` counts batches of an iterable; of an RDD or a DataFrame take a part: data.limit(n)")
    from ...data.adaptation import merged_state

    return merged_state(data, functools.partial(filled, fill, start), feature_cols)
