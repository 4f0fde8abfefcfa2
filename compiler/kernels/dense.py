"""Dense layers and their gradients by products of our own: float32. See compiler/kernels/cpp/gemm.cpp.

Shipped rule: gradients of kernels always (XLA's product of a transposed matrix takes up to half as long again), the other
two from 32 rows on; fewer were not measured, and packing the matrix takes a larger share of the time there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lowerings import lowering

ROWS = 32
TRANSPOSED, BIAS, RELU, GATE = 1, 2, 4, 8


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return all(t.dtype == np.float32 and min(t.shape) > 0 for t in types)


def _many_rows(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return math.prod(types[0].shape[:-1]) >= ROWS


def _product(x: Any, matrix: Any, rest: Sequence[Any], n: int, flags: int) -> jax.Array:
    x, matrix, *rest = map(jnp.asarray, (x, matrix, *rest))
    rows, k = math.prod(x.shape[:-1]), x.shape[-1]
    call = jax.ffi.ffi_call("kerasoft.gemm", jax.ShapeDtypeStruct((*x.shape[:-1], n), np.float32))
    return call(x, matrix, *rest, m=np.int64(rows), n=np.int64(n), k=np.int64(k), flags=np.int64(flags))


@lowering("dense", "native", fits=_fits, needs="native", prefer=_many_rows)
def dense(x: Any, kernel: Any, *bias: Any, has_bias: bool, relu: bool) -> jax.Array:
    return _product(x, kernel, bias, kernel.shape[1], BIAS * has_bias | RELU * relu)


@lowering("dense_grad_input", "native", fits=_fits, needs="native", prefer=_many_rows)
def dense_grad_input(dy: Any, kernel: Any, *gate: Any, gated: bool) -> jax.Array:
    return _product(dy, kernel, gate, kernel.shape[0], TRANSPOSED | GATE * gated)


@lowering("dense_grad_kernel", "native", fits=_fits, needs="native")
def dense_grad_kernel(x: Any, dy: Any) -> tuple:
    m, n = x.shape[-1], dy.shape[-1]
    shapes = [jax.ShapeDtypeStruct(s, np.float32) for s in ((m, n), (n,))]
    call = jax.ffi.ffi_call("kerasoft.gemm_transposed", shapes)
    return tuple(
        call(jnp.asarray(x), jnp.asarray(dy), m=np.int64(m), n=np.int64(n), k=np.int64(math.prod(x.shape[:-1])))
    )
