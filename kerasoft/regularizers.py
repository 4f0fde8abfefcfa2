"""Penalties on weights and outputs: a function of a tensor that gives one number to add to the loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kerasoft

from .identifiers import Family


class Regularizer:
    """Base class. A subclass defines ``__call__(x) -> scalar`` with `kerasoft.ops`, and `get_config`."""

    def __call__(self, x: Any) -> Any:
        return 0.0

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(f"{self} does not implement get_config()")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Regularizer:
        return cls(**config)


class L1L2(Regularizer):
    """``l1 * sum(|x|) + l2 * sum(x²)``."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1 = _factor("l1", 0.0 if l1 is None else l1)
        self.l2 = _factor("l2", 0.0 if l2 is None else l2)

    def __call__(self, x):
        ops = kerasoft.ops
        parts = []
        if self.l1:
            parts.append(ops.multiply(self.l1, ops.sum(ops.abs(x))))
        if self.l2:
            parts.append(ops.multiply(self.l2, ops.sum(ops.square(x))))
        if not parts:
            return ops.zeros((), dtype=getattr(x, "dtype", None))
        return parts[0] if len(parts) == 1 else ops.add(*parts)

    def get_config(self):
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """``l1 * sum(|x|)``.

    >>> float(L1(0.5)(kerasoft.ops.array([1.0, -3.0])))
    2.0
    """

    def __init__(self, l1: float = 0.01):
        super().__init__(l1=0.01 if l1 is None else l1)

    def get_config(self):
        return {"l1": _single(self.l1)}


class L2(L1L2):
    """``l2 * sum(x²)``.

    >>> float(L2(0.5)(kerasoft.ops.array([1.0, -3.0])))
    5.0
    """

    def __init__(self, l2: float = 0.01):
        super().__init__(l2=0.01 if l2 is None else l2)

    def get_config(self):
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean |cosine| between different rows (or columns) of a matrix.

    Args:
        factor: non-negative float.
        mode: ``"rows"`` or ``"columns"``.

    Raises:
        ValueError: another mode; an input that is not a matrix.
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows"):
        self.factor = _factor("factor", factor)
        if mode not in {"rows", "columns"}:
            raise ValueError(
                f'Invalid value for argument `mode`. Expected one of {{"rows", "columns"}}. Received: mode={mode}'
            )
        self.mode = mode

    def __call__(self, x):
        ops = kerasoft.ops
        if len(x.shape) != 2:
            raise ValueError(f"Inputs to OrthogonalRegularizer must have rank 2. Received: inputs.shape={x.shape}")
        rows = x if self.mode == "rows" else ops.transpose(x)
        length = ops.sqrt(ops.maximum(ops.sum(ops.square(rows), axis=1, keepdims=True), 1e-12))
        unit = ops.divide(rows, length)
        cosines = ops.abs(ops.matmul(unit, ops.transpose(unit)))
        size = rows.shape[0]
        others = ops.sum(ops.multiply(cosines, 1.0 - ops.eye(size, dtype=cosines.dtype)))
        return ops.multiply(others, self.factor * 0.5 / (size * (size - 1.0) / 2.0))

    def get_config(self):
        return {"factor": _single(self.factor), "mode": self.mode}


def _factor(name: str, value: Any) -> float:
    if not isinstance(value, (float, int)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"Invalid value for argument {name}: expected a non-negative float. Received: {name}={value}")
    return float(value)


def _single(value: float) -> float:
    """The float32 nearest to a float, as a float: what Keras writes for these."""
    return float(np.float32(value))


_FAMILY = Family("regularizer", (Regularizer, L1, L2, L1L2, OrthogonalRegularizer))
l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer
get, deserialize = _FAMILY.get, _FAMILY.deserialize


def serialize(regularizer: Any) -> Any:
    """The config of a regularizer, as Keras writes it."""
    return _FAMILY.serialize(regularizer)
