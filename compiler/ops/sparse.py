"""Sparse rows: matrices of which each row holds a few numbers, given by their columns and values.

A batch of them travels as one array int32[b, 2, k], "packed": columns, and the bits of float32 values. Rows with fewer than
k numbers end with zeros at one of their own columns. Where rows differ much, they are cut into pieces of k numbers: then the
array is int32[v, 2, k] of pieces, beside the number of pieces of each row. `sparse_rows` makes the matrix of it, so that every op can read it; a
product never does (`sparse_product`): it looks up the rows of the other factor that the columns name.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ir import Node, TensorType
from . import arithmetic, linalg, shape
from .indexing import embedding_lookup, take_along_axis
from .registry import VJP, op

sparse_ids = op(
    "sparse_ids",
    lower=lambda packed: jnp.asarray(packed)[:, 0, :],
    gradient=None,
    doc="The columns in packed rows: int32 (b, 2, k) -> int32 (b, k).",
)
sparse_values = op(
    "sparse_values",
    lower=lambda packed: jax.lax.bitcast_convert_type(jnp.asarray(packed)[:, 1, :], jnp.float32),
    gradient=None,
    doc="The values in packed rows: int32 (b, 2, k) -> float32 (b, k).",
)


def _owners(counts: Any, pieces: int) -> jax.Array:
    """int32[pieces]: the row that each piece belongs to; pieces behind the last one belong to the last row."""
    ends = jnp.cumsum(jnp.asarray(counts))
    row = jnp.searchsorted(ends, jnp.arange(pieces, dtype=ends.dtype), side="right")
    return jnp.minimum(row, ends.shape[0] - 1).astype(jnp.int32)


def _sparse_rows(ids: Any, values: Any, *counts: Any, columns: int) -> jax.Array:
    ids, values = jnp.asarray(ids), jnp.asarray(values)
    row = _owners(counts[0], ids.shape[0]) if counts else jnp.arange(ids.shape[0])
    rows = counts[0].shape[0] if counts else ids.shape[0]
    return jnp.zeros((rows, columns), values.dtype).at[row[:, None], ids].add(values, mode="drop")


def _sparse_rows_gradient(n: Node, dy: Node) -> tuple:
    ids, values, *counts = n.inputs
    if counts:
        dy = rows_of_pieces(dy, counts[0], values)
    return (None, take_along_axis(dy, ids, axis=1), *(None for _ in counts))


sparse_rows = op(
    "sparse_rows",
    lower=_sparse_rows,
    gradient=_sparse_rows_gradient,
    doc="Zeros with values added at columns: int32 (b, k), float (b, k) -> (b, columns). Of rows cut into pieces: ids and "
    "values (v, k), and int32 (b,) pieces of each row.",
)
sum_pieces = op(
    "sum_pieces",
    lower=lambda x, counts: jnp.zeros((counts.shape[0], *x.shape[1:]), x.dtype).at[_owners(counts, x.shape[0])].add(x),
    gradient=lambda n, dy: (rows_of_pieces(dy, n.inputs[1], n.inputs[0]), None),
    doc="The sums over the pieces of each row: (v, d), int32 (b,) pieces of each -> (b, d).",
)
rows_of_pieces = op(
    "rows_of_pieces",
    lower=lambda x, counts, like: jnp.asarray(x)[_owners(counts, like.shape[0])],
    gradient=lambda n, dy: (sum_pieces(dy, n.inputs[1]), None, None),
    doc="The row of each piece: (b, d), int32 (b,) pieces of each, (v, ..) -> (v, d).",
)
all_columns = op(
    "all_columns",
    lower=lambda x: jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32), x.shape),
    gradient=None,
    doc="The column of each element of a matrix: (b, n) -> int32 (b, n).",
)


def _sparse_dot(ids: Any, values: Any, table: Any) -> jax.Array:
    """Rows of a table at each row's columns, times values, added up: int (b, k), float (b, k), (n, d) -> (b, d)."""
    return jnp.einsum("bk,bkd->bd", values, jnp.take(jnp.asarray(table), jnp.asarray(ids), axis=0))


sparse_dot = op(
    "sparse_dot",
    lower=_sparse_dot,
    gradient=VJP,
    result=lambda types, attrs: TensorType((types[0].shape[0], types[2].shape[1]), types[2].dtype),
    flops=lambda types, attrs, result: (
        2 * math.prod(d for d in types[0].shape if isinstance(d, int)) * types[2].shape[1]
    ),
)  # made by the pass FuseSparseProducts


def unpacked(packed: Node, columns: int) -> Node:
    """The matrix (b, columns) of packed rows."""
    return sparse_rows(sparse_ids(packed), sparse_values(packed), columns=columns)


def of_pieces(counts: Node, packed: Node, columns: int) -> Node:
    """The matrix (b, columns) of rows cut into packed pieces, int32 (v, 2, k)."""
    return sparse_rows(sparse_ids(packed), sparse_values(packed), counts, columns=columns)


def is_sparse(x: Any) -> bool:
    """Whether `x` is a node that `sparse_rows` made, or such ones side by side."""
    return isinstance(x, Node) and (
        x.op.name == "sparse_rows"
        or (x.op.name == "concatenate" and x.attrs["axis"] == 1 and any(map(is_sparse, x.inputs)))
    )


def widest_part(x: Node) -> int:
    """The most columns of what stands side by side in a sparse node."""
    if x.op.name == "sparse_rows":
        return x.attrs["columns"]
    return max(widest_part(i) for i in x.inputs if is_sparse(i))


def sparse_product(x: Node, table: Any) -> Node:
    """``x @ table`` for a sparse node and (columns, d): rows of the table, times values, added up: (b, d)."""
    total, columns = None, 0
    for part in _parts(x):
        ids, values, *counts = part.inputs if part.op.name == "sparse_rows" else (all_columns(part), part)
        rows = embedding_lookup(table, arithmetic.add(ids, np.int32(columns)) if columns else ids)
        found = linalg.einsum("bk,bkd->bd", values, rows)
        found = sum_pieces(found, counts[0]) if counts else found
        total = found if total is None else arithmetic.add(total, found)
        columns += part.shape[1]
    assert total is not None
    return total


def _parts(x: Node) -> list[Node]:
    """What is side by side in a sparse node; whole rows are put together."""
    if x.op.name == "sparse_rows":
        return [x]
    parts = [p for i in x.inputs for p in (_parts(i) if is_sparse(i) else [i])]
    if any(len(p.inputs) == 3 for p in parts if p.op.name == "sparse_rows"):
        return parts
    ids, values, columns = [], [], 0
    for p in parts:
        mine, numbers = p.inputs if p.op.name == "sparse_rows" else (all_columns(p), p)
        ids.append(arithmetic.add(mine, np.int32(columns)) if columns else mine)
        values.append(numbers)
        columns += p.shape[1]
    return [sparse_rows(shape.concatenate(ids, axis=1), shape.concatenate(values, axis=1), columns=columns)]
