"""Values to bins: by the hash of their text, by the crossing of several hashes, by boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from .encoding import encoded
from .fingerprints import buckets, fingerprints
from .fingerprints import crossed as crossed_hashes
from .lookup import as_texts


def hashed(bins: int, mask_value: Any, salt: Any, mode: str, dtype: str, values: Any) -> np.ndarray:
    """The bin of each value by the hash of its text (floats are cut to whole numbers), encoded; `mask_value` has bin 0."""
    array = _raw(values)
    if mode == "one_hot" and array.ndim and array.shape[-1] == 1:
        array = array[..., 0]
    flat = array.reshape(-1).tolist()
    if array.dtype != object:
        flat = np.asarray(flat).astype(np.int64).tolist()
    masked = mask_value is not None and bins > 1
    found = buckets(map(str, flat), bins - 1 if masked else bins, salt)
    if masked:
        is_mask = np.array([v == mask_value for v in array.reshape(-1).tolist()], bool)
        found = np.where(is_mask, 0, found + 1)
    return encoded(found.reshape(array.shape), mode, bins, dtype)


def _raw(values: Any) -> np.ndarray:
    """Text as objects, numbers as they are."""
    array = np.asarray(values)
    return as_texts(values) if array.dtype.kind in "OUST" else array


def crossed(bins: int, mode: str, dtype: str, inputs: Any) -> np.ndarray:
    """The bin of each combination of values, encoded.

    Raises:
        ValueError: arrays that are no columns, of different shapes, or of fractions.
    """
    arrays = [_raw(x) for x in inputs]
    first = arrays[0].shape
    if len(first) > 2 or (len(first) == 2 and first[-1] != 1):
        raise ValueError(
            "All `HashedCrossing` inputs should have shape `()`, `(batch_size)` or `(batch_size, 1)`. "
            f"Received: shapes {[a.shape for a in arrays]}"
        )
    if any(a.shape != first for a in arrays):
        raise ValueError(
            f"All `HashedCrossing` inputs should have equal shape. Received: shapes {[a.shape for a in arrays]}"
        )
    if any(a.dtype.kind not in "Oiu" for a in arrays):
        raise ValueError(
            "All `HashedCrossing` inputs should have an integer or string dtype. "
            f"Received: dtypes {[a.dtype.name for a in arrays]}"
        )
    columns = []
    for array in arrays:
        flat = array.reshape(-1)
        columns.append(fingerprints(flat.tolist()) if array.dtype == object else flat.astype(np.int64).view(np.uint64))
    return encoded(crossed_hashes(columns, bins).reshape(first), mode, bins, dtype)


def binned(borders: np.ndarray, mode: str, dtype: str, values: np.ndarray) -> np.ndarray:
    """The number of borders at or below each value, encoded."""
    return encoded(np.digitize(np.asarray(values, np.float32), borders), mode, len(borders) + 1, dtype)
