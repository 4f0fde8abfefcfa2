"""Margin losses: hinge, squared and categorical hinge."""

from __future__ import annotations

from .. import ops
from .base import BuiltInLoss
from .regression import as_pair


def _signed(y_true):
    """Labels {0, 1} as {-1, 1}; others as they are. Decided once for all labels given."""
    binary = ops.all(ops.logical_or(ops.equal(y_true, 0.0), ops.equal(y_true, 1.0)))
    return ops.where(binary, 2.0 * y_true - 1.0, y_true)


def hinge(y_true, y_pred):
    """mean max(1 - y p, 0) over the last axis, y in {-1, 1} or {0, 1}."""
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    return ops.mean(ops.maximum(1.0 - _signed(y_true) * y_pred, 0.0), axis=-1)


def squared_hinge(y_true, y_pred):
    """mean max(1 - y p, 0)^2 over the last axis, y in {-1, 1} or {0, 1}."""
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    return ops.mean(ops.square(ops.maximum(1.0 - _signed(y_true) * y_pred, 0.0)), axis=-1)


def categorical_hinge(y_true, y_pred):
    """max(max_c (1 - y_c) p_c - sum_c y_c p_c + 1, 0), y one-hot."""
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    right = ops.sum(y_true * y_pred, axis=-1)
    wrong = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(wrong - right + 1.0, 0.0)


class Hinge(BuiltInLoss):
    """mean max(1 - y p, 0)."""

    def __init__(self, reduction="sum_over_batch_size", name="hinge", dtype=None):
        super().__init__(hinge, reduction, name, dtype)


class SquaredHinge(BuiltInLoss):
    """mean max(1 - y p, 0)^2."""

    def __init__(self, reduction="sum_over_batch_size", name="squared_hinge", dtype=None):
        super().__init__(squared_hinge, reduction, name, dtype)


class CategoricalHinge(BuiltInLoss):
    """max(best wrong class - right class + 1, 0)."""

    def __init__(self, reduction="sum_over_batch_size", name="categorical_hinge", dtype=None):
        super().__init__(categorical_hinge, reduction, name, dtype)
