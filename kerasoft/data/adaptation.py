"""`adapt` over RDDs and DataFrames: one job that fills a state on each partition and merges the states in a tree."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, EmptyDataError
from .kinds import is_dataframe

CHUNK = 2048  # rows that a state is filled with at once
FAN_IN = 16  # states that one task merges


def merged_state(
    data: Any, fill: Callable[[Iterable[list]], Any], feature_cols: Sequence[str] | None, whole: bool = False
) -> Any:
    """The state of all rows. The driver receives this one state; a bad row is named by its partition.

    Args:
        data: an RDD of values, or of tuples that begin with them, or of dicts or Rows; or a DataFrame.
        fill: from chunks of values to a state that has ``merge(other) -> state``.
        feature_cols: the columns, where there are several; their values are joined to one vector a row.
        whole: rows are not joined, but given to `fill` as dicts of the columns.

    Raises:
        EmptyDataError: there is no row. DataError: a value that does not fit.
    """
    feature_cols = [feature_cols] if isinstance(feature_cols, str) else feature_cols
    if whole:
        rows = data.select(*[f"`{name}`" for name in feature_cols or ()]).rdd if is_dataframe(data) else data
        values = rows.map(_as_dict)
    else:
        values = _columns(data, feature_cols) if is_dataframe(data) else _values(data, feature_cols)
    states = values.mapPartitionsWithIndex(functools.partial(_fill, fill))
    groups = values.getNumPartitions()
    while groups > 1:
        groups = -(-groups // FAN_IN)
        states = states.map(_keyed).partitionBy(groups, _itself).values().mapPartitions(_merge)
    found = states.collect()
    error, state = found[0][1:] if found else (None, None)
    if error is not None:
        raise DataError(error)
    if state is None:
        raise EmptyDataError(
            "adapt() got no rows. Check the path that the data were read from and the filters on the way."
        )
    return state


def _fill(fill: Callable[[Iterable[list]], Any], index: int, rows: Iterator[Any]) -> Iterator[tuple]:
    """(index, error, state) of one partition; the state of one without rows is None."""
    first = list(itertools.islice(rows, CHUNK))
    if not first:
        yield index, None, None
        return

    def chunks() -> Iterator[list]:
        chunk = first
        while chunk:
            yield chunk
            chunk = list(itertools.islice(rows, CHUNK))

    try:
        yield index, None, fill(chunks())
    except ValueError as error:  # carried to the driver as a value: no stack trace of Spark around it
        yield index, f"{error} (in partition {index})", None


def _keyed(found: tuple) -> tuple:
    return found[0] // FAN_IN, found


def _itself(key: int) -> int:
    return key


def _merge(group: Iterator[tuple]) -> Iterator[tuple]:
    """The states of a group merged in the order of the partitions; of several errors the first."""
    total = key = None
    for index, error, state in sorted(group, key=lambda found: found[0]):
        key = index // FAN_IN
        if error is not None:
            yield key, error, None
            return
        if state is not None:
            total = state if total is None else total.merge(state)
    if key is not None:
        yield key, None, total


def _values(rdd: Any, feature_cols: Sequence[str] | None) -> Any:
    """The values to adapt to, out of the rows of an RDD."""
    return rdd.map(functools.partial(_value, feature_cols))


def _value(feature_cols: Sequence[str] | None, row: Any) -> Any:
    if hasattr(row, "asDict"):
        row = row.asDict()
    if isinstance(row, dict):
        return _of_dict(row, feature_cols or (list(row) if len(row) == 1 else None))
    return row[0] if isinstance(row, tuple) and row else row


def _as_dict(row: Any) -> dict:
    row = row.asDict() if hasattr(row, "asDict") else row
    row = row[0] if isinstance(row, tuple) and row else row
    if not isinstance(row, dict):
        raise ValueError(f"adapt(): a row is {row!r}; expected a dict by feature name, or a Row")
    return row


def _of_dict(row: dict, names: Sequence[str] | None) -> Any:
    if names is None or any(name not in row for name in names):
        raise ValueError(
            f"adapt(): the rows have the keys {sorted(map(str, row))}; name those to adapt to: feature_cols=[...]"
        )
    if len(names) == 1:
        return row[names[0]]
    return np.concatenate([np.ravel(v.toArray() if hasattr(v, "toArray") else v) for v in (row[n] for n in names)])


def _columns(df: Any, feature_cols: Sequence[str] | None) -> Any:
    """The values of the chosen columns of a DataFrame, or of all; several make one vector a row."""
    from pyspark.sql import types as T

    names = list(feature_cols or df.columns)
    missing = [name for name in names if name not in df.columns]
    if missing:
        raise DataError(f"the DataFrame has no column {missing[0]!r}; it has {sorted(df.columns)}.")
    chosen = df.select(*[f"`{name}`" for name in names])
    texts = [f.name for f in chosen.schema.fields if isinstance(f.dataType, T.StringType)]
    if len(names) > 1 and texts:
        raise DataError(f"the DataFrame has the columns {names}; choose the one to adapt to: df.select({texts[0]!r})")
    return chosen.rdd.map(functools.partial(_of_row, names))


def _of_row(names: Sequence[str], row: Any) -> Any:
    return _of_dict(row.asDict(), names)
