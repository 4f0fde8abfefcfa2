"""Reductions of the rows of a tensor by the number of the segment that each belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .dispatch import is_static, kernel, lowered, public, shape_of, tensor

__all__ = ["segment_max", "segment_min", "segment_prod", "segment_sum"]


@lowered
def _min(data: Any, ids: Any, *, count: int) -> Any:
    return jax.ops.segment_min(data, ids, count)


@lowered
def _prod(data: Any, ids: Any, *, count: int) -> Any:
    return jax.ops.segment_prod(data, ids, count)


def _segments(by: str, function: Callable, data: Any, ids: Any, count: int | None) -> Any:
    data, ids = tensor(data), tensor(ids)
    have, want = shape_of(ids), shape_of(data)
    if len(have) != 1:
        raise ValueError(
            f"Argument `segment_ids` should be an 1-D vector, got shape: {len(have)}. Consider either flatten input with "
            "segment_ids.reshape((-1)) and data.reshape((-1, ) + data.shape[len(segment_ids.shape):]) or vectorize with "
            "vmap."
        )
    if not want or (is_static(have[0]) and is_static(want[0]) and have[0] != want[0]):
        raise ValueError(
            f"Argument `segment_ids` and `data` should have same leading dimension. Got {have} v.s. {want}."
        )
    if count is None:
        if hasattr(ids, "op") or isinstance(ids, jax.core.Tracer):
            raise ValueError(f"segment_{by} of a symbolic tensor needs num_segments, the number of results")
        count = int(np.max(np.asarray(ids), initial=-1)) + 1
    return function(data, ids, count=int(count))


@public("math", "SegmentSum", "data segment_ids")
def segment_sum(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """Sums of the rows of `data` with equal `segment_ids`, one for each of 0 ... num_segments - 1.

    >>> segment_sum([1.0, 2.0, 3.0], [0, 2, 2], num_segments=3).tolist()
    [1.0, 0.0, 5.0]
    """
    return _segments("sum", kernel("segment_sum"), data, segment_ids, num_segments)


@public("math", "SegmentMax", "data segment_ids")
def segment_max(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """Greatest rows of `data` with equal `segment_ids`; -inf or the least int for a segment without rows."""
    return _segments("max", kernel("segment_max"), data, segment_ids, num_segments)


@public("math", "SegmentMin", "data segment_ids")
def segment_min(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """Least rows of `data` with equal `segment_ids`; inf or the greatest int for a segment without rows."""
    return _segments("min", _min, data, segment_ids, num_segments)


@public("math", "SegmentProd", "data segment_ids")
def segment_prod(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """Products of the rows of `data` with equal `segment_ids`; 1 for a segment without rows."""
    return _segments("prod", _prod, data, segment_ids, num_segments)
