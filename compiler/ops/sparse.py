"""Sparse rows: matrices of which each row holds a few numbers, given by their columns and values.

A batch of them travels as one array int32[b, 2, k], "packed": columns, and the bits of float32 values. Rows with fewer than
k numbers end with zeros at one of their own columns. `sparse_rows` makes the matrix of it, so that every op can read it; a
product never does (`sparse_product`): it looks up the rows of the other factor that the columns name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ir import Node
from . import arithmetic, linalg, shape
from .indexing import embedding_lookup, take_along_axis
from .registry import op

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


def _sparse_rows(ids: Any, values: Any, *, columns: int) -> jax.Array:
    ids, values = jnp.asarray(ids), jnp.asarray(values)
    row = jnp.arange(ids.shape[0])[:, None]
    return jnp.zeros((ids.shape[0], columns), values.dtype).at[row, ids].add(values, mode="drop")


sparse_rows = op(
    "sparse_rows",
    lower=_sparse_rows,
    gradient=lambda n, dy: (None, take_along_axis(dy, n.inputs[0], axis=1)),
    doc="Zeros with values added at columns: int32 (b, k), float (b, k) -> (b, columns).",
)


all_columns = op(
    "all_columns",
    lower=lambda x: jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32), x.shape),
    gradient=None,
    doc="The column of each element of a matrix: (b, n) -> int32 (b, n).",
)


def unpacked(packed: Node, columns: int) -> Node:
    """The matrix (b, columns) of packed rows."""
    return sparse_rows(sparse_ids(packed), sparse_values(packed), columns=columns)


def is_sparse(x: Any) -> bool:
    """Whether `x` is a node that `sparse_rows` made."""
    return isinstance(x, Node) and x.op.name == "sparse_rows"


def sparse_product(x: Node, table: Any) -> Node:
    """``x @ table`` for a node of `sparse_rows` and (columns, d): rows of the table, times values, added up: (b, d)."""
    ids, values = x.inputs
    return linalg.einsum("bk,bkd->bd", values, embedding_lookup(table, ids))


def sparse_side_by_side(xs: Sequence[Node]) -> Node:
    """Nodes of `sparse_rows`, and dense ones of a known number of columns, as one of `sparse_rows`."""
    ids, values, columns = [], [], 0
    for x in xs:
        mine, numbers = x.inputs if is_sparse(x) else (all_columns(x), x)
        ids.append(arithmetic.add(mine, np.int32(columns)) if columns else mine)
        values.append(numbers)
        columns += x.shape[1]
    return sparse_rows(shape.concatenate(ids, axis=1), shape.concatenate(values, axis=1), columns=columns)
