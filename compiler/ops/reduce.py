"""Reductions, scans, sorting and sums by segment."""

from __future__ import annotations

import builtins
from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node, is_static, node
from . import arithmetic as a
from . import shape
from .registry import VJP, op
from .shape import cast, keep_reduced, reduced_axes, spread, sum, unbroadcast

__all__ = ["sum", "unbroadcast"]


# --- sizes as values ----------------------------------------------------------------------------------------------

dimension_op = op(
    "dimension",
    lower=lambda *, size, dtype: jnp.asarray(size, dtype),
    doc="A size, known or unknown, as a number: -> ().",
)


def dimension(size: Any, dtype: str = "int32") -> Any:
    """A size as a value: a node when it is unknown, else an array."""
    return (
        dimension_op(size=size, dtype=dtype)
        if is_static(size)
        else node(dimension_op, (), {"size": size, "dtype": dtype})
    )


def count(x: Any, axis: Any = None) -> Any:
    """How many elements of `x` a reduction over `axis` takes together: an int, or an unknown size."""
    total: Any = 1
    for i in reduced_axes(x, axis):
        total = total * x.shape[i]
    return total


def _mean_gradient(n: Node, dy: Node) -> tuple:
    x = n.inputs[0]
    if not x.type.is_float:  # type: ignore[union-attr]
        return (None,)
    size = count(x, n.attrs.get("axis"))
    divisor = float(size) if is_static(size) else dimension(size, dy.dtype)
    return (spread(n, a.divide(dy, divisor)),)


mean = op(
    "mean",
    lower=lambda x, *, axis=None, keepdims=False: jnp.mean(x, axis=axis, keepdims=keepdims),
    gradient=_mean_gradient,
    doc="The arithmetic mean over `axis`.",
)


def _extreme_gradient(n: Node, dy: Node) -> tuple:
    """Equal shares to all elements that are the extreme."""
    x = n.inputs[0]
    hit = cast(a.equal(x, keep_reduced(n, n)), dy.dtype)
    ties = sum(hit, axis=n.attrs.get("axis"), keepdims=True)
    return (a.multiply(hit, a.divide(keep_reduced(n, dy), ties)),)


max = op(
    "max",
    lower=lambda x, *, axis=None, keepdims=False: jnp.max(x, axis=axis, keepdims=keepdims),
    gradient=_extreme_gradient,
    doc="The largest element over `axis` (gradient shared among equals).",
)
min = op(
    "min",
    lower=lambda x, *, axis=None, keepdims=False: jnp.min(x, axis=axis, keepdims=keepdims),
    gradient=_extreme_gradient,
    doc="The smallest element over `axis` (gradient shared among equals).",
)
prod = op(
    "prod",
    lower=lambda x, *, axis=None, keepdims=False: jnp.prod(x, axis=axis, keepdims=keepdims),
    gradient=VJP,
    doc="The product over `axis`.",
)
all = op(
    "all",
    lower=lambda x, *, axis=None, keepdims=False: jnp.all(x, axis=axis, keepdims=keepdims),
    doc="Whether all elements over `axis` are true.",
)
any = op(
    "any",
    lower=lambda x, *, axis=None, keepdims=False: jnp.any(x, axis=axis, keepdims=keepdims),
    doc="Whether an element over `axis` is true.",
)


def _place(find, x, axis, keepdims):
    """`find` (argmax or argmin) of floats in which -0.0 is less than 0.0, as in Keras on CPUs."""
    if x.ndim and jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = jnp.where((x == 0) & jnp.signbit(x), -jnp.finfo(x.dtype).tiny, x)
    return find(x, axis=axis, keepdims=keepdims).astype(jnp.int32)


argmax = op(
    "argmax",
    lower=lambda x, *, axis=None, keepdims=False: _place(jnp.argmax, x, axis, keepdims),
    doc="int32 position of the first largest element along `axis` (None: of the flattened array).",
)
argmin = op(
    "argmin",
    lower=lambda x, *, axis=None, keepdims=False: _place(jnp.argmin, x, axis, keepdims),
    doc="int32 position of the first smallest element along `axis` (None: of the flattened array).",
)
count_nonzero = op(
    "count_nonzero",
    lower=lambda x, *, axis=None, keepdims=False: jnp.count_nonzero(x, axis=axis, keepdims=keepdims).astype(jnp.int32),
    doc="int32 number of elements over `axis` that are not 0.",
)


def _logsumexp_gradient(n: Node, dy: Node) -> tuple:
    return (a.multiply(keep_reduced(n, dy), a.exp(a.subtract(n.inputs[0], keep_reduced(n, n)))),)


logsumexp = op(
    "logsumexp",
    lower=lambda x, *, axis=None, keepdims=False: jax.nn.logsumexp(x, axis=axis, keepdims=keepdims),
    gradient=_logsumexp_gradient,
    doc="log(sum(exp(x))) over `axis`, without overflow.",
)


def var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean squared distance from the mean over `axis` (biased)."""
    x = x if shape.is_float(x) else cast(x, "float32")
    return mean(a.square(a.subtract(x, mean(x, axis=axis, keepdims=True))), axis=axis, keepdims=keepdims)


def std(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The square root of `var`."""
    return a.sqrt(var(x, axis=axis, keepdims=keepdims))


def moments(x: Any, axis: Any, keepdims: bool = False) -> tuple:
    """Mean and biased variance over `axis`."""
    centre = mean(x, axis=axis, keepdims=True)
    spread_ = mean(a.square(a.subtract(x, centre)), axis=axis, keepdims=keepdims)
    return (centre if keepdims else mean(x, axis=axis)), spread_


# --- scans --------------------------------------------------------------------------------------------------------


def _cumsum_gradient(n: Node, dy: Node) -> tuple:
    return (cumsum(dy, axis=n.attrs["axis"], reverse=not n.attrs.get("reverse", False)),)


cumsum = op(
    "cumsum",
    lower=lambda x, *, axis, reverse=False: _scan(jax.lax.cumsum, x, axis, reverse),
    gradient=_cumsum_gradient,
    doc="Running sums along `axis`, from the end when `reverse`.",
)
cumprod = op(
    "cumprod",
    lower=lambda x, *, axis, reverse=False: _scan(jax.lax.cumprod, x, axis, reverse),
    gradient=VJP,
    doc="Running products along `axis`, from the end when `reverse`.",
)
cummax = op(
    "cummax",
    lower=lambda x, *, axis, reverse=False: _scan(jax.lax.cummax, x, axis, reverse),
    gradient=VJP,
    doc="Running maxima along `axis`, from the end when `reverse`.",
)


def _scan(function: builtins.object, x: Any, axis: int, reverse: bool) -> jax.Array:
    x = jnp.asarray(x)
    x = x.astype(jnp.int32) if x.dtype == bool else x
    return function(x, axis=axis % x.ndim, reverse=reverse)  # type: ignore[operator]


# --- order --------------------------------------------------------------------------------------------------------

sort = op(
    "sort",
    lower=lambda x, *, axis=-1: jnp.sort(x, axis=axis),
    gradient=VJP,
    doc="x in ascending order along `axis`.",
)
argsort = op(
    "argsort",
    lower=lambda x, *, axis=-1: jnp.argsort(x, axis=axis).astype(jnp.int32),
    doc="int32 positions that put x in ascending order along `axis`, equals in place.",
)
top_k_op = op(
    "top_k",
    lower=lambda x, *, k: tuple(jax.lax.top_k(jnp.asarray(x), k)),
    gradient=VJP,
    doc="The k largest along the last axis, largest first: (..., n) -> (..., k), int32 positions (..., k).",
)


def top_k(x: Any, k: int) -> tuple:
    """Values and positions of the `k` largest along the last axis, largest first."""
    from .registry import items

    return items(top_k_op(x, k=k))


in_top_k = op(
    "in_top_k",
    lower=lambda targets, predictions, *, k: _in_top_k(targets, predictions, k),
    doc="Whether row i's class targets[i] is among its k highest: int (n), (n, c) -> bool (n).",
)


def _in_top_k(targets: Any, predictions: Any, k: int) -> jax.Array:
    predictions = jnp.asarray(predictions)
    own = jnp.take_along_axis(predictions, jnp.asarray(targets)[..., None], axis=-1)
    return jnp.sum(predictions > own, axis=-1) < k


# --- segments -----------------------------------------------------------------------------------------------------


def _segment_sum(x: Any, ids: Any, *, count: int) -> jax.Array:
    x, ids = jnp.asarray(x), jnp.asarray(ids)
    ids = jnp.where(ids < 0, count, ids)  # an index below 0 would count from the end
    return jnp.zeros((count, *x.shape[1:]), x.dtype).at[ids].add(x, mode="drop")


def _segment_sum_gradient(n: Node, dy: Node) -> tuple:
    from .indexing import take

    x, ids = n.inputs
    inside = a.logical_and(a.greater_equal(ids, 0), a.less(ids, n.attrs["count"]))
    rows = take(dy, a.where(inside, ids, a.zeros_like(ids)), axis=0)
    inside = shape.reshape(inside, shape=(*ids.shape, *(1,) * (rows.ndim - ids.ndim)))
    return a.where(inside, rows, a.zeros_like(rows)), None


segment_sum = op(
    "segment_sum",
    lower=_segment_sum,
    gradient=_segment_sum_gradient,
    doc="Sums of the rows of each segment: (n, ...), int ids (n) -> (count, ...); ids outside are dropped.",
)
segment_max = op(
    "segment_max",
    lower=lambda x, ids, *, count: jax.ops.segment_max(jnp.asarray(x), jnp.asarray(ids), count),
    gradient=VJP,
    doc="Maxima of the rows of each segment, -inf for none: (n, ...), int ids (n) -> (count, ...).",
)


def _bincount(x: Any, *weights: Any, length: int) -> jax.Array:
    return jnp.bincount(jnp.ravel(x), weights=jnp.ravel(weights[0]) if weights else None, length=length)


bincount = op(
    "bincount",
    lower=_bincount,
    doc="How often (or with what total weight) each of 0..length-1 occurs: int (n)[, (n)] -> (length).",
)
