"""Recurrent networks over time as single ops: simple_rnn, lstm and gru.

x is (b, t, d). A masked step keeps all states, so the output repeats. Optional inputs follow in the order bias, mask,
recurrent dropout; the attributes `has_*` say which are there. Gates stand side by side in the kernels, in Keras' order.

lstm, and gru with reset_after, with tanh and sigmoid have gradients of their own: the step going back computes only
what depends on time, the weights' gradients are one product over all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node
from . import shape
from .registry import REGISTRY, VJP, item, op

sigmoid, tanh = jax.nn.sigmoid, jnp.tanh


def _activation(name: str) -> Callable:
    """The function of an activation's name: `linear` or an elementwise op without attributes."""
    if name == "linear":
        return lambda x: x
    found = REGISTRY.get({"relu": "relu", "swish": "silu"}.get(name, name))
    if found is None:
        raise ShapeError(f"unknown activation {name!r} of a recurrent op; use scan for a function of your own")
    return found.lower


def _optional(given: Sequence[Any], *wanted: bool) -> list:
    """The optional inputs in their places, None where `wanted` is false."""
    rest = iter(given)
    return [next(rest) if there else None for there in wanted]


def _over_time(
    step: Callable, x: Any, mask: Any, init: Sequence[Any], go_backwards: bool
) -> tuple[list[jax.Array], list[jax.Array]]:
    """``step(states, x_t) -> (states, extras)`` along time: the last states; all first states and extras, (t, b, ..)."""
    xs = jnp.swapaxes(jnp.asarray(x), 0, 1)
    masks = None if mask is None else jnp.swapaxes(jnp.asarray(mask).astype(bool), 0, 1)[..., None]

    def run(states: list, cells: Any) -> Any:
        x_t, m_t = cells
        new, extras = step(states, x_t)
        if m_t is not None:
            new = [jnp.where(m_t, n, o) for n, o in zip(new, states)]
        return new, [*new, *extras]

    if go_backwards:
        xs, masks = jnp.flip(xs, 0), None if masks is None else jnp.flip(masks, 0)
    return jax.lax.scan(run, [jnp.asarray(s) for s in init], (xs, masks))


def _rows(x: jax.Array) -> jax.Array:
    """(t, b, n) -> (t * b, n)."""
    return x.reshape((x.shape[0] * x.shape[1], x.shape[2]))


def _time_major(x: Any, go_backwards: bool) -> jax.Array:
    x = jnp.swapaxes(x, 0, 1)
    return jnp.flip(x, 0) if go_backwards else x


def _check(name: str, gates: int) -> Callable:
    def check(types: Sequence[Any], attrs: Any) -> None:
        x = types[0]
        kernel, recurrent = types[3:5] if name == "lstm" else types[2:4]
        units = recurrent.shape[0]
        if x.rank != 3:
            raise ShapeError(f"{name} needs an input (batch, steps, features), got {x}")
        if kernel.shape != (x.shape[-1], gates * units) or recurrent.shape != (units, gates * units):
            raise ShapeError(
                f"{name} of {x}: a kernel ({x.shape[-1]}, {gates * units}) and a recurrent kernel "
                f"({units}, {gates * units}) are needed, got {kernel} and {recurrent}"
            )

    return check


def _flops(name: str) -> Callable:
    def flops(types: Sequence[Any], attrs: Any, result: Any) -> int:
        steps = types[0].shape[1]
        kernel, recurrent = types[3:5] if name == "lstm" else types[2:4]
        products = kernel.shape[0] * kernel.shape[1] + recurrent.shape[0] * recurrent.shape[1]
        return 2 * products * (steps if isinstance(steps, int) else 1)

    return flops


def _vjp(n: Node, dy: tuple) -> tuple:
    from ..gradient import vjp

    return vjp(n, dy)


def _cotangents(n: Node, dy: tuple, count: int) -> list[Node]:
    """The gradients of the first `count` results, zeros where None."""
    return [d if d is not None else shape.zeros_like(item(n, i)) for i, d in enumerate(dy[:count])]


def _split_results(packed: Node, n: Node, flags: Sequence[bool], fixed: int) -> tuple:
    """The gradients `packed` in the places of n's inputs; none for a mask."""
    out: list = [item(packed, i) for i in range(fixed)]
    if flags[0]:
        out.append(item(packed, fixed))
    return (*out, *(None,) * (len(n.inputs) - len(out)))


# --- lstm ---------------------------------------------------------------------------------------------------------


def _plain(attrs: Any) -> bool:
    """Whether the hand-written gradient applies."""
    return (
        attrs["activation"] == "tanh"
        and attrs["recurrent_activation"] == "sigmoid"
        and not attrs["has_dropout"]
        and attrs.get("reset_after", True)
    )


def _matmul_gates(h: Any, recurrent: Any, dropped: Any) -> jax.Array:
    """h times each gate's columns, with a dropout mask (gates, b, u) of each gate's own."""
    if dropped is None:
        return h @ recurrent
    gates = dropped.shape[0]
    blocks = recurrent.reshape((recurrent.shape[0], gates, -1))
    return jnp.einsum("gbu,ugv->bgv", h[None] * dropped, blocks).reshape((h.shape[0], -1))


def _lstm_lower(x, h0, c0, kernel, recurrent, *rest, **attrs) -> tuple:
    """Gates i, f, c, o: x (b, t, d), h0, c0 (b, u), (d, 4u), (u, 4u)[, (4u)][, bool (b, t)][, (4, b, u)]
    -> sequence (b, t, u), h (b, u), c (b, u)[, gates (t, b, 4u), cells (t, b, u)]."""
    bias, mask, dropped = _optional(rest, attrs["has_bias"], attrs["has_mask"], attrs["has_dropout"])
    act, gate = _activation(attrs["activation"]), _activation(attrs["recurrent_activation"])
    keep = _plain(attrs)

    def step(states, x_t):
        h, c = states
        z = x_t @ kernel + _matmul_gates(h, recurrent, dropped)
        z = z if bias is None else z + bias
        zi, zf, zc, zo = jnp.split(z, 4, axis=-1)
        i, f, g, o = gate(zi), gate(zf), act(zc), gate(zo)
        c = f * c + i * g
        return [o * act(c), c], [jnp.concatenate([i, f, g, o], axis=-1)] if keep else []

    (h, c), trail = _over_time(step, x, mask, (h0, c0), attrs["go_backwards"])
    results = (jnp.swapaxes(trail[0], 0, 1), h, c)
    return (*results, trail[2], trail[1]) if keep else results


def _lstm_gradient(n: Node, dy: tuple) -> tuple:
    if not _plain(n.attrs):
        return _vjp(n, dy)
    attrs = {k: n.attrs[k] for k in ("has_bias", "has_mask", "go_backwards")}
    packed = lstm_grad(*n.inputs, *(item(n, i) for i in (0, 3, 4)), *_cotangents(n, dy, 3), **attrs)
    return _split_results(packed, n, (attrs["has_bias"],), 5)


lstm_op = op("lstm", lower=_lstm_lower, gradient=_lstm_gradient, check=_check("lstm", 4), flops=_flops("lstm"))


def _lstm_grad(x, h0, c0, kernel, recurrent, *rest, has_bias, has_mask, go_backwards) -> tuple:
    """The inputs and results of lstm and the gradients of its results -> gradients of x, h0, c0, kernels[, bias]."""
    bias, mask, sequence, gates, cells, d_sequence, dh, dc = _optional(rest, has_bias, has_mask, *(True,) * 6)
    hs = jnp.swapaxes(sequence, 0, 1)
    c_before = jnp.concatenate([c0[None], cells[:-1]])
    masks = None if mask is None else _time_major(mask.astype(bool), go_backwards)[..., None]

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
    out = (dx, dh0, dc0, dkernel, _rows(h_before).T @ dz_rows)
    return (*out, jnp.sum(dz_rows, axis=0)) if bias is not None else out


lstm_grad = op("lstm_grad", lower=_lstm_grad, flops=lambda t, a, r: 2 * _flops("lstm")(t, a, r))


def _input_gradients(x: Any, kernel: Any, dz: Any, go_backwards: bool) -> tuple:
    """Gradients of x and of the input kernel from those of the gates' inputs (t, b, n), as products over all steps."""
    rows = _rows(dz)
    dx = (rows @ kernel.T).reshape((*dz.shape[:2], kernel.shape[0]))
    dx = jnp.swapaxes(jnp.flip(dx, 0) if go_backwards else dx, 0, 1)
    return dx, _rows(_time_major(x, go_backwards)).T @ rows, rows


# --- gru ----------------------------------------------------------------------------------------------------------


def _gru_lower(x, h0, kernel, recurrent, *rest, **attrs) -> tuple:
    """Gates z, r, h: x (b, t, d), h0 (b, u), (d, 3u), (u, 3u)[, (2, 3u) or (3u)][, bool (b, t)][, (3, b, u)]
    -> sequence (b, t, u), h (b, u)[, gates (t, b, 4u)]."""
    bias, mask, dropped = _optional(rest, attrs["has_bias"], attrs["has_mask"], attrs["has_dropout"])
    act, gate = _activation(attrs["activation"]), _activation(attrs["recurrent_activation"])
    keep, after = _plain(attrs), attrs["reset_after"]
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

    (h,), trail = _over_time(step, x, mask, (h0,), attrs["go_backwards"])
    results = (jnp.swapaxes(trail[0], 0, 1), h)
    return (*results, trail[1]) if keep else results


def _gru_gradient(n: Node, dy: tuple) -> tuple:
    if not _plain(n.attrs):
        return _vjp(n, dy)
    attrs = {k: n.attrs[k] for k in ("has_bias", "has_mask", "go_backwards")}
    packed = gru_grad(*n.inputs, *(item(n, i) for i in (0, 2)), *_cotangents(n, dy, 2), **attrs)
    return _split_results(packed, n, (attrs["has_bias"],), 4)


gru_op = op("gru", lower=_gru_lower, gradient=_gru_gradient, check=_check("gru", 3), flops=_flops("gru"))


def _gru_grad(x, h0, kernel, recurrent, *rest, has_bias, has_mask, go_backwards) -> tuple:
    """The inputs and results of gru and the gradients of its results -> gradients of x, h0, kernels[, bias]."""
    bias, mask, sequence, gates, d_sequence, dh = _optional(rest, has_bias, has_mask, *(True,) * 4)
    h_before = jnp.concatenate([h0[None], jnp.swapaxes(sequence, 0, 1)[:-1]])
    masks = None if mask is None else _time_major(mask.astype(bool), go_backwards)[..., None]

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
    inner_rows = _rows(d_inner)
    out = (dx, dh0, dkernel, _rows(h_before).T @ inner_rows)
    if bias is None:
        return out
    return (*out, jnp.stack([jnp.sum(outer_rows, axis=0), jnp.sum(inner_rows, axis=0)]))


gru_grad = op("gru_grad", lower=_gru_grad, flops=lambda t, a, r: 2 * _flops("gru")(t, a, r))


# --- simple_rnn ---------------------------------------------------------------------------------------------------


def _simple_rnn_lower(x, h0, kernel, recurrent, *rest, **attrs) -> tuple:
    """x (b, t, d), h0 (b, u), (d, u), (u, u)[, (u)][, bool (b, t)][, (1, b, u)] -> sequence (b, t, u), h (b, u)."""
    bias, mask, dropped = _optional(rest, attrs["has_bias"], attrs["has_mask"], attrs["has_dropout"])
    act = _activation(attrs["activation"])

    def step(states, x_t):
        z = x_t @ kernel + _matmul_gates(states[0], recurrent, dropped)
        return [act(z if bias is None else z + bias)], []

    (h,), trail = _over_time(step, x, mask, (h0,), attrs["go_backwards"])
    return jnp.swapaxes(trail[0], 0, 1), h


simple_rnn_op = op(
    "simple_rnn",
    lower=_simple_rnn_lower,
    gradient=VJP,
    check=_check("simple_rnn", 1),
    flops=_flops("simple_rnn"),
)


# --- called by layers ---------------------------------------------------------------------------------------------


def _call(made: Any, count: int, inputs: Sequence[Any], optional: Sequence[Any], **attrs: Any) -> tuple:
    flags = dict(zip(("has_bias", "has_mask", "has_dropout"), (v is not None for v in optional)))
    result = made(*inputs, *(v for v in optional if v is not None), **attrs, **flags)
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
