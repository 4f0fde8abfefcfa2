"""How often predictions match labels."""

from __future__ import annotations

from .. import ops
from ..losses.base import squeeze_or_expand_to_same_rank
from .reduction import FunctionMetric


def accuracy(y_true, y_pred):
    """1 where y equals p."""
    y_pred = ops.convert_to_tensor(y_pred)
    y_true, y_pred = squeeze_or_expand_to_same_rank(ops.cast(ops.convert_to_tensor(y_true), y_pred.dtype), y_pred)
    return ops.cast(ops.equal(y_true, y_pred), "float32")


def binary_accuracy(y_true, y_pred, threshold=0.5):
    """1 where p > threshold agrees with y in {0, 1}."""
    y_true, y_pred = squeeze_or_expand_to_same_rank(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred))
    return ops.cast(ops.equal(y_true, ops.cast(ops.greater(y_pred, threshold), y_true.dtype)), "float32")


def categorical_accuracy(y_true, y_pred):
    """1 where the largest of p is at the largest of y (one-hot)."""
    y_true, y_pred = (ops.argmax(ops.convert_to_tensor(y), axis=-1) for y in (y_true, y_pred))
    return ops.cast(ops.equal(y_true, y_pred), "float32")


def sparse_categorical_accuracy(y_true, y_pred):
    """1 where the largest of p is at the integer label y.

    >>> import kerasoft as ks
    >>> ks.metrics.sparse_categorical_accuracy([1, 0], [[0.1, 0.9], [0.2, 0.8]]).tolist()
    [1.0, 0.0]
    """
    y_true, y_pred = _labels(y_true, y_pred)
    matches = ops.cast(ops.equal(y_true, ops.cast(ops.argmax(y_pred, axis=-1), y_true.dtype)), "float32")
    return ops.squeeze(matches, axis=-1) if len(matches.shape) > 1 and matches.shape[-1] == 1 else matches


def top_k_categorical_accuracy(y_true, y_pred, k=5):
    """1 where at most k - 1 classes are predicted above the one of y (one-hot)."""
    return _in_top_k(ops.argmax(ops.convert_to_tensor(y_true), axis=-1), ops.convert_to_tensor(y_pred), k)


def sparse_top_k_categorical_accuracy(y_true, y_pred, k=5, from_sorted_ids=False):
    """1 where the integer label y is among the k largest of p (or, `from_sorted_ids`, among the first k ids in p)."""
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.convert_to_tensor(y_true)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    if from_sorted_ids:
        found = ops.equal(ops.expand_dims(ops.cast(y_true, y_pred.dtype), axis=-1), y_pred[..., :k])
        return ops.cast(ops.any(found, axis=-1), "float32")
    return _in_top_k(y_true, y_pred, k)


def _labels(y_true, y_pred):
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(ops.convert_to_tensor(y_true), y_pred.dtype)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    return y_true, y_pred


def _in_top_k(labels, y_pred, k):
    here = ops.greater(ops.one_hot(ops.cast(labels, "int32"), y_pred.shape[-1], dtype="float32"), 0.0)
    own = ops.max(ops.where(here, y_pred, -float("inf")), axis=-1)
    classes = y_pred.shape[-1]
    kth = ops.min(ops.top_k(y_pred, min(k, classes) if isinstance(classes, int) else k)[0], axis=-1)
    return ops.cast(ops.greater_equal(own, kth), "float32")


class Accuracy(FunctionMetric):
    """Share of predictions equal to their label."""

    _direction = "up"

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(FunctionMetric):
    """Share of labels in {0, 1} that p > threshold gives.

    >>> import kerasoft as ks
    >>> float(ks.metrics.BinaryAccuracy()([1, 1, 0, 0], [0.98, 1.0, 0.0, 0.6]))
    0.75
    """

    _direction = "up"

    def __init__(self, name="binary_accuracy", dtype=None, threshold=0.5):
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)


class CategoricalAccuracy(FunctionMetric):
    """Share of one-hot labels whose class has the largest prediction."""

    _direction = "up"

    def __init__(self, name="categorical_accuracy", dtype=None):
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(FunctionMetric):
    """Share of integer labels whose class has the largest prediction."""

    _direction = "up"

    def __init__(self, name="sparse_categorical_accuracy", dtype=None):
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(FunctionMetric):
    """Share of one-hot labels whose class is among the k largest predictions."""

    _direction = "up"

    def __init__(self, k=5, name="top_k_categorical_accuracy", dtype=None):
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)


class SparseTopKCategoricalAccuracy(FunctionMetric):
    """Share of integer labels whose class is among the k largest predictions."""

    _direction = "up"
    left_out = (("from_sorted_ids", False),)

    def __init__(self, k=5, name="sparse_top_k_categorical_accuracy", dtype=None, from_sorted_ids=False):
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids)
