"""Picking and placing elements: getitem, take, gather, scatter, one-hot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node, symbol
from . import shape
from .registry import VJP, op

# --- rows and elements --------------------------------------------------------------------------------------------


def _take_gradient(n: Node, dy: Node) -> tuple:
    x, ids = n.inputs
    axis = n.attrs["axis"]
    if axis:  # bring the picked axes to the front, place rows, bring the axis back
        front = tuple(range(axis, axis + ids.ndim))
        rest = tuple(i for i in range(dy.ndim) if i not in front)
        dy = shape.transpose(dy, front + rest)
    dx = scatter_rows(dy, ids, count=x.shape[axis])
    return (shape.moveaxis(dx, 0, axis) if axis else dx), None


take_op = op(
    "take",
    lower=lambda x, ids, *, axis: jnp.take(jnp.asarray(x), jnp.asarray(ids), axis=axis),
    gradient=_take_gradient,
    doc="x at positions ids of `axis` (negative: from the end; outside: NaN): (.., n, ..), int (i..) -> (.., i.., ..).",
)


def take(x: Any, ids: Any, axis: int | None = None) -> Any:
    """Cells of `x` at the positions `ids` of `axis` (None: of the flattened array)."""
    if axis is None:
        return take_op(shape.reshape(x, shape=(-1,)), ids, axis=0)
    return take_op(x, ids, axis=axis % x.ndim)


embedding_lookup = op(
    "embedding_lookup",
    lower=lambda table, ids: jnp.take(jnp.asarray(table), jnp.asarray(ids), axis=0),
    gradient=lambda n, dy: (scatter_rows(dy, n.inputs[1], count=n.inputs[0].shape[0]), None),
    flops=lambda types, attrs, result: 0,
    doc="Rows of a table: (n, d), int ids (...) -> (..., d); ids outside give NaN.",
)


def _scatter_rows(rows: Any, ids: Any, *, count: int) -> jax.Array:
    rows, ids = jnp.asarray(rows), jnp.asarray(ids)
    return jnp.zeros((count, *rows.shape[ids.ndim :]), rows.dtype).at[ids].add(rows, mode="drop")


scatter_rows = op(
    "scatter_rows",
    lower=_scatter_rows,
    gradient=lambda n, dy: (take_op(dy, n.inputs[1], axis=0), None),
    doc="Zeros with rows added at their ids, the gradient of a lookup: (i.., d..), int (i..) -> (count, d..).",
)
take_along_axis = op(
    "take_along_axis",
    lower=lambda x, ids, *, axis: jnp.take_along_axis(jnp.asarray(x), jnp.asarray(ids), axis=axis),
    gradient=lambda n, dy: (
        scatter_along_axis(dy, n.inputs[1], axis=n.attrs["axis"] % n.inputs[0].ndim, shape=n.inputs[0].shape),
        None,
    ),
    doc="x[.., ids[.., i, ..], ..] along `axis`: (.., n, ..), int (.., i, ..) -> (.., i, ..).",
)


def _scatter_along_axis(dy: Any, ids: Any, *, axis: int, shape: tuple) -> jax.Array:
    """Zeros of `shape` with dy added at take_along_axis' positions: (.., i, ..), int (.., i, ..) -> shape."""
    zeros = jax.ShapeDtypeStruct(shape, dy.dtype)
    return jax.linear_transpose(lambda x: jnp.take_along_axis(x, jnp.asarray(ids), axis=axis), zeros)(jnp.asarray(dy))[
        0
    ]


scatter_along_axis = op(
    "scatter_along_axis",
    lower=_scatter_along_axis,
    gradient=lambda n, dy: (take_along_axis(dy, n.inputs[1], axis=n.attrs["axis"]), None),
)


def _scatter_add(x: Any, ids: Any, updates: Any) -> jax.Array:
    ids = jnp.asarray(ids)
    return jnp.asarray(x).at[tuple(jnp.moveaxis(ids, -1, 0))].add(updates)


scatter_add = op(
    "scatter_add",
    lower=_scatter_add,
    gradient=VJP,
    doc="x with updates added at index tuples: (d..), int (i.., k), (i.., rest of d) -> (d..).",
)
scatter_update = op(
    "scatter_update",
    lower=lambda x, ids, updates: jnp.asarray(x).at[tuple(jnp.moveaxis(jnp.asarray(ids), -1, 0))].set(updates),
    gradient=VJP,
    doc="x with updates put at index tuples: (d..), int (i.., k), (i.., rest of d) -> (d..).",
)
dynamic_slice_op = op(
    "dynamic_slice",
    lower=lambda x, *starts, size: jax.lax.dynamic_slice(jnp.asarray(x), starts, size),
    gradient=VJP,
    doc="The block of shape `size` at computed int starts, one scalar an axis, moved inside where needed.",
)
dynamic_update_slice_op = op(
    "dynamic_update_slice",
    lower=lambda x, block, *starts: jax.lax.dynamic_update_slice(jnp.asarray(x), jnp.asarray(block), starts),
    gradient=VJP,
    doc="x with a block put at computed int starts, one scalar an axis.",
)


def _position(start: Any) -> Any:
    """A start as int32; a number would take the dtype of x."""
    return shape.cast(start, "int32") if isinstance(start, Node) else jnp.asarray(start, jnp.int32)


def dynamic_slice(x: Any, starts: Sequence[Any], size: Sequence[int]) -> Any:
    """The block of shape `size` at `starts`, which may be computed."""
    return dynamic_slice_op(x, *map(_position, starts), size=tuple(size))


def dynamic_update_slice(x: Any, block: Any, starts: Sequence[Any]) -> Any:
    """`x` with `block` put at `starts`, which may be computed."""
    return dynamic_update_slice_op(x, block, *map(_position, starts))


one_hot_op = op(
    "one_hot",
    lower=lambda ids, *, num_classes, dtype, axis: jax.nn.one_hot(
        jnp.asarray(ids), num_classes, dtype=dtype, axis=axis
    ),
    doc="1 at position ids of a new `axis` of num_classes cells, else 0: int (...) -> (..., num_classes).",
)


def one_hot(ids: Any, num_classes: int, dtype: Any = "float32", axis: int = -1) -> Any:
    """1 at position `ids` of a new axis of `num_classes` cells, 0 elsewhere; ids outside give zeros."""
    return one_hot_op(ids, num_classes=num_classes, dtype=shape.dtype_name(dtype), axis=axis)


# --- x[...] -------------------------------------------------------------------------------------------------------

index_arrays = op(
    "index_arrays",
    lower=lambda x, *ids, axes: jnp.asarray(x)[
        tuple(ids[axes.index(i)] if i in axes else slice(None) for i in range(max(axes) + 1))
    ],
    gradient=VJP,
    doc="x with broadcast int arrays at several `axes`, NumPy's advanced indexing.",
)


def _bounds(key: slice, size: Any) -> tuple[Any, Any, int]:
    """Start, limit and positive step of `key` on an axis of `size`; the step's sign is handled by the caller."""
    step = 1 if key.step is None else key.step
    if isinstance(size, int) and all(v is None or isinstance(v, int) for v in (key.start, key.stop)):
        start, stop, step = key.indices(size)
        if step > 0:
            return start, max(start, stop), step
        count = len(range(start, stop, step))
        return (start + (count - 1) * step, start + 1, -step) if count else (0, 0, -step)
    if step < 0 and not (key.start is None and key.stop is None):
        raise ShapeError(f"a backward slice with bounds needs a known size, got an axis of size {size}")

    def place(v: Any, default: Any) -> Any:
        if v is None:
            return default
        if isinstance(v, int) and v < 0:
            return size + v
        if isinstance(v, int) and v > 0:
            return symbol(f"min({v}, {size})")
        return v

    if step < 0:
        raise (
            ShapeError(f"a backward slice with a step needs a known size, got an axis of size {size}")
            if (step != -1)
            else _Reversed()
        )
    return place(key.start, 0), place(key.stop, size), step


class _Reversed(Exception):
    """``x[::-1]`` on an axis of unknown size."""


def getitem(x: Any, key: Any) -> Any:
    """``x[key]`` with ints, slices, None, ... and int arrays (nodes); no boolean masks.

    Raises:
        ShapeError: too many indices, an int outside the axis, or a mask.
    """
    if not isinstance(x, Node):
        return jnp.asarray(x)[key]
    keys = list(key) if isinstance(key, tuple) else [key]
    taken = sum(k is not None and k is not Ellipsis for k in keys)
    if taken > x.ndim:
        raise ShapeError(f"too many indices for {x.type}: {taken}")
    fill = [slice(None)] * (x.ndim - taken)
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
    keys = [*keys, *fill] if at is None else [*keys[:at], *fill, *keys[at + 1 :]]
    cuts: list[tuple[Any, Any, int]] = []
    flips: list[int] = []
    arrays: list[tuple[int, Any]] = []
    sizes: list[Any] = []  # of the result, before arrays are applied
    axis = 0
    for k in keys:
        if k is None:
            sizes.append(1)
            continue
        size = x.shape[axis]
        if isinstance(k, slice):
            try:
                lo, hi, step = _bounds(k, size)
                backward = k.step is not None and k.step < 0
            except _Reversed:
                lo, hi, step, backward = 0, size, 1, True
            cuts.append((lo, hi, step))
            if backward:
                flips.append(axis)
            sizes.append(hi - lo if step == 1 else -((lo - hi) // step))
        elif isinstance(k, (bool,)) or getattr(k, "dtype", None) == "bool":
            raise ShapeError(
                f"{x.type} cannot be indexed by a mask: the result's shape would depend on values; use where"
            )
        elif hasattr(k, "__index__") and not isinstance(k, Node) and getattr(k, "ndim", 0) == 0:
            i = k.__index__()
            if isinstance(size, int) and not -size <= i < size:
                raise ShapeError(f"index {i} is outside axis {axis} of {x.type}")
            i = i + size if i < 0 else i
            cuts.append((i, i + 1, 1))
        else:
            cuts.append((0, size, 1))
            arrays.append((len(sizes), k if isinstance(k, Node) else jnp.asarray(k)))
            sizes.append(size)
        axis += 1
    y = x
    if any((lo, hi, step) != (0, d, 1) for (lo, hi, step), d in zip(cuts, x.shape)):
        start, limit, stride = zip(*cuts)
        y = shape.strided_slice(y, start=start, limit=limit, stride=stride)
    if flips:
        y = shape.flip_op(y, axis=tuple(flips))
    if tuple(sizes) != tuple(y.shape):
        y = shape.reshape(y, shape=tuple(sizes))
    if len(arrays) == 1:
        return take(y, arrays[0][1], axis=arrays[0][0])
    if arrays:
        return index_arrays(y, *(v for _, v in arrays), axes=tuple(i for i, _ in arrays))
    return y


Node.__getitem__ = getitem  # type: ignore
