"""Sparse rows times a matrix: float32, int32 columns. See compiler/kernels/cpp/sparse_product.cpp.

Shipped rule: from 16 columns on, where XLA, which writes the rows that it looks up, takes 5 to 20 times as long; below, XLA
takes half the time (docs/design/0011-choosing-by-measuring.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lookups import NARROWEST
from .lowerings import example_of, lowering


def fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    ids, values, table = types
    known = [np.dtype(t.dtype) for t in types] == [np.int32, np.float32, np.float32]
    return known and min(*ids.shape[1:], *table.shape) > 0 and table.shape[0] < 2**31


@example_of("sparse_dot")
def _example(types: Sequence[Any], attrs: Mapping[str, Any]) -> Sequence[np.ndarray]:
    """Columns from anywhere, as those of real rows are."""
    random = np.random.default_rng(0)
    ids, values, table = types
    floats = [random.standard_normal(t.shape, np.float32).astype(t.dtype) for t in (values, table)]
    return [random.integers(0, table.shape[0], ids.shape).astype(ids.dtype), *floats]


def _wide(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return types[2].shape[1] >= NARROWEST


@lowering("sparse_dot", "native", fits=fits, needs="native", prefer=_wide)
def sparse_dot(ids: Any, values: Any, table: Any) -> Any:
    like = jax.ShapeDtypeStruct((ids.shape[0], table.shape[1]), np.float32)
    return jax.ffi.ffi_call("kerasoft.sparse_product", like)(*map(jnp.asarray, (ids, values, table)))
