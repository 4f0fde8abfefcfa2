"""DataFrames through Arrow: columns become blocks without a Python object a row, and predictions one more column.

`df.rdd` on array or vector columns costs ten to twenty times as much; it is never used on them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from kerasoft.runtime.shards import Block

from ..errors import DataError
from ..host.sparse import SparseRows
from .blocks import ERROR
from .columns import Column, check_block, of_kind
from .reader import MOST_ROWS


def numeric_columns(df: Any, names: Sequence[str], sparse: Collection[str] = ()) -> Any:
    """`df` with the given columns only, ML vectors turned into arrays, but for those in `sparse`.

    Raises:
        DataError: a column that is not there, or that holds no numbers; names it and what there is.
    """
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    fields = {f.name: f.dataType for f in df.schema.fields}
    chosen = []
    for name in names:
        if name not in fields:
            raise DataError(f"the DataFrame has no column {name!r}; it has {sorted(fields)}.")
        kind = fields[name]
        if name in sparse and is_sparse_kind(kind):
            chosen.append(F.col(f"`{name}`"))
            continue
        if type(kind).__name__ == "VectorUDT":
            from pyspark.ml.functions import vector_to_array

            chosen.append(vector_to_array(F.col(f"`{name}`"), "float32").alias(name))
            continue
        inner = kind
        while isinstance(inner, T.ArrayType):
            inner = inner.elementType
        if isinstance(inner, T.DecimalType):
            if inner is not kind:
                raise DataError(f"column {name!r} is {kind.simpleString()}; cast its elements to double first.")
            chosen.append(F.col(f"`{name}`").cast("double").alias(name))
        elif isinstance(inner, (T.NumericType, T.BooleanType)):
            chosen.append(F.col(f"`{name}`"))
        else:
            raise DataError(
                f"column {name!r} is {kind.simpleString()}; expected numbers, arrays of numbers or ML vectors. "
                "Index or encode it first, e.g. with StringIndexer."
            )
    return df.select(*chosen)


def is_sparse_kind(kind: Any) -> bool:
    """Whether a column of this type holds sparse rows: ML vectors, or structs of size, indices and values."""
    return type(kind).__name__ == "VectorUDT" or {"size", "indices", "values"} <= set(getattr(kind, "names", ()))


def sparse_of(column: Any, columns: int, name: str, first_row: int, where: str) -> SparseRows:
    """An Arrow column of ML vectors, of structs of size, indices and values, or of arrays, as sparse rows.

    Raises:
        DataError: nulls, or vectors of another size than `columns`; names the row.
    """
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_struct(column.type):
        dense = array_of(column, name, first_row, where)
        return SparseRows.of(dense.reshape(len(dense), -1))
    if column.null_count:
        row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise DataError(
            f"column {name!r} is null in row {first_row + row} of {where}; expected vectors. Drop such rows: df.na.drop()."
        )
    parts = dict(zip((f.name for f in column.type), column.flatten(), strict=True))
    (_, ids), (lengths, values) = _lists(parts["indices"]), _lists(parts["values"])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    row = np.repeat(np.arange(len(lengths)), lengths)
    is_dense = np.asarray(parts["type"]) == 1 if "type" in parts else np.zeros(len(lengths), bool)
    sizes = np.where(is_dense, lengths, np.asarray(parts["size"].fill_null(-1)))
    wrong = np.flatnonzero(sizes != columns)
    if len(wrong):
        raise DataError(
            f"column {name!r} is a vector of size {sizes[wrong[0]]} in row {first_row + wrong[0]} of {where}; expected {columns}"
        )
    found = (np.arange(len(values)) - starts[row]).astype(np.int32)
    found[~is_dense[row]] = ids
    return SparseRows(starts, found, values.astype(np.float32), columns)


def _lists(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """The length of each list, 0 for null, and all elements."""
    lengths = np.asarray(column.value_lengths().fill_null(0)).astype(np.int64)
    return lengths, column.flatten().to_numpy(zero_copy_only=False)


def array_of(column: Any, name: str, first_row: int, where: str) -> np.ndarray:
    """An Arrow column as an array with leading axis rows.

    Raises:
        DataError: nulls, or arrays of different lengths; names the row.
    """
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    rows, shape = len(column), []

    def null(flat, inner):
        row = int(np.flatnonzero(np.asarray(flat.is_null()))[0]) // max(inner, 1)
        raise DataError(
            f"column {name!r} is null in row {first_row + row} of {where}; expected numbers. "
            "Drop or fill nulls first: df.na.drop() or df.na.fill(0)."
        )

    inner = 1
    while (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        if column.null_count:
            null(column, inner)
        lengths = np.asarray(column.value_lengths())
        if len(lengths) and (lengths != lengths[0]).any():
            bad = int(np.flatnonzero(lengths != lengths[0])[0])
            raise DataError(
                f"column {name!r} is ragged: {lengths[bad]} values in row {first_row + bad // max(inner, 1)} of {where}, "
                f"{lengths[0]} in row {first_row}; expected equal lengths. Pad or cut the arrays first."
            )
        shape.append(int(lengths[0]) if len(lengths) else 0)
        inner *= shape[-1]
        column = column.flatten()
    if column.null_count:
        null(column, inner)
    values = column.to_numpy(zero_copy_only=False)
    return values.reshape(rows, *shape)


class ColumnReader:
    """Turns Arrow record batches into blocks of the given columns.

    Args:
        columns: what the step takes.
        feature_cols, label_cols: DataFrame columns for x and y. As many as arrays: one each (by name where the names
            are the same, else in order). More columns than one array: joined along one axis. None: columns named like
            the arrays, or ``features`` and ``label``.
        available: the DataFrame's column names.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        available: Sequence[str],
        feature_cols: Sequence[str] | None = None,
        label_cols: Sequence[str] | None = None,
    ):
        self.columns = tuple(columns)
        self.sources: list[tuple[str, ...]] = [()] * len(self.columns)
        for kind, chosen, word in (
            ("x", feature_cols, "feature_cols"),
            ("y", label_cols, "label_cols"),
            ("sample_weight", None, ""),
        ):
            places = of_kind(self.columns, kind)
            for place, names in zip(
                places, self._choose([self.columns[i].key for i in places], chosen, available, kind, word), strict=True
            ):
                self.sources[place] = names

    @staticmethod
    def _choose(keys, chosen, available, kind, word) -> list[tuple[str, ...]]:
        if not keys:
            return []
        chosen = [chosen] if isinstance(chosen, str) else chosen
        if chosen:
            if len(chosen) == len(keys):
                return [(k,) for k in (keys if set(keys) == set(chosen) else chosen)]
            if len(keys) == 1:
                return [tuple(chosen)]
            raise DataError(f"{word}={list(chosen)} names {len(chosen)} columns for the {len(keys)} arrays {keys}.")
        if all(k in available for k in keys):
            return [(k,) for k in keys]
        classic = {"x": "features", "y": "label", "sample_weight": "sample_weight"}[kind]
        if len(keys) == 1 and classic in available:
            return [(classic,)]
        raise DataError(
            f"which columns are the model's {'inputs' if kind == 'x' else 'labels'} {keys}? "
            f"The DataFrame has {sorted(available)}; name them with {word or 'a column sample_weight'}=[...]."
        )

    @property
    def sparse(self) -> set[str]:
        """The DataFrame columns that are read as sparse rows."""
        return {
            n for c, source in zip(self.columns, self.sources, strict=True) if c.columns is not None for n in source
        }

    @property
    def names(self) -> list[str]:
        """The DataFrame columns that are read."""
        return list(dict.fromkeys(name for source in self.sources for name in source))

    def block(self, batch: Any, first_row: int, where: str) -> Block:
        """One record batch as a block, checked.

        Raises:
            DataError: nulls, ragged arrays, wrong shapes, wrong values; names row and column.
        """
        made: Block = {}
        for column, source in zip(self.columns, self.sources, strict=True):
            if column.columns is not None:
                if len(source) != 1:
                    raise DataError(
                        f"{column} is sparse and takes one column of vectors, got {list(source)}: join them with "
                        "VectorAssembler, or give each an Input of its own."
                    )
                values = batch.column(batch.schema.get_field_index(source[0]))
                made[column.name] = sparse_of(values, column.columns, source[0], first_row, where).packed()
                continue
            parts = [array_of(batch.column(batch.schema.get_field_index(n)), n, first_row, where) for n in source]
            if len(parts) == 1:
                value = parts[0]
            else:
                value = np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)
            made[column.name] = self._shaped(column, source, value, first_row, where)
        check_block(self.columns, made, first_row, where)
        return made

    @staticmethod
    def _shaped(column: Column, source: Sequence[str], value: np.ndarray, first_row: int, where: str) -> np.ndarray:
        shape = value.shape[1:]
        if shape != column.shape:
            if math.prod(shape) != math.prod(column.shape):
                raise DataError(
                    f"{column} has shape {column.shape}; column{'s' if len(source) > 1 else ''} {', '.join(map(repr, source))} "
                    f"give{'s' if len(source) == 1 else ''} {shape} (row {first_row} of {where})."
                )
            value = value.reshape(len(value), *column.shape)
        if np.dtype(column.dtype).kind in "iu" and value.dtype.kind == "f":
            flat = value.reshape(len(value), -1)
            wrong = (flat != np.trunc(flat)).any(axis=1)
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise DataError(
                    f"{column} holds fractions in row {first_row + row} of {where}; expected whole numbers ({column.dtype})."
                )
        return np.ascontiguousarray(value, dtype=column.dtype)


def records_of_dataframe(
    df: Any,
    columns: Sequence[Column],
    feature_cols: Sequence[str] | None = None,
    label_cols: Sequence[str] | None = None,
) -> Any:
    """A lazy RDD of the rows of a DataFrame as records, through Arrow; a shard is a partition of its result.

    Raises:
        DataError: columns that are not there or hold no numbers. Bad rows are found as by `records_of_rdd`.
    """
    from pyspark import TaskContext

    reader = ColumnReader(columns, df.columns, feature_cols, label_cols)
    chosen = numeric_columns(df, reader.names, reader.sparse)

    def convert(batches: Iterator[Any]) -> Iterator[Any]:
        where = f"partition {TaskContext.get().partitionId()}"
        sequence = first = 0
        for batch in batches:
            for start in range(0, batch.num_rows, MOST_ROWS):
                part = batch.slice(start, MOST_ROWS)
                try:
                    block = reader.block(part, first, where)
                except DataError as error:
                    yield _packed(ERROR, {"error": np.frombuffer(str(error).encode(), np.uint8)})
                    return
                yield _packed(sequence, block)
                sequence, first = sequence + 1, first + part.num_rows

    packed = chosen.mapInArrow(convert, "sequence int, payload binary").rdd

    def unpack(index: int, rows: Iterator[Any]) -> Iterator[tuple]:
        for sequence, payload in rows:
            yield index, sequence, _unpacked(payload)

    return packed.mapPartitionsWithIndex(unpack)


def _packed(sequence: int, block: Block) -> Any:
    """A block as an Arrow row: JSON header, newline, raw arrays."""
    import pyarrow as pa

    header = json.dumps([[k, v.dtype.str, v.shape] for k, v in block.items()]).encode()
    payload = b"".join([header, b"\n", *(np.ascontiguousarray(v).tobytes() for v in block.values())])
    return pa.RecordBatch.from_arrays(
        [pa.array([sequence], pa.int32()), pa.array([payload], pa.binary())], ["sequence", "payload"]
    )


def _unpacked(payload: bytes) -> Block:
    payload = bytes(payload)
    end = payload.index(b"\n")
    offset, block = end + 1, {}
    for name, dtype, shape in json.loads(payload[:end]):
        count = math.prod(shape)
        block[name] = np.frombuffer(payload, dtype, count, offset).reshape(shape)
        offset += count * np.dtype(dtype).itemsize
    return block


def _spark_type(T: Any, shape: Sequence[int], dtype: str, sparse: bool = False) -> Any:
    if sparse:
        ids, values = T.ArrayType(T.IntegerType()), T.ArrayType(T.FloatType())
        return T.StructType([T.StructField(n, t) for n, t in zip(_FIELDS, (T.IntegerType(), ids, values), strict=True)])
    kind = np.dtype(dtype) if dtype != "bfloat16" else np.dtype("float32")
    made = {"f": T.FloatType(), "i": T.IntegerType(), "u": T.IntegerType(), "b": T.BooleanType()}[kind.kind]
    for _ in shape:
        made = T.ArrayType(made)
    return made


_FIELDS = ("size", "indices", "values")


def _arrow(pa: Any, values: Any) -> Any:
    if isinstance(values, SparseRows):
        offsets = pa.array((values.starts - values.starts[0]).astype(np.int32))
        own = slice(int(values.starts[0]), int(values.starts[-1]))
        lists = [pa.ListArray.from_arrays(offsets, pa.array(v[own])) for v in (values.ids, values.values)]
        size = pa.array(np.full(len(values), values.shape[1], np.int32))
        return pa.StructArray.from_arrays([size, *lists], list(_FIELDS))
    values = np.ascontiguousarray(values)
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
    elif values.dtype.kind in "iu":
        values = values.astype(np.int32, copy=False)
    made = pa.array(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        size = values.shape[axis]
        offsets = np.arange(0, len(made) + 1, size, dtype=np.int32)
        made = pa.ListArray.from_arrays(pa.array(offsets), made)
    return made
