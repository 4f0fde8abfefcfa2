"""Recurrent networks over time as single ops: simple_rnn, lstm and gru.

x is (b, t, d). A masked step keeps all states, so the output repeats. Optional inputs follow in the order bias, mask,
recurrent dropout; the attributes `has_*` say which are there. Gates stand side by side in the kernels, in Keras' order.

With tanh and sigmoid, without recurrent dropout, and gru with reset_after, they have gradients of their own: the step
going back computes only what depends on time, the weights' gradients are one product over all steps. For these, lstm
and gru have further results, which the gradients read. The attribute `wanted` says which results are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node
from .recurrent_steps import (
    activation_of,
    by_jax,
    check_of,
    cotangents,
    flops_of,
    optional,
    or_zeros,
    over_time,
    rows_of,
    selecting,
    split_results,
    time_major,
)
from .registry import item, op

sigmoid, tanh = jax.nn.sigmoid, jnp.tanh


# --- lstm ---------------------------------------------------------------------------------------------------------


def plain(attrs: Any) -> bool:
    """Whether the hand-written gradient applies."""
    return (
        attrs["activation"] == "tanh"
        and attrs.get("recurrent_activation", "sigmoid") == "sigmoid"
        and not attrs["has_dropout"]
        and attrs.get("reset_after", True)
    )


def _own_gradient(made: Any, n: Node, dy: tuple, kept: Sequence[int], states: int) -> tuple:
    """The gradient op of `n` on its inputs, the results `kept` of it, and the gradients of its results that arrived."""
    arrived, has_gradients = cotangents(dy, 1 + states)
    attrs = {k: n.attrs[k] for k in ("has_bias", "has_mask", "go_backwards")}
    packed = made(*n.inputs, *(item(n, i) for i in kept), *arrived, **attrs, has_gradients=has_gradients, wanted=None)
    return split_results(packed, n, attrs["has_bias"], 3 + states)


def _matmul_gates(h: Any, recurrent: Any, dropped: Any) -> jax.Array:
    """h times each gate's columns, with a dropout mask (gates, b, u) of each gate's own."""
    if dropped is None:
        return h @ recurrent
    gates = dropped.shape[0]
    blocks = recurrent.reshape((recurrent.shape[0], gates, -1))
    return jnp.einsum("gbu,ugv->bgv", h[None] * dropped, blocks).reshape((h.shape[0], -1))


@selecting
def _lstm_lower(x, h0, c0, kernel, recurrent, *rest, **attrs) -> tuple:
    """Gates i, f, c, o: x (b, t, d), h0, c0 (b, u), (d, 4u), (u, 4u)[, (4u)][, bool (b, t)][, (4, b, u)]
    -> sequence (b, t, u), h (b, u), c (b, u)[, gates (t, b, 4u), cells (t, b, u)]."""
    bias, mask, dropped = optional(rest, attrs["has_bias"], attrs["has_mask"], attrs["has_dropout"])
    act, gate = activation_of(attrs["activation"]), activation_of(attrs["recurrent_activation"])
    keep = plain(attrs)

    def step(states, x_t):
        h, c = states
        z = x_t @ kernel + _matmul_gates(h, recurrent, dropped)
        z = z if bias is None else z + bias
        zi, zf, zc, zo = jnp.split(z, 4, axis=-1)
        i, f, g, o = gate(zi), gate(zf), act(zc), gate(zo)
        c = f * c + i * g
        return [o * act(c), c], [jnp.concatenate([i, f, g, o], axis=-1)] if keep else []

    (h, c), trail = over_time(step, x, mask, (h0, c0), attrs["go_backwards"])
    results = (jnp.swapaxes(trail[0], 0, 1), h, c)
    return (*results, trail[2], trail[1]) if keep else results


def _lstm_gradient(n: Node, dy: tuple) -> tuple:
    if not plain(n.attrs):
        return by_jax(n, dy)
    return _own_gradient(lstm_grad, n, dy, kept=(0, 3, 4), states=2)


lstm_op = op("lstm", lower=_lstm_lower, gradient=_lstm_gradient, check=check_of("lstm", 4), flops=flops_of("lstm"))


@selecting
def _lstm_grad(x, h0, c0, kernel, recurrent, *rest, has_bias, has_mask, go_backwards, has_gradients) -> tuple:
    """lstm's inputs and results (sequence, gates, cells) and the gradients of (sequence, h, c), as far as they are there
    -> gradients of x, h0, c0, kernels[, bias]."""
    bias, mask, sequence, gates, cells, *given = optional(rest, has_bias, has_mask, *(True,) * 3, *has_gradients)
    d_sequence, dh, dc = map(or_zeros, given, (sequence, h0, c0))
    hs = jnp.swapaxes(sequence, 0, 1)
    c_before = jnp.concatenate([c0[None], cells[:-1]])
    masks = None if mask is None else time_major(mask.astype(bool), go_backwards)[..., None]

    def step(carry, cell):
        dh, dc = carry
        gates_t, c, dy, m = cell
        i, f, g, o = jnp.split(gates_t, 4, axis=-1)
        t = tanh(f * c + i * g)
        dh = dh + dy
        dh_new, dc_new = (dh, dc) if m is None else (jnp.where(m, dh, 0), jnp.where(m, dc, 0))
        d = dc_new + dh_new * o * (1 - t * t)
        dz = jnp.concatenate(
            [d * g * i * (1 - i), d * c * f * (1 - f), d * i * (1 - g * g), dh_new * t * o * (1 - o)], axis=-1
        )
        dh_before, dc_before = dz @ recurrent.T, d * f
        if m is not None:
            dh_before, dc_before = dh_before + jnp.where(m, 0, dh), dc_before + jnp.where(m, 0, dc)
        return (dh_before, dc_before), dz

    xs = (gates, c_before, jnp.swapaxes(d_sequence, 0, 1), masks)
    (dh0, dc0), dz = jax.lax.scan(step, (dh, dc), xs, reverse=True)
    h_before = jnp.concatenate([h0[None], hs[:-1]])
    dx, dkernel, dz_rows = _input_gradients(x, kernel, dz, go_backwards)
    out = (dx, dh0, dc0, dkernel, rows_of(h_before).T @ dz_rows)
    return (*out, jnp.sum(dz_rows, axis=0)) if bias is not None else out


lstm_grad = op("lstm_grad", lower=_lstm_grad, flops=lambda t, a, r: 2 * flops_of("lstm")(t, a, r))


def _input_gradients(x: Any, kernel: Any, dz: Any, go_backwards: bool) -> tuple:
    """Gradients of x and of the input kernel from those of the gates' inputs (t, b, n), as products over all steps."""
    rows = rows_of(dz)
    dx = (rows @ kernel.T).reshape((*dz.shape[:2], kernel.shape[0]))
    dx = jnp.swapaxes(jnp.flip(dx, 0) if go_backwards else dx, 0, 1)
    return dx, rows_of(time_major(x, go_backwards)).T @ rows, rows


# --- gru ----------------------------------------------------------------------------------------------------------


@selecting
def _gru_lower(x, h0, kernel, recurrent, *rest, **attrs) -> tuple:
    """Gates z, r, h: x (b, t, d), h0 (b, u), (d, 3u), (u, 3u)[, (2, 3u) or (3u)][, bool (b, t)][, (3, b, u)]
    -> sequence (b, t, u), h (b, u)[, gates (t, b, 4u)]."""
    bias, mask, dropped = optional(rest, attrs["has_bias"], attrs["has_mask"], attrs["has_dropout"])
    act, gate = activation_of(attrs["activation"]), activation_of(attrs["recurrent_activation"])
    keep, after = plain(attrs), attrs["reset_after"]
    units = recurrent.shape[0]
    outer_bias, inner_bias = (None, None) if bias is None else (bias[0], bias[1]) if after else (bias, None)

    def step(states, x_t):
        (h,) = states
        zx = x_t @ kernel
        zx = zx if outer_bias is None else zx + outer_bias
        if after:
            zh = _matmul_gates(h, recurrent, dropped)
            zh = zh if inner_bias is None else zh + inner_bias
        else:
            zh = _matmul_gates(h, recurrent[:, : 2 * units], None if dropped is None else dropped[:2])
        z = gate(zx[:, :units] + zh[:, :units])
        r = gate(zx[:, units : 2 * units] + zh[:, units : 2 * units])
        if after:
            inner = zh[:, 2 * units :]
            new = act(zx[:, 2 * units :] + r * inner)
        else:
            masked = r * (h if dropped is None else h * dropped[2])
            new = act(zx[:, 2 * units :] + masked @ recurrent[:, 2 * units :])
        extras = [jnp.concatenate([z, r, new, inner], axis=-1)] if keep else []
        return [z * h + (1 - z) * new], extras

    (h,), trail = over_time(step, x, mask, (h0,), attrs["go_backwards"])
    results = (jnp.swapaxes(trail[0], 0, 1), h)
    return (*results, trail[1]) if keep else results


def _gru_gradient(n: Node, dy: tuple) -> tuple:
    if not plain(n.attrs):
        return by_jax(n, dy)
    return _own_gradient(gru_grad, n, dy, kept=(0, 2), states=1)


gru_op = op("gru", lower=_gru_lower, gradient=_gru_gradient, check=check_of("gru", 3), flops=flops_of("gru"))


@selecting
def _gru_grad(x, h0, kernel, recurrent, *rest, has_bias, has_mask, go_backwards, has_gradients) -> tuple:
    """gru's inputs and results (sequence, gates) and the gradients of (sequence, h), as far as they are there
    -> gradients of x, h0, kernels[, bias]."""
    bias, mask, sequence, gates, *given = optional(rest, has_bias, has_mask, *(True,) * 2, *has_gradients)
    d_sequence, dh = map(or_zeros, given, (sequence, h0))
    h_before = jnp.concatenate([h0[None], jnp.swapaxes(sequence, 0, 1)[:-1]])
    masks = None if mask is None else time_major(mask.astype(bool), go_backwards)[..., None]

    def step(dh, cell):
        gates_t, h, dy, m = cell
        z, r, new, inner = jnp.split(gates_t, 4, axis=-1)
        dh = dh + dy
        d = dh if m is None else jnp.where(m, dh, 0)
        d_new = d * (1 - z) * (1 - new * new)
        dz = d * (h - new) * z * (1 - z)
        dr = d_new * inner * r * (1 - r)
        d_inner = jnp.concatenate([dz, dr, d_new * r], axis=-1)
        before = d_inner @ recurrent.T + d * z
        before = before if m is None else before + jnp.where(m, 0, dh)
        return before, (jnp.concatenate([dz, dr, d_new], axis=-1), d_inner)

    xs = (gates, h_before, jnp.swapaxes(d_sequence, 0, 1), masks)
    dh0, (d_outer, d_inner) = jax.lax.scan(step, dh, xs, reverse=True)
    dx, dkernel, outer_rows = _input_gradients(x, kernel, d_outer, go_backwards)
    inner_rows = rows_of(d_inner)
    out = (dx, dh0, dkernel, rows_of(h_before).T @ inner_rows)
    if bias is None:
        return out
    return (*out, jnp.stack([jnp.sum(outer_rows, axis=0), jnp.sum(inner_rows, axis=0)]))


gru_grad = op("gru_grad", lower=_gru_grad, flops=lambda t, a, r: 2 * flops_of("gru")(t, a, r))


# --- simple_rnn ---------------------------------------------------------------------------------------------------


@selecting
def _simple_rnn_lower(x, h0, kernel, recurrent, *rest, **attrs) -> tuple:
    """x (b, t, d), h0 (b, u), (d, u), (u, u)[, (u)][, bool (b, t)][, (1, b, u)] -> sequence (b, t, u), h (b, u)."""
    bias, mask, dropped = optional(rest, attrs["has_bias"], attrs["has_mask"], attrs["has_dropout"])
    act = activation_of(attrs["activation"])

    def step(states, x_t):
        z = x_t @ kernel + _matmul_gates(states[0], recurrent, dropped)
        return [act(z if bias is None else z + bias)], []

    (h,), trail = over_time(step, x, mask, (h0,), attrs["go_backwards"])
    return jnp.swapaxes(trail[0], 0, 1), h


def _simple_rnn_gradient(n: Node, dy: tuple) -> tuple:
    if not plain(n.attrs):
        return by_jax(n, dy)
    return _own_gradient(simple_rnn_grad, n, dy, kept=(0,), states=1)


simple_rnn_op = op(
    "simple_rnn",
    lower=_simple_rnn_lower,
    gradient=_simple_rnn_gradient,
    check=check_of("simple_rnn", 1),
    flops=flops_of("simple_rnn"),
)


@selecting
def _simple_rnn_grad(x, h0, kernel, recurrent, *rest, has_bias, has_mask, go_backwards, has_gradients) -> tuple:
    """simple_rnn's inputs and sequence and the gradients of (sequence, h), as far as they are there
    -> gradients of x, h0, kernels[, bias]."""
    bias, mask, sequence, *given = optional(rest, has_bias, has_mask, True, *has_gradients)
    d_sequence, dh = map(or_zeros, given, (sequence, h0))
    hs = jnp.swapaxes(sequence, 0, 1)
    masks = None if mask is None else time_major(mask.astype(bool), go_backwards)[..., None]

    def step(dh, cell):
        h, dy, m = cell
        dh = dh + dy
        dz = (dh if m is None else jnp.where(m, dh, 0)) * (1 - h * h)
        before = dz @ recurrent.T
        return before if m is None else before + jnp.where(m, 0, dh), dz

    dh0, dz = jax.lax.scan(step, dh, (hs, jnp.swapaxes(d_sequence, 0, 1), masks), reverse=True)
    dx, dkernel, rows = _input_gradients(x, kernel, dz, go_backwards)
    out = (dx, dh0, dkernel, rows_of(jnp.concatenate([h0[None], hs[:-1]])).T @ rows)
    return out if bias is None else (*out, jnp.sum(rows, axis=0))


simple_rnn_grad = op(
    "simple_rnn_grad", lower=_simple_rnn_grad, flops=lambda t, a, r: 2 * flops_of("simple_rnn")(t, a, r)
)


# --- called by layers ---------------------------------------------------------------------------------------------


def _call(made: Any, count: int, inputs: Sequence[Any], given: Sequence[Any], **attrs: Any) -> tuple:
    flags = dict(zip(("has_bias", "has_mask", "has_dropout"), (v is not None for v in given)))
    result = made(*inputs, *(v for v in given if v is not None), **attrs, **flags, wanted=None)
    return tuple(item(result, i) for i in range(count))


def lstm(
    x: Any,
    h0: Any,
    c0: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    mask: Any = None,
    recurrent_dropout: Any = None,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    go_backwards: bool = False,
) -> tuple:
    """Long short-term memory: (sequence, h, c); the last output is h.

    Shapes: x (b, t, d), h0 and c0 (b, u), kernel (d, 4u), recurrent_kernel (u, 4u), bias (4u), mask bool (b, t),
        recurrent_dropout (4, b, u) -> sequence (b, t, u) in order of processing, h (b, u), c (b, u).
    """
    return _call(
        lstm_op,
        3,
        (x, h0, c0, kernel, recurrent_kernel),
        (bias, mask, recurrent_dropout),
        activation=activation,
        recurrent_activation=recurrent_activation,
        go_backwards=bool(go_backwards),
    )


def gru(
    x: Any,
    h0: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    mask: Any = None,
    recurrent_dropout: Any = None,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    go_backwards: bool = False,
    reset_after: bool = True,
) -> tuple:
    """Gated recurrent unit: (sequence, h).

    Shapes: x (b, t, d), h0 (b, u), kernel (d, 3u), recurrent_kernel (u, 3u), bias (2, 3u), or (3u) without
        reset_after, mask bool (b, t), recurrent_dropout (3, b, u) -> sequence (b, t, u), h (b, u).
    """
    return _call(
        gru_op,
        2,
        (x, h0, kernel, recurrent_kernel),
        (bias, mask, recurrent_dropout),
        activation=activation,
        recurrent_activation=recurrent_activation,
        go_backwards=bool(go_backwards),
        reset_after=bool(reset_after),
    )


def simple_rnn(
    x: Any,
    h0: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    mask: Any = None,
    recurrent_dropout: Any = None,
    *,
    activation: str = "tanh",
    go_backwards: bool = False,
) -> tuple:
    """h = activation(x kernel + h recurrent_kernel + bias): (sequence, h).

    Shapes: x (b, t, d), h0 (b, u), kernel (d, u), recurrent_kernel (u, u), bias (u), mask bool (b, t),
        recurrent_dropout (1, b, u) -> sequence (b, t, u), h (b, u).
    """
    return _call(
        simple_rnn_op,
        2,
        (x, h0, kernel, recurrent_kernel),
        (bias, mask, recurrent_dropout),
        activation=activation,
        go_backwards=bool(go_backwards),
    )
