"""F scores: harmonic means of precision and recall per class."""

from __future__ import annotations

from .. import ops
from .arrays import xp
from .base import EPSILON, Metric, value_of


class FBetaScore(Metric):
    """(1 + beta^2) precision recall / (beta^2 precision + recall).

    Args:
        average: None (one value per class), "micro" (all classes as one), "macro" (mean) or "weighted" (by positives).
        beta: weight of recall, a float above 0.
        threshold: decisions are p > threshold; None: the largest p of each row.

    Shapes: y_true and y_pred (batch, classes).

    >>> import kerasoft as ks
    >>> y = [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    >>> p = [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]]
    >>> [round(float(score), 4) for score in ks.metrics.FBetaScore(beta=2.0, threshold=0.5)(y, p)]
    [0.3846, 0.9091, 0.8333]
    """

    _direction = "up"

    def __init__(self, average=None, beta=1.0, threshold=None, name="fbeta_score", dtype=None):
        super().__init__(name=name, dtype=dtype)
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(
                "Invalid `average` argument value. Expected one of: {None, 'micro', 'macro', 'weighted'}. "
                f"Received: average={average}"
            )
        for argument, value in (("beta", beta), ("threshold", threshold)):
            if not isinstance(value, float) and not (argument == "threshold" and value is None):
                raise ValueError(
                    f"Invalid `{argument}` argument value. It should be a Python float. "
                    f"Received: {argument}={value} of type '{type(value)}'"
                )
        if beta <= 0.0:
            raise ValueError(f"Invalid `beta` argument value. It should be > 0. Received: beta={beta}")
        if threshold is not None and not 0.0 < threshold <= 1.0:
            raise ValueError(
                "Invalid `threshold` argument value. It should verify 0 < threshold <= 1. "
                f"Received: threshold={threshold}"
            )
        self.average, self.beta, self.threshold = average, beta, threshold
        self._built = False

    def _build(self, y_true, y_pred):
        if len(y_pred.shape) != 2 or len(y_true.shape) != 2 or not isinstance(y_pred.shape[-1], int):
            raise ValueError(
                "FBetaScore expects 2D inputs with shape (batch_size, output_dim). Received input shapes: "
                f"y_pred.shape={tuple(y_pred.shape)} and y_true.shape={tuple(y_true.shape)}."
            )
        shape = () if self.average == "micro" else (y_pred.shape[-1],)
        self.true_positives = self.add_variable(shape, dtype=self.dtype, name="true_positives")
        self.false_positives = self.add_variable(shape, dtype=self.dtype, name="false_positives")
        self.false_negatives = self.add_variable(shape, dtype=self.dtype, name="false_negatives")
        self.intermediate_weights = self.add_variable(shape, dtype=self.dtype, name="intermediate_weights")
        self._built = True

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.cast(ops.convert_to_tensor(y_true), "float32")
        y_pred = ops.cast(ops.convert_to_tensor(y_pred), "float32")
        if not self._built:
            self._build(y_true, y_pred)
        if self.threshold is None:
            largest = ops.greater_equal(y_pred, ops.max(y_pred, axis=-1, keepdims=True))
            decided = ops.logical_and(largest, ops.greater(ops.abs(y_pred), 1e-9))
        else:
            decided = ops.greater(y_pred, self.threshold)
        decided = ops.cast(decided, "float32")
        weights = None
        if sample_weight is not None:
            weights = ops.expand_dims(ops.cast(ops.convert_to_tensor(sample_weight), "float32"), axis=1)

        def total(x):
            return ops.sum(x if weights is None else x * weights, axis=None if self.average == "micro" else 0)

        self.true_positives.assign_add(total(decided * y_true))
        self.false_positives.assign_add(total(decided * (1.0 - y_true)))
        self.false_negatives.assign_add(total((1.0 - decided) * y_true))
        self.intermediate_weights.assign_add(total(y_true))

    def result(self):
        hits = value_of(self.true_positives)
        precision = hits / (hits + value_of(self.false_positives) + EPSILON)
        recall = hits / (hits + value_of(self.false_negatives) + EPSILON)
        score = precision * recall / (self.beta**2 * precision + recall + EPSILON) * (1 + self.beta**2)
        if self.average == "weighted":
            weights = value_of(self.intermediate_weights)
            return xp.sum(score * (weights / (xp.sum(weights) + EPSILON)))
        return score if self.average is None else xp.mean(score)

    def get_config(self) -> dict:
        config = {"average": self.average, "beta": self.beta, "threshold": self.threshold}
        return {**super().get_config(), **config}


class F1Score(FBetaScore):
    """2 precision recall / (precision + recall)."""

    def __init__(self, average=None, threshold=None, name="f1_score", dtype=None):
        super().__init__(average=average, beta=1.0, threshold=threshold, name=name, dtype=dtype)

    def get_config(self) -> dict:
        config = super().get_config()
        del config["beta"]
        return config
