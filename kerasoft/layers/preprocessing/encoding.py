"""Whole numbers as one-hot, multi-hot or counted rows, in ops: for arrays and for graphs."""

from __future__ import annotations

from typing import Any

from ... import ops


def encode(inputs: Any, mode: str, depth: int, dtype: Any, weights: Any = None) -> Any:
    """As `kerasoft.host.encoding.encoded`; `weights` are what each element counts in mode ``count``."""
    if mode == "int":
        return ops.cast(inputs, dtype)
    if len(inputs.shape) == 0:
        inputs = ops.expand_dims(inputs, -1)
    if mode == "multi_hot":
        return ops.multi_hot(inputs, depth, dtype=dtype)
    if mode == "one_hot":
        if len(inputs.shape) > 1 and inputs.shape[-1] == 1:
            inputs = ops.squeeze(inputs, -1)
        return ops.one_hot(inputs, depth, dtype=dtype)
    rows = ops.one_hot(inputs, depth, dtype=dtype if weights is None else weights.dtype)
    if weights is not None:
        rows = ops.multiply(rows, ops.expand_dims(weights, -1))
    return ops.sum(rows, axis=1 if len(inputs.shape) > 1 else 0)
