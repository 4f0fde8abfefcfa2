"""Small tools: seeds, one-hot labels, names."""

from __future__ import annotations

from typing import Any

import numpy as np

from .naming import clear_session

__all__ = ["clear_session", "get_custom_objects", "normalize", "set_random_seed", "to_categorical"]


def set_random_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and kerasoft's random numbers: initial weights, dropout and shuffling repeat.

    >>> import kerasoft as ks
    >>> set_random_seed(7)
    >>> first = ks.random.normal((2,))
    >>> set_random_seed(7)
    >>> bool((ks.random.normal((2,)) == first).all())
    True
    """
    import random as python_random

    from . import random

    if not isinstance(seed, int):
        raise ValueError(f"Expected `seed` argument to be an integer. Received: seed={seed} (of type {type(seed)})")
    python_random.seed(seed)
    np.random.seed(seed)
    random.reset_global_seed()


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers as one-hot rows, float32 in NumPy.

    >>> to_categorical([0, 2], 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    x = np.asarray(x).astype("int64")
    shape = x.shape[:-1] if x.ndim > 1 and x.shape[-1] == 1 else x.shape
    flat = x.reshape(-1)
    if num_classes is None:
        num_classes = int(flat.max()) + 1 if flat.size else 0
    if flat.size and (flat.min() < -num_classes or flat.max() >= num_classes):
        worst = int(flat.max() if flat.max() >= num_classes else flat.min())
        raise ValueError(f"to_categorical: class {worst} is not among {num_classes} classes")
    result = np.zeros((flat.size, num_classes), "float32")
    result[np.arange(flat.size), flat] = 1.0
    return result.reshape((*shape, num_classes))


def normalize(x: Any, axis: int = -1, order: int = 2) -> np.ndarray:
    """x divided by its norms along `axis`; rows of zeros stay."""
    x = np.asarray(x)
    norms = np.linalg.norm(x, order, axis, keepdims=True)
    return x / np.where(norms == 0, 1, norms)


def get_custom_objects() -> dict:
    """The registered custom objects."""
    from .saving import get_custom_objects as registered

    return registered()
