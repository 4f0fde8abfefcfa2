"""Layer normalisation over the last axis, with gain and shift, as one op with its own gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node
from . import shape
from .registry import VJP, item, items, op


def _layer_norm(x: Any, gamma: Any, beta: Any, *, epsilon: float) -> tuple:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis: (..., n), (n), (n) -> (..., n), and
    (..., 2): mean and 1 / sqrt(variance + epsilon) of each row."""
    x = jnp.asarray(x)
    mean = jnp.mean(x, axis=-1, keepdims=True)
    centred = x - mean
    share = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + jnp.asarray(epsilon, x.dtype))
    return centred * share * gamma + beta, jnp.concatenate([mean, share], axis=-1)


def _layer_norm_grad(x: Any, gamma: Any, saved: Any, dy: Any) -> tuple:
    """Gradients of x, gamma and beta from those of y and what forward saved."""
    x, saved, dy = map(jnp.asarray, (x, saved, dy))
    mean, share = saved[..., :1], saved[..., 1:]
    z, slopes = (x - mean) * share, dy * gamma
    along = jnp.mean(slopes * z, axis=-1, keepdims=True)
    dx = share * (slopes - jnp.mean(slopes, axis=-1, keepdims=True) - z * along)
    rows = tuple(range(x.ndim - 1))
    return dx, jnp.sum(dy * z, axis=rows), jnp.sum(dy, axis=rows)


def _gradient(n: Node, dy: tuple) -> tuple:
    if dy[1] is not None:  # what is saved is read by gradients; theirs are JAX's
        from ..gradient import vjp

        return vjp(n, dy)
    x, gamma, _ = n.inputs
    d_out = dy[0] if dy[0] is not None else shape.zeros_like(item(n, 0))
    return items(layer_norm_grad(x, gamma, item(n, 1), d_out))


layer_norm_op = op("layer_norm", lower=_layer_norm, gradient=_gradient)
layer_norm_grad = op("layer_norm_grad", lower=_layer_norm_grad, gradient=VJP)


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """x with mean 0 and variance 1 over its last axis, times gamma plus beta: (..., n), (n), (n) -> (..., n).

    Source: Ba, Kiros and Hinton 2016.
    """
    return item(layer_norm_op(x, gamma, beta, epsilon=float(epsilon)), 0)
