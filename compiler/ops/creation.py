"""Arrays made from sizes: constants, counting, triangles.

With known sizes the functions give arrays, with unknown ones (symbolic) nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from ..ir import node
from . import shape as s
from .registry import VJP, Op, op


def _make(made: Op, **attrs: Any) -> Any:
    unknown = any(
        export.is_symbolic_dim(d) for v in attrs.values() for d in (v if isinstance(v, (tuple, list)) else [v])
    )
    return node(made, (), attrs) if unknown else made.lower(**attrs)


full_op = op(
    "full",
    lower=lambda *, shape, value, dtype: jnp.full(shape, value, dtype),
    doc="An array of `shape` filled with one number.",
)
iota_op = op(
    "iota",
    lower=lambda *, shape, axis, dtype: jax.lax.broadcasted_iota(jnp.dtype(dtype), shape, axis),
    doc="Each cell's position along `axis`: -> shape.",
)


def full(shape: Sequence[Any], value: float, dtype: Any = "float32") -> Any:
    """An array of `shape` filled with `value`."""
    return _make(full_op, shape=tuple(shape), value=value, dtype=s.dtype_name(dtype))


def zeros(shape: Sequence[Any], dtype: Any = "float32") -> Any:
    """Zeros of `shape`."""
    return full(shape, 0, dtype)


def ones(shape: Sequence[Any], dtype: Any = "float32") -> Any:
    """Ones of `shape`."""
    return full(shape, 1, dtype)


def iota(shape: Sequence[Any], axis: int = 0, dtype: Any = "int32") -> Any:
    """Each cell's position along `axis`."""
    return _make(iota_op, shape=tuple(shape), axis=axis % len(shape), dtype=s.dtype_name(dtype))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """start, start + step, ... before stop; a lone argument is `stop`. An unknown `stop` needs whole numbers."""
    from . import arithmetic as a

    start, stop = (0, start) if stop is None else (start, stop)
    if not any(export.is_symbolic_dim(v) for v in (start, stop)):
        return jnp.arange(start, stop, step, dtype=None if dtype is None else s.dtype_name(dtype))
    size = stop - start if step == 1 else -((start - stop) // step)
    counts = iota((size,), 0, dtype or "int32")
    counts = counts if step == 1 else a.multiply(counts, step)
    return counts if isinstance(start, int) and start == 0 else a.add(counts, start)


def eye(rows: Any, columns: Any = None, k: int = 0, dtype: Any = "float32") -> Any:
    """Ones on diagonal `k`, zeros elsewhere: -> (rows, columns)."""
    from . import arithmetic as a

    sizes = (rows, rows if columns is None else columns)
    return s.cast(a.equal(a.add(iota(sizes, 0), k), iota(sizes, 1)), dtype)


def tri(rows: Any, columns: Any = None, k: int = 0, dtype: Any = "float32") -> Any:
    """Ones on and below diagonal `k`, zeros above: -> (rows, columns)."""
    from . import arithmetic as a

    sizes = (rows, rows if columns is None else columns)
    return s.cast(a.greater_equal(a.add(iota(sizes, 0), k), iota(sizes, 1)), dtype)


tril_op = op(
    "tril",
    lower=lambda x, *, k=0: jnp.tril(x, k),
    gradient=lambda n, dy: (tril_op(dy, **n.attrs),),
    doc="x with zeros above diagonal k: (..., m, n) -> same.",
)
triu_op = op(
    "triu",
    lower=lambda x, *, k=0: jnp.triu(x, k),
    gradient=lambda n, dy: (triu_op(dy, **n.attrs),),
    doc="x with zeros below diagonal k: (..., m, n) -> same.",
)


def tril(x: Any, k: int = 0) -> Any:
    """`x` with zeros above diagonal `k`."""
    return tril_op(x, k=k)


def triu(x: Any, k: int = 0) -> Any:
    """`x` with zeros below diagonal `k`."""
    return triu_op(x, k=k)


diagonal_op = op(
    "diagonal",
    lower=lambda x, *, offset, axis1, axis2: jnp.diagonal(jnp.asarray(x), offset, axis1, axis2),
    gradient=VJP,
    doc="The diagonal of two axes as a new last axis.",
)
diag_op = op(
    "diag",
    lower=lambda x, *, k: jnp.diag(jnp.asarray(x), k),
    gradient=VJP,
    doc="A matrix with x on diagonal k, or a matrix's diagonal: (n) -> (n, n), (m, n) -> (min).",
)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of two axes of `x` as a new last axis."""
    return diagonal_op(x, offset=offset, axis1=axis1, axis2=axis2)


def diag(x: Any, k: int = 0) -> Any:
    """A matrix with the vector `x` on diagonal `k`, or the diagonal of the matrix `x`."""
    return diag_op(x, k=k)


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of a diagonal."""
    return s.sum(diagonal(x, offset, axis1, axis2), axis=-1)
