"""conv_lstm: the recurrent part of a convolutional LSTM as one op, over one to three spatial axes, channels last.

What reaches the gates from the input is computed before, for all steps at once, by an ordinary convolution; so are the
gradients of that convolution and of the recurrent kernel. Only what depends on the step before is done step by step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node
from . import shape
from .convolution import _convolve, _grad_input, conv_grad_kernel
from .recurrent_steps import cotangents, optional, or_zeros, selecting
from .registry import VJP, item, op

UNROLLED = 16  # XLA computes convolutions inside a loop with one thread and slowly; so many steps are written out


def _check(types: Sequence[Any], attrs: Any) -> None:
    z, h0, _, kernel = types[:4]
    rank = kernel.rank - 2
    if rank not in (1, 2, 3) or z.rank != rank + 3:
        raise ShapeError(
            "conv_lstm needs gates (batch, steps, sizes, 4 filters) and a kernel (window, filters, 4 filters) of one to "
            f"three spatial axes, got {z} and {kernel}"
        )
    filters = kernel.shape[-2]
    if kernel.shape[-1] != 4 * filters or z.shape[-1] != 4 * filters or h0.shape[1:] != (*z.shape[2:-1], filters):
        raise ShapeError(
            f"conv_lstm of {z}: with a kernel {kernel} the gates need {4 * filters} channels and the states "
            f"{(*z.shape[2:-1], filters)}, got states {h0}"
        )


def _flops(moments: Sequence[Any], kernel: Any) -> int:
    return 2 * math.prod(d for d in (*moments[:-1], *kernel.shape) if isinstance(d, int))


def _same(h: Any, kernel: Any) -> jax.Array:
    ones = (1,) * (kernel.ndim - 2)
    return _convolve(h, kernel, ones, "same", ones, 1)


def _scan(step: Any, init: Any, xs: Any, steps: int, reverse: bool = False) -> Any:
    return jax.lax.scan(step, init, xs, reverse=reverse, unroll=steps if steps <= UNROLLED else 1)


def _over_time(*arrays: Any) -> list:
    return [None if a is None else jnp.swapaxes(a, 0, 1) for a in arrays]


def _masks(mask: Any, z: Any) -> Any:
    return None if mask is None else mask.astype(bool).reshape((*mask.shape, *(1,) * (z.ndim - 2)))


@selecting
def _lower(z, h0, c0, kernel, *rest, has_mask) -> tuple:
    """z (b, t, s.., 4f) gates i, f, c, o of the input; h0, c0 (b, s.., f); (k.., f, 4f)[, bool (b, t)]
    -> sequence (b, t, s.., f), h (b, s.., f), c (b, s.., f), gates as z, cells as sequence."""
    (mask,) = optional(rest, has_mask)
    z, h0, c0, kernel = map(jnp.asarray, (z, h0, c0, kernel))

    def step(states, cell):
        (h, c), (z_t, m) = states, cell
        i, f, g, o = jnp.split(z_t + _same(h, kernel), 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        new_c = f * c + i * g
        new_h = o * jnp.tanh(new_c)
        if m is not None:
            new_h, new_c = jnp.where(m, new_h, h), jnp.where(m, new_c, c)
        return (new_h, new_c), (new_h, jnp.concatenate([i, f, g, o], axis=-1), new_c)

    (h, c), trail = _scan(step, (h0, c0), tuple(_over_time(z, _masks(mask, z))), z.shape[1])
    sequence, gates, cells = _over_time(*trail)
    return sequence, h, c, gates, cells


def _gradient(n: Node, dy: tuple) -> tuple:
    z, h0, c0, kernel, *mask = n.inputs
    arrived, has_gradients = cotangents(dy, 3)
    attrs = {"has_mask": n.attrs["has_mask"], "has_gradients": has_gradients, "wanted": None}
    packed = conv_lstm_grad(c0, kernel, *mask, item(n, 3), item(n, 4), *arrived, **attrs)
    dz, dh0, dc0 = (item(packed, i) for i in range(3))
    before = shape.concatenate([shape.expand_dims(h0, 1), item(n, 0)[:, :-1]], axis=1)
    rows = [shape.reshape(v, shape=(-1, *v.shape[2:])) for v in (before, dz)]
    ones = (1,) * (len(kernel.shape) - 2)
    dk = conv_grad_kernel(*rows, kernel_shape=kernel.shape, strides=ones, padding="same", dilation=ones, groups=1)
    return (dz, dh0, dc0, dk, *(None for _ in mask))


conv_lstm_op = op(
    "conv_lstm", lower=_lower, gradient=_gradient, check=_check, flops=lambda t, a, r: _flops(t[0].shape, t[3])
)


@selecting
def _grad(c0, kernel, *rest, has_mask, has_gradients) -> tuple:
    """c0, kernel[, mask], gates and cells of conv_lstm and the gradients of (sequence, h, c), as far as they are there
    -> gradients of z, h0, c0."""
    mask, gates, cells, *given = optional(rest, has_mask, True, True, *has_gradients)
    d_sequence, dh, dc = map(or_zeros, given, (cells, c0, c0))
    before = jnp.concatenate([c0[:, None], cells[:, :-1]], axis=1)
    ones = (1,) * (kernel.ndim - 2)

    def step(carry, cell):
        (dh, dc), (gates_t, c, dy, m) = carry, cell
        i, f, g, o = jnp.split(gates_t, 4, axis=-1)
        t = jnp.tanh(f * c + i * g)
        dh = dh + dy
        dh_new, dc_new = (dh, dc) if m is None else (jnp.where(m, dh, 0), jnp.where(m, dc, 0))
        d = dc_new + dh_new * o * (1 - t * t)
        dz = jnp.concatenate(
            [d * g * i * (1 - i), d * c * f * (1 - f), d * i * (1 - g * g), dh_new * t * o * (1 - o)], axis=-1
        )
        dh_before = _grad_input(dz, kernel, input_shape=c.shape, strides=ones, padding="same", dilation=ones, groups=1)
        dc_before = d * f
        if m is not None:
            dh_before, dc_before = dh_before + jnp.where(m, 0, dh), dc_before + jnp.where(m, 0, dc)
        return (dh_before, dc_before), dz

    xs = tuple(_over_time(gates, before, d_sequence, _masks(mask, gates)))
    (dh0, dc0), dz = _scan(step, (dh, dc), xs, gates.shape[1], reverse=True)
    return jnp.swapaxes(dz, 0, 1), dh0, dc0


conv_lstm_grad = op("conv_lstm_grad", lower=_grad, flops=lambda t, a, r: _flops(t[2 + a["has_mask"]].shape, t[1]))


@selecting
def _of_input(x, kernel, *rest, has_bias, has_mask) -> tuple:
    """x (b, t, s.., c), kernel (k.., c, 4f)[, bias (4f)], h0, c0, recurrent kernel[, mask], as conv_lstm
    -> sequence, h, c."""
    (bias,), rest = optional(rest[:has_bias], has_bias), rest[has_bias:]
    ones = (1,) * (jnp.ndim(kernel) - 2)
    z = _convolve(jnp.reshape(x, (-1, *x.shape[2:])), jnp.asarray(kernel), ones, "same", ones, 1)
    z = z if bias is None else z + bias
    return _lower(z.reshape((*x.shape[:2], *z.shape[1:])), *rest, has_mask=has_mask, wanted=(0, 1, 2))


conv_lstm_of_input = op(  # made by passes
    "conv_lstm_of_input",
    lower=_of_input,
    gradient=VJP,
    flops=lambda t, a, r: _flops(t[0].shape[:-1], t[1]) + _flops(t[0].shape[:-1], t[4 + a["has_bias"]]),
)


def conv_lstm(z: Any, h0: Any, c0: Any, recurrent_kernel: Any, mask: Any = None) -> tuple:
    """Convolutional LSTM with tanh and sigmoid: (sequence, h, c).

    Shapes: z (b, t, s.., 4f): the convolved input and the bias, gates in the order input, forget, candidate, output;
        h0 and c0 (b, s.., f), recurrent_kernel (k.., f, 4f), applied with stride 1 and padding "same"; mask bool (b, t)
        -> sequence (b, t, s.., f), h and c (b, s.., f). A masked step keeps the states.

    Source: Shi et al. 2015.
    """
    optional_inputs = () if mask is None else (mask,)
    made = conv_lstm_op(z, h0, c0, recurrent_kernel, *optional_inputs, has_mask=mask is not None, wanted=None)
    return tuple(item(made, i) for i in range(3))
