"""Counts of right and wrong decisions at thresholds, and the ratios made of them."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..losses.base import squeeze_or_expand_to_same_rank
from .arrays import ratio, xp
from .base import EPSILON, Metric, value_of

LOWEST = -1e10
COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def parse_thresholds(thresholds, default: float) -> list[float]:
    """`thresholds` as a list in [0, 1]."""
    given = default if thresholds is None else thresholds
    given = list(given) if isinstance(given, (list, tuple, np.ndarray)) else [given]
    wrong = [] if thresholds is None else [t for t in given if t is None or not 0 <= t <= 1]
    if wrong:
        raise ValueError(f"Threshold values must be in [0, 1]. Received: {wrong}")
    return given


def evenly_spaced(thresholds) -> bool:
    """Whether thresholds are 0, 1/(n-1), ..., 1 (but for 1e-7), so that counting is a histogram."""
    n = len(thresholds)
    return n >= 3 and np.allclose(thresholds, np.arange(n, dtype=np.float32) / (n - 1), atol=EPSILON)


def confusion_counts(
    y_true, y_pred, thresholds, sample_weight=None, *, top_k=None, class_id=None, multi_label=False, label_weights=None
) -> dict:
    """Weighted counts of `COUNTS` for each threshold; positive means y_pred > threshold.

    Shapes: y_true, y_pred (batch, ...) -> each (thresholds,), or (thresholds, labels) if `multi_label`.
    """
    y_true = ops.cast(ops.convert_to_tensor(y_true), "float32")
    y_pred = ops.cast(ops.convert_to_tensor(y_pred), "float32")
    y_pred, y_true = squeeze_or_expand_to_same_rank(y_pred, y_true)
    weights = _row_weights(sample_weight, y_true)
    if top_k is not None:
        y_pred = _only_top_k(y_pred, top_k)
    if class_id is not None:
        if len(y_pred.shape) == 1:
            raise ValueError(
                "When class_id is provided, y_pred must be a 2D array with shape (num_samples, num_classes), found "
                f"shape: {tuple(y_pred.shape)}"
            )
        y_true, y_pred = y_true[..., class_id : class_id + 1], y_pred[..., class_id : class_id + 1]
    ones = ops.ones_like(y_pred)
    weights = ones if weights is None else ops.multiply(ones, weights)
    if label_weights is not None:
        weights = ops.multiply(weights, ops.convert_to_tensor(label_weights, dtype="float32"))
    y_true = ops.cast(ops.not_equal(y_true, 0.0), "float32")
    positive, negative = y_true * weights, (1.0 - y_true) * weights
    labels = y_pred.shape[-1] if multi_label else 1
    flat = [ops.reshape(x, (-1, labels)) for x in (positive, negative, y_pred)]
    count = _histogram_above if evenly_spaced(thresholds) else _compared_above
    above_positive, above_negative = count(*flat, thresholds, labels)
    all_positive, all_negative = (ops.sum(x, axis=0, keepdims=True) for x in flat[:2])
    found = {
        "true_positives": above_positive,
        "false_positives": above_negative,
        "true_negatives": all_negative - above_negative,
        "false_negatives": all_positive - above_positive,
    }
    return found if multi_label else {name: ops.squeeze(x, axis=1) for name, x in found.items()}


def _row_weights(sample_weight, y_true):
    if sample_weight is None:
        return None
    weights = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    missing = len(y_true.shape) - len(weights.shape)
    return ops.reshape(weights, tuple(weights.shape) + (1,) * missing) if missing > 0 else weights


def _only_top_k(y_pred, k):
    """`y_pred` with all but its k largest along the last axis replaced by a very low number."""
    chosen = ops.sum(ops.one_hot(ops.top_k(y_pred, k)[1], y_pred.shape[-1], dtype="float32"), axis=-2)
    return y_pred * chosen + LOWEST * (1.0 - chosen)


def _compared_above(positive, negative, y_pred, thresholds, labels):
    """Sums of the elements with y_pred > threshold, by comparing each with each threshold."""
    limits = np.asarray(thresholds, np.float32).reshape(-1, 1, 1)
    above = ops.cast(ops.greater(ops.expand_dims(y_pred, axis=0), limits), "float32")
    return tuple(ops.sum(above * ops.expand_dims(x, axis=0), axis=1) for x in (positive, negative))


def _histogram_above(positive, negative, y_pred, thresholds, labels):
    """The same for evenly spaced thresholds: a histogram, summed from the right. Linear in the elements."""
    n = len(thresholds)
    bucket = ops.ceil(ops.clip(y_pred, 0.0, 1.0) * float(n - 1)) - 1.0
    inside = ops.cast(ops.greater_equal(bucket, 0.0), "float32")
    if thresholds[0] < 0.0:  # a prediction of 0 lies above the first threshold
        inside = ops.ones_like(inside)
    bucket = ops.cast(ops.maximum(bucket, 0.0), "int32")
    if labels != 1:
        bucket = bucket * labels + np.arange(labels, dtype=np.int32)
    above = []
    for x in (positive, negative):
        flat, where = ops.reshape(x * inside, (-1,)), ops.reshape(bucket, (-1,))
        filled = ops.reshape(ops.segment_sum(flat, where, num_segments=n * labels), (n, labels))
        above.append(ops.flip(ops.cumsum(ops.flip(filled, axis=0), axis=0), axis=0))
    return tuple(above)


class _Count(Metric):
    kind = ""

    def __init__(self, thresholds=None, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds = thresholds
        self.thresholds = parse_thresholds(thresholds, 0.5)
        self.accumulator = self.add_variable((len(self.thresholds),), name="accumulator")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.accumulator.assign_add(confusion_counts(y_true, y_pred, self.thresholds, sample_weight)[self.kind])

    def result(self):
        counts = value_of(self.accumulator)
        return counts[0] if len(self.thresholds) == 1 else counts

    def get_config(self) -> dict:
        return {**super().get_config(), "thresholds": self.init_thresholds}


class TruePositives(_Count):
    """Weighted number of positives (y = 1) predicted above the threshold (0.5)."""

    kind = "true_positives"


class FalsePositives(_Count):
    """Weighted number of negatives predicted above the threshold."""

    kind = "false_positives"


class TrueNegatives(_Count):
    """Weighted number of negatives predicted at or below the threshold."""

    kind = "true_negatives"


class FalseNegatives(_Count):
    """Weighted number of positives predicted at or below the threshold."""

    kind = "false_negatives"


class _Ratio(Metric):
    """true positives / (true positives + `other`)."""

    _direction = "up"
    other = ""

    def __init__(self, thresholds=None, top_k=None, class_id=None, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds, self.top_k, self.class_id = thresholds, top_k, class_id
        self.thresholds = parse_thresholds(thresholds, 0.5 if top_k is None else LOWEST)
        shape = (len(self.thresholds),)
        self.true_positives = self.add_variable(shape, name="true_positives")
        setattr(self, self.other, self.add_variable(shape, name=self.other))

    def update_state(self, y_true, y_pred, sample_weight=None):
        chosen = dict(top_k=self.top_k, class_id=self.class_id)
        counts = confusion_counts(y_true, y_pred, self.thresholds, sample_weight, **chosen)
        self.true_positives.assign_add(counts["true_positives"])
        getattr(self, self.other).assign_add(counts[self.other])

    def result(self):
        hits = value_of(self.true_positives)
        result = ratio(hits, hits + value_of(getattr(self, self.other)))
        return result[0] if len(self.thresholds) == 1 else result

    def get_config(self) -> dict:
        config = {"thresholds": self.init_thresholds, "top_k": self.top_k, "class_id": self.class_id}
        return {**super().get_config(), **config}


class Precision(_Ratio):
    """Share of the predicted positives that are positive.

    >>> import kerasoft as ks
    >>> round(float(ks.metrics.Precision()([0, 1, 1, 1], [1, 0, 1, 1])), 4)
    0.6667
    """

    other = "false_positives"


class Recall(_Ratio):
    """Share of the positives that are predicted."""

    other = "false_negatives"


class _AtBound(Metric):
    """The best value of one ratio among the thresholds at which another is at least `value`."""

    _direction = "up"
    argument = ""
    sought: tuple[str, str] = ("", "")
    bounded: tuple[str, str] = ("", "")

    def __init__(self, value, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        if not 0 <= value <= 1:
            raise ValueError(
                f"Argument `{self.argument}` must be in the range [0, 1]. Received: {self.argument}={value}"
            )
        if num_thresholds <= 0:
            raise ValueError(
                f"Argument `num_thresholds` must be an integer > 0. Received: num_thresholds={num_thresholds}"
            )
        self.value, self.num_thresholds, self.class_id = value, num_thresholds, class_id
        self.thresholds = [0.5] if num_thresholds == 1 else [i / (num_thresholds - 1) for i in range(num_thresholds)]
        for name in COUNTS:
            setattr(self, name, self.add_variable((len(self.thresholds),), name=name))

    def update_state(self, y_true, y_pred, sample_weight=None):
        counts = confusion_counts(y_true, y_pred, self.thresholds, sample_weight, class_id=self.class_id)
        for name, count in counts.items():
            getattr(self, name).assign_add(count)

    def result(self):
        bounded, sought = (
            ratio(hits, hits + rest) for hits, rest in (map(self._count, self.bounded), map(self._count, self.sought))
        )
        return xp.max(xp.where(bounded >= self.value, sought, 0), initial=0)

    def _count(self, name):
        return value_of(getattr(self, name))

    def get_config(self) -> dict:
        config = {"num_thresholds": self.num_thresholds, self.argument: self.value, "class_id": self.class_id}
        return {**super().get_config(), **config}


_SENSITIVITY = ("true_positives", "false_negatives")
_SPECIFICITY = ("true_negatives", "false_positives")
_PRECISION = ("true_positives", "false_positives")


class SensitivityAtSpecificity(_AtBound):
    """The best sensitivity among thresholds with at least this specificity."""

    argument, bounded, sought = "specificity", _SPECIFICITY, _SENSITIVITY

    def __init__(self, specificity, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(specificity, num_thresholds, class_id, name, dtype)
        self.specificity = specificity


class SpecificityAtSensitivity(_AtBound):
    """The best specificity among thresholds with at least this sensitivity."""

    argument, bounded, sought = "sensitivity", _SENSITIVITY, _SPECIFICITY

    def __init__(self, sensitivity, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)
        self.sensitivity = sensitivity


class PrecisionAtRecall(_AtBound):
    """The best precision among thresholds with at least this recall."""

    argument, bounded, sought = "recall", _SENSITIVITY, _PRECISION

    def __init__(self, recall, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(recall, num_thresholds, class_id, name, dtype)
        self.recall = recall


class RecallAtPrecision(_AtBound):
    """The best recall among thresholds with at least this precision."""

    argument, bounded, sought = "precision", _PRECISION, _SENSITIVITY

    def __init__(self, precision, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(precision, num_thresholds, class_id, name, dtype)
        self.precision = precision
