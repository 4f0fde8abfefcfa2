"""Ops that order, search and count values."""

from __future__ import annotations

from typing import Any

from ..tensors import KerasTensor, known_shape
from .dispatch import dtype_of, fixed, kernel, public, rank, shape_of, tensor

__all__ = [
    "argpartition", "bincount", "digitize", "histogram", "isin", "nonzero", "percentile", "ptp", "searchsorted",
    "unique",
]  # fmt: skip


@public("numpy", "Argpartition")
def argpartition(x: Any, kth: int, axis: int | None = -1) -> Any:
    """Places along `axis` so that those of the `kth` smallest values come first; None flattens."""
    x = tensor(x)
    if axis is None:
        from .manipulation import ravel

        x, axis = ravel(x), 0
    if not isinstance(kth, int):
        raise ValueError(f"kth must be an integer. Received: kth = {kth}")
    return kernel("argpartition", _argpartition)(x, kth=kth, axis=int(axis))


def _argpartition(x: Any, *, kth: int, axis: int) -> Any:
    import jax.numpy as jnp

    return jnp.argpartition(jnp.asarray(x), kth, axis)


@public("numpy", "SearchSorted", "sorted_sequence values")
def searchsorted(sorted_sequence: Any, values: Any, side: str = "left") -> Any:
    """The places at which `values` would be put into an ascending vector.

    >>> searchsorted([1.0, 2.0, 3.0], [2.0, 2.5]).tolist()
    [1, 2]
    """
    sorted_sequence, values = tensor(sorted_sequence), tensor(values)
    if rank(sorted_sequence) != 1:
        raise ValueError(
            "`searchsorted` only supports 1-D sorted sequences. You can use `kerasoft.ops.vectorized_map` to extend it "
            f"to N-D sequences. Received: sorted_sequence.shape={shape_of(sorted_sequence)}"
        )
    return kernel("searchsorted")(sorted_sequence, values, side=side)


@public("numpy", "Digitize", "x bins")
def digitize(x: Any, bins: Any) -> Any:
    """The number of the bin of each value; `bins` are ascending bounds.

    >>> digitize([0.0, 1.0, 1.6], [0.5, 1.5]).tolist()
    [0, 1, 2]
    """
    x, bins = tensor(x), tensor(bins)
    if rank(bins) > 1:
        raise ValueError(f"`bins` must be a 1D array. Received: bins={bins} with shape bins.shape={shape_of(bins)}")
    return kernel("digitize")(x, bins)


@public("numpy", "IsIn", "x1 x2")
def isin(x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """Whether each value of x1 is among those of x2 (with `invert`: is not)."""
    return kernel("isin")(tensor(x1), tensor(x2), assume_unique=bool(assume_unique), invert=bool(invert))


@public("numpy", "Ptp")
def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The greatest value over `axis` minus the smallest."""
    return kernel("ptp")(tensor(x), axis=fixed(axis), keepdims=bool(keepdims))


@public("numpy", "Percentile", "x q")
def percentile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which `q` percent of the values over `axis` lie."""
    return kernel("percentile")(tensor(x), tensor(q), axis=fixed(axis), method=method, keepdims=bool(keepdims))


@public("numpy", "Histogram")
def histogram(x: Any, bins: int = 10, range: Any = None) -> Any:
    """How many values fall into each of `bins` parts of `range` (of smallest to greatest), and the parts' bounds.

    >>> counts, bounds = histogram([0.0, 1.0, 1.0, 2.0], bins=2)
    >>> counts.tolist(), bounds.tolist()
    ([1.0, 3.0], [0.0, 1.0, 2.0])
    """
    if not isinstance(bins, int):
        raise TypeError(f"Argument `bins` must be of type `int`. Received: bins={bins}")
    if bins < 0:
        raise ValueError(f"Argument `bins` should be a non-negative integer. Received: bins={bins}")
    if range:
        if len(range) < 2 or not isinstance(range, tuple):
            raise ValueError(f"Argument `range` must be a tuple of two elements. Received: range={range}")
        if range[1] < range[0]:
            raise ValueError(f"The second element of `range` must be greater than the first. Received: range={range}")
    x = tensor(x)
    if rank(x) > 1:
        raise ValueError(f"Input tensor must be 1-dimensional. Received: input.shape={shape_of(x)}")
    from ..compiler.ops.registry import items

    return items(kernel("histogram")(x, bins=bins, range=range or None))


def _eager_only(name: str, x: Any) -> Any:
    if hasattr(x, "op"):
        raise TypeError(
            f"ops.{name} in a graph: the size of its result depends on values, so it cannot be compiled. "
            f"Call it on arrays outside of the model."
        )
    import jax.numpy as jnp

    return jnp.asarray(x)


def _nonzero_spec(x: Any) -> tuple:
    return tuple(KerasTensor((None,), "int32") for _ in x.shape)


@public("numpy", "Nonzero", spec=_nonzero_spec)
def nonzero(x: Any) -> Any:
    """The places of values that are not 0: one vector of indices for each axis. On arrays only."""
    import jax.numpy as jnp

    return jnp.nonzero(_eager_only("nonzero", tensor(x)))


def _bincount_spec(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    import jax.numpy as jnp

    kind = "int32" if weights is None else jnp.result_type(x.dtype, dtype_of(tensor(weights))).name
    return KerasTensor((*x.shape[:-1], None), kind)


@public("numpy", "Bincount", spec=_bincount_spec)
def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    """How often each number from 0 to the greatest comes (or the sum of its `weights`), for each row of x.

    On arrays only; in a graph use `one_hot` and `sum`.

    >>> bincount([1, 2, 2], minlength=4).tolist()
    [0, 1, 2, 0]
    """
    import jax.numpy as jnp

    if sparse:
        raise ValueError("sparse tensors are not supported")
    x = _eager_only("bincount", tensor(x))
    weights = None if weights is None else jnp.asarray(tensor(weights))
    if x.ndim < 2:
        return jnp.bincount(x, weights=weights, minlength=minlength)
    length = max(int(x.max(initial=-1)) + 1, int(minlength))
    rows = [
        jnp.bincount(row, weights=None if weights is None else weights[i], length=length) for i, row in enumerate(x)
    ]
    return jnp.stack(rows)


def _unique_spec(
    x: Any,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    shape = list(known_shape(x))
    lines = shape if axis is None else (shape[axis],)
    if axis is not None:
        shape[axis] = size
    results = [KerasTensor((size,) if axis is None else tuple(shape), x.dtype)]
    results += [KerasTensor((size,), "int32")] if return_index else []
    results += [KerasTensor(tuple(lines), "int32")] if return_inverse else []
    results += [KerasTensor((size,), "int32")] if return_counts else []
    return results[0] if len(results) == 1 else tuple(results)


@public("numpy", "Unique", spec=_unique_spec)
def unique(
    x: Any,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The distinct values of x (or its distinct slices along `axis`) in ascending order.

    With `size` the result has that many values (filled up with `fill_value`), and graphs can hold it.

    >>> values, counts = unique([3, 1, 3], return_counts=True)
    >>> values.tolist(), counts.tolist()
    ([1, 3], [1, 2])
    """
    x = tensor(x)
    flags = {"return_index": return_index, "return_inverse": return_inverse, "return_counts": return_counts}
    settings = {**flags, "axis": axis, "size": size, "fill_value": fill_value, "sorted": sorted}
    if size is None:
        return _unique(_eager_only("unique", x), **settings)
    from ..compiler.ops.registry import items

    made = kernel("unique", _unique)(x, **settings)
    return items(made) if any(flags.values()) else made


def _unique(x: Any, **settings: Any) -> Any:
    import jax.numpy as jnp

    return jnp.unique(jnp.asarray(x), equal_nan=False, **settings)
