"""Types of results, worked out by hand for the ops of which graphs hold most.

Abstract evaluation by JAX takes about a millisecond for each new shape: half of the time in which a convolutional net is
traced. A rule here speaks for the plain case, float32 with sizes that are alike, and gives None for any other, as do all
of them where something does not fit: JAX then says what the type is, or what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ir import TensorType, TupleType, Type

Rule = Callable[[Sequence[Any], Mapping[str, Any]], Type | None]

PLAIN = "float32"


def _plain(types: Sequence[Any]) -> bool:
    return all(isinstance(t, TensorType) and t.dtype == PLAIN for t in types)


def as_first(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """Elementwise, of one array, whose dtype stays."""
    return types[0] if _plain(types) and attrs.get("dtype") is None else None


def together(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """Elementwise, of several arrays."""
    shape = broadcast(types) if _plain(types) else None
    return None if shape is None else TensorType(shape, PLAIN)


def compared(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """Elementwise, of two arrays, to booleans."""
    shape = broadcast(types) if _plain(types) else None
    return None if shape is None else TensorType(shape, "bool")


def chosen(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """Of a condition and two arrays."""
    test, *values = types
    if not _plain(values) or test.dtype != "bool":
        return None
    shape = broadcast(types)
    return None if shape is None else TensorType(shape, PLAIN)


def broadcast(types: Sequence[TensorType]) -> tuple | None:
    """The shape that all broadcast to; None if they do not, or if that cannot be seen."""
    shape: list = []
    for t in types:
        if len(t.shape) > len(shape):
            shape = [1] * (len(t.shape) - len(shape)) + shape
        for i, size in enumerate(t.shape, len(shape) - len(t.shape)):
            if size is shape[i] or size == shape[i] or size == 1:
                continue
            if shape[i] != 1:
                return None
            shape[i] = size
    return tuple(shape)


def reduced(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """A reduction over `axis`."""
    axes = attrs.get("axis")
    axes = (axes,) if isinstance(axes, int) else axes
    if not _plain(types) or not isinstance(axes, tuple):
        return None
    rank = types[0].rank
    if not all(-rank <= a < rank for a in axes):
        return None
    gone = {a % rank for a in axes}
    if len(gone) < len(axes):
        return None
    kept = [(1 if i in gone else d) for i, d in enumerate(types[0].shape) if i not in gone or attrs.get("keepdims")]
    return TensorType(tuple(kept), PLAIN)


def spread(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """One number to the shape `shape`."""
    return TensorType(attrs["shape"], PLAIN) if _plain(types) and types[0].shape == () else None


def convolved(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """A convolution, what is added to it being of its own shape or a row: `ops.convolution`."""
    x, kernel, *rest = types
    sizes = x.shape[1:-1]
    if not _plain(types) or not len(sizes) == kernel.rank - 2 == len(attrs["strides"]):
        return None
    taken, filters = kernel.shape[-2:]
    if taken * attrs["groups"] != x.shape[-1] or filters % attrs["groups"]:
        return None
    window = [d * (k - 1) + 1 for d, k in zip(attrs["dilation"], kernel.shape)]
    made = windows(sizes, window, attrs["strides"], attrs["padding"])
    if made is None:
        return None
    shape = (x.shape[0], *made, filters)
    return TensorType(shape, PLAIN) if all(t.shape in (shape, (filters,)) for t in rest) else None


def pooled(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """Windows over the spatial axes."""
    x = types[0]
    made = windows(x.shape[1:-1], attrs["window"], attrs["strides"], attrs["padding"]) if _plain(types) else None
    return None if made is None else TensorType((x.shape[0], *made, x.shape[-1]), PLAIN)


def windows(sizes: Sequence[Any], window: Sequence[int], strides: Sequence[int], padding: Any) -> tuple | None:
    """How many windows fit along each axis; None where a size is unknown or no window fits."""
    if not all(isinstance(n, int) for n in sizes) or not len(sizes) == len(window) == len(strides):
        return None
    if padding == "same":
        made = tuple(-(-n // s) for n, s in zip(sizes, strides))
    else:
        pads = ((0, 0),) * len(sizes) if padding == "valid" else padding
        if isinstance(pads, str) or len(pads) != len(sizes):
            return None
        made = tuple((n + sum(p) - k) // s + 1 for n, k, s, p in zip(sizes, window, strides, pads))
    return made if all(n > 0 for n in made) else None


def words(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """Random bits of shape `shape` from a key, one block for each id of a row if there are ids."""
    key, *ids = types
    fine = key.shape == (2,) and all(t.dtype == "uint32" for t in types) and all(t.rank == 1 for t in ids)
    return TensorType((*(t.shape[0] for t in ids), *attrs["shape"]), "uint32") if fine else None


def kernel_and_bias(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """The gradients of a convolution's kernel and bias."""
    shape = attrs["kernel_shape"]
    return TupleType((TensorType(shape, PLAIN), TensorType(shape[-1:], PLAIN))) if _plain(types) else None


def element(types: Sequence[Any], attrs: Mapping[str, Any]) -> Type | None:
    """One of several results."""
    several = types[0]
    found = isinstance(several, TupleType) and 0 <= attrs["index"] < len(several.items)
    return several.items[attrs["index"]] if found else None
