"""Asymmetric quantisation of groups of rows: q = round(x / s) + z, one s and z for each group and column."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import dtypes, ops
from .maximum import EPSILON


def abs_max_quantize_grouped_with_zero_point(
    inputs: Any,
    block_size: int,
    value_range: tuple = (-8, 7),
    dtype: str = "int8",
    epsilon: float = EPSILON,
    to_numpy: bool = False,
) -> tuple[Any, Any, Any]:
    """``(q, scale, zero)`` with ``x ≈ (q - zero) · scale`` in groups of `block_size` rows.

    Shapes: x (rows, columns) -> q like x; scale, zero (groups, columns). Needs values, not symbols: the last group is
    filled with zeros.

    >>> q, scale, zero = abs_max_quantize_grouped_with_zero_point([[0.0], [1.5], [3.0]], 2)
    >>> q.tolist(), scale.shape, zero.tolist()
    ([[-8], [7], [7]], (2, 1), [[-8], [-8]])
    """
    x = np.asarray(ops.convert_to_numpy(inputs))
    kind = dtypes.narrowed(x.dtype)
    x = x.astype(kind, copy=False)
    rows, columns = x.shape
    low, high = value_range
    groups = math.ceil(rows / block_size)
    filled = np.concatenate([x, np.zeros((groups * block_size - rows, columns), x.dtype)])
    grouped = filled.reshape(groups, block_size, columns)
    smallest, largest = grouped.min(1, keepdims=True), grouped.max(1, keepdims=True)
    if not to_numpy:  # as Keras: a constant group gets a range of its own
        constant = smallest == largest
        smallest, largest = np.where(constant, smallest - 1, smallest), np.where(constant, largest + 1, largest)
    scale = ((largest - smallest + np.asarray(epsilon, x.dtype)) / (high - low)).astype(x.dtype)
    zero = np.clip(np.round(-smallest / scale) + low, low, high)
    q = np.clip(np.round(grouped / scale) + zero, low, high).astype(dtype).reshape(-1, columns)[:rows]
    return (
        ops.convert_to_tensor(q),
        ops.convert_to_tensor(scale[:, 0], dtype=kind),
        ops.convert_to_tensor(zero[:, 0].astype("int8")),
    )


def dequantized_groups(q: Any, scale: Any, zero: Any, group: Any, axis: int) -> Any:
    """``(q - zero) · scale`` with the scale and zero of each position's group (`group`: float numbers) along `axis`."""
    group = ops.cast(group, "int32")
    scale = ops.take(scale, group, axis=axis)
    zero = ops.cast(ops.take(zero, group, axis=axis), scale.dtype)
    return ops.multiply(ops.subtract(ops.cast(q, scale.dtype), zero), scale)
