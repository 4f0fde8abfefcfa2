"""Mean average precision of boxes, from histograms of scores that add up. Not in Keras."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..ops.dispatch import kernel
from .arrays import on_host, ratio, xp
from .base import Metric, value_of

INTERPOLATIONS = ("coco", "voc2007", "voc2010")


def _detections(y_true, y_pred, weights, *, classes, thresholds, bins, once):
    """Right and wrong detections by threshold, class and bin of scores, float32[thresholds, classes, bins, 2]."""
    import jax
    import jax.numpy as jnp

    limits = jnp.asarray(thresholds, "float32")

    def image(truth, found):
        label, given, score = truth[:, 4], found[:, 4], found[:, 5]
        corner = jnp.minimum(truth[None, :, 2:4], found[:, None, 2:4]) - jnp.maximum(
            truth[None, :, :2], found[:, None, :2]
        )
        common = jnp.prod(jnp.maximum(corner, 0.0), axis=-1)
        areas = [jnp.prod(jnp.maximum(x[:, 2:4] - x[:, :2], 0.0), axis=-1) for x in (truth, found)]
        union = areas[0][None, :] + areas[1][:, None] - common
        comparable = (label[None, :] == given[:, None]) & (label[None, :] >= 0.0)
        overlap = jnp.where(comparable, common / jnp.where(union > 0.0, union, 1.0), -1.0)
        order = jnp.argsort(jnp.where(given >= 0.0, -score, jnp.inf), stable=True)

        def at(limit):
            def step(taken, i):
                row = overlap[i] if once else jnp.where(taken, -1.0, overlap[i])
                best = jnp.argmax(row)
                hit = (row[best] >= limit) & ~taken[best]
                return taken.at[best].set(taken[best] | hit), hit

            hits = jax.lax.scan(step, jnp.zeros(label.shape, bool), order)[1]
            return jnp.zeros(given.shape, bool).at[order].set(hits)

        return jax.vmap(at)(limits)

    hits = jax.vmap(image)(y_true, y_pred)  # (batch, thresholds, detections)
    given, score = y_pred[..., 4], y_pred[..., 5]
    counted = jnp.where((given >= 0.0) & (given < classes), weights[:, None], 0.0)
    cell = jnp.clip(given, 0, classes - 1).astype("int32") * bins
    cell = (cell + jnp.clip(jnp.floor(score * bins), 0, bins - 1).astype("int32")).reshape(-1)

    def histogram(right):
        sums = [jax.ops.segment_sum((counted * x).reshape(-1), cell, classes * bins) for x in (right, 1.0 - right)]
        return jnp.stack(sums, axis=-1).reshape(classes, bins, 2)

    return jax.vmap(histogram)(jnp.swapaxes(hits, 0, 1).astype("float32"))


class MeanAveragePrecision(Metric):
    """Mean over classes and IoU thresholds of the average precision of detected boxes.

    A detection is right when it overlaps a box of its class that no better one has taken. Scores are counted in
    `num_bins` equal bins of [0, 1], and detections of one bin count as equally good; so sums over batches and workers give
    the same value as all images at once.

    Shapes: y_true (batch, boxes, 5) with left, top, right, bottom, class; y_pred (batch, detections, 6) with a score in
    [0, 1] behind these. A class of -1 is padding. sample_weight (batch,).

    Args:
        num_classes: classes are 0 ... num_classes - 1. Those without boxes are left out of the mean.
        iou_thresholds: overlaps (intersection over union) from which a detection is right.
        interpolation: "coco": precision at 101 recalls, a detection takes the best free box; "voc2007": at 11 recalls;
            "voc2010": the whole area. In both a second detection of the best box is wrong.
        num_bins: number of bins.

    Sources: Lin et al., Microsoft COCO; Everingham et al., The Pascal Visual Object Classes Challenge, section 4.2.

    >>> import kerasoft as ks
    >>> metric = ks.metrics.MeanAveragePrecision(1, iou_thresholds=[0.5])
    >>> boxes, found = [[[0, 0, 2, 2, 0]]], [[[0, 0, 2, 2, 0, 0.9], [5, 5, 6, 6, 0, 0.3]]]
    >>> float(metric(boxes, found))
    1.0
    """

    _direction = "up"

    def __init__(
        self,
        num_classes,
        iou_thresholds=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        interpolation="coco",
        num_bins=1000,
        name="mean_average_precision",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"Argument `interpolation` must be one of {INTERPOLATIONS}. Received: interpolation={interpolation}"
            )
        self.num_classes, self.interpolation, self.num_bins = num_classes, interpolation, num_bins
        self.iou_thresholds = [float(t) for t in iou_thresholds]
        shape = (len(self.iou_thresholds), num_classes, num_bins)
        self.right = self.add_variable(shape, name="right")
        self.wrong = self.add_variable(shape, name="wrong")
        self.boxes = self.add_variable((num_classes,), name="boxes")

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = (ops.cast(ops.convert_to_tensor(y), "float32") for y in (y_true, y_pred))
        for name, y, size in (("y_true", y_true, 5), ("y_pred", y_pred, 6)):
            if len(y.shape) != 3 or y.shape[2] != size:
                raise ValueError(
                    f"MeanAveragePrecision expects {name} of shape (batch, boxes, {size}): left, top, right, bottom, class"
                    f"{', score' if size == 6 else ''}. Received: {name}.shape={tuple(y.shape)}"
                )
        ones = ops.ones_like(y_true[:, 0, 0])
        weights = ones if sample_weight is None else ops.reshape(ops.cast(sample_weight, "float32"), (-1,)) * ones
        counts = kernel("detections", _detections)(
            y_true,
            y_pred,
            weights,
            classes=self.num_classes,
            thresholds=tuple(self.iou_thresholds),
            bins=self.num_bins,
            once=self.interpolation != "coco",
        )
        self.right.assign_add(counts[..., 0])
        self.wrong.assign_add(counts[..., 1])
        member = ops.one_hot(ops.cast(y_true[..., 4], "int32"), self.num_classes, dtype="float32")
        self.boxes.assign_add(ops.sum(ops.sum(member, axis=1) * ops.expand_dims(weights, axis=1), axis=0))

    def result(self):
        boxes = value_of(self.boxes)
        averages = xp.mean(self.average_precisions(), axis=0)
        return ratio(xp.sum(xp.where(boxes > 0, averages, 0.0)), xp.sum(xp.where(boxes > 0, 1.0, 0.0)))

    def average_precisions(self) -> Any:
        """The average precision of each threshold and class, (thresholds, classes)."""
        right, wrong = (xp.cumsum(xp.flip(value_of(v), axis=-1), axis=-1) for v in (self.right, self.wrong))
        precision = ratio(right, right + wrong)
        recall = ratio(right, xp.reshape(value_of(self.boxes), (1, -1, 1)) + xp.zeros_like(right))
        if self.interpolation == "voc2010":
            steps = xp.diff(xp.concatenate([xp.zeros_like(recall[..., :1]), recall], axis=-1), axis=-1)
            return xp.sum(steps * _best_from_here(precision), axis=-1)
        points = np.linspace(0.0, 1.0, 101 if self.interpolation == "coco" else 11) - 1e-6

        def best(point):
            return xp.max(xp.where(recall >= point, precision, 0.0), axis=-1)

        if on_host(recall):
            return sum(map(best, points)) / len(points)
        import jax

        return jax.lax.map(best, points.astype("float32")).mean(axis=0)

    def get_config(self) -> dict:
        names = ("num_classes", "iou_thresholds", "interpolation", "num_bins")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _best_from_here(precision):
    """The largest of this and all later elements along the last axis."""
    if on_host(precision):
        return np.flip(np.maximum.accumulate(np.flip(precision, axis=-1), axis=-1), axis=-1)
    import jax

    return jax.lax.cummax(precision, axis=precision.ndim - 1, reverse=True)
