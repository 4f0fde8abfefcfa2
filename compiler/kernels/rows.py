"""Rows of large tables: taken out, put back, added up; native if the library is there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import bridge


def _call(name: str, like: Any, **settings: Any) -> Any:
    return jax.ffi.ffi_call(f"kerasoft.{name}", jax.ShapeDtypeStruct(like, np.float32), **settings)


def take_rows(table: Any, ids: Any) -> Any:
    """float32[l, d]: rows of a table (n, d) at int32[l] ids, all of them inside."""
    if bridge.loaded("native"):
        return _call("take_rows", (ids.size, table.shape[1]))(table, ids)
    return table.at[ids].get(mode="promise_in_bounds")


def put_rows(table: Any, ids: Any, rows: Any) -> Any:
    """A table (n, d) with rows put at int32[l] ids; ids >= n are left out, no other stands twice."""
    if bridge.loaded("native"):
        return _call("put_rows", table.shape, input_output_aliases={0: 0})(table, ids, rows)
    return table.at[ids].set(rows, mode="drop")


def sum_rows(rows: Any, owner: Any) -> Any:
    """Zeros (l, d) with row i added to row owner[i], in order; owners >= l are left out."""
    if bridge.loaded("native"):
        return _call("sum_rows", rows.shape)(rows, owner)
    return jnp.zeros_like(rows).at[owner].add(rows, mode="drop")
