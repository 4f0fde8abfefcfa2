"""Means of losses as metrics: regression errors, hinges, cross entropies, divergences."""

from __future__ import annotations

from .. import losses, ops
from ..losses.probabilistic import _sparse_pair
from .reduction import FunctionMetric


def cosine_similarity(y_true, y_pred, axis=-1):
    """cos of the angle between y and p along `axis` (the loss of this name is its negative)."""
    return -losses.cosine_similarity(y_true, y_pred, axis=axis)


class _Error(FunctionMetric):
    _direction = "down"


class MeanSquaredError(_Error):
    """Mean of (y - p)^2."""

    def __init__(self, name="mean_squared_error", dtype=None):
        super().__init__(losses.mean_squared_error, name, dtype)


class MeanAbsoluteError(_Error):
    """Mean of |y - p|."""

    def __init__(self, name="mean_absolute_error", dtype=None):
        super().__init__(losses.mean_absolute_error, name, dtype)


class MeanAbsolutePercentageError(_Error):
    """Mean of 100 |y - p| / |y|."""

    def __init__(self, name="mean_absolute_percentage_error", dtype=None):
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


class MeanSquaredLogarithmicError(_Error):
    """Mean of (log(1 + y) - log(1 + p))^2."""

    def __init__(self, name="mean_squared_logarithmic_error", dtype=None):
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


class LogCoshError(_Error):
    """Mean of log cosh (p - y)."""

    def __init__(self, name="logcosh", dtype=None):
        super().__init__(losses.log_cosh, name, dtype)


class CosineSimilarity(FunctionMetric):
    """Mean cos of the angle between y and p: 1 for the same direction."""

    _direction = "up"
    left_out = (("axis", -1),)

    def __init__(self, name="cosine_similarity", dtype=None, axis=-1):
        super().__init__(cosine_similarity, name, dtype, axis=axis)


class Hinge(_Error):
    """Mean of max(1 - y p, 0)."""

    def __init__(self, name="hinge", dtype=None):
        super().__init__(losses.hinge, name, dtype)


class SquaredHinge(_Error):
    """Mean of max(1 - y p, 0)^2."""

    def __init__(self, name="squared_hinge", dtype=None):
        super().__init__(losses.squared_hinge, name, dtype)


class CategoricalHinge(_Error):
    """Mean of max(best wrong class - right class + 1, 0)."""

    def __init__(self, name="categorical_hinge", dtype=None):
        super().__init__(losses.categorical_hinge, name, dtype)


class KLDivergence(_Error):
    """Mean of sum y log(y / p)."""

    def __init__(self, name="kl_divergence", dtype=None):
        super().__init__(losses.kl_divergence, name, dtype)


class Poisson(_Error):
    """Mean of p - y log p."""

    def __init__(self, name="poisson", dtype=None):
        super().__init__(losses.poisson, name, dtype)


class BinaryCrossentropy(_Error):
    """Mean binary cross entropy."""

    def __init__(self, name="binary_crossentropy", dtype=None, from_logits=False, label_smoothing=0):
        arguments = dict(from_logits=from_logits, label_smoothing=label_smoothing)
        super().__init__(losses.binary_crossentropy, name, dtype, **arguments)


class CategoricalCrossentropy(_Error):
    """Mean cross entropy of one-hot labels."""

    def __init__(self, name="categorical_crossentropy", dtype=None, from_logits=False, label_smoothing=0, axis=-1):
        arguments = dict(from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)
        super().__init__(losses.categorical_crossentropy, name, dtype, **arguments)


class SparseCategoricalCrossentropy(_Error):
    """Mean cross entropy of integer labels; those equal to `ignore_class` count as 0 (with weights: not at all)."""

    def __init__(
        self, name="sparse_categorical_crossentropy", dtype=None, from_logits=False, ignore_class=None, axis=-1
    ):
        arguments = dict(from_logits=from_logits, ignore_class=ignore_class, axis=axis)
        super().__init__(losses.sparse_categorical_crossentropy, name, dtype, **arguments)

    def _element_mask(self, y_true, y_pred):
        if self.ignore_class is None:
            return None
        return ops.not_equal(_sparse_pair(y_true, y_pred, self.axis)[0], int(self.ignore_class))
