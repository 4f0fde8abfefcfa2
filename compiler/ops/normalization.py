"""Zero mean and unit variance: batch, layer and group normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node
from . import arithmetic as a
from . import reduce, shape
from .registry import VJP, item, items, op


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


# --- batch normalisation in training ------------------------------------------------------------------------------


def _weights(x: Any, rest: Sequence[Any], has_valid: bool) -> Any:
    """The weight of each row, to be broadcast over x; 1 without `valid`."""
    return rest[0].reshape((-1,) + (1,) * (x.ndim - 1)) if has_valid else jnp.ones((1,) * x.ndim, x.dtype)


def _batch_norm(x: Any, gamma: Any, beta: Any, *rest: Any, epsilon: float, relu: bool, has_valid: bool) -> tuple:
    """x (b, s.., c), gamma, beta (c)[, valid (b)] -> y (b, s.., c), mean (c), biased variance (c)."""
    x = jnp.asarray(x)
    axes, weight = tuple(range(x.ndim - 1)), _weights(x, rest, has_valid)
    count = jnp.maximum(jnp.sum(jnp.broadcast_to(weight, (*x.shape[:-1], 1))), 1)
    mean = jnp.sum(x * weight, axis=axes) / count
    variance = jnp.sum(jnp.square(x - mean) * weight, axis=axes) / count
    y = (x - mean) * (gamma * jax.lax.rsqrt(variance + jnp.asarray(epsilon, x.dtype))) + beta
    return (jax.nn.relu(y) if relu else y), mean, variance


def _batch_norm_gradient(n: Node, dy: tuple) -> tuple:
    d_y, d_mean, d_variance = dy
    if d_mean is not None or d_variance is not None:
        from ..gradient import vjp

        return vjp(n, dy)
    _, mean, variance = items(n)
    x, gamma, beta, *rest = n.inputs
    made = batch_norm_grad(x, d_y, gamma, beta, mean, variance, *rest, **n.attrs)
    return (*items(made), *(None for _ in rest))


batch_norm_op = op("batch_norm", lower=_batch_norm, gradient=_batch_norm_gradient)


def _batch_norm_grad(
    x: Any,
    dy: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    *rest: Any,
    epsilon: float,
    relu: bool,
    has_valid: bool,
) -> tuple:
    """The inputs, mean and variance of batch_norm and the gradient of its y -> gradients of x, gamma, beta."""
    x, dy = jnp.asarray(x), jnp.asarray(dy)
    axes, weight = tuple(range(x.ndim - 1)), _weights(x, rest, has_valid)
    count = jnp.maximum(jnp.sum(jnp.broadcast_to(weight, (*x.shape[:-1], 1))), 1)
    slope = jax.lax.rsqrt(variance + jnp.asarray(epsilon, x.dtype))
    standard = (x - mean) * slope
    if relu:
        dy = jnp.where(standard * gamma + beta > 0, dy, 0)
    dbeta, dgamma = jnp.sum(dy, axis=axes), jnp.sum(dy * standard, axis=axes)
    return gamma * slope * (dy - weight * (dbeta + standard * dgamma) / count), dgamma, dbeta


batch_norm_grad = op("batch_norm_grad", lower=_batch_norm_grad, gradient=VJP)


def batch_norm(x: Any, gamma: Any, beta: Any, valid: Any = None, epsilon: float = 1e-3) -> tuple:
    """(y, mean, variance): y is `x` with mean `beta` and deviation `gamma` in each channel over the rows that count.

    Shapes: x (b, s.., c), gamma, beta (c), valid (b), the weight of each row -> y (b, s.., c), mean and biased
        variance (c).
    """
    rest = () if valid is None else (valid,)
    made = batch_norm_op(x, gamma, beta, *rest, epsilon=float(epsilon), relu=False, has_valid=valid is not None)
    return tuple(item(made, i) for i in range(3))
