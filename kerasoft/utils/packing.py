"""(x, y, sample_weight) tuples, and names of dtypes."""

from __future__ import annotations

from typing import Any


def unpack_x_y_sample_weight(data: Any) -> tuple:
    """`data` as (x, y, sample_weight), with None for what it does not hold.

    >>> unpack_x_y_sample_weight(([1], [0]))
    ([1], [0], None)
    """
    if isinstance(data, list):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise ValueError(
            f"Data is expected to be in format `x`, `(x,)`, `(x, y)`, or `(x, y, sample_weight)`, found: {data}"
        )
    return (*data, None, None)[:3]


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """A tuple of what is given; `x` alone when it is one array.

    >>> pack_x_y_sample_weight(1.0, 2.0)
    (1.0, 2.0)
    """
    if y is None:
        return (x,) if isinstance(x, (tuple, list)) else x
    return (x, y) if sample_weight is None else (x, y, sample_weight)


def standardize_dtype(dtype: Any) -> str:
    """The name of a dtype, given as a name, a NumPy, JAX or PyTorch dtype or a Python type; float32 for None.

    >>> standardize_dtype(int), standardize_dtype(None)
    ('int32', 'float32')
    """
    from .. import dtypes

    return dtypes.standardize(dtype)
