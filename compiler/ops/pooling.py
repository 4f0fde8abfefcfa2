"""Maximum and average over sliding windows, channels last.

Gradients work axis by axis and gather: each cell of x asks the few windows that may have chosen it. XLA's own gradient
of a maximum (select-and-scatter) is serial and many times slower on CPUs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ir import TensorType
from . import rules
from .convolution import channels_back, channels_last, each, window_fits
from .registry import VJP, op


def _full(v: tuple) -> tuple:
    """A window, stride or padding of the spatial axes for all axes."""
    return (1, *v, 1)


def _pads(sizes: tuple, window: tuple, strides: tuple, padding: str) -> list[tuple]:
    return jax.lax.padtype_to_pads(sizes, window, strides, padding.upper())


def _lowest(dtype: Any) -> Any:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min


def _max_pool(x: Any, *, window: tuple, strides: tuple, padding: str) -> jax.Array:
    x = jnp.asarray(x)
    start = np.asarray(_lowest(x.dtype), x.dtype)
    return jax.lax.reduce_window(x, start, jax.lax.max, _full(window), _full(strides), padding.upper())


max_pool_op = op(
    "max_pool",
    lower=_max_pool,
    gradient=lambda n, dy: (max_pool_grad(n.inputs[0], dy, **n.attrs),),
    result=rules.pooled,
    doc="The largest cell of each window: (b, s.., c) -> (b, t.., c).",
)


def _cut(x: Any, axis: int, start: Any, count: Any, stride: int = 1) -> jax.Array:
    return jax.lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def _widen(x: Any, axis: int, before: Any, after: Any, value: Any) -> jax.Array:
    config = [(before, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), config)


def _first_max(x: Any, axis: int, k: int, stride: int, pads: tuple) -> tuple[jax.Array, jax.Array]:
    """The maxima of windows along one axis, and which cell of its window each is: the first of equals."""
    before, after = pads
    x = _widen(x, axis, before, after, _lowest(x.dtype))
    count = (x.shape[axis] - k) // stride + 1
    best = _cut(x, axis, 0, count, stride)
    chosen = jnp.zeros(best.shape, jnp.int8 if k < 128 else jnp.int32)
    for offset in range(1, k):
        cell = _cut(x, axis, offset, count, stride)
        better = cell > best
        best = jnp.where(better, cell, best)
        chosen = jnp.where(better, jnp.asarray(offset, chosen.dtype), chosen)
    return best, chosen


def _gather(dy: Any, axis: int, k: int, stride: int, pads: tuple, size: Any, chosen: Any = None) -> jax.Array:
    """Each cell's sum of `dy` over the windows along `axis` that hold it (and chose it, where `chosen` is given).

    Cell q * stride + r lies in window q - t at offset r + stride * t.
    """
    reach = -(-k // stride)
    blocks = -(-(pads[0] + size) // stride)
    after = max(0, blocks - dy.shape[axis]) if isinstance(blocks, int) else blocks
    offsets = jnp.arange(stride).reshape([1] * (axis + 1) + [stride] + [1] * (dy.ndim - axis - 1))
    dy = _widen(dy, axis, reach - 1, after, 0)
    if chosen is not None:
        chosen = _widen(chosen, axis, reach - 1, after, 0)
    total: Any = 0
    for t in range(reach):
        value = jnp.expand_dims(_cut(dy, axis, reach - 1 - t, blocks), axis + 1)
        if chosen is None:
            hit = offsets + stride * t < k
        else:
            wanted = (offsets + stride * t).astype(chosen.dtype)
            hit = jnp.expand_dims(_cut(chosen, axis, reach - 1 - t, blocks), axis + 1) == wanted
        total = total + jnp.where(hit, value, 0)
    flat = total.reshape((*dy.shape[:axis], blocks * stride, *dy.shape[axis + 1 :]))
    return _cut(flat, axis, pads[0], size)


def _max_pool_grad(x: Any, dy: Any, *, window: tuple, strides: tuple, padding: str) -> jax.Array:
    """The gradient of max_pool for x: the first largest cell, row by row, gets all: (b, s.., c), (b, t.., c) -> as x."""
    x, dy = jnp.asarray(x), jnp.asarray(dy)
    pads = _pads(x.shape[1:-1], window, strides, padding)
    trail = []
    # The last axis first: the first best row, and in it the first best column, is the first in row-major order.
    for axis in reversed(range(1, x.ndim - 1)):
        k, s, p = window[axis - 1], strides[axis - 1], pads[axis - 1]
        if (k, s) != (1, 1):
            size = x.shape[axis]
            x, chosen = _first_max(x, axis, k, s, p)
            trail.append((axis, k, s, p, size, chosen))
    for step in reversed(trail):
        dy = _gather(dy, *step)
    return dy


max_pool_grad = op("max_pool_grad", lower=_max_pool_grad, gradient=VJP, result=lambda types, attrs: types[0])


def _counts(sizes: tuple, window: tuple, strides: tuple, padding: str) -> jax.Array:
    """How many real cells each window holds: (1, t.., 1)."""
    ones = jnp.ones((1, *sizes, 1), jnp.float32)
    return jax.lax.reduce_window(ones, np.float32(0), jax.lax.add, _full(window), _full(strides), padding.upper())


def _divided(x: Any, sizes: tuple, window: tuple, strides: tuple, padding: str) -> jax.Array:
    if padding == "valid":
        return x * jnp.asarray(1 / np.prod(window), x.dtype)
    return x / _counts(sizes, window, strides, padding).astype(x.dtype)


def _average_pool(x: Any, *, window: tuple, strides: tuple, padding: str) -> jax.Array:
    x = jnp.asarray(x)
    zero = np.zeros((), x.dtype)
    sums = jax.lax.reduce_window(x, zero, jax.lax.add, _full(window), _full(strides), padding.upper())
    return _divided(sums, x.shape[1:-1], window, strides, padding)


def _average_pool_grad(dy: Any, *, input_shape: tuple, window: tuple, strides: tuple, padding: str) -> jax.Array:
    """The gradient of average_pool for its input: (b, t.., c) -> input_shape."""
    sizes = input_shape[1:-1]
    pads = _pads(sizes, window, strides, padding)
    dy = _divided(jnp.asarray(dy), sizes, window, strides, padding)
    for i, size in enumerate(sizes):
        if (window[i], strides[i]) != (1, 1):
            dy = _gather(dy, i + 1, window[i], strides[i], pads[i], size)
    return dy


average_pool_op = op(
    "average_pool",
    lower=_average_pool,
    gradient=lambda n, dy: (average_pool_grad(dy, input_shape=n.inputs[0].shape, **n.attrs),),
    doc="The mean of the real cells of each window: (b, s.., c) -> (b, t.., c).",
)
average_pool_grad = op(
    "average_pool_grad",
    lower=_average_pool_grad,
    result=lambda types, attrs: TensorType(attrs["input_shape"], types[0].dtype),
    gradient=lambda n, ddx: (average_pool_op(ddx, **{k: v for k, v in n.attrs.items() if k != "input_shape"}),),
)


# --- with Keras' arguments ----------------------------------------------------------------------------------------


def _pool(pool: Any, x: Any, pool_size: Any, strides: Any, padding: str, data_format: str | None) -> Any:
    rank = x.ndim - 2
    window = each(pool_size, rank)
    steps = window if strides is None else each(strides, rank)
    x = channels_last(x, data_format)
    if padding.lower() == "valid":
        window_fits(x.shape[1:-1], window, "a pooling window")
    y = pool(x, window=window, strides=steps, padding=padding.lower())
    return channels_back(y, data_format)


def max_pool(
    x: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
) -> Any:
    """The largest cell of each window of `pool_size`, `strides` (by default pool_size) apart; padding is never chosen."""
    return _pool(max_pool_op, x, pool_size, strides, padding, data_format)


def average_pool(
    x: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
) -> Any:
    """The mean of each window; with padding "same" over the cells inside x."""
    return _pool(average_pool_op, x, pool_size, strides, padding, data_format)
