"""Whole numbers as one-hot, multi-hot or counted rows, in NumPy."""

from __future__ import annotations

import numpy as np

DROPPED = np.iinfo(np.int64).max
"""An index that no row shows."""


def encoded(indices: np.ndarray, mode: str, depth: int, dtype: str = "int64") -> np.ndarray:
    """`indices` as Keras encodes them; an index outside of [0, depth) leaves no trace.

    Args:
        mode: ``int`` (as they are); ``one_hot`` (one more axis; a last axis of size 1 is replaced); ``multi_hot`` and
            ``count`` (the second axis, or the only one, is a sample and is replaced).

    >>> encoded(np.array([[0, 2, 2]]), "count", 3).tolist()
    [[1, 0, 2]]
    """
    if mode == "int":
        return indices.astype(dtype)
    if indices.ndim == 0:
        indices = indices[None]
    if mode == "one_hot":
        if indices.ndim > 1 and indices.shape[-1] == 1:
            indices = indices[..., 0]
        return _marked(indices[..., None], depth, dtype, counted=False)
    rows = indices if indices.ndim == 1 else np.moveaxis(indices, 1, -1)
    return _marked(rows, depth, dtype, counted=mode == "count")


def _marked(samples: np.ndarray, depth: int, dtype: str, counted: bool) -> np.ndarray:
    """(..., k) indices as (..., depth) counts, or ones."""
    flat = samples.reshape(-1, samples.shape[-1])
    row, column = np.nonzero((flat >= 0) & (flat < depth))
    places = row * depth + flat[row, column]
    result = np.zeros(len(flat) * depth, dtype)
    if counted:
        np.add.at(result, places, 1)
    else:
        result[places] = 1
    return result.reshape(*samples.shape[:-1], depth)
