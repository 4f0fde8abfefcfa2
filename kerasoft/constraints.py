"""Projections of weights, applied after each optimizer step: a function of a weight that gives the allowed weight."""

from __future__ import annotations

from typing import Any

import kerasoft

from .identifiers import Family

_EPSILON = 1e-7


class Constraint:
    """Base class. A subclass defines ``__call__(w) -> w`` with `kerasoft.ops`, and `get_config`."""

    def __call__(self, w: Any) -> Any:
        return w

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constraint:
        return cls(**config)


class NonNeg(Constraint):
    """Negative elements become 0.

    >>> NonNeg()(kerasoft.ops.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __call__(self, w):
        return kerasoft.ops.maximum(w, 0.0)


class MinMaxNorm(Constraint):
    """Norms along `axis` are moved towards [`min_value`, `max_value`].

    Args:
        min_value, max_value: bounds of the norm.
        rate: 1 puts the norm inside at once; less moves it that part of the way at each step.
        axis: int or list of ints, e.g. 0 for each unit of a Dense kernel, [0, 1, 2] for each filter of a Conv2D.
    """

    def __init__(self, min_value=0.0, max_value=1.0, rate=1.0, axis=0):
        self.min_value, self.max_value, self.rate, self.axis = min_value, max_value, rate, axis

    def __call__(self, w):
        ops = kerasoft.ops
        norms = _norms(w, self.axis)
        desired = ops.clip(norms, self.min_value, self.max_value)
        if self.rate != 1:
            desired = ops.add(ops.multiply(self.rate, desired), ops.multiply(1 - self.rate, norms))
        return ops.multiply(w, ops.divide(desired, ops.add(norms, _EPSILON)))

    def get_config(self):
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


class MaxNorm(MinMaxNorm):
    """Norms along `axis` larger than `max_value` are cut down to it."""

    def __init__(self, max_value=2, axis=0):
        super().__init__(0.0, max_value, 1.0, axis)

    def get_config(self):
        return {"max_value": self.max_value, "axis": self.axis}


class UnitNorm(Constraint):
    """Norms along `axis` become 1."""

    def __init__(self, axis=0):
        self.axis = axis

    def __call__(self, w):
        return kerasoft.ops.divide(w, kerasoft.ops.add(_norms(w, self.axis), _EPSILON))

    def get_config(self):
        return {"axis": self.axis}


def _norms(w, axis):
    ops = kerasoft.ops
    return ops.sqrt(ops.sum(ops.square(w), axis=axis, keepdims=True))


_FAMILY = Family("constraint", (Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm))
max_norm, min_max_norm, non_neg, unit_norm = MaxNorm, MinMaxNorm, NonNeg, UnitNorm
get, deserialize = _FAMILY.get, _FAMILY.deserialize


def serialize(constraint: Any) -> Any:
    """The config of a constraint, as Keras writes it."""
    return _FAMILY.serialize(constraint)
