"""Ops that sum up axes: sums, means, extremes, orders."""

from __future__ import annotations

import builtins
from typing import Any

from .. import dtypes
from . import elementwise as e
from .dispatch import dtype_of, is_static, kernel, public, rank, shape_of, tensor


def axes_of(x: Any, axis: Any) -> tuple[int, ...]:
    """`axis` as a tuple of non-negative axes; None is all."""
    n = rank(x)
    if axis is None:
        return tuple(range(n))
    axes = tuple(int(a) for a in axis) if isinstance(axis, (list, tuple)) else (int(axis),)
    for a in axes:
        if not -n <= a < n:
            raise ValueError(f"axis {a} is out of bounds for array of dimension {n}: shape {shape_of(x)}")
    return tuple(a % n for a in axes)


def _reduce(name: str, x: Any, axis: Any, keepdims: bool) -> Any:
    axes = axes_of(x, axis)
    if not axes and rank(x) and axis is not None:
        return x
    return kernel(name)(x, axis=axes, keepdims=bool(keepdims))


@public("numpy", "Sum")
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum over `axis` (all axes by default); of booleans, their number."""
    x = tensor(x)
    if dtype_of(x) in ("bool", "int8", "int16"):
        x = e.cast(x, "int32")
    return _reduce("sum", x, axis, keepdims)


@public("numpy", "Prod")
def prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    """The product over `axis`."""
    x = tensor(x)
    x = e.cast(x, dtype) if dtype is not None else e.cast(x, "int32") if dtype_of(x) == "bool" else x
    return _reduce("prod", x, axis, keepdims)


@public("numpy", "Mean")
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean over `axis`, a float.

    >>> float(mean([[1, 2], [3, 4]]))
    2.5
    """
    return _reduce("mean", e._as_float(tensor(x)), axis, keepdims)


@public("numpy", "Max")
def max(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """The greatest value over `axis` (and `initial`)."""
    return _extreme("max", tensor(x), axis, keepdims, initial)


@public("numpy", "Min")
def min(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """The smallest value over `axis` (and `initial`)."""
    return _extreme("min", tensor(x), axis, keepdims, initial)


def _extreme(name: str, x: Any, axis: Any, keepdims: bool, initial: Any) -> Any:
    if initial is None:
        return _reduce(name, x, axis, keepdims)
    axes = axes_of(x, axis)
    if builtins.any(is_static(n) and n == 0 for n in (shape_of(x)[a] for a in axes)):
        from .creation import full_like

        return full_like(sum(x, axes, keepdims), initial, dtype=dtype_of(x))
    if dtype_of(x) == "bool" and not hasattr(initial, "shape"):
        initial = bool(initial)
    return (e.maximum if name == "max" else e.minimum)(_reduce(name, x, axes, keepdims), initial)


@public("numpy", "Amax")
def amax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The greatest value over `axis`."""
    return max(x, axis, keepdims)


@public("numpy", "Amin")
def amin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest value over `axis`."""
    return min(x, axis, keepdims)


@public("numpy", "All")
def all(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether all are true over `axis`."""
    return _reduce("all", e._as_bool(x), axis, keepdims)


@public("numpy", "Any")
def any(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether one is true over `axis`."""
    return _reduce("any", e._as_bool(x), axis, keepdims)


@public("numpy", "Var")
def var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The variance over `axis`, divided by the number of values."""
    x = e._as_float(tensor(x))
    return mean(e.square(e.subtract(x, mean(x, axis, True))), axis, keepdims)


@public("numpy", "Std")
def std(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The square root of the variance over `axis`."""
    return e.sqrt(var(x, axis, keepdims))


@public("nn", "Moments")
def moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    """Mean and variance over `axes`. With `synchronized`, over all replicas of a distributed step."""
    x = tensor(x)
    if not synchronized:
        if (kind := dtype_of(x)) not in ("float16", "bfloat16"):
            return mean(x, axes, keepdims), var(x, axes, keepdims)
        wide = e.cast(x, "float32")  # squares leave float16's range; the results are clipped to it, as in Keras
        found = (mean(wide, axes, keepdims), var(wide, axes, keepdims))
        return tuple(e.cast(e.clip(value, -65504.0, 65504.0), kind) for value in found)
    everywhere = kernel("all_reduce")
    ones = e.add(e.multiply(x, 0.0), 1.0)
    count = everywhere(sum(ones, axes, True))
    center = e.divide(everywhere(sum(x, axes, True)), count)
    variance = e.divide(everywhere(sum(e.square(e.subtract(x, center)), axes, True)), count)
    return (center, variance) if keepdims else (sum(center, axes), sum(variance, axes))


@public("math", "Logsumexp")
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over `axis`, without overflow."""
    return _reduce("logsumexp", e._as_float(tensor(x)), axis, keepdims)


@public("numpy", "CountNonzero")
def count_nonzero(x: Any, axis: Any = None) -> Any:
    """How many values over `axis` are not 0."""
    return sum(e._as_bool(x), axis)


def _float(x: Any) -> bool:
    return dtype_of(x) in dtypes.FLOATS or dtype_of(x).startswith("complex")


@public("numpy", "Average", "x weights")
def average(x: Any, axis: Any = None, weights: Any = None) -> Any:
    """The mean over `axis`, weighted by `weights` (of x's shape, or one for each place of the axis)."""
    x = tensor(x)
    if weights is None:
        return mean(x, axis)
    weights = tensor(weights)
    if dtype_of(weights) in dtypes.FLOATS and not _float(x):
        x = e.cast(x, dtype_of(weights))
    x = e._as_float(x)
    weights = weights if _float(weights) else e.cast(weights, dtype_of(x))
    if rank(weights) != rank(x):
        from .manipulation import reshape

        (a,) = axes_of(x, axis)
        weights = reshape(weights, [shape_of(weights)[0] if i == a else 1 for i in range(rank(x))])
        weights = e.multiply(weights, e.add(e.multiply(x, 0.0), 1.0))
    return e.divide(sum(e.multiply(x, weights), axis), sum(weights, axis))


def _arg(name: str, x: Any, axis: Any, keepdims: bool) -> Any:
    x = tensor(x)
    found = kernel(name)(x, axis=None if axis is None else axes_of(x, axis)[0], keepdims=bool(keepdims))
    return found if dtype_of(found) == "int32" else e.cast(found, "int32")


@public("numpy", "Argmax")
def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The place of the greatest value along `axis` (of the flattened tensor by default), the first if several."""
    return _arg("argmax", x, axis, keepdims)


@public("numpy", "Argmin")
def argmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The place of the smallest value along `axis`, the first if several."""
    return _arg("argmin", x, axis, keepdims)


@public("numpy", "Argsort")
def argsort(x: Any, axis: Any = -1) -> Any:
    """Places in the order of their values along `axis`; None flattens."""
    x = tensor(x)
    if axis is None or not rank(x):
        from .manipulation import ravel

        x, axis = ravel(x), 0
    return e.cast(kernel("argsort")(x, axis=axes_of(x, axis)[0]), "int32")


@public("numpy", "Sort")
def sort(x: Any, axis: Any = -1) -> Any:
    """Values in ascending order along `axis`; None flattens."""
    x = tensor(x)
    if axis is None:
        from .manipulation import ravel

        x, axis = ravel(x), 0
    return kernel("sort")(x, axis=axes_of(x, axis)[0])


@public("numpy", "Cumsum")
def cumsum(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Running sums along `axis`; None flattens."""
    return _running("cumsum", x, axis, dtype)


@public("numpy", "Cumprod")
def cumprod(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Running products along `axis`; None flattens."""
    return _running("cumprod", x, axis, dtype)


def _running(name: str, x: Any, axis: Any, dtype: Any) -> Any:
    x = tensor(x)
    x = e.cast(x, dtype) if dtype is not None else e.cast(x, "int32") if dtype_of(x) == "bool" else x
    if axis is None:
        from .manipulation import ravel

        x, axis = ravel(x), 0
    return kernel(name)(x, axis=axes_of(x, axis)[0])


@public("math", "TopK")
def top_k(x: Any, k: int, sorted: bool = True) -> Any:
    """The `k` greatest values along the last axis and their places.

    >>> values, places = top_k([1.0, 5.0, 3.0], 2)
    >>> values.tolist(), places.tolist()
    ([5.0, 3.0], [1, 2])
    """
    from ..compiler.ops import reduce

    values, places = reduce.top_k(tensor(x), int(k))
    return values, places


@public("math", "InTopK", "targets predictions")
def in_top_k(targets: Any, predictions: Any, k: int) -> Any:
    """Whether each row's target is among its `k` greatest predictions; ties count as in."""
    from .manipulation import expand_dims, take_along_axis

    targets, predictions = tensor(targets), tensor(predictions)
    mine = take_along_axis(predictions, expand_dims(e.cast(targets, "int32"), -1), axis=-1)
    mine = e.where(e.isnan(mine), float("-inf"), mine)  # NaN is no great probability
    return e.less(sum(e.greater(predictions, mine), axis=-1), k)


@public("numpy", "Median")
def median(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The middle value over `axis`."""
    return quantile(x, 0.5, axis, keepdims=keepdims)


@public("numpy", "Quantile", "x q")
def quantile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which a share `q` of the values over `axis` lies."""
    x = e._as_float(tensor(x))
    return kernel("quantile", _quantile)(x, tensor(q), axis=axes_of(x, axis), method=method, keepdims=bool(keepdims))


def _quantile(x: Any, q: Any, *, axis: Any, method: str, keepdims: bool) -> Any:
    import jax.numpy as jnp

    return jnp.quantile(x, q, axis=axis, method=method, keepdims=keepdims)
