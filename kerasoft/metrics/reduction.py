"""Streaming sums and means of values, and the mean of a function of labels and predictions."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..losses.base import Loss, apply_mask, squeeze_or_expand_to_same_rank
from ..scope import get_mask
from .arrays import ratio
from .base import Metric, recording, value_of


def samplewise(values, sample_weight, reduce, dtype):
    """Weighted values with one number a row, and weights with one number a row (None without weights).

    Axes after the first are reduced with `reduce` (a sum or a mean), weights of several axes too.
    """
    values = ops.cast(ops.convert_to_tensor(values), dtype)
    if sample_weight is None:
        return (reduce(values, axis=_after_first(values)) if len(values.shape) > 1 else values), None
    sample_weight = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
    values, sample_weight = squeeze_or_expand_to_same_rank(values, sample_weight)
    weight_rank = len(sample_weight.shape)
    if len(values.shape) > weight_rank:
        values = reduce(values, axis=tuple(range(weight_rank, len(values.shape))))
    sample_weight = ops.broadcast_to(sample_weight, values.shape)
    values = ops.multiply(values, sample_weight)
    if weight_rank > 1:
        sample_weight = reduce(sample_weight, axis=_after_first(sample_weight))
    if len(values.shape) > 1:
        values = reduce(values, axis=_after_first(values))
    return values, sample_weight


def _after_first(x) -> tuple:
    return tuple(range(1, len(x.shape)))


class Sum(Metric):
    """Sum of all values.

    >>> import kerasoft as ks
    >>> float(ks.metrics.Sum()([1.0, 3.0, 5.0]))
    9.0
    """

    def __init__(self, name="sum", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), dtype=self.dtype, name="total")

    def update_state(self, values, sample_weight=None):
        values, _ = samplewise(values, sample_weight, ops.sum, self.dtype)
        self.total.assign_add(ops.sum(values))

    def result(self):
        return value_of(self.total)[()]


class Mean(Metric):
    """Weighted mean of all values: sum w v / sum w.

    >>> import kerasoft as ks
    >>> float(ks.metrics.Mean()([1.0, 3.0], sample_weight=[3.0, 1.0]))
    1.5
    """

    def __init__(self, name="mean", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), dtype=self.dtype, name="total")
        self.count = self.add_variable((), dtype=self.dtype, name="count")

    def update_state(self, values, sample_weight=None):
        values = ops.convert_to_tensor(values)
        record = recording()
        if record is not None and not values.shape:
            record.needs_exact_rows()
            if not record.weighted:
                sample_weight = None
        values, sample_weight = samplewise(values, sample_weight, ops.mean, self.dtype)
        self.total.assign_add(ops.sum(values))
        if sample_weight is not None:
            count = ops.sum(sample_weight)
        elif not values.shape:
            count = 1.0
        else:
            count = ops.sum(ops.ones_like(values))
        self.count.assign_add(ops.cast(count, self.dtype))

    def result(self):
        total, count = value_of(self.total), value_of(self.count)
        return ratio(total, count)


class MeanMetricWrapper(Mean):
    """Mean of ``fn(y_true, y_pred, **kwargs)``, one value a row or more.

    Args:
        fn: a function, or a `Loss` (its values before reduction are averaged).
    """

    def __init__(self, fn, name=None, dtype=None, **kwargs):
        super().__init__(name=name or getattr(fn, "name", None) or getattr(fn, "__name__", None), dtype=dtype)
        self._fn = fn
        self._fn_kwargs = kwargs
        if isinstance(fn, Loss) or getattr(fn, "__module__", "").startswith("kerasoft.losses"):
            self._direction = "down"

    def update_state(self, y_true, y_pred, sample_weight=None):
        mask = get_mask(y_pred)
        if isinstance(self._fn, Loss):
            values, _ = self._fn.elements(y_true, y_pred)
        else:
            values = self._fn(y_true, y_pred, **self._fn_kwargs)
        record = recording()
        if sample_weight is not None and (record is None or record.weighted):
            sample_weight = apply_mask(sample_weight, self._element_mask(y_true, y_pred), self.dtype)
        super().update_state(values, apply_mask(sample_weight, mask, self.dtype))

    def _element_mask(self, y_true, y_pred):
        """Values that sample weights leave out; without weights they count (as in Keras)."""
        return None

    def get_config(self) -> dict:
        from ..losses import serialize

        return {**super().get_config(), "fn": serialize(self._fn), **self._fn_kwargs}

    @classmethod
    def from_config(cls, config: dict) -> MeanMetricWrapper:
        from ..losses import deserialize

        if isinstance(config.get("fn"), dict):
            config = {**config, "fn": deserialize(config["fn"])}
        return cls(**config)


class FunctionMetric(MeanMetricWrapper):
    """A mean of this library: its configuration is its arguments, without the function."""

    left_out: tuple[tuple[str, Any], ...] = ()  # arguments that Keras leaves out of configs, and their defaults

    def __init__(self, fn, name, dtype, **kwargs):
        super().__init__(fn, name, dtype, **kwargs)
        self.__dict__.update(kwargs)

    def get_config(self) -> dict:
        given = {name: value for name, value in self._fn_kwargs.items() if (name, value) not in self.left_out}
        return {**Metric.get_config(self), **given}
