"""Activation functions by name. The formulas are ops; this is Keras's list of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import kerasoft

from .identifiers import Family, registered_name


def linear(x):
    """x."""
    return x


def relu(x, negative_slope=0.0, max_value=None, threshold=0.0):
    """x above `threshold` (at most `max_value`), `negative_slope * (x - threshold)` below.

    >>> relu(kerasoft.ops.array([-2.0, 1.0, 9.0]), negative_slope=0.5, max_value=6.0).tolist()
    [-1.0, 1.0, 6.0]
    """
    ops = kerasoft.ops
    if threshold == 0:
        kept = ops.relu6(x) if max_value == 6 else ops.relu(x)
    else:
        kept = ops.where(ops.greater(x, threshold), x, ops.zeros_like(x))
    if max_value is not None and (threshold != 0 or max_value != 6):
        kept = ops.clip(kept, 0.0, max_value)
    if not negative_slope:
        return kept
    below = ops.relu(ops.subtract(threshold, x))
    return ops.subtract(kept, ops.multiply(below, negative_slope))


def leaky_relu(x, negative_slope=0.2):
    """x, or `negative_slope * x` below 0."""
    return kerasoft.ops.leaky_relu(x, negative_slope=negative_slope)


def relu6(x):
    """min(max(x, 0), 6)."""
    return kerasoft.ops.relu6(x)


def softmax(x, axis=-1):
    """exp(x) / sum(exp(x)) over `axis`."""
    return kerasoft.ops.softmax(x, axis=axis)


def log_softmax(x, axis=-1):
    """The logarithm of `softmax`."""
    return kerasoft.ops.log_softmax(x, axis=axis)


def elu(x, alpha=1.0):
    """x, or `alpha * (exp(x) - 1)` below 0."""
    return kerasoft.ops.elu(x, alpha=alpha)


def celu(x, alpha=1.0):
    """x, or `alpha * (exp(x / alpha) - 1)` below 0."""
    return kerasoft.ops.celu(x, alpha=alpha)


def selu(x):
    """`elu` with the two constants that keep mean 0 and variance 1."""
    return kerasoft.ops.selu(x)


def gelu(x, approximate=False):
    """x times the normal distribution function of x, or its tanh approximation."""
    return kerasoft.ops.gelu(x, approximate=approximate)


def glu(x, axis=-1):
    """First half of x along `axis` times the sigmoid of the second."""
    return kerasoft.ops.glu(x, axis=axis)


def silu(x):
    """x * sigmoid(x)."""
    return kerasoft.ops.silu(x)


def mish(x):
    """x * tanh(softplus(x))."""
    ops = kerasoft.ops
    return ops.multiply(x, ops.tanh(ops.softplus(x)))


def softplus(x):
    """log(1 + exp(x))."""
    return kerasoft.ops.softplus(x)


def softsign(x):
    """x / (1 + |x|)."""
    return kerasoft.ops.softsign(x)


def squareplus(x, b=4):
    """(x + sqrt(x² + b)) / 2."""
    ops = kerasoft.ops
    return ops.divide(ops.add(x, ops.sqrt(ops.add(ops.square(x), float(b)))), 2.0)


def tanh(x):
    """Hyperbolic tangent."""
    return kerasoft.ops.tanh(x)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return kerasoft.ops.sigmoid(x)


def log_sigmoid(x):
    """The logarithm of `sigmoid`."""
    return kerasoft.ops.log_sigmoid(x)


def exponential(x):
    """exp(x)."""
    return kerasoft.ops.exp(x)


def hard_sigmoid(x):
    """relu6(x + 3) / 6."""
    return kerasoft.ops.hard_sigmoid(x)


def hard_silu(x):
    """x * hard_sigmoid(x)."""
    return kerasoft.ops.hard_silu(x)


def hard_tanh(x):
    """x cut off at -1 and 1."""
    return kerasoft.ops.clip(x, -1.0, 1.0)


def hard_shrink(x, threshold=0.5):
    """x where |x| > `threshold`, else 0."""
    ops = kerasoft.ops
    return ops.where(ops.greater(ops.abs(x), threshold), x, ops.zeros_like(x))


def soft_shrink(x, threshold=0.5):
    """x moved by `threshold` towards 0, and 0 in between."""
    ops = kerasoft.ops
    return ops.subtract(ops.relu(ops.subtract(x, threshold)), ops.relu(ops.subtract(ops.negative(x), threshold)))


def tanh_shrink(x):
    """x - tanh(x)."""
    return kerasoft.ops.subtract(x, kerasoft.ops.tanh(x))


def threshold(x, threshold, default_value):
    """x where x > `threshold`, else `default_value`."""
    ops = kerasoft.ops
    return ops.where(ops.greater(x, threshold), x, ops.full_like(x, default_value))


def sparse_plus(x):
    """0 below -1, (x + 1)² / 4 between -1 and 1, x above."""
    ops = kerasoft.ops
    middle = ops.divide(ops.square(ops.add(x, 1.0)), 4.0)
    return ops.where(ops.less_equal(x, -1.0), ops.zeros_like(x), ops.where(ops.less(x, 1.0), middle, x))


def sparse_sigmoid(x):
    """0 below -1, (x + 1) / 2 between -1 and 1, 1 above."""
    ops = kerasoft.ops
    return ops.clip(ops.divide(ops.add(x, 1.0), 2.0), 0.0, 1.0)


def sparsemax(x, axis=-1):
    """The point of the simplex nearest to x along `axis`: many exact zeros (Martins & Astudillo 2016)."""
    return kerasoft.ops.sparsemax(x, axis=axis)


_FUNCTIONS = {
    name: value
    for name, value in globals().items()
    if inspect.isfunction(value) and value.__module__ == __name__ and not name.startswith("_")
}
swish, hard_swish = silu, hard_silu
_FAMILY = Family("activation function", (), {**_FUNCTIONS, "swish": silu, "hard_swish": hard_silu})
deserialize = _FAMILY.deserialize


def get(identifier: Any) -> Callable:
    """The activation meant by a name, config or callable; None is `linear`.

    >>> get("swish").__name__
    'silu'

    Raises:
        ValueError: `identifier` is none of these.
    """
    if isinstance(identifier, Mapping) and identifier.get("class_name") != "function":
        return kerasoft.layers.deserialize(identifier)
    return linear if identifier is None else _FAMILY.get(identifier)


def serialize(activation: Any) -> Any:
    """The name of a built-in activation; the config of any other."""
    name = getattr(activation, "__name__", None)
    if inspect.isfunction(activation) and not registered_name(activation):
        # An op such as kerasoft.ops.relu is the activation of the same name.
        if _FUNCTIONS.get(name) is activation or (name in _FUNCTIONS and activation.__module__.startswith("kerasoft.")):
            return name
    return _FAMILY.serialize(activation)
