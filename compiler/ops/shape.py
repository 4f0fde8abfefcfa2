"""Ops that move, repeat or sum elements without looking at them."""

from __future__ import annotations

import jax.numpy as jnp

from ..ir import Node
from .registry import op

zeros_like = op("zeros_like", lower=jnp.zeros_like, gradient=lambda n, dy: (None,))
reshape = op(
    "reshape",
    lower=lambda x, *, shape: jnp.reshape(x, shape),
    gradient=lambda n, dy: (reshape(dy, shape=n.inputs[0].shape),),
)
broadcast_to = op(
    "broadcast_to",
    lower=lambda x, *, shape: jnp.broadcast_to(x, shape),
    gradient=lambda n, dy: (unbroadcast(dy, n.inputs[0]),),
)
sum = op(
    "sum",
    lower=lambda x, *, axis=None, keepdims=False: jnp.sum(x, axis=axis, keepdims=keepdims),
    gradient=lambda n, dy: (_spread(n, dy),),
)


def unbroadcast(dy: Node, like: Node) -> Node:
    """`dy` summed over the axes along which `like` was broadcast; `dy` itself when there are none."""
    if dy.type == like.type:
        return dy
    extra = dy.ndim - like.ndim
    axes = tuple(range(extra)) + tuple(
        extra + i for i, d in enumerate(like.shape) if d == 1 and dy.shape[extra + i] != 1
    )
    summed = sum(dy, axis=axes) if axes else dy
    return summed if summed.shape == like.shape else reshape(summed, shape=like.shape)


def _spread(n: Node, dy: Node) -> Node:
    x = n.inputs[0]
    axis = n.attrs.get("axis")
    axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    kept = tuple(1 if i in {a % x.ndim for a in axes} else d for i, d in enumerate(x.shape)) if x.ndim else ()
    return broadcast_to(reshape(dy, shape=kept), shape=x.shape)
