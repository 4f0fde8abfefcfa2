"""Products by MKL, where the package mkl is installed: float32, a matrix on the right.

Never by rule: they are taken where they measure faster. The compiler measures them by itself on Intel's processors only;
elsewhere MKL does not use all of the processor's instructions (docs/design/0011-choosing-by-measuring.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lowerings import lowering
from .processor import vendor

_MOST = 2**31 - 1  # MKL is called with 32-bit sizes


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, y = types[:2]
    return (
        all(np.dtype(t.dtype) == np.float32 for t in types)
        and len(x.shape) >= 2
        and len(y.shape) >= 2
        and 0 < min(*x.shape, *y.shape)
        and max(math.prod(x.shape[:-1]), x.shape[-1], *y.shape) <= _MOST
    )


def _fits_matrix(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return len(types[1].shape) == 2 and _fits(types, attrs)


def _product(x: Any, y: Any, transposed: int = 0) -> jax.Array:
    """Rows of `x` by the matrix `y`; 1: x stands transposed, 2: y does."""
    rows, matrix = (jnp.reshape(a, (-1, a.shape[-1])) for a in (x, y))
    m, n = rows.shape[1 if transposed & 1 else 0], matrix.shape[0 if transposed & 2 else 1]
    call = jax.ffi.ffi_call("kerasoft.mkl_product", jax.ShapeDtypeStruct((m, n), np.float32))
    made = call(rows, matrix, transposed=np.int64(transposed))
    return made if transposed & 1 else made.reshape((*x.shape[:-1], n))


_OFFER: dict[str, Any] = {
    "needs": "mkl",
    "prefer": lambda types, attrs, threads: False,
    "tried": lambda: vendor() == "GenuineIntel",
}


@lowering("matmul", "mkl", fits=_fits_matrix, **_OFFER)
def matmul(x: Any, y: Any) -> Any:
    return _product(x, y)


@lowering("dense", "mkl", fits=_fits_matrix, **_OFFER)
def dense(x: Any, kernel: Any, *bias: Any, has_bias: bool, relu: bool) -> Any:
    y = sum(bias, start=_product(x, kernel))
    return jax.nn.relu(y) if relu else y


@lowering("dense_grad_input", "mkl", fits=_fits_matrix, **_OFFER)
def dense_grad_input(dy: Any, kernel: Any, *gate: Any, gated: bool) -> Any:
    dx = _product(dy, kernel, 2)
    return jnp.where(gate[0] > 0, dx, 0) if gated else dx


@lowering("dense_grad_kernel", "mkl", fits=_fits, **_OFFER)
def dense_grad_kernel(x: Any, dy: Any) -> tuple:
    return _product(x, dy, 1), jnp.sum(dy, axis=tuple(range(dy.ndim - 1)))
