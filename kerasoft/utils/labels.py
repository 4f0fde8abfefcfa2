"""Class numbers as one-hot rows, and vectors of length one."""

from __future__ import annotations

from typing import Any

import numpy as np


class ClassNumberError(ValueError, IndexError):
    """A class number that is not among the classes."""


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Class numbers as one-hot rows: NumPy float64 for lists and NumPy arrays, float32 of JAX for its arrays.

    Args:
        x: class numbers of any shape; a last axis of size 1 is dropped.
        num_classes: `max(x) + 1` by default.

    Raises:
        ClassNumberError: a number that is not among the classes.

    >>> to_categorical([0, 2], 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    from ..ops import is_tensor, one_hot

    if is_tensor(x) and not isinstance(x, (np.ndarray, np.generic)):
        shape = tuple(x.shape)
        if len(shape) > 1 and shape[-1] == 1:
            from ..ops import reshape

            x = reshape(x, shape[:-1])
        return one_hot(x, num_classes)
    x = np.array(x, dtype="int64")
    shape = x.shape[:-1] if x.ndim > 1 and x.shape[-1] == 1 else x.shape
    flat = x.reshape(-1)
    if not num_classes:
        num_classes = int(flat.max()) + 1 if flat.size else 0
    if flat.size and (flat.min() < -num_classes or flat.max() >= num_classes):
        worst = int(flat.max() if flat.max() >= num_classes else flat.min())
        raise ClassNumberError(f"to_categorical: class {worst} is not among {num_classes} classes")
    result = np.zeros((flat.size, num_classes))
    result[np.arange(flat.size), flat] = 1.0
    return result.reshape((*shape, num_classes))


def normalize(x: Any, axis: int | None = -1, order: int = 2) -> Any:
    """x divided by its norms along `axis`; rows of zeros stay. One row alone becomes a matrix of one row.

    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    if not isinstance(x, np.ndarray):
        from .. import ops

        if hasattr(ops, "normalize"):
            return ops.normalize(x, axis=axis, order=order)
        x = np.asarray(x, "float32")
    norms = np.atleast_1d(np.linalg.norm(x, order, axis))
    norms[norms == 0] = 1
    return x / np.expand_dims(norms, -1 if axis is None else axis)
