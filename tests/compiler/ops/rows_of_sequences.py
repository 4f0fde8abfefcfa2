"""Rows of the op contract: recurrent nets, dense layers, attention, control flow, leaves, collectives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.special
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Node
from kerasoft.compiler.ops import (
    attention,
    barrier,
    collective,
    control,
    conv_lstm,
    dense,
    recurrent,
    reduce,
)
from kerasoft.compiler.ops.registry import constant, item
from op_contract import (
    B,
    Input,
    apart,
    b,
    bools,
    ints,
    positive,
    pulled,
    real,
    row,
    sigmoid,
    unit,
)

# --- recurrent: loops in NumPy ------------------------------------------------------------------------------------


def _lstm_loop(x, h, c, w, u, bias, mask=None, back=False):
    ys = []
    for t in reversed(range(x.shape[1])) if back else range(x.shape[1]):
        zi, zf, zc, zo = np.split(x[:, t] @ w + h @ u + bias, 4, -1)
        new_c = sigmoid(zf) * c + sigmoid(zi) * np.tanh(zc)
        new_h = sigmoid(zo) * np.tanh(new_c)
        keep = np.ones((B, 1), bool) if mask is None else mask[:, t : t + 1]
        h, c = np.where(keep, new_h, h), np.where(keep, new_c, c)
        ys.append(h)
    return np.stack(ys, 1), h, c


def _gru_loop(x, h, w, u, bias, mask=None, after=True):
    ys, n = [], h.shape[-1]
    outer, inner = (bias[0], bias[1]) if after else (bias, np.zeros_like(bias))
    for t in range(x.shape[1]):
        zx, zh = x[:, t] @ w + outer, h @ u + inner
        z, g = sigmoid((zx + zh)[:, :n]), sigmoid((zx + zh)[:, n : 2 * n])
        new = np.tanh(zx[:, 2 * n :] + (g * zh[:, 2 * n :] if after else (g * h) @ u[:, 2 * n :]))
        keep = np.ones((B, 1), bool) if mask is None else mask[:, t : t + 1]
        h = np.where(keep, z * h + (1 - z) * new, h)
        ys.append(h)
    return np.stack(ys, 1), h


_lstm_in = (real(b, 4, 2), unit(b, 3), unit(b, 3), unit(2, 12), unit(3, 12), unit(12))
_gru_in = (real(b, 4, 2), unit(b, 3), unit(2, 9), unit(3, 9))
_rnn_in = (real(b, 4, 2), unit(b, 3), unit(2, 3), unit(3, 3), unit(3))
row("lstm", recurrent.lstm, *_lstm_in, want=_lstm_loop)
row("lstm", recurrent.lstm, *_lstm_in, bools(b, 4), want=_lstm_loop, label="mask")
row("lstm", lambda *v: recurrent.lstm(*v, go_backwards=True), *_lstm_in, bools(b, 4), want=lambda *v: _lstm_loop(*v, back=True), label="backwards mask")  # fmt: skip
row("lstm", lambda *v: recurrent.lstm(*v[:6], None, v[6]), *_lstm_in, Input((4, b, 3), lambda rng, s: np.ones(s, "f")), want=lambda *v: _lstm_loop(*v[:6]), label="recurrent dropout")  # fmt: skip
row("lstm", lambda *v: recurrent.lstm(*v, activation="softsign", recurrent_activation="hard_sigmoid")[0], *_lstm_in, label="activations", differences=False)  # fmt: skip
row("lstm_grad", lambda *v: jax.tree.leaves(recurrent.lstm(*v))[0], *_lstm_in, want=lambda *v: _lstm_loop(*v)[0])
row("gru", recurrent.gru, *_gru_in, unit(2, 9), bools(b, 4), want=_gru_loop, label="mask")
row("gru", lambda *v: recurrent.gru(*v)[0], *_gru_in, unit(2, 9), want=lambda *v: _gru_loop(*v)[0])
row("gru", lambda *v: recurrent.gru(*v, reset_after=False), *_gru_in, unit(9), want=lambda *v: _gru_loop(*v, after=False), label="reset before")  # fmt: skip
row("gru_grad", lambda *v: recurrent.gru(*v)[1], *_gru_in, unit(2, 9), want=lambda *v: _gru_loop(*v)[1])


def _rnn_loop(x, h, w, u, bias):
    ys = []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w + h @ u + bias)
        ys.append(h)
    return np.stack(ys, 1), h


row("simple_rnn", recurrent.simple_rnn, *_rnn_in, want=_rnn_loop)
row("simple_rnn", lambda *v: recurrent.simple_rnn(*v, activation="softsign")[0], *_rnn_in, label="activation")
row("simple_rnn_grad", lambda *v: recurrent.simple_rnn(*v)[1], *_rnn_in, want=lambda *v: _rnn_loop(*v)[1])

# --- dense --------------------------------------------------------------------------------------------------------

_dense_in = (real(b, 5, 3), real(3, 4), real(4))
row("dense", lambda x, k, r: dense.dense_op(x, k, r, has_bias=True, relu=False), *_dense_in, want=lambda x, k, r: x @ k + r)  # fmt: skip
row("dense", lambda x, k, r: dense.dense_op(x, k, r, has_bias=True, relu=True), *_dense_in, want=lambda x, k, r: np.maximum(x @ k + r, 0), label="relu")  # fmt: skip
row("dense_grad_input", lambda dy, k: dense.dense_grad_input(dy, k, gated=False), real(b, 4), real(3, 4), want=lambda dy, k: dy @ k.T)  # fmt: skip
row("dense_grad_input", lambda dy, k, g: dense.dense_grad_input(dy, k, g, gated=True), real(b, 4), real(3, 4), apart(b, 3), want=lambda dy, k, g: np.where(g > 0, dy @ k.T, 0), label="gated")  # fmt: skip
row("dense_grad_kernel", lambda x, dy: tuple(item(dense.dense_grad_kernel(x, dy), i) for i in (0, 1)), real(b, 5, 3), real(b, 5, 4), want=lambda x, dy: (np.einsum("bti,btj->ij", x, dy), dy.sum((0, 1))))  # fmt: skip

_two_tables = (real(5, 2), ints(5, b), real(6, 3), ints(6, b))


def _gradients_of_rows(t, i, u, j, dy, k):
    x, dx = np.concatenate([t[i], u[j]], axis=1), dy @ k.T
    found = []
    for ids, part in ((i, dx[:, :2]), (j, dx[:, 2:])):
        rows = np.zeros_like(part)
        np.add.at(rows, [list(ids).index(one) for one in ids], part)
        found.append(rows)
    return (x.T @ dy, dy.sum(0), *found)


row("dense_of_rows", lambda *x: dense.dense_of_rows(*x, tables=2, has_bias=True, relu=False), *_two_tables, real(5, 4), real(4), want=lambda t, i, u, j, k, r: np.concatenate([t[i], u[j]], axis=1) @ k + r, gradient=False)  # fmt: skip
row("dense_of_rows_gradients", lambda *x: tuple(item(dense.dense_of_rows_gradients(*x, tables=2), i) for i in range(4)), *_two_tables, real(b, 4), real(5, 4), want=_gradients_of_rows, gradient=False)  # fmt: skip

# --- attention ----------------------------------------------------------------------------------------------------


def _attend(q, k, v, mask=None, bias=0.0, scale=0.5):
    scores = scale * np.einsum("bthd,bshd->bhts", q, np.repeat(k, q.shape[2] // k.shape[2], 2)) + bias
    weights = scipy.special.softmax(scores if mask is None else np.where(mask, scores, -1e30), -1)
    return np.einsum("bhts,bshe->bthe", weights, np.repeat(v, q.shape[2] // k.shape[2], 2))


_attention_in = (unit(b, 3, 2, 4), unit(b, 5, 2, 4), unit(b, 5, 2, 3))
row("attention", attention.scaled_dot_product, *_attention_in, want=_attend)
row("attention", attention.scaled_dot_product, *_attention_in, bools(b, 1, 3, 5), real(1, 2, 3, 5), want=_attend, label="mask and bias")  # fmt: skip
row("attention", lambda *v: attention.scaled_dot_product(*v, scale=1.0, is_causal=True), unit(b, 4, 4, 2), unit(b, 4, 2, 2), unit(b, 4, 2, 2), want=lambda *v: _attend(*v, np.tri(4, dtype=bool), scale=1.0), label="causal, shared heads")  # fmt: skip
row("attention_grad", lambda *v: attention.scaled_dot_product(*v, scale=0.5), *_attention_in, want=_attend)
row(
    "attention_grad",
    lambda *v: pulled(lambda *w: attention.scaled_dot_product(*w, scale=0.5), *v),
    *_attention_in,
    eager=False,
    label="of the gradient",
)


def _conv_lstm_loop(z, h, c, kernel, mask=None):
    """Over one axis, window 3, padding "same"."""
    ys = []
    for t in range(z.shape[1]):
        wide = np.pad(h, ((0, 0), (1, 1), (0, 0)))
        sums = z[:, t] + np.stack([np.einsum("bkc,kcn->bn", wide[:, p : p + 3], kernel) for p in range(h.shape[1])], 1)
        i, f, g, o = np.split(sums, 4, -1)
        new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        new_h = sigmoid(o) * np.tanh(new_c)
        keep = np.ones((B, 1, 1), bool) if mask is None else mask[:, t, None, None]
        h, c = np.where(keep, new_h, h), np.where(keep, new_c, c)
        ys.append(h)
    return np.stack(ys, 1), h, c


def _conv_lstm_of_input_loop(x, kernel, bias, *rest):
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    sums = [np.einsum("btkc,kcn->btn", wide[:, :, p : p + 3], kernel) for p in range(x.shape[2])]
    return _conv_lstm_loop(np.stack(sums, 2) + bias, *rest)


_conv_lstm_in = (real(b, 3, 4, 8), unit(b, 4, 2), unit(b, 4, 2), unit(3, 2, 8))
row("conv_lstm", conv_lstm.conv_lstm, *_conv_lstm_in, want=_conv_lstm_loop)
row("conv_lstm", conv_lstm.conv_lstm, *_conv_lstm_in, bools(b, 3), want=_conv_lstm_loop, label="mask")
row(
    "conv_lstm_of_input",
    lambda *v: tuple(
        item(conv_lstm.conv_lstm_of_input(*v, has_bias=True, has_mask=True, wanted=None), i) for i in range(3)
    ),
    real(b, 3, 4, 3),
    unit(3, 3, 8),
    real(8),
    *_conv_lstm_in[1:],
    bools(b, 3),
    want=_conv_lstm_of_input_loop,
)
row("conv_lstm_grad", lambda *v: conv_lstm.conv_lstm(*v)[1], *_conv_lstm_in, want=lambda *v: _conv_lstm_loop(*v)[1])

# --- control, leaves, collective ----------------------------------------------------------------------------------


def _running(x, w):
    (last,), (ys,) = control.scan(lambda c, xs: ([c[0] * w + xs[0]], [c[0]]), [x[0] * 0.0], [x])
    return last, ys


def _running_loop(x, w):
    c, ys = np.zeros_like(x[0]), []
    for cell in x:
        ys.append(c)
        c = c * w + cell
    return c, np.stack(ys)


row("scan", _running, real(b, 2), unit(2), want=_running_loop)
row("cond", lambda p, x, y: control.cond(p, lambda: x * y, lambda: x - 1.0), bools(), real(b, 2), real(2), want=lambda p, x, y: x * y if p else x - 1)  # fmt: skip
row("while_loop", lambda x: control.while_loop(lambda n, v: n < 3, lambda n, v: (n + 1, v * 2.0), (np.int32(0), x))[1], real(b, 2), want=lambda x: x * 8, gradient=False)  # fmt: skip
_sin_and_square = control.from_jax(lambda x: (jnp.sin(x), x * x))
row("jax_call", _sin_and_square, real(b, 2), want=lambda x: (np.sin(x), x * x))
row("input", lambda x: x, real(b, 2), want=lambda x: x)
row("constant", lambda x: x + np.arange(3.0), real(b, 3), want=lambda x: x + np.arange(3))
row("constant", lambda x: x + constant(2.5) if isinstance(x, Node) else x + 2.5, real(b, 3), want=lambda x: x + 2.5, label="scalar")  # fmt: skip
row("item", lambda x: item(reduce.top_k_op(x, k=1), 0), apart(b, 3), want=lambda x: x.max(1, keepdims=True))
row("vjp", lambda x: _once(reduce.cumprod, x), positive(b, 3), eager=False)
row("barrier", barrier.barrier, real(b, 2), real(b, 3), want=lambda x, after: x)
row("barrier", barrier.barrier, ints(5, b, 2), real(), want=lambda x, after: x, label="whole numbers")
row("all_reduce", lambda x: collective.all_reduce(x), real(b, 2), want=lambda x: x)
row("part_sum", lambda x: collective.part_sum(x), real(b, 2), want=lambda x: x, gradient=False)
row(
    "part_stack",
    lambda x: collective.part_stack(x, count=2),
    real(b, 2),
    want=lambda x: np.stack([x, x]),
    gradient=False,
)
row(
    "part_of",
    lambda x: collective.part_of(x, np.asarray(1, np.int32), axis=1, count=2),
    real(b, 4),
    want=lambda x: x[:, 2:],
    gradient=False,
)
row("part_of", lambda x: collective.part_of(x, np.asarray(1, np.int32), axis=1, count=2), real(b, 3), want=lambda x: np.pad(x[:, 2:], ((0, 0), (0, 1))), gradient=False, label="filled up")  # fmt: skip


def _once(f, x):
    y = f(x, axis=1)
    return gradient({y: y}, [x])[0]
