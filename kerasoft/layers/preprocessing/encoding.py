"""Whole numbers as one-hot, multi-hot or counted rows, in ops: for arrays and for graphs."""

from __future__ import annotations

from typing import Any

from ... import ops
from ...compiler.ir import Node
from ...compiler.ops.sparse import sparse_rows


def encode(inputs: Any, mode: str, depth: int, dtype: Any, weights: Any = None, sparse: bool = False) -> Any:
    """As `kerasoft.host.encoding.encoded`; `weights` are what each element counts in mode ``count``.

    With `sparse`, nodes whose rows are samples become a node of `sparse_rows`.
    """
    if mode == "int":
        return ops.cast(inputs, dtype)
    if sparse and isinstance(inputs, Node):
        if mode == "one_hot" and len(inputs.shape) == 1:
            inputs = ops.expand_dims(inputs, -1)
        if len(inputs.shape) == 2 and (mode != "one_hot" or inputs.shape[-1] == 1):
            return _sparse(inputs, mode, depth, dtype, weights)
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


def _sparse(ids: Any, mode: str, depth: int, dtype: Any, weights: Any) -> Any:
    """int32 (b, k) as a node of `sparse_rows`."""
    inside = ops.logical_and(ops.greater_equal(ids, 0), ops.less(ids, depth))
    if mode == "multi_hot" and ids.shape[1] != 1:  # the first of equal ids counts
        same = ops.equal(ops.expand_dims(ids, 2), ops.expand_dims(ids, 1))  # (b, k, earlier)
        place = ops.cumsum(ops.ones_like(ids), axis=1)
        earlier = ops.less(ops.expand_dims(place, 1), ops.expand_dims(place, 2))
        inside = ops.logical_and(inside, ops.logical_not(ops.any(ops.logical_and(same, earlier), axis=2)))
    values = ops.cast(inside, dtype)
    if weights is not None:
        values = ops.multiply(values, weights)
    return sparse_rows(ops.where(inside, ids, ops.zeros_like(ids)), values, columns=depth)
