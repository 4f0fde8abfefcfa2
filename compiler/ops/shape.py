"""Ops that move, repeat, convert or sum elements without looking at them.

Sizes in attributes may be unknown (symbolic); `kerasoft.compiler.lower` puts the numbers in.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node, TensorType
from . import rules
from .registry import VJP, op


def no_gradient(n: Node, dy: Any) -> tuple:
    """The rule of ops whose derivative is zero everywhere."""
    return (None,) * len(n.inputs)


def is_float(x: Any) -> bool:
    """Whether a node or an array holds floating-point values."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def dtype_name(dtype: Any) -> str:
    """The name of a dtype given as name, NumPy or JAX type; 64-bit types become 32-bit."""
    name = jnp.dtype(dtype).name
    return {"float64": "float32", "int64": "int32", "uint64": "uint32"}.get(name, name)


cast_op = op(
    "cast",
    lower=lambda x, *, dtype: jnp.asarray(x).astype(dtype),
    gradient=lambda n, dy: (cast(dy, n.inputs[0].dtype) if n.inputs[0].type.is_float else None,),
    doc="x as dtype: (...) -> (...).",
)


def cast(x: Any, dtype: Any) -> Any:
    """`x` converted to `dtype`: (...) -> (...); `x` itself when it has it already."""
    dtype = dtype_name(dtype)
    return x if isinstance(x, Node) and x.dtype == dtype else cast_op(x, dtype=dtype)


zeros_like = op(
    "zeros_like",
    lower=lambda x, *, dtype=None: jnp.zeros_like(x, dtype=dtype),
    gradient=no_gradient,
    result=rules.as_first,
    doc="Zeros of the shape and dtype (or `dtype`) of x.",
)
ones_like = op(
    "ones_like",
    lower=lambda x, *, dtype=None: jnp.ones_like(x, dtype=dtype),
    gradient=no_gradient,
    result=rules.as_first,
    doc="Ones of the shape and dtype (or `dtype`) of x.",
)
reshape = op(
    "reshape",
    lower=lambda x, *, shape: jnp.reshape(x, shape),
    gradient=lambda n, dy: (reshape(dy, shape=n.inputs[0].shape),),
    doc="The elements of x, row-major, as `shape` (one size may be -1).",
)
broadcast_to = op(
    "broadcast_to",
    lower=lambda x, *, shape: jnp.broadcast_to(x, shape),
    gradient=lambda n, dy: (unbroadcast(dy, n.inputs[0]),),
    result=rules.spread,
    doc="x repeated along new and size-1 axes to `shape`.",
)
sum = op(
    "sum",
    lower=lambda x, *, axis=None, keepdims=False: jnp.sum(x, axis=axis, keepdims=keepdims),
    gradient=lambda n, dy: (spread(n, dy),),
    result=rules.reduced,
    doc="The sum over `axis` (None: all axes, int or tuple).",
)


def unbroadcast(dy: Node, like: Node) -> Node:
    """`dy` summed over the axes along which `like` was broadcast and cast to its dtype: of exactly `like`'s type."""
    if dy.type == like.type:
        return dy
    extra = dy.ndim - like.ndim
    axes = tuple(range(extra)) + tuple(
        extra + i for i, d in enumerate(like.shape) if d == 1 and dy.shape[extra + i] != 1
    )
    summed = sum(dy, axis=axes) if axes else dy
    return cast(summed if summed.shape == like.shape else reshape(summed, shape=like.shape), like.dtype)


def reduced_axes(x: Any, axis: Any) -> tuple[int, ...]:
    """The axes a reduction over `axis` of `x` takes away, as sorted non-negative ints."""
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(sorted({a % x.ndim for a in ([axis] if isinstance(axis, int) else axis)}))


def keep_reduced(n: Node, value: Node) -> Node:
    """`value`, of the shape of the reduction `n`, with its reduced axes put back as size 1."""
    x = n.inputs[0]
    axes = reduced_axes(x, n.attrs.get("axis"))
    kept = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    return value if value.shape == kept else reshape(value, shape=kept)


def spread(n: Node, value: Node) -> Node:
    """`value`, of the shape of the reduction `n`, repeated over the axes that `n` reduced."""
    return broadcast_to(keep_reduced(n, value), shape=n.inputs[0].shape)


# --- order of axes ------------------------------------------------------------------------------------------------


def _transpose_gradient(n: Node, dy: Node) -> tuple:
    axes = n.attrs["axes"]
    return (transpose_op(dy, axes=tuple(axes.index(i) for i in range(len(axes)))),)


transpose_op = op(
    "transpose",
    lower=lambda x, *, axes: jnp.transpose(x, axes),
    gradient=_transpose_gradient,
    doc="Axis i of the result is axis axes[i] of x.",
)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """`x` with its axes in the order `axes` (reversed by default)."""
    axes = tuple(a % x.ndim for a in axes) if axes is not None else tuple(reversed(range(x.ndim)))
    return x if isinstance(x, Node) and axes == tuple(range(x.ndim)) else transpose_op(x, axes=axes)


def swapaxes(x: Any, first: int, second: int) -> Any:
    """`x` with two axes exchanged."""
    axes = list(range(x.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return transpose(x, axes)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """`x` with the axes `source` moved to the places `destination`, the others in order."""
    sources = [a % x.ndim for a in ([source] if isinstance(source, int) else source)]
    places = [a % x.ndim for a in ([destination] if isinstance(destination, int) else destination)]
    order = [a for a in range(x.ndim) if a not in sources]
    for place, a in sorted(zip(places, sources)):
        order.insert(place, a)
    return transpose(x, order)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Any:
    """`x` with new axes of size 1 at the places `axis` of the result."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    rank = x.ndim + len(axes)
    places = {a % rank for a in axes}
    old = iter(x.shape)
    return reshape(x, shape=tuple(1 if i in places else next(old) for i in range(rank)))


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """`x` without the size-1 axes `axis` (None: without any of known size 1).

    Raises:
        ShapeError: an axis of `axis` has another size.
    """
    if axis is None:
        axes = {i for i, d in enumerate(x.shape) if isinstance(d, int) and d == 1}
    else:
        axes = {a % x.ndim for a in ([axis] if isinstance(axis, int) else axis)}
        for a in axes:
            if isinstance(x.shape[a], int) and x.shape[a] != 1:
                raise ShapeError(f"squeeze cannot remove axis {a} of shape {tuple(x.shape)}: its size is not 1")
    return reshape(x, shape=tuple(d for i, d in enumerate(x.shape) if i not in axes))


# --- joining and cutting ------------------------------------------------------------------------------------------


def _concatenate_gradient(n: Node, dy: Node) -> tuple:
    axis, parts, start = n.attrs["axis"], [], 0
    for x in n.inputs:
        axis = axis % x.ndim
        parts.append(cast(slice_axis(dy, axis, start, start + x.shape[axis]), x.dtype))
        start = start + x.shape[axis]
    return tuple(parts)


concatenate_op = op(
    "concatenate",
    lower=lambda *xs, axis: jnp.concatenate(xs, axis=axis),
    gradient=_concatenate_gradient,
    doc="Arrays one after another along `axis`.",
)


def concatenate(xs: Sequence[Any], axis: int = 0) -> Any:
    """Arrays of equal shape but for `axis`, one after another along it."""
    return concatenate_op(*xs, axis=axis)


def stack(xs: Sequence[Any], axis: int = 0) -> Any:
    """Arrays of one shape along a new axis."""
    return concatenate([expand_dims(x, axis) for x in xs], axis=axis % (xs[0].ndim + 1))


def unstack(x: Any, axis: int = 0) -> list:
    """The slices of `x` along `axis`, without that axis."""
    axis = axis % x.ndim
    return [squeeze(slice_axis(x, axis, i, i + 1), axis) for i in range(x.shape[axis])]


def _strided_slice(x, *, start, limit, stride):
    return jax.lax.slice(jnp.asarray(x), start, limit, stride)


def _strided_slice_gradient(n: Node, dy: Node) -> tuple:
    config = tuple(
        (lo, d - lo - _extent(m, s), s - 1)
        for d, m, lo, s in zip(n.inputs[0].shape, dy.shape, n.attrs["start"], n.attrs["stride"])
    )
    return (pad_op(dy, config=config, value=0.0),)


def _extent(count: Any, step: int) -> Any:
    """Cells between the first and past the last of `count` cells taken `step` apart; 0 for none."""
    return 0 if isinstance(count, int) and count == 0 else (count - 1) * step + 1


def _strided_slice_type(types: Sequence[TensorType], attrs: Any) -> TensorType:
    """By hand, because JAX must prove that bounds such as b - 2 are inside."""
    (x,) = types
    sizes = []
    for axis, (d, lo, hi, step) in enumerate(zip(x.shape, attrs["start"], attrs["limit"], attrs["stride"])):
        known = all(isinstance(v, int) for v in (d, lo, hi))
        if step < 1 or (known and not 0 <= lo <= hi <= d):
            raise ShapeError(f"strided_slice cannot take cells {lo}:{hi}:{step} of axis {axis} of {x}")
        sizes.append(hi - lo if step == 1 else -((lo - hi) // step))
    return TensorType(tuple(sizes), x.dtype)


strided_slice = op(
    "strided_slice",
    lower=_strided_slice,
    result=_strided_slice_type,
    gradient=_strided_slice_gradient,
    doc="x[start_i : limit_i : stride_i] on every axis i; bounds inside the array, strides positive.",
)


def slice_axis(x: Any, axis: int, start: Any, limit: Any, stride: int = 1) -> Any:
    """``x[..., start:limit:stride, ...]`` on one axis; `x` itself when that is all of it."""
    axis = axis % x.ndim
    if isinstance(x, Node) and stride == 1 and start == 0 and limit == x.shape[axis]:
        return x
    return strided_slice(
        x,
        start=tuple(start if i == axis else 0 for i in range(x.ndim)),
        limit=tuple(limit if i == axis else d for i, d in enumerate(x.shape)),
        stride=tuple(stride if i == axis else 1 for i in range(x.ndim)),
    )


def slice(x: Any, start: Sequence[Any], size: Sequence[Any]) -> Any:
    """The block of shape `size` at `start`."""
    limit = tuple(a + b for a, b in zip(start, size))
    return strided_slice(x, start=tuple(start), limit=limit, stride=(1,) * x.ndim)


def split(x: Any, indices_or_sections: int | Sequence[Any], axis: int = 0) -> list:
    """`x` cut along `axis` into n equal parts, or at the given positions.

    Raises:
        ShapeError: the size is not a multiple of the number of parts.
    """
    size = x.shape[axis]
    if isinstance(indices_or_sections, int):
        parts = indices_or_sections
        if isinstance(size, int) and size % parts:
            raise ShapeError(f"split cannot cut axis {axis} of shape {tuple(x.shape)} into {parts} equal parts")
        cuts = [size // parts * i for i in range(parts + 1)]
    else:
        cuts = [0, *indices_or_sections, size]
    return [slice_axis(x, axis, a, b) for a, b in zip(cuts, cuts[1:])]


# --- padding and repeating ----------------------------------------------------------------------------------------


def _pad(x, *, config, value):
    x = jnp.asarray(x)
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), config)


def _pad_gradient(n: Node, dy: Node) -> tuple:
    start = tuple(lo for lo, _, _ in n.attrs["config"])
    limit = tuple(d - hi for d, (_, hi, _) in zip(dy.shape, n.attrs["config"]))
    return (strided_slice(dy, start=start, limit=limit, stride=tuple(i + 1 for _, _, i in n.attrs["config"])),)


def _pad_type(types: Sequence[TensorType], attrs: Any) -> TensorType:
    (x,) = types
    for lo, hi, between in attrs["config"]:
        if any(isinstance(v, int) and v < 0 for v in (lo, hi, between)):
            raise ShapeError(f"pad of {x} cannot add {lo}, {hi} and {between} cells; use a slice to take cells away")
    sizes = (lo + hi + (_extent(d, between + 1)) for d, (lo, hi, between) in zip(x.shape, attrs["config"]))
    return TensorType(tuple(sizes), x.dtype)


pad_op = op(
    "pad",
    lower=_pad,
    result=_pad_type,
    gradient=_pad_gradient,
    doc="x with (before, after, between) cells of `value` on each axis, none negative.",
)
pad_mirror = op(
    "pad_mirror",
    lower=lambda x, *, widths, mode: jnp.pad(x, widths, mode=mode),
    gradient=VJP,
    doc="x extended by its own cells; mode reflect, symmetric, edge or wrap.",
)


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: float = 0) -> Any:
    """`x` with cells added at both ends of its axes.

    Args:
        pad_width: one (before, after) for each axis, one pair for all, or one int.
        mode: constant, reflect, symmetric, edge or wrap.
    """
    widths: Any = pad_width
    if isinstance(widths, int):
        widths = ((widths, widths),) * x.ndim
    elif len(widths) and isinstance(widths[0], int):
        widths = (tuple(widths) if len(widths) == 2 else (widths[0], widths[0]),) * x.ndim
    widths = tuple((w[0], w[-1]) for w in widths)
    if mode == "constant":
        return pad_op(x, config=tuple((lo, hi, 0) for lo, hi in widths), value=constant_values)
    return pad_mirror(x, widths=widths, mode=mode)


flip_op = op(
    "flip",
    lower=lambda x, *, axis: jnp.flip(x, axis),
    gradient=lambda n, dy: (flip_op(dy, axis=n.attrs["axis"]),),
    doc="x in reverse order along `axis` (None: all axes).",
)


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """`x` in reverse order along `axis` (all axes by default)."""
    return flip_op(x, axis=axis)


roll = op(
    "roll",
    lower=lambda x, *, shift, axis=None: jnp.roll(x, shift, axis),
    gradient=lambda n, dy: (roll(dy, **{**n.attrs, "shift": _negated(n.attrs["shift"])}),),
    doc="x shifted by `shift` cells along `axis`, cells leaving one end entering at the other.",
)


def _negated(shift: Any) -> Any:
    return tuple(-s for s in shift) if isinstance(shift, tuple) else -shift


def repeat(x: Any, repeats: int, axis: int | None = None) -> Any:
    """Each cell along `axis` `repeats` times in a row (None: of the flattened array)."""
    if axis is None:
        return repeat(reshape(x, shape=(-1,)), repeats, 0)
    axis = axis % x.ndim
    before, after = tuple(x.shape[: axis + 1]), tuple(x.shape[axis + 1 :])
    wide = broadcast_to(reshape(x, shape=(*before, 1, *after)), shape=(*before, repeats, *after))
    return reshape(wide, shape=(*before[:-1], before[-1] * repeats, *after))


def tile(x: Any, repeats: int | Sequence[int]) -> Any:
    """`x` laid `repeats[i]` times side by side along axis i, axes aligned at the end."""
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = builtins.max(len(counts), x.ndim)
    counts = [1] * (rank - len(counts)) + counts
    sizes = [1] * (rank - x.ndim) + list(x.shape)
    thin = reshape(x, shape=tuple(v for d in sizes for v in (1, d)))
    wide = broadcast_to(thin, shape=tuple(v for c, d in zip(counts, sizes) for v in (c, d)))
    return reshape(wide, shape=tuple(c * d for c, d in zip(counts, sizes)))


def flatten(x: Any) -> Any:
    """(b, ...) -> (b, product of the rest)."""
    return reshape(x, shape=(x.shape[0], math.prod(x.shape[1:])))
