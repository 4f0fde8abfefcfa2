"""DataFrames with one more column, of predictions: made beside the rows, or elsewhere, with the other columns as Arrow bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasoft.runtime.shards import Block

from ..errors import DataError
from .dataframe import ColumnReader, _arrow, _packed, _spark_type, is_sparse_kind, numeric_columns

Output = tuple[str, tuple[int, ...], str]  # name, shape of one row and dtype


def with_predictions(df: Any, reader: ColumnReader, outputs: Sequence[Output], score: Callable, name: str) -> Any:
    """`df` with one more column of predictions; works on streaming DataFrames too.

    Args:
        outputs, name: as in `Predicted`.
        score: ``score() -> f`` on an executor, where ``f(block) -> tuple of arrays``.
    """
    plan = Predicted(df, reader, outputs, name)

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        predict = None
        for batch, block in plan.blocks(batches):
            predict = predict or score()
            yield plan.added(batch, predict(block))

    return plan.source.mapInArrow(run, plan.schema)


class Predicted:
    """How a DataFrame gets one more column of predictions.

    Args:
        outputs: of the model. One output of one number becomes float, of shape (k,) array<float>, of more axes nested
            arrays; several outputs a struct.
        name: of the new column.

    Attributes:
        schema: of the result. source: `df`, with columns that had to be prepared beside it.

    Raises:
        DataError: the DataFrame has a column of this name.
    """

    def __init__(self, df: Any, reader: ColumnReader, outputs: Sequence[Output], name: str):
        from pyspark.sql import types as T

        if name in df.columns:
            raise DataError(f"the DataFrame already has a column {name!r}; choose another with output_col=.")
        self.reader, self.outputs, self.name = reader, tuple(outputs), name
        types = [_spark_type(T, shape, dtype) for _, shape, dtype in outputs]
        added = (
            types[0]
            if len(types) == 1
            else T.StructType([T.StructField(n, t) for (n, _, _), t in zip(outputs, types, strict=True)])
        )
        self.schema = T.StructType([*df.schema.fields, T.StructField(name, added)])
        self._keep = list(df.columns)
        needed = numeric_columns(df, reader.names, reader.sparse)
        prepared = [
            c
            for c in reader.names
            if not (c in reader.sparse and is_sparse_kind(df.schema[c].dataType))
            and (
                type(df.schema[c].dataType).__name__ == "VectorUDT"
                or df.schema[c].dataType != needed.schema[c].dataType
            )
        ]
        self._temporary = {c: f"__{c}_as_array" for c in prepared}
        self.source = df
        if prepared:
            from pyspark.ml.functions import vector_to_array
            from pyspark.sql import functions as F

            for c in prepared:
                is_vector = type(df.schema[c].dataType).__name__ == "VectorUDT"
                value = vector_to_array(F.col(f"`{c}`"), "float32") if is_vector else F.col(f"`{c}`").cast("double")
                self.source = self.source.withColumn(self._temporary[c], value)

    def __getstate__(self) -> dict[str, Any]:  # executors need no DataFrame
        return {name: value for name, value in vars(self).items() if name not in ("source", "schema")}

    def blocks(self, batches: Iterator[Any]) -> Iterator[tuple[Any, Block]]:
        """On an executor: the Arrow batches of `source`, each with the block that the model reads.

        Raises:
            DataError: see `ColumnReader.block`.
        """
        from pyspark import TaskContext

        context = TaskContext.get()
        where = f"partition {context.partitionId()}" if context else "the batch"
        names, first = self.reader.names, 0
        for batch in batches:
            if not batch.num_rows:
                continue
            renamed = batch.select([self._temporary.get(c, c) for c in names]).rename_columns(names)
            yield batch, self.reader.block(renamed, first, where)
            first += batch.num_rows

    def added(self, batch: Any, results: Sequence[np.ndarray]) -> Any:
        """An Arrow batch with its predictions."""
        import pyarrow as pa

        arrays = [_arrow(pa, r) for r in results]
        column = arrays[0] if len(arrays) == 1 else pa.StructArray.from_arrays(arrays, [n for n, _, _ in self.outputs])
        kept = (batch.column(batch.schema.get_field_index(c)) for c in self._keep)
        return pa.RecordBatch.from_arrays([*kept, column], [*self._keep, self.name])

    # --- where predictions are made elsewhere --------------------------------------------------------------------------

    def pack(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Rows ``(number, block, the batch as bytes)``."""
        import pyarrow as pa

        for number, (batch, block) in enumerate(self.blocks(batches)):
            (sequence, payload) = _packed(number, block).columns
            rest = pa.array([_to_bytes(batch.select(self._keep))], pa.binary())
            yield pa.RecordBatch.from_arrays([sequence, payload, rest], ["sequence", "payload", "batch"])

    def join(self, results: Sequence[np.ndarray], batch: bytes) -> Iterator[tuple[bytearray]]:
        """A row that holds a batch with its predictions as bytes."""
        yield (bytearray(_to_bytes(self.added(_from_bytes(batch), results))),)

    def unpack(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches in the rows of `join`."""
        for batch in batches:
            for payload in batch.column(0).to_pylist():
                yield _from_bytes(payload)


def _to_bytes(batch: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _from_bytes(data: bytes) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()
