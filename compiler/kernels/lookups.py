"""Rows looked up in tables, and their product with a matrix: float32 rows, int32 ids. See compiler/kernels/cpp/dense_of_rows.cpp.

Shipped rule: always for lookups of rows of at least 16 numbers (XLA computes an address for each element: 0.5 to 0.7 ms for
2,048 rows of 128, against 0.15 to 0.3); products from `ROWS` rows on, as `dense`. Nothing is measured: how often an id comes
twice is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .dense import BIAS, RELU, ROWS
from .lowerings import lowering
from .rows import take_rows

NARROWEST = 16


def _is_table(table: Any, ids: Any) -> bool:
    """Whether the kernels read such a table by such ids."""
    return (
        len(table.shape) == 2
        and np.dtype(table.dtype) == np.float32
        and np.dtype(ids.dtype) == np.int32
        and 0 < min(table.shape)
        and max(math.prod(ids.shape), table.shape[0]) < 2**31
    )


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return _is_table(*types)


def _wide(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return types[0].shape[1] >= NARROWEST


@lowering("embedding_lookup", "native", fits=_fits, needs="native", prefer=_wide, timed=False)
def embedding_lookup(table: Any, ids: Any) -> Any:
    table, ids = jnp.asarray(table), jnp.asarray(ids)
    return take_rows(table, ids.ravel()).reshape((*ids.shape, table.shape[1]))


def _fits_product(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    tables = attrs["tables"]
    pairs = [types[2 * i : 2 * i + 2] for i in range(tables)]
    return all(_is_table(*p) for p in pairs) and all(
        np.dtype(t.dtype) == np.float32 and min(t.shape) > 0 for t in types[2 * tables :]
    )


def _many_rows(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return types[1].shape[0] >= ROWS


@lowering("dense_of_rows", "native", fits=_fits_product, needs="native", prefer=_many_rows, timed=False)
def dense_of_rows(*inputs: Any, tables: int, has_bias: bool, relu: bool) -> Any:
    inputs = tuple(map(jnp.asarray, inputs))
    like = jax.ShapeDtypeStruct((inputs[1].size, inputs[2 * tables].shape[1]), np.float32)
    flags = np.int64(BIAS * has_bias | RELU * relu)
    return jax.ffi.ffi_call("kerasoft.dense_of_rows", like)(*inputs, tables=np.int64(tables), flags=flags)


@lowering("dense_of_rows_gradients", "native", fits=_fits_product, needs="native", timed=False)
def dense_of_rows_gradients(*inputs: Any, tables: int) -> tuple:
    *pairs, dy, kernel = map(jnp.asarray, inputs)
    shapes = [kernel.shape, kernel.shape[1:], *((len(dy), table.shape[1]) for table in pairs[::2])]
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    return tuple(
        jax.ffi.ffi_call("kerasoft.dense_of_rows_gradients", like)(*pairs, dy, kernel, tables=np.int64(tables))
    )
