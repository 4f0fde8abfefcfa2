"""Rules for leaves, shapes, products, reductions and indexing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import SerializationError
from .builder import FIRST, LAST, Builder, rule
from .elementwise import common, wide

# --- leaves -------------------------------------------------------------------------------------------------------


@rule("constant")
def constant(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.constant(n.attrs["value"].value)


@rule("item")
def item(b: Builder, n: Any, inputs: list[Any]) -> str:
    return inputs[0][n.attrs["index"]]


@rule("full")
def full(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Expand", b.constant(n.attrs["value"], n.dtype), b.vector(n.shape))


@rule("zeros_like", "ones_like")
def like(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Expand", b.constant(int(n.op.name == "ones_like"), n.dtype), b.make("Shape", inputs[0]))


@rule("iota")
def iota(b: Builder, n: Any, inputs: list[str]) -> str:
    axis = n.attrs["axis"]
    steps = b.make("Range", b.size(0), b.size(n.shape[axis]), b.size(1))
    line = b.make("Reshape", steps, b.ints([-1 if i == axis else 1 for i in range(len(n.shape))]))
    return b.make("Expand", b.cast(line, "int64", n.dtype), b.vector(n.shape))


@rule("dimension")
def dimension(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.cast(b.size(n.attrs["size"]), "int64", n.dtype)


# --- shapes -------------------------------------------------------------------------------------------------------


@rule("reshape")
def reshape(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Reshape", inputs[0], b.shape_vector(n.shape))


@rule("broadcast_to")
def broadcast_to(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Expand", inputs[0], b.vector(n.shape))


@rule("transpose")
def transpose(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.transpose(inputs[0], n.attrs["axes"])


@rule("concatenate")
def concatenate(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Concat", *b.inputs_as(n, inputs, n.dtype), axis=int(n.attrs["axis"]))


@rule("strided_slice")
def strided_slice(b: Builder, n: Any, inputs: list[str]) -> str:
    limits = [LAST if limit == d else limit for limit, d in zip(n.attrs["limit"], n.inputs[0].shape, strict=True)]
    strides = n.attrs["stride"] or (1,) * len(limits)
    axes = b.ints(range(len(limits)))
    return b.make("Slice", inputs[0], b.vector(n.attrs["start"]), b.vector(limits), axes, b.vector(strides))


@rule("flip")
def flip(b: Builder, n: Any, inputs: list[str]) -> str:
    axis = n.attrs["axis"]
    axes = range(len(n.shape)) if axis is None else [axis] if isinstance(axis, int) else axis
    return reversed_along(b, inputs[0], list(axes))


def reversed_along(b: Builder, name: str, axes: list[int]) -> str:
    count = len(axes)
    return b.make("Slice", name, b.ints([-1] * count), b.ints([FIRST] * count), b.ints(axes), b.ints([-1] * count))


@rule("pad")
def pad(b: Builder, n: Any, inputs: list[str]) -> str:
    config = n.attrs["config"]
    if any(interior for _, _, interior in config):
        raise SerializationError(f"ONNX export has no form for padding between cells (layer '{n.source}')")
    widths = b.vector([low for low, _, _ in config] + [high for _, high, _ in config])
    return b.make("Pad", inputs[0], widths, b.constant(n.attrs["value"], n.dtype))


@rule("tril", "triu")
def triangle(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Trilu", inputs[0], b.constant(n.attrs.get("k", 0), np.int64), upper=int(n.op.name == "triu"))


# --- products -----------------------------------------------------------------------------------------------------


@rule("matmul")
def matmul(b: Builder, n: Any, inputs: list[str]) -> str:
    compute = wide(n.dtype)
    return b.cast(b.make("MatMul", *b.inputs_as(n, inputs, compute)), compute, n.dtype)


@rule("einsum")
def einsum(b: Builder, n: Any, inputs: list[str]) -> str:
    compute = wide(n.dtype)
    made = b.make("Einsum", *b.inputs_as(n, inputs, compute), equation=n.attrs["equation"])
    return b.cast(made, compute, n.dtype)


# --- reductions ---------------------------------------------------------------------------------------------------

_REDUCE = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd",
    "logsumexp": "ReduceLogSumExp", "any": "ReduceMax", "all": "ReduceMin",
}  # fmt: skip


def axes_of(n: Any) -> list[int]:
    axis, rank = n.attrs.get("axis"), len(n.inputs[0].shape)
    found = range(rank) if axis is None else [axis] if isinstance(axis, (int, np.integer)) else axis
    return [int(a) % rank for a in found]


@rule(*_REDUCE)
def reduce(b: Builder, n: Any, inputs: list[str]) -> str:
    compute = wide(n.dtype)
    x = b.cast(inputs[0], n.inputs[0].dtype, compute)
    axes = axes_of(n)
    if axes:
        x = b.make(_REDUCE[n.op.name], x, b.ints(axes), keepdims=int(bool(n.attrs.get("keepdims"))))
    return b.cast(x, compute, n.dtype)


@rule("argmax", "argmin")
def position(b: Builder, n: Any, inputs: list[str]) -> str:
    op, axis = {"argmax": "ArgMax", "argmin": "ArgMin"}[n.op.name], n.attrs.get("axis")
    x = inputs[0] if axis is not None else b.make("Reshape", inputs[0], b.ints([-1]))
    made = b.make(op, x, axis=0 if axis is None else int(axis), keepdims=int(bool(n.attrs.get("keepdims"))))
    return b.cast(made, "int64", n.dtype)


@rule("softmax", "log_softmax")
def softmax(b: Builder, n: Any, inputs: list[str]) -> str:
    axes = axes_of(n)
    if len(axes) == 1:
        return b.make("Softmax" if n.op.name == "softmax" else "LogSoftmax", inputs[0], axis=axes[0])
    shifted = b.make("Sub", inputs[0], b.make("ReduceMax", inputs[0], b.ints(axes), keepdims=1))
    powers = b.make("Exp", shifted)
    total = b.make("ReduceSum", powers, b.ints(axes), keepdims=1)
    if n.op.name == "softmax":
        return b.make("Div", powers, total)
    return b.make("Sub", shifted, b.make("Log", total))


@rule("standardize")
def standardize(b: Builder, n: Any, inputs: list[str]) -> tuple:
    axes, x = b.ints(axes_of(n)), inputs[0]
    mean = b.make("ReduceMean", x, axes, keepdims=1)
    centred = b.make("Sub", x, mean)
    variance = b.make("ReduceMean", b.make("Mul", centred, centred), axes, keepdims=1)
    epsilon = b.constant(n.attrs["epsilon"], n.inputs[0].dtype)
    return b.make("Div", centred, b.make("Sqrt", b.make("Add", variance, epsilon))), mean, variance


@rule("cumsum")
def cumsum(b: Builder, n: Any, inputs: list[str]) -> str:
    axis = b.constant(n.attrs["axis"], np.int64)
    return b.make("CumSum", b.cast(inputs[0], n.inputs[0].dtype, n.dtype), axis, reverse=int(n.attrs.get("reverse", 0)))


@rule("top_k")
def top_k(b: Builder, n: Any, inputs: list[str]) -> tuple:
    values, places = b.make("TopK", inputs[0], b.ints([n.attrs["k"]]), outputs=2, axis=-1)
    return values, b.cast(places, "int64", n.type.items[1].dtype)


# --- indexing -----------------------------------------------------------------------------------------------------


@rule("embedding_lookup", "take")
def gather(b: Builder, n: Any, inputs: list[str]) -> str:
    ids = b.cast(inputs[1], n.inputs[1].dtype, "int64")
    return b.make("Gather", inputs[0], ids, axis=int(n.attrs.get("axis", 0)))


@rule("sparse_rows")
def sparse_rows(b: Builder, n: Any, inputs: list[str]) -> str:
    ids = b.cast(inputs[0], n.inputs[0].dtype, "int64")
    rows = b.make("Gather", b.make("Shape", inputs[1]), b.ints([0]), axis=0)
    size = b.make("Concat", rows, b.ints([n.attrs["columns"]]), axis=0)
    zeros = b.make("Expand", b.constant(0, n.dtype), size)
    return b.make("ScatterElements", zeros, ids, inputs[1], axis=1, reduction="add")


@rule("all_columns")
def all_columns(b: Builder, n: Any, inputs: list[str]) -> str:
    columns = b.constant(np.arange(n.shape[1]), "int32")
    return b.make("Expand", columns, b.make("Shape", inputs[0]))


@rule("take_along_axis")
def gather_elements(b: Builder, n: Any, inputs: list[str]) -> str:
    ids = b.cast(inputs[1], n.inputs[1].dtype, "int64")
    return b.make("GatherElements", inputs[0], ids, axis=int(n.attrs["axis"]))


@rule("one_hot")
def one_hot(b: Builder, n: Any, inputs: list[str]) -> str:
    ids = b.cast(inputs[0], n.inputs[0].dtype, "int64")
    values = b.constant([0, 1], wide(n.dtype))
    count = b.constant(n.attrs["num_classes"], np.int64)
    # ONNX wraps negative ids round; they are rows of zeros here.
    made = b.make("OneHot", ids, count, values, axis=int(n.attrs["axis"]))
    real = b.make("GreaterOrEqual", ids, b.constant(0, np.int64))
    axis = n.attrs["axis"] % len(n.shape)
    real = b.make("Unsqueeze", real, b.ints([axis]))
    return b.cast(b.make("Where", real, made, b.constant(0, wide(n.dtype))), wide(n.dtype), n.dtype)


@rule("image_resize")
def image_resize(b: Builder, n: Any, inputs: list[str]) -> str:
    """Centres half a pixel inside, as the compiler has them; kernels that ONNX has none of as products."""
    method, axes = n.attrs["method"], [int(a) % len(n.shape) for a in n.attrs["axes"]]
    modes = {"nearest": "nearest", "bilinear": "linear"}
    smaller = any(
        not isinstance(d, int) or not isinstance(n.inputs[0].shape[a], int) or d < n.inputs[0].shape[a]
        for a, d in zip(axes, n.attrs["size"], strict=True)
    )
    known = all(isinstance(d, int) for d in (*n.attrs["size"], *(n.inputs[0].shape[a] for a in axes)))
    by_matrix = method not in modes or (n.attrs["antialias"] and smaller)
    if n.inputs[0].dtype != "float32" or (by_matrix and not known):
        raise SerializationError(
            f"ONNX export has no form for resizing {n.inputs[0].dtype} of unknown size by '{method}' (layer '{n.source}')"
        )
    if by_matrix:
        return _resized_by_matrices(b, n, inputs[0], axes)
    # ONNX Runtime resizes the last two axes of four; the others go together in front.
    rank = len(n.shape)
    others = [i for i in range(rank) if i not in axes]
    moved = b.transpose(inputs[0], [*others, *axes])
    sizes = [n.inputs[0].shape[i] for i in others]
    flat = b.make("Reshape", moved, b.vector([1, -1, *(n.inputs[0].shape[a] for a in axes)]))
    count = b.make("Gather", b.make("Shape", flat), b.ints([1]), axis=0)
    wanted = b.make("Concat", b.ints([1]), count, b.vector(list(n.attrs["size"])), axis=0)
    made = b.make(
        "Resize",
        flat,
        "",
        "",
        wanted,
        mode=modes[method],
        coordinate_transformation_mode="half_pixel",
        nearest_mode="round_prefer_ceil",
    )
    back = b.make("Reshape", made, b.vector([*sizes, *n.attrs["size"]]))
    order = [*others, *axes]
    return b.transpose(back, [order.index(i) for i in range(rank)])


def _resized_by_matrices(b: Builder, n: Any, name: str, axes: list[int]) -> str:
    """A resize along an axis is a product with a matrix: what the compiler makes of the unit vectors."""
    rank = len(n.shape)
    for axis, size in zip(axes, n.attrs["size"], strict=True):
        units = np.eye(n.inputs[0].shape[axis], dtype="float32")[:, :, None]
        attrs = {"method": n.attrs["method"], "antialias": n.attrs["antialias"]}
        matrix = np.asarray(n.op.lower(units, size=(size, 1), axes=(1, 2), **attrs))[:, :, 0]
        order = [i for i in range(rank) if i != axis] + [axis]
        name = b.make("MatMul", b.transpose(name, order), b.constant(matrix))
        name = b.transpose(name, [order.index(i) for i in range(rank)])
    return name


__all__ = ["common", "reversed_along"]
