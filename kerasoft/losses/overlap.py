"""Losses over whole regions or batches: Dice and Tversky (overlap), Circle (pairs of embeddings)."""

from __future__ import annotations

from .. import ops
from .base import BuiltInLoss
from .regression import EPSILON, as_pair


def dice(y_true, y_pred, axis=None):
    """1 - 2 |y p| / (|y| + |p|), sums over `axis` (None: everything, rows too)."""
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    both = ops.sum(y_true * y_pred, axis=axis)
    return 1.0 - 2.0 * both / (ops.sum(y_true, axis=axis) + ops.sum(y_pred, axis=axis) + EPSILON)


def tversky(y_true, y_pred, alpha=0.5, beta=0.5, axis=None):
    """1 - |y p| / (|y p| + alpha |y (1 - p)| + beta |p (1 - y)|), sums over `axis`.

    Source: Salehi et al., Tversky loss function for image segmentation using 3D fully convolutional deep networks.
    """
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    both = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum((1.0 - y_pred) * y_true, axis=axis)
    invented = ops.sum(y_pred * (1.0 - y_true), axis=axis)
    return 1.0 - both / (both + missed * alpha + invented * beta + EPSILON)


def circle(y_true, y_pred, ref_labels=None, ref_embeddings=None, remove_diagonal=True, gamma=80, margin=0.4):
    """softplus(logsumexp of far positives + logsumexp of near negatives), one value a row.

    Shapes: y_true (batch,) labels, y_pred (batch, size) unit vectors -> (batch,).
    Source: Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, equation 6.
    """
    y_pred = ops.convert_to_tensor(y_pred)
    labels = ops.reshape(ops.cast(ops.convert_to_tensor(y_true), "int32"), (-1, 1))
    references = y_pred if ref_embeddings is None else ops.convert_to_tensor(ref_embeddings)
    if ref_labels is None:
        ref_labels = labels
    others = ops.reshape(ops.cast(ops.convert_to_tensor(ref_labels), "int32"), (1, -1))
    distance = ops.maximum(1.0 - ops.matmul(y_pred, ops.transpose(references)), 0.0)
    same = ops.equal(labels, others)
    different = ops.logical_not(same)
    if remove_diagonal:
        row, column = ops.cumsum(ops.ones_like(labels), axis=0), ops.cumsum(ops.ones_like(others), axis=1)
        same = ops.logical_and(same, ops.not_equal(row, column))
    positive, negative = ops.cast(same, distance.dtype), ops.cast(different, distance.dtype)
    far = ops.maximum((margin + distance) * positive, 0.0)
    near = ops.maximum((1.0 + margin - distance) * negative, 0.0)
    far_terms = ops.where(same, -gamma * far * (margin - distance), -float("inf"))
    near_terms = ops.where(different, gamma * near * (1.0 - margin - distance), -float("inf"))
    return ops.softplus(ops.logsumexp(far_terms, axis=1) + ops.logsumexp(near_terms, axis=1))


class Dice(BuiltInLoss):
    """1 - Dice coefficient. With `axis=None` over the whole batch; give the axes of one row for a loss per row."""

    def __init__(self, reduction="sum_over_batch_size", name="dice", axis=None, dtype=None):
        super().__init__(dice, reduction, name, dtype, axis=axis)


class Tversky(BuiltInLoss):
    """Dice with separate weights of misses (`alpha`) and inventions (`beta`)."""

    def __init__(self, alpha=0.5, beta=0.5, reduction="sum_over_batch_size", name="tversky", axis=None, dtype=None):
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)


class Circle(BuiltInLoss):
    """Pairs of the batch: pulls rows of one label together, pushes others apart."""

    def __init__(
        self, gamma=80.0, margin=0.4, remove_diagonal=True, reduction="sum_over_batch_size", name="circle", dtype=None
    ):
        super().__init__(circle, reduction, name, dtype, gamma=gamma, margin=margin, remove_diagonal=remove_diagonal)

    def element_mask(self, y_true, y_pred, values):
        return ops.greater(values, 0.0)
