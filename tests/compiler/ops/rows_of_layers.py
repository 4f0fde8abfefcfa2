"""Rows of the op contract: convolution, pooling, normalisation, losses, 8-bit integers, random numbers."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import scipy.special
from kerasoft.compiler.ops import (
    convolution,
    layer_normalization,
    losses,
    normalization,
    optimizers,
    pooling,
    quantised,
    random,
)
from kerasoft.compiler.ops.registry import items
from op_contract import (
    B,
    Input,
    apart,
    b,
    ints,
    positive,
    pulled,
    real,
    row,
    softplus,
    unit,
    words,
)

# --- convolution and pooling --------------------------------------------------------------------------------------


def _same(n, k, stride, dilation):
    total = max((math.ceil(n / stride) - 1) * stride + (k - 1) * dilation + 1 - n, 0)
    return total // 2, total - total // 2


def _conv_by_numpy(x, kernel, strides=1, padding="valid", dilation_rate=1, groups=1):
    """The sum over the kernel's cells of shifted inputs times that cell's matrix."""
    rank = x.ndim - 2
    strides, dilation = (n if isinstance(n, tuple) else (n,) * rank for n in (strides, dilation_rate))
    if padding == "same":
        widths = [_same(n, k, s, d) for n, k, s, d in zip(x.shape[1:-1], kernel.shape, strides, dilation)]
        x = np.pad(x, [(0, 0), *widths, (0, 0)])
    elif padding != "valid":
        x = np.pad(x, [(0, 0), *padding, (0, 0)])
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(x.shape[1:-1], kernel.shape, strides, dilation)]
    out = 0
    for cell in np.ndindex(*kernel.shape[:rank]):
        cut = tuple(slice(i * d, i * d + (o - 1) * s + 1, s) for i, d, o, s in zip(cell, dilation, sizes, strides))
        parts = np.split(x[(slice(None), *cut)], groups, axis=-1)
        out = out + np.concatenate([p @ k for p, k in zip(parts, np.split(kernel[cell], groups, axis=-1))], axis=-1)
    return out


for _label, _x, _k, _kw in [
    ("1d", real(b, 7, 2), real(3, 2, 3), {"strides": 2, "padding": "same"}),
    ("2d valid", real(b, 5, 6, 2), real(3, 2, 2, 3), {}),
    ("2d same strides", real(b, 5, 6, 2), real(3, 2, 2, 3), {"strides": 2, "padding": "same"}),
    ("2d dilation", real(b, 6, 6, 2), real(2, 3, 2, 3), {"dilation_rate": 2, "padding": "same"}),
    ("2d groups", real(b, 4, 4, 4), real(2, 2, 2, 6), {"groups": 2}),
    ("2d depthwise", real(b, 4, 4, 3), real(3, 3, 1, 6), {"groups": 3, "padding": "same"}),
    ("2d explicit", real(b, 4, 4, 2), real(3, 3, 2, 2), {"padding": ((1, 2), (0, 1))}),
    ("3d", real(b, 3, 4, 3, 2), real(2, 2, 2, 2, 2), {"padding": "same"}),
]:
    row("conv", lambda x, k, kw=_kw: convolution.conv(x, k, **kw), _x, _k, want=lambda x, k, kw=_kw: _conv_by_numpy(x, k, **kw), label=_label)  # fmt: skip
row("conv", lambda x, k: convolution.conv(x, k, data_format="channels_first"), real(b, 2, 5, 5), real(3, 3, 2, 3), want=lambda x, k: np.moveaxis(_conv_by_numpy(np.moveaxis(x, 1, -1), k), -1, 1), label="channels first")  # fmt: skip


def _conv_pull(which):
    def want(first, second):
        if which == 0:  # dy, kernel -> dx
            dy, kernel = first, second
            forward = lambda x: _linear(x, kernel)
            like = (B, 5, 5, 2)
        else:
            x, dy = first, second
            forward = lambda k: _linear(x, k)
            like = (3, 3, 2, 4)
        out = np.zeros(like, np.float32)  # the transpose of a linear map, column by column
        for at in np.ndindex(*like):
            basis = np.zeros(like, np.float32)
            basis[at] = 1
            out[at] = (forward(basis) * dy).sum()
        return out

    return want


def _linear(x, kernel):
    return _conv_by_numpy(x, kernel, strides=2, padding="same")


_attrs = {"strides": (2, 2), "padding": "same", "dilation": (1, 1), "groups": 1}
row("conv_grad_input", lambda dy, k: convolution.conv_grad_input(dy, k, input_shape=(dy.shape[0], 5, 5, 2), **_attrs), real(b, 3, 3, 4), real(3, 3, 2, 4), want=_conv_pull(0))  # fmt: skip
row("conv_grad_kernel", lambda x, dy: convolution.conv_grad_kernel(x, dy, kernel_shape=(3, 3, 2, 4), **_attrs), real(b, 5, 5, 2), real(b, 3, 3, 4), want=_conv_pull(1))  # fmt: skip
row(
    "conv_grad_kernel_bias",
    lambda x, dy: items(convolution.conv_grad_kernel_bias(x, dy, kernel_shape=(3, 3, 2, 4), **_attrs)),
    real(b, 5, 5, 2),
    real(b, 3, 3, 4),
    want=lambda x, dy: (_conv_pull(1)(x, dy), dy.sum((0, 1, 2))),
)
row(
    "conv_fused",
    lambda x, k, bias, y: convolution.conv_fused(x, k, bias, y, has_bias=True, has_sum=True, relu=True, **_attrs),
    real(b, 5, 5, 2),
    real(3, 3, 2, 4),
    real(4),
    real(b, 3, 3, 4),
    want=lambda x, k, bias, y: np.maximum(_linear(x, k) + bias + y, 0),
    differences=False,
)


def _windows(f, x, size, stride, padding):
    """f over the real cells of each window, by loops."""
    rank = x.ndim - 2
    pads = [_same(n, size, stride, 1) if padding == "same" else (0, 0) for n in x.shape[1:-1]]
    counts = [(n + sum(p) - size) // stride + 1 for n, p in zip(x.shape[1:-1], pads)]
    out = np.zeros((x.shape[0], *counts, x.shape[-1]), np.float32)
    for at in np.ndindex(*counts):
        cut = tuple(slice(max(q * stride - p[0], 0), q * stride - p[0] + size) for q, p in zip(at, pads))
        out[(slice(None), *at)] = f(x[(slice(None), *cut)], axis=tuple(range(1, rank + 1)))
    return out


for _op, _f, _want in (("max_pool", pooling.max_pool, np.max), ("average_pool", pooling.average_pool, np.mean)):
    for _label, _x, _kw in [
        ("1d", apart(b, 7, 2), (3, 2, "same")),
        ("2d", apart(b, 4, 6, 2), (2, 2, "valid")),
        ("2d same overlap", apart(b, 5, 4, 2), (3, 2, "same")),
        ("2d stride 1", apart(b, 4, 4, 1), (3, 1, "same")),
        ("2d gaps", apart(b, 7, 8, 1), (2, 3, "valid")),
        ("3d", apart(b, 3, 4, 3, 1), (2, 1, "valid")),
    ]:
        row(_op, lambda x, f=_f, kw=_kw: f(x, *kw), _x, want=lambda x, f=_want, kw=_kw: _windows(f, x, *kw), label=_label)  # fmt: skip
_pool = {"window": (2, 2), "strides": (2, 2), "padding": "valid"}


def _max_pull(x, dy):
    out = np.zeros_like(x)
    for n, p, q, k in np.ndindex(*dy.shape):
        block = x[n, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2, k]
        at = np.unravel_index(block.argmax(), (2, 2))
        out[n, 2 * p + at[0], 2 * q + at[1], k] += dy[n, p, q, k]
    return out


row("max_pool_grad", lambda x, dy: pooling.max_pool_grad(x, dy, **_pool), apart(b, 4, 4, 2), real(b, 2, 2, 2), want=_max_pull)  # fmt: skip
row("average_pool_grad", lambda dy: pooling.average_pool_grad(dy, input_shape=(dy.shape[0], 4, 4, 2), **_pool), real(b, 2, 2, 2), want=lambda dy: np.repeat(np.repeat(dy / 4, 2, 1), 2, 2))  # fmt: skip

# --- normalization, losses ----------------------------------------------------------------------------------------


def _standard(x, axis):
    mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3), mean, variance


row("standardize", lambda x: normalization.standardize(x, (0, 1), 1e-3), real(b, 4, 2), want=lambda x: _standard(x, (0, 1)))  # fmt: skip
row("standardize", lambda x, g: normalization.layer_norm(x, g), real(b, 4), positive(4), want=lambda x, g: _standard(x, -1)[0] * g, label="layer")  # fmt: skip


def _batch_normal(x, gamma, beta, valid):
    """In float64, with each row weighted."""
    x, weight = x.astype(float), np.broadcast_to(valid.reshape(-1, 1, 1).astype(float), x.shape)
    mean = np.average(x, (0, 1), weight)
    variance = np.average((x - mean) ** 2, (0, 1), weight)
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, mean, variance


def _batch_norm_pull(x, dy, gamma, beta, valid):
    """Ioffe and Szegedy (2015), section 3, with weighted rows."""
    y, _, variance = _batch_normal(x, np.ones_like(gamma), np.zeros_like(beta), valid)
    weight = valid.reshape(-1, 1, 1) / (valid.sum() * x.shape[1])
    dbeta, dgamma = dy.sum((0, 1)), (dy * y).sum((0, 1))
    return gamma / np.sqrt(variance + 1e-3) * (dy - weight * (dbeta + y * dgamma)), dgamma, dbeta


def _norm_grad(x, dy, gamma, beta, valid):
    _, mean, variance = normalization.batch_norm(x, gamma, beta, valid)
    attrs = {"epsilon": 1e-3, "relu": False, "has_valid": True}
    return items(normalization.batch_norm_grad(x, dy, gamma, beta, mean, variance, valid, **attrs))


row("batch_norm", lambda x, g, beta, v: normalization.batch_norm(x, g, beta, v), real(b, 4, 3), positive(3), real(3), positive(b), want=_batch_normal, gradient=False)  # fmt: skip
row("batch_norm", lambda x, g, beta: normalization.batch_norm(x, g, beta)[0], real(b, 4, 3), positive(3), real(3), want=lambda x, g, beta: _batch_normal(x, g, beta, np.ones(len(x)))[0], label="all rows")  # fmt: skip
row("batch_norm_grad", _norm_grad, real(b, 4, 3), real(b, 4, 3), positive(3), real(3), positive(b), want=_batch_norm_pull, gradient=False)  # fmt: skip
row("layer_norm", lambda *v: layer_normalization.layer_norm(*v, 1e-3), real(b, 3, 5), positive(5), real(5), want=lambda x, g, h: _standard(x, -1)[0] * g + h)  # fmt: skip
row("layer_norm_grad", lambda *v: pulled(lambda *w: layer_normalization.layer_norm(*w, 1e-3), *v), real(b, 5), positive(5), real(5), eager=False)  # fmt: skip
row(
    "sparse_softmax_cross_entropy",
    losses.sparse_softmax_cross_entropy,
    real(b, 4),
    ints(4, b),
    want=lambda x, k: -scipy.special.log_softmax(x, -1)[np.arange(len(k)), k],
)


def _adam(w, g, m, v, alpha):
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    return [w - alpha * m / (np.sqrt(v) + 1e-7), m, v]


row("adam", lambda *a: optimizers.adam(*a, 0.9, 0.99, 1e-7), real(b), real(b), real(b), positive(b), positive(), want=_adam, gradient=False)  # fmt: skip
row("softmax_cross_entropy", losses.softmax_cross_entropy, real(b, 4), unit(b, 4), want=lambda x, t: -(t * scipy.special.log_softmax(x, -1)).sum(-1))  # fmt: skip
row(
    "sigmoid_cross_entropy",
    losses.sigmoid_cross_entropy,
    real(b, 4),
    unit(b, 4),
    want=lambda x, t: softplus(x) - x * t,
)

# --- integers ------------------------------------------------------------------------------------------------------


def bytes_of(dtype, *shape):
    low, high = (0, 256) if dtype == "uint8" else (-127, 128)
    return Input(shape, lambda rng, s: rng.integers(low, high, s).astype(dtype))


def _by_integers(total, m, t, addend=None, relu=False, upper=None, add_scale=0.0, dtype="float32"):
    y = total * m.astype(np.float64) + t + (0 if addend is None else addend * np.float64(add_scale))
    y = np.maximum(y, 0) if relu else y
    y = y if upper is None else np.minimum(y, upper)
    return (
        y
        if dtype == "float32"
        else np.clip(np.round(y), *((0, 255) if dtype == "uint8" else (-128, 127))).astype(dtype)
    )


_plain = {"relu": False, "upper": None, "add_scale": 0.0, "dtype": "float32"}
_relu = {"relu": True, "upper": 90.0, "add_scale": 0.25, "dtype": "uint8"}
_window = {"strides": (2, 1), "padding": "same", "dilation": (1, 1), "groups": 1}
_small = Input((4,), lambda rng, s: rng.uniform(1e-3, 3e-3, s).astype("f"))
row("quantize", lambda x: quantised.quantize_op(x, scale=0.01, dtype="int8"), real(b, 5), want=lambda x: np.clip(np.round(x / 0.01), -127, 127).astype("int8"), gradient=False)  # fmt: skip
row("quantize", lambda x: quantised.quantize_op(x, scale=0.01, dtype="uint8"), real(b, 5), want=lambda x: np.clip(np.round(x / 0.01), 0, 255).astype("uint8"), gradient=False, label="uint8")  # fmt: skip
row(
    "dequantize",
    lambda q: quantised.dequantize_op(q, scale=0.01),
    bytes_of("uint8", b, 5),
    want=lambda q: q * 0.01,
    gradient=False,
)
row("quantised_dense", lambda *v: quantised.quantised_dense(*v, **_plain), bytes_of("uint8", b, 3, 7), bytes_of("int8", 7, 4), _small, real(4), want=lambda x, k, m, t: _by_integers(x.astype(int) @ k.astype(int), m, t), gradient=False)  # fmt: skip
row("quantised_dense", lambda *v: quantised.quantised_dense(*v, **_relu), bytes_of("int8", b, 7), bytes_of("int8", 7, 4), _small, real(4), bytes_of("uint8", b, 4), want=lambda x, k, *v: _by_integers(x.astype(int) @ k.astype(int), *v, **_relu), gradient=False, label="addend")  # fmt: skip
row("quantised_conv", lambda *v: quantised.quantised_conv(*v, **_window, **_plain), bytes_of("int8", b, 5, 5, 3), bytes_of("int8", 3, 2, 3, 4), _small, real(4), want=lambda x, k, m, t: _by_integers(_conv_by_numpy(x.astype(float), k.astype(float), strides=(2, 1), padding="same"), m, t), gradient=False)  # fmt: skip
row("quantised_conv", lambda *v: quantised.quantised_conv(*v, **_window, **_relu), bytes_of("uint8", b, 5, 5, 300), bytes_of("int8", 3, 2, 300, 4), _small, real(4), bytes_of("int8", b, 3, 5, 4), want=lambda x, k, *v: _by_integers(_conv_by_numpy(x.astype(float), k.astype(float), strides=(2, 1), padding="same"), *v, **_relu), gradient=False, label="sums beyond 2^24")  # fmt: skip

# --- random: values are checked in test_random.py -----------------------------------------------------------------

row("fold_in", lambda k: random.fold_in(k, 3), words(2))
row("random_bits_rows", lambda k, n: random.random_bits_rows(k, n, salt=1, shape=(2, 3)), words(2), words(b))
row("random_bits", lambda k: random.random_bits(k, salt=1, shape=(2, 3)), words(2))
row("bits_to_uniform", random.bits_to_uniform, words(b, 3), want=lambda k: (k >> 8) / np.float32(2**24))
row("bits_to_normal", random.bits_to_normal, words(b, 3), want=lambda k: scipy.special.ndtri(((k >> 8) + 0.5) / 2**24), tolerance=1e-4)  # fmt: skip
_tail = scipy.special.ndtr(-2)
row("bits_to_truncated_normal", random.bits_to_truncated_normal, words(b, 3), want=lambda k: scipy.special.ndtri(_tail + ((k >> 8) + 0.5) / 2**24 * (1 - 2 * _tail)), tolerance=1e-4)  # fmt: skip
