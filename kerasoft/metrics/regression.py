"""Metrics of regression that are no mean of a loss: root mean square, R2, correlations."""

from __future__ import annotations

import warnings

import numpy as np

from .. import ops
from ..losses.regression import as_pair
from .arrays import on_host, ratio, xp
from .base import EPSILON, Metric, recording, value_of
from .reduction import FunctionMetric, Mean


class RootMeanSquaredError(Mean):
    """Root of the mean of (y - p)^2 over all rows.

    >>> import kerasoft as ks
    >>> float(ks.metrics.RootMeanSquaredError()([[0.0], [0.0]], [[3.0], [3.0]]))
    3.0
    """

    _direction = "down"

    def __init__(self, name="root_mean_squared_error", dtype=None):
        super().__init__(name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = as_pair(y_true, y_pred)
        super().update_state(ops.square(y_pred - y_true), sample_weight)

    def result(self):
        return xp.sqrt(super().result())


class R2Score(Metric):
    """1 - residual sum of squares / total sum of squares, for each output and then averaged.

    Args:
        class_aggregation: "uniform_average", "variance_weighted_average" or None (one value per output).
        num_regressors: number of independent variables for the adjusted score; 0 for the plain one.

    Shapes: y_true and y_pred (batch, outputs).
    """

    _direction = "up"

    def __init__(self, class_aggregation="uniform_average", num_regressors=0, name="r2_score", dtype=None):
        super().__init__(name=name, dtype=dtype)
        allowed = (None, "uniform_average", "variance_weighted_average")
        if class_aggregation not in allowed:
            raise ValueError(
                f"Invalid value for argument `class_aggregation`. Expected one of {allowed}. "
                f"Received: class_aggregation={class_aggregation}"
            )
        if num_regressors < 0:
            raise ValueError(
                "Invalid value for argument `num_regressors`. Expected a value >= 0. "
                f"Received: num_regressors={num_regressors}"
            )
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self.num_samples = self.add_variable((), name="num_samples")
        self._built = False

    def _build(self, y_true, y_pred):
        if len(y_pred.shape) != 2 or len(y_true.shape) != 2 or not isinstance(y_pred.shape[-1], int):
            raise ValueError(
                "R2Score expects 2D inputs with shape (batch_size, output_dim). Received input shapes: "
                f"y_pred.shape={tuple(y_pred.shape)} and y_true.shape={tuple(y_true.shape)}."
            )
        shape = (y_pred.shape[-1],)
        self.squared_sum = self.add_variable(shape, name="squared_sum")
        self.sum = self.add_variable(shape, name="sum")
        self.total_mse = self.add_variable(shape, name="residual")
        self.count = self.add_variable(shape, name="count")
        self._built = True

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = as_pair(y_true, y_pred)
        if not self._built:
            self._build(y_true, y_pred)
        ones = ops.ones_like(y_true)
        weights = ones
        if sample_weight is not None:
            weights = ops.cast(ops.convert_to_tensor(sample_weight), y_true.dtype)
            weights = ops.multiply(ones, ops.expand_dims(weights, axis=1) if len(weights.shape) == 1 else weights)
        record = recording()
        if record is not None and record.valid is not None:
            ones = ops.multiply(ones, ops.expand_dims(record.valid, axis=1))
        self.sum.assign_add(ops.sum(y_true * weights, axis=0))
        self.squared_sum.assign_add(ops.sum(y_true * y_true * weights, axis=0))
        self.total_mse.assign_add(ops.sum(ops.square(y_true - y_pred) * weights, axis=0))
        self.count.assign_add(ops.sum(weights, axis=0))
        self.num_samples.assign_add(ops.sum(ones))

    def result(self):
        total_sum, count = value_of(self.sum), value_of(self.count)
        total = value_of(self.squared_sum) - total_sum * (total_sum / count)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = 1 - value_of(self.total_mse) / total
        scores = xp.where(xp.isinf(scores), 0.0, scores).astype(total.dtype)
        if self.class_aggregation == "uniform_average":
            scores = xp.mean(scores)
        elif self.class_aggregation == "variance_weighted_average":
            scores = xp.sum(total * scores) / xp.sum(total)
        if not self.num_regressors:
            return scores
        samples = value_of(self.num_samples)
        adjusted = 1 - (1 - scores) * ratio(samples - 1, samples - self.num_regressors - 1)
        if not on_host(samples):
            return xp.where(self.num_regressors >= samples - 1, scores, adjusted)
        if self.num_regressors >= samples - 1:
            warnings.warn(
                f"R2Score: {self.num_regressors} regressors for {int(samples)} samples give no adjusted score; "
                "falling back to the standard R2 score.",
                stacklevel=2,
            )
            return scores
        return adjusted

    def get_config(self) -> dict:
        config = {"class_aggregation": self.class_aggregation, "num_regressors": self.num_regressors}
        return {**super().get_config(), **config}


def pearson_correlation(y_true, y_pred, axis=-1):
    """Pearson's r of y and p along `axis`."""
    y_true, y_pred = as_pair(y_true, y_pred)
    normed = []
    for y in (y_true, y_pred):
        centred = y - ops.mean(y, axis=axis, keepdims=True)
        normed.append(centred / ops.sqrt(ops.mean(ops.square(centred), axis=axis, keepdims=True)))
    return ops.mean(normed[0] * normed[1], axis=axis)


def concordance_correlation(y_true, y_pred, axis=-1):
    """Lin's concordance of y and p along `axis`, as Keras computes it."""
    y_true, y_pred = as_pair(y_true, y_pred)
    means = [ops.mean(y, axis=axis, keepdims=True) for y in (y_true, y_pred)]
    variances = [
        ops.mean(ops.square(y - mean), axis=axis, keepdims=True)
        for y, mean in zip((y_true, y_pred), means, strict=True)
    ]
    together = (y_true - means[1]) * (y_pred - means[1])
    norm = variances[0] + variances[1] + ops.square(means[0] - means[1])
    return ops.mean(2.0 * together / (norm + EPSILON), axis=axis)


class PearsonCorrelation(FunctionMetric):
    """Mean of Pearson's r along `axis`."""

    _direction = "up"

    def __init__(self, name="pearson_correlation", dtype=None, axis=-1):
        super().__init__(pearson_correlation, name, dtype, axis=axis)


class ConcordanceCorrelation(FunctionMetric):
    """Mean concordance along `axis`."""

    _direction = "up"

    def __init__(self, name="concordance_correlation", dtype=None, axis=-1):
        super().__init__(concordance_correlation, name, dtype, axis=axis)
