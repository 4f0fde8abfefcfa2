"""Ops that make tensors from sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from ..scope import current_scope
from . import elementwise as e
from .dispatch import dtype_of, is_static, kernel, public, shape_of, tensor


def _filled(shape: Any, value: Any, dtype: str) -> Any:
    shape = (shape,) if not isinstance(shape, (list, tuple)) else tuple(shape)
    scope = current_scope()
    if scope is not None and scope.tracing and not hasattr(value, "shape"):
        from ..compiler.ops import creation

        return creation.full(shape, value, dtype)
    if all(map(is_static, shape)) and not hasattr(value, "op"):
        import jax.numpy as jnp

        return jnp.full(tuple(map(int, shape)), value, dtype)
    from ..compiler.ops.registry import constant

    value = value if hasattr(value, "op") else constant(value, dtype)
    return kernel("broadcast_to")(value if value.dtype == dtype else e.cast(value, dtype), shape=shape)


def zeros(shape: Any, dtype: Any = None) -> Any:
    """Zeros of `shape`."""
    return _filled(shape, 0, dtypes.narrowed(dtype))


def ones(shape: Any, dtype: Any = None) -> Any:
    """Ones of `shape`."""
    return _filled(shape, 1, dtypes.narrowed(dtype))


def empty(shape: Any, dtype: Any = None) -> Any:
    """A tensor of `shape` to be filled later (zeros here)."""
    return zeros(shape, dtype)


@public("numpy", "Full", "fill_value")
def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """`fill_value` in every place of `shape`."""
    return _filled(shape, tensor(fill_value), dtypes.narrowed(dtype))


@public("numpy", "ZerosLike")
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros of x's shape and dtype."""
    x = tensor(x)
    return _filled(shape_of(x), 0, dtypes.narrowed(dtype or dtype_of(x)))


@public("numpy", "OnesLike")
def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of x's shape and dtype."""
    x = tensor(x)
    return _filled(shape_of(x), 1, dtypes.narrowed(dtype or dtype_of(x)))


@public("numpy", "FullLike", "x fill_value")
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """`fill_value` in every place of x."""
    x = tensor(x)
    return _filled(shape_of(x), tensor(fill_value), dtypes.narrowed(dtype or dtype_of(x)))


def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    """Numbers from `start` up to but not `stop`; the size may be an unknown one."""
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    if not all(isinstance(v, (int, float, np.integer, np.floating)) for v in (start, stop, step)):
        from ..compiler.ops import creation

        if any(hasattr(v, "op") for v in (start, stop, step)):
            raise TypeError("arange of computed bounds has no known size; give ops.shape(x)[axis] or numbers")
        return creation.arange(start, stop, step, None if dtype is None else dtypes.narrowed(dtype))
    import jax.numpy as jnp

    if dtype is None:
        dtype = "float32" if any(isinstance(v, (float, np.floating)) for v in (start, stop, step)) else "int32"
    return jnp.arange(start, stop, step, dtype=dtypes.narrowed(dtype))


@public("numpy", "Linspace", "start stop")
def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0
) -> Any:
    """`num` evenly spaced numbers from `start` to `stop`; with `retstep` also the step between them."""
    from ..compiler.ops.registry import items

    settings = {"num": int(num), "endpoint": bool(endpoint), "retstep": bool(retstep), "axis": int(axis)}
    dtype = None if dtype is None else dtypes.narrowed(dtype)
    made = kernel("linspace")(tensor(start), tensor(stop), **settings, dtype=dtype)
    return items(made) if retstep else made


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Ones on the k-th diagonal of an N x M matrix."""
    import jax.numpy as jnp

    if not _is_size(N):
        raise TypeError("Argument `N` must be an integer or an integer tensor.")
    if M is not None and not _is_size(M):
        raise TypeError("Argument `M` must be an integer, an integer tensor, or `None`.")
    return jnp.eye(N, M, k=k, dtype=dtypes.narrowed(dtype))


def _is_size(value: Any) -> bool:
    return is_static(value) or (hasattr(value, "dtype") and "int" in str(value.dtype))


def identity(n: int, dtype: Any = None) -> Any:
    """The n x n identity matrix."""
    return eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Ones on and below the k-th diagonal."""
    import jax.numpy as jnp

    return jnp.tri(N, M, k, dtype=dtypes.narrowed(dtype))


@public("numpy", "Meshgrid", "")
def meshgrid(*x: Any, indexing: str = "xy") -> Any:
    """Coordinate matrices from coordinate vectors."""
    from .manipulation import broadcast_to, reshape

    x = [tensor(v) for v in x]
    n = len(x)
    places = list(range(n))
    if indexing == "xy" and n > 1:
        places[0], places[1] = 1, 0
    sizes = [0] * n
    for v, place in zip(x, places, strict=True):
        sizes[place] = shape_of(v)[0]
    return [
        broadcast_to(reshape(v, [-1 if i == place else 1 for i in range(n)]), sizes)
        for v, place in zip(x, places, strict=True)
    ]


@public("nn", "OneHot")
def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> Any:
    """1 at the place of each class number on a new axis, 0 elsewhere; all 0 for numbers that are no class.

    >>> one_hot([1, 3], 3).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    from ..compiler.ops import indexing

    if sparse:
        raise ValueError("sparse tensors are not supported")
    return indexing.one_hot(e.cast(x, "int32"), int(num_classes), dtypes.narrowed(dtype), axis)


@public("nn", "MultiHot", "inputs")
def multi_hot(
    inputs: Any,
    num_classes: int | None = None,
    axis: int = -1,
    dtype: Any = None,
    sparse: bool = False,
    **kwargs: Any,
) -> Any:
    """1 at the places of the classes listed along the last axis; `num_tokens` is an old name of `num_classes`.

    Raises:
        ValueError: the number of classes is not given.
    """
    from .reduction import max

    num_classes = kwargs.pop("num_tokens", None) if num_classes is None else num_classes
    if num_classes is None:
        raise ValueError("Argument `num_classes` must be specified.")
    inputs = tensor(inputs)
    return max(one_hot(inputs, num_classes, axis=axis, dtype=dtype), 1 if len(shape_of(inputs)) > 1 else 0)
