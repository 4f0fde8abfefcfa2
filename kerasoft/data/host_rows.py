"""Rows with raw columns, such as text, on their way to a compiled step: a `HostPlan` is run on them on the executors."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .dataframe import _arrow, _spark_type, array_of

CHUNK = 1024  # rows that a plan is run on at once


def with_cuts_rdd(rdd: Any, plan: Any, feature_cols: Sequence[str] | None, labels: bool) -> Any:
    """A lazy RDD of the same rows, x replaced by a dict of what `plan` makes of it.

    Args:
        rdd: of (x, y[, weight]), dicts or Rows; without `labels` also of x alone.
        feature_cols: for dicts and Rows, the keys of the raw inputs.
    """

    def convert(rows: Iterator[Any]) -> Iterator[Any]:
        while chunk := list(itertools.islice(rows, CHUNK)):
            parts = [_apart(row, plan, feature_cols, labels) for row in chunk]
            raw = {}
            for i, (name, dtype, _) in enumerate(plan.inputs):
                raw[name] = _together([x[i] for x, _ in parts], dtype)
            made = plan(raw)
            for i, (_, rest) in enumerate(parts):
                x = {name: array[i] for name, array in made.items()}
                yield {**rest, **x} if isinstance(rest, dict) else (x, *rest) if rest else x

    return rdd.mapPartitions(convert, preservesPartitioning=True)


def _together(values: list, dtype: str) -> np.ndarray:
    """One array of the rows' values; texts as objects."""
    if dtype != "string":
        return np.asarray([v.toArray() if hasattr(v, "toArray") else v for v in values])
    return np.asarray([v.tolist() if isinstance(v, np.ndarray) else v for v in values], object)


def _apart(row: Any, plan: Any, feature_cols: Sequence[str] | None, labels: bool) -> tuple[list, Any]:
    """The raw inputs of a row, in order, and the rest of the row: a dict, or a tuple of y and weight."""
    names = [name for name, _, _ in plan.inputs]
    if hasattr(row, "asDict"):
        row = row.asDict()
    if isinstance(row, dict):
        keys = _keys(names, feature_cols, list(row), "the rows have the keys")
        return [row[k] for k in keys], {k: v for k, v in row.items() if k not in keys}
    x, rest = row, ()
    if isinstance(row, (tuple, list)) and (labels or len(names) == 1 or isinstance(row[0], (dict, list, tuple))):
        if labels and not (isinstance(row, tuple) and len(row) in (2, 3)):
            raise DataError(f"a row is {row!r}; expected (x, y), (x, y, weight), a dict or a Row")
        if isinstance(row, tuple) and len(row) in (2, 3):
            x, rest = row[0], tuple(row[1:])
    if isinstance(x, dict):
        keys = _keys(names, None, list(x), "x has the keys")
        return [x[k] for k in keys], rest
    if len(names) == 1:
        return [x], rest
    if not isinstance(x, (tuple, list)) or len(x) != len(names):
        raise DataError(f"x is {x!r}; expected the {len(names)} inputs {names}, as a dict or a list in this order")
    return list(x), rest


def _keys(names: list[str], chosen: Sequence[str] | None, available: list[str], there: str) -> list[str]:
    if chosen:
        chosen = [chosen] if isinstance(chosen, str) else list(chosen)
        if len(chosen) != len(names):
            raise DataError(f"feature_cols={chosen} names {len(chosen)} columns for the {len(names)} inputs {names}")
        keys = names if set(chosen) == set(names) else chosen
    elif all(name in available for name in names):
        keys = names
    elif len(names) == 1 and "x" in available:
        keys = ["x"]
    elif len(names) == 1 and "features" in available:
        keys = ["features"]
    else:
        raise DataError(
            f"{there} {sorted(map(str, available))}; which are the inputs {names}? Name them: feature_cols=[...]"
        )
    missing = [k for k in keys if k not in available]
    if missing:
        raise DataError(f"{there} {sorted(map(str, available))}; there is no {missing[0]!r}")
    return keys


def with_cuts_dataframe(
    df: Any, plan: Any, shapes: dict[str, tuple], feature_cols: Sequence[str] | None, sparse: Collection[str] = ()
) -> tuple[Any, list[str]]:
    """`df` with one more column for each array that `plan` makes, and the names of these columns.

    Args:
        shapes: of one row of each array. sparse: names of those that are sparse rows.
    """
    from pyspark.sql import types as T

    names = [name for name, _, _ in plan.inputs]
    keys = _keys(names, feature_cols, list(df.columns), "the DataFrame has the columns")
    added = {name: f"__{name}" for name, _, _ in plan.cuts}
    fields = [T.StructField(added[n], _spark_type(T, shapes[n], dtype, n in sparse)) for n, _, dtype in plan.cuts]
    schema = T.StructType([*df.schema.fields, *fields])
    keep = list(df.columns)

    def convert(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        first = 0
        for batch in batches:
            if not batch.num_rows:
                continue
            raw = {}
            for name, key, (_, dtype, _) in zip(names, keys, plan.inputs, strict=True):
                column = batch.column(batch.schema.get_field_index(key))
                is_text = dtype == "string"
                raw[name] = (
                    column.to_numpy(zero_copy_only=False) if is_text else array_of(column, key, first, "the batch")
                )
            made = plan(raw)
            first += batch.num_rows
            columns = [batch.column(batch.schema.get_field_index(c)) for c in keep]
            arrays = [_arrow(pa, made[name]) for name, _, _ in plan.cuts]
            yield pa.RecordBatch.from_arrays([*columns, *arrays], [*keep, *added.values()])

    return df.mapInArrow(convert, schema), list(added.values())
