"""Losses between numbers: squared, absolute, relative, logarithmic errors, Huber, log-cosh, cosine."""

from __future__ import annotations

import math

from .. import ops
from .base import BuiltInLoss, squeeze_or_expand_to_same_rank

EPSILON = 1e-7


def as_pair(y_true, y_pred, align=True):
    """Both as tensors of the dtype of `y_pred` (float32 for integers) and, if `align`, of one rank."""
    y_pred = ops.convert_to_tensor(y_pred)
    if "float" not in str(y_pred.dtype):
        y_pred = ops.cast(y_pred, "float32")
    y_true = ops.cast(ops.convert_to_tensor(y_true), y_pred.dtype)
    return squeeze_or_expand_to_same_rank(y_true, y_pred) if align else (y_true, y_pred)


def fits(shape, expected) -> bool:
    """Whether two shapes are equal where both sizes are known."""
    return len(shape) == len(expected) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(shape, expected, strict=True)
    )


def l2_normalized(x, axis=-1):
    """`x` over its L2 norm along `axis`; zeros stay zeros."""
    squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return ops.divide(x, ops.sqrt(ops.maximum(squares, 1e-12)))


def mean_squared_error(y_true, y_pred):
    """mean (y - p)^2 over the last axis.

    >>> import kerasoft as ks
    >>> ks.losses.mean_squared_error([[0.0, 1.0]], [[1.0, 3.0]]).tolist()
    [2.5]
    """
    y_true, y_pred = as_pair(y_true, y_pred)
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def mean_absolute_error(y_true, y_pred):
    """mean |y - p| over the last axis."""
    y_true, y_pred = as_pair(y_true, y_pred)
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def mean_absolute_percentage_error(y_true, y_pred):
    """100 mean |y - p| / max(|y|, 1e-7) over the last axis."""
    y_true, y_pred = as_pair(y_true, y_pred)
    return 100.0 * ops.mean(ops.abs((y_true - y_pred) / ops.maximum(ops.abs(y_true), EPSILON)), axis=-1)


def mean_squared_logarithmic_error(y_true, y_pred):
    """mean (log(1 + y) - log(1 + p))^2 over the last axis, both at least 1e-7."""
    y_true, y_pred = as_pair(y_true, y_pred)
    first, second = (ops.log(ops.maximum(x, EPSILON) + 1.0) for x in (y_pred, y_true))
    return ops.mean(ops.square(first - second), axis=-1)


def cosine_similarity(y_true, y_pred, axis=-1):
    """-cos of the angle between y and p along `axis`: -1 for the same direction."""
    y_true, y_pred = as_pair(y_true, y_pred)
    return -ops.sum(l2_normalized(y_true, axis) * l2_normalized(y_pred, axis), axis=axis)


def huber(y_true, y_pred, delta=1.0):
    """mean of e^2/2 where |e| <= delta, else delta |e| - delta^2/2, e = p - y."""
    y_true, y_pred = as_pair(y_true, y_pred)
    error = y_pred - y_true
    size = ops.abs(error)
    inside = 0.5 * ops.square(error)
    return ops.mean(ops.where(ops.less_equal(size, delta), inside, delta * size - 0.5 * delta * delta), axis=-1)


def log_cosh(y_true, y_pred):
    """mean log cosh (p - y) over the last axis, as e + softplus(-2e) - log 2."""
    y_true, y_pred = as_pair(y_true, y_pred)
    error = y_pred - y_true
    return ops.mean(error + ops.softplus(error * -2.0) - math.log(2.0), axis=-1)


class MeanSquaredError(BuiltInLoss):
    """mean (y - p)^2.

    >>> import kerasoft as ks
    >>> float(ks.losses.MeanSquaredError()([[0.0], [1.0]], [[1.0], [3.0]], sample_weight=[1.0, 0.5]))
    1.5
    """

    def __init__(self, reduction="sum_over_batch_size", name="mean_squared_error", dtype=None):
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(BuiltInLoss):
    """mean |y - p|."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_absolute_error", dtype=None):
        super().__init__(mean_absolute_error, reduction, name, dtype)


class MeanAbsolutePercentageError(BuiltInLoss):
    """100 mean |y - p| / |y|."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_absolute_percentage_error", dtype=None):
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


class MeanSquaredLogarithmicError(BuiltInLoss):
    """mean (log(1 + y) - log(1 + p))^2."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_squared_logarithmic_error", dtype=None):
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


class CosineSimilarity(BuiltInLoss):
    """-cos of the angle between y and p along `axis`."""

    left_out = (("axis", -1),)

    def __init__(self, axis=-1, reduction="sum_over_batch_size", name="cosine_similarity", dtype=None):
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)


class Huber(BuiltInLoss):
    """Squared error near zero, absolute error beyond `delta`."""

    left_out = (("delta", 1.0),)

    def __init__(self, delta=1.0, reduction="sum_over_batch_size", name="huber_loss", dtype=None):
        super().__init__(huber, reduction, name, dtype, delta=delta)


class LogCosh(BuiltInLoss):
    """mean log cosh (p - y)."""

    def __init__(self, reduction="sum_over_batch_size", name="log_cosh", dtype=None):
        super().__init__(log_cosh, reduction, name, dtype)
