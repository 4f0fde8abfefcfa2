"""Zero mean and unit variance, the heart of batch, layer and group normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node
from . import arithmetic as a
from . import reduce, shape
from .registry import item, items, op


def _standardize(x: Any, *, axis: tuple, epsilon: float) -> tuple:
    """(x - mean) / sqrt(variance + epsilon) over `axis`: (...) -> (...), mean and variance with axes of size 1."""
    x = jnp.asarray(x)
    mean = jnp.mean(x, axis=axis, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=axis, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + jnp.asarray(epsilon, x.dtype)), mean, variance


def _standardize_gradient(n: Node, dy: tuple) -> tuple:
    x, axis = n.inputs[0], n.attrs["axis"]
    d_y, d_mean, d_variance = dy
    y, mean, variance = items(n)
    size = reduce.count(x, axis)
    divisor = float(size) if isinstance(size, int) else reduce.dimension(size, x.dtype)
    parts = []
    if d_y is not None:
        slope = a.rsqrt(a.add(variance, n.attrs["epsilon"]))
        along = reduce.mean(a.multiply(d_y, y), axis=axis, keepdims=True)
        level = reduce.mean(d_y, axis=axis, keepdims=True)
        parts.append(a.multiply(slope, a.subtract(a.subtract(d_y, level), a.multiply(y, along))))
    if d_mean is not None:
        parts.append(shape.broadcast_to(a.divide(d_mean, divisor), shape=x.shape))
    if d_variance is not None:
        parts.append(a.multiply(a.subtract(x, mean), a.divide(a.multiply(d_variance, 2.0), divisor)))
    total = parts[0]
    for part in parts[1:]:
        total = a.add(total, part)
    return (total,)


standardize_op = op("standardize", lower=_standardize, gradient=_standardize_gradient)


def standardize(x: Any, axis: int | Sequence[int], epsilon: float) -> tuple:
    """(y, mean, variance): y is `x` with mean 0 and variance 1 over `axis`.

    One op, because its gradient needs two sums where the composed formula needs four.

    Shapes: x (...) -> y (...), mean and biased variance with `axis` of size 1.
    """
    axes = tuple(sorted(i % x.ndim for i in ([axis] if isinstance(axis, int) else axis)))
    made = standardize_op(x, axis=axes, epsilon=float(epsilon))
    return tuple(item(made, i) for i in range(3))


def layer_norm(x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float = 1e-3) -> Any:
    """`standardize` over `axis`, times gamma, plus beta (shaped to broadcast against x)."""
    y = standardize(x, axis, epsilon)[0]
    y = y if gamma is None else a.multiply(y, gamma)
    return y if beta is None else a.add(y, beta)
