"""Activation functions, each one node with a hand-written gradient where that is shorter than JAX's."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from . import arithmetic as a
from . import shape
from .arithmetic import _unary, tanh
from .registry import VJP, op

__all__ = ["tanh"]

_SELU_SCALE = 1.0507009873554805
_SELU_ALPHA = 1.6732632423543772


def _step(test: Any, x: Any, bound: float, dy: Any) -> Any:
    """dy where `test(x, bound)`, else 0."""
    return a.where(test(x, bound), dy, a.zeros_like(dy))


relu_op = _unary("relu", jax.nn.relu, "max(x, 0)", lambda x, y, dy: _step(a.greater, y, 0, dy))
relu6 = _unary(
    "relu6",
    jax.nn.relu6,
    "min(max(x, 0), 6)",
    lambda x, y, dy: a.where(a.logical_and(a.greater(x, 0), a.less(x, 6)), dy, a.zeros_like(dy)),
)
sigmoid = _unary(
    "sigmoid",
    jax.nn.sigmoid,
    "1 / (1 + exp(-x))",
    lambda x, y, dy: a.multiply(dy, a.multiply(y, a.subtract(1, y))),
)
softplus = _unary("softplus", jax.nn.softplus, "log(1 + exp(x))", lambda x, y, dy: a.multiply(dy, sigmoid(x)))
softsign = _unary(
    "softsign",
    jax.nn.soft_sign,
    "x / (1 + |x|)",
    lambda x, y, dy: a.divide(dy, a.square(a.add(a.absolute(x), 1))),
)
log_sigmoid = _unary(
    "log_sigmoid", jax.nn.log_sigmoid, "log(sigmoid(x))", lambda x, y, dy: a.multiply(dy, sigmoid(a.negative(x)))
)


def _silu_gradient(x: Any, y: Any, dy: Any) -> Any:
    s = sigmoid(x)
    return a.multiply(dy, a.add(s, a.multiply(y, a.subtract(1, s))))


silu = _unary("silu", jax.nn.silu, "x * sigmoid(x)", _silu_gradient)


def _mish_gradient(x: Any, y: Any, dy: Any) -> Any:
    t = tanh(softplus(x))
    return a.multiply(dy, a.add(t, a.multiply(a.multiply(x, sigmoid(x)), a.subtract(1, a.square(t)))))


mish = _unary("mish", jax.nn.mish, "x * tanh(softplus(x))", _mish_gradient)
hard_sigmoid = _unary(
    "hard_sigmoid",
    jax.nn.hard_sigmoid,
    "relu6(x + 3) / 6",
    lambda x, y, dy: a.where(a.logical_and(a.greater(x, -3), a.less(x, 3)), a.multiply(dy, 1 / 6), a.zeros_like(dy)),
)
hard_tanh = _unary(
    "hard_tanh",
    jax.nn.hard_tanh,
    "x kept inside [-1, 1]",
    lambda x, y, dy: a.where(a.logical_and(a.greater(x, -1), a.less(x, 1)), dy, a.zeros_like(dy)),
)
hard_silu = _unary(
    "hard_silu",
    jax.nn.hard_silu,
    "x * hard_sigmoid(x)",
    lambda x, y, dy: a.add(a.multiply(dy, hard_sigmoid(x)), _inside_slope(x, dy)),
)


def _inside_slope(x: Any, dy: Any) -> Any:
    inside = a.logical_and(a.greater(x, -3), a.less(x, 3))
    return a.where(inside, a.multiply(dy, a.multiply(x, 1 / 6)), a.zeros_like(dy))


def _gelu_gradient(n: Any, dy: Any) -> tuple:
    x = n.inputs[0]
    if n.attrs["approximate"]:
        c = math.sqrt(2 / math.pi)
        cubic = a.multiply(x, a.add(a.multiply(a.square(x), 0.044715), 1))
        t = tanh(a.multiply(cubic, c))
        inner = a.multiply(a.add(a.multiply(a.square(x), 3 * 0.044715), 1), c)
        slope = a.add(
            a.multiply(a.add(t, 1), 0.5), a.multiply(a.multiply(a.multiply(x, 0.5), a.subtract(1, a.square(t))), inner)
        )
    else:
        density = a.multiply(a.exp(a.multiply(a.square(x), -0.5)), 1 / math.sqrt(2 * math.pi))
        slope = a.add(a.multiply(a.add(a.erf(a.multiply(x, math.sqrt(0.5))), 1), 0.5), a.multiply(x, density))
    return (a.multiply(dy, slope),)


gelu_op = op(
    "gelu",
    lower=lambda x, *, approximate: jax.nn.gelu(x, approximate=approximate),
    gradient=_gelu_gradient,
    doc="x * Phi(x), exact or by tanh: (...) -> (...).",
)
elu_op = op(
    "elu",
    lower=lambda x, *, alpha: jax.nn.elu(x, alpha),
    gradient=lambda n, dy: (a.where(a.greater(n.inputs[0], 0), dy, a.multiply(dy, a.add(n, n.attrs["alpha"]))),),
    doc="x, and alpha * (exp(x) - 1) for x <= 0: (...) -> (...).",
)
celu_op = op(
    "celu",
    lower=lambda x, *, alpha: jax.nn.celu(x, alpha),
    gradient=lambda n, dy: (
        a.where(a.greater(n.inputs[0], 0), dy, a.multiply(dy, a.add(a.multiply(n, 1 / n.attrs["alpha"]), 1))),
    ),
    doc="x, and alpha * (exp(x / alpha) - 1) for x <= 0: (...) -> (...).",
)
selu = _unary(
    "selu",
    jax.nn.selu,
    "scale * elu(x, alpha), keeping mean and variance",
    lambda x, y, dy: a.where(
        a.greater(x, 0), a.multiply(dy, _SELU_SCALE), a.multiply(dy, a.add(y, _SELU_SCALE * _SELU_ALPHA))
    ),
)
leaky_relu_op = op(
    "leaky_relu",
    lower=lambda x, *, negative_slope: jax.nn.leaky_relu(x, negative_slope),
    gradient=lambda n, dy: (a.where(a.greater_equal(n.inputs[0], 0), dy, a.multiply(dy, n.attrs["negative_slope"])),),
    doc="x, and negative_slope * x for x < 0: (...) -> (...).",
)
softmax_op = op(
    "softmax",
    lower=lambda x, *, axis: jax.nn.softmax(x, axis=axis),
    gradient=lambda n, dy: (
        a.multiply(n, a.subtract(dy, shape.sum(a.multiply(dy, n), axis=n.attrs["axis"], keepdims=True))),
    ),
    doc="exp(x) / sum(exp(x)) over `axis`, an int or a tuple: (...) -> (...).",
)
log_softmax_op = op(
    "log_softmax",
    lower=lambda x, *, axis: jax.nn.log_softmax(x, axis=axis),
    gradient=lambda n, dy: (a.subtract(dy, a.multiply(a.exp(n), shape.sum(dy, axis=n.attrs["axis"], keepdims=True))),),
    doc="log(softmax(x)) over `axis`: (...) -> (...).",
)
sparsemax_op = op(
    "sparsemax",
    lower=lambda x, *, axis: _sparsemax(x, axis),
    gradient=VJP,
    doc="The nearest point of the probability simplex, over `axis`: (...) -> (...).",
)


def _sparsemax(x: Any, axis: int) -> jax.Array:
    """Source: Martins and Astudillo 2016, algorithm 1."""
    x = jnp.moveaxis(x, axis, -1)
    ordered = jnp.flip(jnp.sort(x, axis=-1), -1)
    sums = jnp.cumsum(ordered, axis=-1)
    ranks = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = 1 + ranks * ordered > sums
    count = jnp.sum(support, axis=-1, keepdims=True)
    threshold = (jnp.sum(jnp.where(support, ordered, 0), axis=-1, keepdims=True) - 1) / count.astype(x.dtype)
    return jnp.moveaxis(jnp.maximum(x - threshold, 0), -1, axis)


# --- with Keras' arguments ----------------------------------------------------------------------------------------


def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:
    """x where x >= threshold (capped at max_value), negative_slope * (x - threshold) below it."""
    if threshold == 0 and max_value is None:
        return relu_op(x) if negative_slope == 0 else leaky_relu_op(x, negative_slope=float(negative_slope))
    if threshold == 0 and max_value == 6 and negative_slope == 0:
        return relu6(x)
    kept = a.where(a.greater(x, threshold), x, a.zeros_like(x)) if threshold else relu_op(x)
    if max_value is not None:
        kept = a.clip(kept, 0.0, float(max_value))
    if negative_slope == 0:
        return kept
    below = a.multiply(relu_op(a.subtract(threshold, x)), float(negative_slope))
    return a.subtract(kept, below)


def gelu(x: Any, approximate: bool = False) -> Any:
    """x * Phi(x): exact, or by tanh."""
    return gelu_op(x, approximate=bool(approximate))


def elu(x: Any, alpha: float = 1.0) -> Any:
    """x, and alpha * (exp(x) - 1) for x <= 0."""
    return elu_op(x, alpha=float(alpha))


def celu(x: Any, alpha: float = 1.0) -> Any:
    """x, and alpha * (exp(x / alpha) - 1) for x <= 0."""
    return celu_op(x, alpha=float(alpha))


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x, and negative_slope * x for x < 0."""
    return leaky_relu_op(x, negative_slope=float(negative_slope))


def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) / sum(exp(x)) over `axis`."""
    return softmax_op(x, axis=axis)


def log_softmax(x: Any, axis: Any = -1) -> Any:
    """log(softmax(x)) over `axis`."""
    return log_softmax_op(x, axis=axis)


def sparsemax(x: Any, axis: int = -1) -> Any:
    """The nearest point of the probability simplex, over `axis`."""
    return sparsemax_op(x, axis=axis)


def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """x where x > threshold, else default_value."""
    return a.where(a.greater(x, threshold), x, a.multiply(a.ones_like(x), default_value))


def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x moved towards 0 by threshold, 0 inside [-threshold, threshold]."""
    return a.subtract(relu_op(a.subtract(x, threshold)), relu_op(a.subtract(a.negative(x), threshold)))


def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x, but 0 inside [-threshold, threshold]."""
    return a.where(a.greater(a.absolute(x), threshold), x, a.zeros_like(x))


def tanh_shrink(x: Any) -> Any:
    """x - tanh(x)."""
    return a.subtract(x, tanh(x))


def squareplus(x: Any, b: float = 4.0) -> Any:
    """(x + sqrt(x * x + b)) / 2."""
    return a.multiply(a.add(x, a.sqrt(a.add(a.square(x), b))), 0.5)


def glu(x: Any, axis: int = -1) -> Any:
    """The first half of `axis` times the sigmoid of the second: (..., 2n, ...) -> (..., n, ...)."""
    value, gate = shape.split(x, 2, axis)
    return a.multiply(value, sigmoid(gate))


def sparse_plus(x: Any) -> Any:
    """0 for x <= -1, (x + 1)² / 4 between, x for x >= 1."""
    middle = a.multiply(a.square(a.add(x, 1)), 0.25)
    return a.where(a.less_equal(x, -1), a.zeros_like(x), a.where(a.less(x, 1), middle, x))


def sparse_sigmoid(x: Any) -> Any:
    """(x + 1) / 2 kept inside [0, 1]."""
    return a.clip(a.multiply(a.add(x, 1), 0.5), 0.0, 1.0)
