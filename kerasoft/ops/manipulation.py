"""Ops that move, repeat or pick elements without computing with them."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from . import elementwise as e
from .dispatch import dtype_of, is_static, kernel, public, rank, shape_of, tensor


def _axis(x: Any, axis: int, extra: int = 0) -> int:
    n = rank(x) + extra
    if not -n <= axis < n:
        raise ValueError(f"axis {axis} is out of bounds for array of dimension {n}: shape {shape_of(x)}")
    return int(axis) % n


@public("numpy", "Reshape")
def reshape(x: Any, newshape: Any) -> Any:
    """The same elements, row-major, in another shape; one size may be -1, None stands for the unknown batch size.

    >>> reshape([[1, 2, 3], [4, 5, 6]], (3, -1)).tolist()
    [[1, 2], [3, 4], [5, 6]]
    """
    x = tensor(x)
    newshape = (newshape,) if not isinstance(newshape, (list, tuple)) else tuple(newshape)
    wanted = tuple(-1 if s is None else int(s) if is_static(s) else s for s in newshape)
    if builtins.sum(is_static(s) and s == -1 for s in wanted) > 1:
        raise ValueError(
            f"There must be at most one unknown dimension (-1) in `newshape`. Received: newshape={newshape} for a tensor "
            f"of shape {shape_of(x)}."
        )
    if builtins.any(is_static(s) and s < -1 for s in wanted):
        raise ValueError(
            "Each dimension in `newshape` must be a non-negative integer, or `-1` for a single unknown dimension. "
            f"Received: newshape={newshape}."
        )
    return kernel("reshape")(x, shape=_with_known_sizes(shape_of(x), wanted))


def _with_known_sizes(have: tuple, wanted: tuple) -> tuple:
    """`wanted` with its -1 replaced when it is the unknown batch size (so that 0 rows reshape too)."""
    hidden = [i for i, s in enumerate(wanted) if is_static(s) and s == -1]
    if not hidden:
        return wanted
    symbolic = [s for s in have if not is_static(s)]
    known = int(np.prod([s for s in have if is_static(s)], dtype=np.int64))
    others = [s for i, s in enumerate(wanted) if i not in hidden]
    size: Any = None
    if builtins.all(is_static(s) for s in others):
        rest = int(np.prod(others, dtype=np.int64))
        if rest and known % rest == 0:
            size = known // rest
            for s in symbolic:
                size = s * size
        elif rest and not symbolic:
            raise ValueError(f"cannot reshape {have} to {wanted}: {known} elements do not fit")
    if size is None:
        return wanted
    return tuple(size if i in hidden else s for i, s in enumerate(wanted))


@public("numpy", "Ravel")
def ravel(x: Any) -> Any:
    """All elements on one axis."""
    return reshape(x, (-1,))


@public("numpy", "Transpose")
def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """Axes in the order `axes`; reversed by default."""
    x = tensor(x)
    order = tuple(reversed(range(rank(x)))) if axes is None else tuple(_axis(x, a) for a in axes)
    if sorted(order) != list(range(rank(x))):
        raise ValueError(
            "`axes` must be a valid permutation of the input dimensions (no duplicates). "
            f"Received: axes={list(axes or order)} for input of rank {rank(x)}."
        )
    return kernel("transpose")(x, axes=order)


@public("numpy", "Swapaxes")
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """x with two axes exchanged."""
    x = tensor(x)
    order = list(range(rank(x)))
    a, b = _axis(x, axis1), _axis(x, axis2)
    order[a], order[b] = b, a
    return transpose(x, order)


@public("numpy", "Moveaxis")
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """x with the axes `source` moved to `destination`."""
    x = tensor(x)
    source = [_axis(x, a) for a in (source if isinstance(source, (list, tuple)) else [source])]
    destination = [_axis(x, a) for a in (destination if isinstance(destination, (list, tuple)) else [destination])]
    order = [a for a in range(rank(x)) if a not in source]
    for d, s in sorted(zip(destination, source, strict=True)):
        order.insert(d, s)
    return transpose(x, order)


@public("numpy", "ExpandDims")
def expand_dims(x: Any, axis: Any) -> Any:
    """x with axes of size 1 inserted at `axis`."""
    x = tensor(x)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    places = {_axis(x, a, len(axes)) for a in axes}
    sizes = iter(shape_of(x))
    return kernel("reshape")(x, shape=tuple(1 if i in places else next(sizes) for i in range(rank(x) + len(axes))))


@public("numpy", "Squeeze")
def squeeze(x: Any, axis: Any = None) -> Any:
    """x without its axes of size 1 (or without `axis`)."""
    x = tensor(x)
    sizes = shape_of(x)
    if axis is None:
        places = {i for i, s in enumerate(sizes) if is_static(s) and s == 1}
    else:
        places = {_axis(x, a) for a in (axis if isinstance(axis, (list, tuple)) else [axis])}
        for i in places:
            if is_static(sizes[i]) and sizes[i] != 1:
                raise ValueError(f"Cannot squeeze axis={axis}, because the dimension is not 1: shape {sizes}")
    return kernel("reshape")(x, shape=tuple(s for i, s in enumerate(sizes) if i not in places))


@public("numpy", "BroadcastTo")
def broadcast_to(x: Any, shape: Any) -> Any:
    """x repeated along new axes and axes of size 1 until it has `shape`."""
    return kernel("broadcast_to")(tensor(x), shape=tuple(shape))


@public("numpy", "Concatenate", "xs")
def concatenate(xs: Any, axis: int = 0) -> Any:
    """Tensors put behind one another along `axis`; None: of all elements."""
    xs = [tensor(x) for x in xs]
    if axis is None:
        xs, axis = [ravel(x) for x in xs], 0
    if len(xs) == 1:
        return xs[0]
    return kernel("concatenate")(*_one_dtype(xs), axis=_axis(xs[0], axis))


def _one_dtype(xs: list) -> list:
    """Tensors in the dtype that they have in common; Python numbers count less than tensors."""
    kinds = {dtype_of(x) if hasattr(x, "dtype") else x for x in xs}
    if len(kinds) == 1:
        return xs
    import jax.numpy as jnp

    wanted = jnp.result_type(*kinds).name
    return [x if dtype_of(x) == wanted else e.cast(x, wanted) for x in xs]


@public("numpy", "Stack")
def stack(x: Any, axis: int = 0) -> Any:
    """Tensors of one shape put along a new axis."""
    xs = [tensor(item) for item in x]
    axis = _axis(xs[0], axis, 1)
    return concatenate([expand_dims(item, axis) for item in xs], axis)


@public("numpy", "Hstack", "xs")
def hstack(xs: Any) -> Any:
    """Tensors put side by side: along axis 1, vectors along axis 0."""
    xs = [tensor(x) for x in xs]
    xs = [reshape(x, (1,)) if rank(x) == 0 else x for x in xs]
    return concatenate(xs, 0 if rank(xs[0]) == 1 else 1)


@public("numpy", "Vstack", "xs")
def vstack(xs: Any) -> Any:
    """Tensors put below one another: along axis 0, vectors as rows."""
    xs = [tensor(x) for x in xs]
    return concatenate([reshape(x, (1, -1)) if rank(x) < 2 else x for x in xs], 0)


@public("core", "Unstack")
def unstack(x: Any, num: int | None = None, axis: int = 0) -> Any:
    """A list of the tensors along `axis`, without that axis."""
    x = tensor(x)
    axis = _axis(x, axis)
    num = shape_of(x)[axis] if num is None else num
    if not is_static(num):
        raise ValueError(f"Cannot infer argument `num` from shape {shape_of(x)} along axis {axis}. Give `num`.")
    return [squeeze(_range(x, axis, i, i + 1), axis) for i in range(num)]


@public("numpy", "Split")
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """A list of parts along `axis`: so many equal ones, or cut at the given places.

    Raises:
        ValueError: the axis is not divided by the number of parts.
    """
    x = tensor(x)
    axis = _axis(x, axis)
    size = shape_of(x)[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        parts = int(indices_or_sections)
        if is_static(size) and size % parts:
            raise ValueError(
                f"array split does not result in an equal division: axis {axis} of {shape_of(x)} by {parts}"
            )
        cuts = [i * (size // parts) for i in range(1, parts)]
    else:
        cuts = [int(i) for i in indices_or_sections]
        if is_static(size):
            cuts = [builtins.max(0, builtins.min(size, c + size if c < 0 else c)) for c in cuts]
    bounds = [0, *cuts, size]
    return [_range(x, axis, a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


def _range(x: Any, axis: int, start: Any, stop: Any) -> Any:
    """The places from `start` up to but not `stop` along `axis`; none where `stop` is before `start`."""
    if is_static(start) and is_static(stop):
        return get_item(x, (slice(None),) * axis + (slice(start, builtins.max(start, stop)),))
    from ..compiler.ops import shape

    return shape.slice_axis(_array(x), axis, start, stop)


@public("numpy", "Repeat")
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element along `axis` so many times; None flattens."""
    x = tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = _axis(x, axis)
    if isinstance(repeats, (int, np.integer)):
        from ..compiler.ops import shape

        return shape.repeat(_array(x), int(repeats), axis)
    places = np.repeat(np.arange(shape_of(x)[axis]), np.asarray(repeats))
    return take(x, places, axis)


@public("numpy", "Tile")
def tile(x: Any, repeats: Any) -> Any:
    """x so many times along each axis."""
    from ..compiler.ops import shape

    repeats = (repeats,) if isinstance(repeats, (int, np.integer)) else tuple(repeats)
    return shape.tile(_array(tensor(x)), [int(r) for r in repeats])


@public("numpy", "Flip")
def flip(x: Any, axis: Any = None) -> Any:
    """x with the order along `axis` (all by default) reversed."""
    from .reduction import axes_of

    x = tensor(x)
    return kernel("flip")(x, axis=axes_of(x, axis))


@public("numpy", "Roll")
def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """x with elements moved by `shift` places along `axis`, those that leave at the end coming in at the start."""
    x = tensor(x)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), shape_of(x))
    if isinstance(axis, (list, tuple)):
        shifts = shift if isinstance(shift, (list, tuple)) else [shift] * len(axis)
        for s, a in zip(shifts, axis, strict=True):
            x = roll(x, s, a)
        return x
    axis = _axis(x, axis)
    return kernel("roll")(x, shift=int(shift), axis=axis)


@public("numpy", "Pad", "x constant_values")
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Any:
    """x with `pad_width` ((before, after) for each axis, or one pair for all) more places.

    Args:
        mode: ``"constant"`` (0 or `constant_values`), ``"reflect"``, ``"symmetric"``, ``"edge"``, ``"wrap"``,
            ``"maximum"``, ``"minimum"``, ``"mean"``, ``"median"`` or ``"linear_ramp"``.
    """
    from ..compiler.ops import shape

    x = tensor(x)
    pairs = tuple(map(tuple, np.broadcast_to(np.asarray(pad_width, int), (rank(x), 2)).tolist()))
    if mode != "constant" and constant_values is not None:
        raise ValueError(
            f"Argument `constant_values` can only be provided when `mode == 'constant'`. Received: mode={mode}"
        )
    if mode in ("constant", "reflect", "symmetric"):
        return shape.pad(_array(x), pairs, mode, 0 if constant_values is None else constant_values)
    return kernel("pad_by_mode", _pad_by_mode)(_array(x), widths=pairs, mode=mode)


def _pad_by_mode(x: Any, *, widths: tuple, mode: str) -> Any:
    import jax.numpy as jnp

    return jnp.pad(jnp.asarray(x), widths, mode)


def _array(x: Any) -> Any:
    """x with the attributes of an array, if it is a number."""
    return x if hasattr(x, "shape") else np.asarray(x, dtype_of(x))


@public("numpy", "GetItem", "x key")
def get_item(x: Any, key: Any) -> Any:
    """``x[key]`` with slices, integers, ``...``, None and arrays of indices.

    Raises:
        IndexError: more indices than axes.
        TypeError: a boolean array in a graph, where the result would have no fixed size.
    """
    x = tensor(x)
    key = tuple(key) if isinstance(key, list) else key  # tuples in files are lists
    keys = key if isinstance(key, tuple) else (key,)
    used = builtins.sum(rank(k) if _is_mask(k) else k is not None and k is not Ellipsis for k in keys)
    if used > rank(x):
        raise IndexError(f"too many indices ({used}) for a tensor of shape {shape_of(x)}")
    if hasattr(x, "op") or builtins.any(hasattr(k, "op") for k in keys):
        if builtins.any(map(_is_mask, keys)):
            raise TypeError("a boolean index gives a result of unknown size; use ops.where instead")
        from ..compiler.ops import indexing

        return indexing.getitem(x, key)
    import jax.numpy as jnp

    return jnp.asarray(x)[key]


def _is_mask(key: Any) -> bool:
    return hasattr(key, "shape") and dtype_of(key) == "bool"


def _whole(indices: Any) -> Any:
    """Indices as ints where a symbolic input of the default dtype, float32, was given for them."""
    if hasattr(indices, "op") and dtype_of(indices) in dtypes.FLOATS:
        return e.cast(indices, "int32")
    return indices


@public("numpy", "Take", "x indices")
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Elements at `indices` along `axis`; None flattens. Negative indices count from the end."""
    x, indices = tensor(x), _array(_whole(tensor(indices)))
    if axis is None:
        x, axis = ravel(x), 0
    return kernel("take")(x, indices, axis=_axis(x, axis))


@public("numpy", "TakeAlongAxis", "x indices")
def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Any:
    """For each place, the element of its line along `axis` that `indices` names."""
    x, indices = tensor(x), _whole(tensor(indices))
    if axis is None:
        x, indices, axis = ravel(x), ravel(indices), 0
    return kernel("take_along_axis")(x, indices, axis=_axis(x, axis))


@public("numpy", "Tril")
def tril(x: Any, k: int = 0) -> Any:
    """x with zeros above the k-th diagonal."""
    return kernel("tril")(tensor(x), k=int(k))


@public("numpy", "Triu")
def triu(x: Any, k: int = 0) -> Any:
    """x with zeros below the k-th diagonal."""
    return kernel("triu")(tensor(x), k=int(k))


@public("numpy", "Diag")
def diag(x: Any, k: int = 0) -> Any:
    """The k-th diagonal of a matrix, or a matrix with this diagonal."""
    return kernel("diag")(tensor(x), k=int(k))


@public("numpy", "Diagonal")
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal over two axes, as the last axis."""
    if _axis(x := tensor(x), axis1) == _axis(x, axis2):
        raise ValueError(f"`axis1` and `axis2` cannot be the same. Received: axis1={axis1}, axis2={axis2}")
    return _diagonal(x, int(offset), _axis(x, axis1), _axis(x, axis2))


def _diagonal(x: Any, offset: int, axis1: int, axis2: int) -> Any:
    from ..compiler.ops import creation

    return creation.diagonal(_array(x), offset, axis1, axis2)


@public("numpy", "Trace")
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of the diagonal over two axes."""
    from .reduction import sum

    return sum(diagonal(x, offset, axis1, axis2), -1)


@public("numpy", "Append", "x1 x2")
def append(x1: Any, x2: Any, axis: int | None = None) -> Any:
    """x2 behind x1 along `axis`; None flattens both."""
    x1, x2 = _one_dtype([tensor(x1), tensor(x2)])
    return concatenate([ravel(x1), ravel(x2)], 0) if axis is None else concatenate([x1, x2], axis)


@public("numpy", "Copy")
def copy(x: Any) -> Any:
    """x."""
    return tensor(x)


@public("core", "Scatter", "indices values")
def scatter(indices: Any, values: Any, shape: Any) -> Any:
    """Zeros of `shape` with `values` added at `indices`."""
    from .creation import zeros

    values = tensor(values)
    return scatter_update(zeros(shape, dtype_of(values)), indices, values, "add")


@public("core", "ScatterUpdate", "inputs indices updates")
def scatter_update(inputs: Any, indices: Any, updates: Any, reduction: str | None = None) -> Any:
    """`inputs` with `updates` put (or added, ...) at `indices` (n, index depth)."""
    x, indices, updates = tensor(inputs), _whole(tensor(indices)), tensor(updates)
    reduction = reduction and reduction.lower()
    if reduction not in (None, "add", "max", "min", "mul"):
        raise ValueError(f"Invalid reduction: {reduction}. Supported values are: None, 'add', 'max', 'min', 'mul'.")
    if reduction in (None, "add"):
        return kernel("scatter_add" if reduction == "add" else "scatter_update")(x, indices, updates)
    return kernel("scatter_reduce", _scatter_reduce)(x, indices, updates, reduction=reduction)


def _scatter_reduce(x: Any, indices: Any, updates: Any, *, reduction: str) -> Any:
    import jax.numpy as jnp

    at = jnp.asarray(x).at[tuple(jnp.moveaxis(jnp.asarray(indices), -1, 0))]
    return getattr(at, {"mul": "multiply"}.get(reduction, reduction))(updates)


@public("core", "Slice", "inputs start_indices")
def slice_(inputs: Any, start_indices: Any, shape: Any) -> Any:
    """The part of `inputs` of `shape` that starts at `start_indices`."""
    from ..compiler.ops import indexing

    x = _array(tensor(inputs))
    if len(shape) != rank(x):
        raise ValueError(
            "The number of dimensions in `inputs` must match the number of dimensions in `shape`. "
            f"Received: inputs.shape={shape_of(x)}, shape={tuple(shape)}"
        )
    sizes = [
        have - int(start_indices[i]) if is_static(want) and want == -1 else want
        for i, (have, want) in enumerate(zip(shape_of(x), shape, strict=True))
    ]
    return indexing.dynamic_slice(x, _scalars(start_indices), tuple(sizes))


def _scalars(indices: Any) -> list:
    """One scalar for each axis of a vector of indices."""
    indices = tensor(indices)
    return [indices[i] for i in range(shape_of(indices)[0])]


@public("core", "SliceUpdate", "inputs start_indices updates")
def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
    """`inputs` with `updates` put at `start_indices`."""
    from ..compiler.ops import indexing

    return indexing.dynamic_update_slice(_array(tensor(inputs)), _array(tensor(updates)), _scalars(start_indices))


@public("numpy", "Array")
def array(x: Any, dtype: Any = None) -> Any:
    """x as a tensor of `dtype`."""
    x = tensor(x)
    if not hasattr(x, "op"):
        import jax.numpy as jnp

        return jnp.asarray(x, None if dtype is None else dtypes.narrowed(dtype))
    return x if dtype is None else e.cast(x, dtype)
