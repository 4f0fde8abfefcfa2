"""Products by MKL, where the package mkl is installed: float32 or bfloat16 with a matrix on the right, 8-bit integers, sparse rows.

Never by rule: they are taken where they measure faster. The compiler measures them by itself on Intel's processors only;
elsewhere MKL does not use all of the processor's instructions (docs/design/0011-choosing-by-measuring.md). Products of
integers are offered only where they are exact, which is tried once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ops.quantised import finished
from . import bridge, sparse
from .lowerings import lowering
from .mkl import OFFER

_MOST = 2**31 - 1  # MKL is called with 32-bit sizes


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, y = types[:2]
    return (
        all(t.dtype == types[0].dtype for t in types)
        and np.dtype(types[0].dtype) in (np.float32, jnp.bfloat16)
        and len(x.shape) >= 2
        and len(y.shape) >= 2
        and 0 < min(*x.shape, *y.shape)
        and max(math.prod(x.shape[:-1]), x.shape[-1], *y.shape) <= _MOST
    )


def _fits_matrix(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return len(types[1].shape) == 2 and _fits(types, attrs)


LEFT, RIGHT = 1, 2  # which operand is stored transposed


def _product(x: Any, y: Any, turned: int = 0) -> jax.Array:
    """Rows of `x` by the matrix `y`, summed in float32."""
    rows, matrix = (jnp.reshape(a, (-1, a.shape[-1])) for a in (x, y))
    m, n = rows.shape[1 if turned & LEFT else 0], matrix.shape[0 if turned & RIGHT else 1]
    name = "mkl_product" if rows.dtype == np.float32 else "mkl_half_product"
    call = jax.ffi.ffi_call(f"kerasoft.{name}", jax.ShapeDtypeStruct((m, n), np.float32))
    made = call(rows, matrix, turned=np.int64(turned)).astype(rows.dtype)
    return made if turned & LEFT else made.reshape((*x.shape[:-1], n))


@lowering("matmul", "mkl", fits=_fits_matrix, **OFFER)
def matmul(x: Any, y: Any) -> Any:
    return _product(x, y)


@lowering("dense", "mkl", fits=_fits_matrix, **OFFER)
def dense(x: Any, kernel: Any, *bias: Any, has_bias: bool, relu: bool) -> Any:
    y = sum(bias, start=_product(x, kernel))
    return jax.nn.relu(y) if relu else y


@lowering("dense_grad_input", "mkl", fits=_fits_matrix, **OFFER)
def dense_grad_input(dy: Any, kernel: Any, *gate: Any, gated: bool) -> Any:
    dx = _product(dy, kernel, RIGHT)
    return jnp.where(gate[0] > 0, dx, jnp.zeros_like(dx)) if gated else dx


@lowering("dense_grad_kernel", "mkl", fits=_fits, **OFFER)
def dense_grad_kernel(x: Any, dy: Any) -> tuple:
    return _product(x, dy, LEFT), jnp.sum(dy, axis=tuple(range(dy.ndim - 1)))


def _fits_bytes(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, kernel = types[:2]
    return min(*x.shape, *kernel.shape) > 0 and math.prod(x.shape) <= _MOST and bridge.mkl_multiplies_bytes()


@lowering("quantised_dense", "mkl", fits=_fits_bytes, **OFFER)
def quantised_dense(
    x: Any, kernel: Any, multiplier: Any, bias: Any, *addend: Any, digest: Any = None, **attrs: Any
) -> Any:
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    signed = x.dtype == jnp.int8  # MKL takes uint8 on the left and adds an offset to it
    rows = x.reshape((-1, x.shape[-1]))
    rows = jax.lax.bitcast_convert_type(rows, jnp.uint8) ^ np.uint8(128) if signed else rows
    like = jax.ShapeDtypeStruct((rows.shape[0], kernel.shape[1]), np.int32)
    total = jax.ffi.ffi_call("kerasoft.mkl_byte_product", like)(rows, kernel, offset=np.int64(-128 * signed))
    return finished(total.reshape((*x.shape[:-1], kernel.shape[1])), multiplier, bias, addend, attrs)


@lowering("sparse_dot", "mkl", fits=sparse.fits, **OFFER)
def sparse_dot(ids: Any, values: Any, table: Any) -> Any:
    like = jax.ShapeDtypeStruct((ids.shape[0], table.shape[1]), np.float32)
    return jax.ffi.ffi_call("kerasoft.mkl_sparse_product", like)(*map(jnp.asarray, (ids, values, table)))
