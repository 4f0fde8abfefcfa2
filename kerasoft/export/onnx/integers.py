"""Rules for ops on 8-bit integers: ONNX's integer products, then in float32 what the op does to its int32 sums.

ONNX Runtime's convolution takes uint8 only, so int8 numbers are written 128 larger, with 128 as their zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...compiler.ops.quantised import LIMITS
from .builder import Builder, rule
from .windows import _padded, _padding, _pads, _reach, channels_first, channels_last


def _unsigned(b: Builder, name: str, dtype: str) -> tuple[str, str]:
    """The integers as uint8, and their zero."""
    if dtype == "uint8":
        return name, b.constant(0, np.uint8)
    if name in b.values:
        return b.constant((b.values[name].astype(np.int32) + 128).astype(np.uint8)), b.constant(128, np.uint8)
    wide = b.make("Add", b.cast(name, "int8", "int32"), b.constant(128, np.int32))
    return b.cast(wide, "int32", "uint8"), b.constant(128, np.uint8)


def _bounded(b: Builder, y: str, dtype: str, low: int) -> str:
    """Rounded half to even, saturated, as `dtype`."""
    limits = [b.constant(v, np.float32) for v in (low, LIMITS[dtype][1])]
    return b.cast(b.make("Clip", b.make("Round", y), *limits), "float32", dtype)


def _finished(b: Builder, n: Any, total: str, inputs: list[str]) -> str:
    """From int32 sums (.., f) to the result."""
    attrs = n.attrs
    y = b.make("Add", b.make("Mul", b.cast(total, "int32", "float32"), inputs[2]), inputs[3])
    if len(inputs) > 4:
        addend = b.cast(inputs[4], n.inputs[4].dtype, "float32")
        y = b.make("Add", y, b.make("Mul", addend, b.constant(attrs["add_scale"], np.float32)))
    if attrs["relu"]:
        y = b.make("Relu", y)
    if attrs["upper"] is not None:
        y = b.make("Min", y, b.constant(attrs["upper"], np.float32))
    if attrs["dtype"] == "float32":
        return y
    return _bounded(b, y, attrs["dtype"], -128 if attrs["dtype"] == "int8" else 0)


@rule("quantize")
def quantize(b: Builder, n: Any, inputs: list[str]) -> str:
    scaled = b.make("Mul", inputs[0], b.constant(1 / n.attrs["scale"], np.float32))
    return _bounded(b, scaled, n.attrs["dtype"], LIMITS[n.attrs["dtype"]][0])


@rule("dequantize")
def dequantize(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Mul", b.cast(inputs[0], n.inputs[0].dtype, "float32"), b.constant(n.attrs["scale"], np.float32))


@rule("quantised_dense")
def quantised_dense(b: Builder, n: Any, inputs: list[str]) -> str:
    (x, zero), (kernel, kernel_zero) = (_unsigned(b, name, i.dtype) for name, i in zip(inputs[:2], n.inputs))
    return _finished(b, n, b.make("MatMulInteger", x, kernel, zero, kernel_zero), inputs)


@rule("quantised_conv")
def quantised_conv(b: Builder, n: Any, inputs: list[str]) -> str:
    x, kernel = n.inputs[:2]
    rank, window = len(x.shape), kernel.shape[:-2]
    pads = _pads(n, x.shape[1:-1], _reach(window, n.attrs["dilation"]))
    data, pads = _padded(b, n, channels_first(b, inputs[0], rank), pads)
    weights = b.transpose(inputs[1], (rank - 1, rank - 2, *range(rank - 2)))
    (data, zero), (weights, kernel_zero) = _unsigned(b, data, x.dtype), _unsigned(b, weights, kernel.dtype)
    made = b.make(
        "ConvInteger",
        data,
        weights,
        zero,
        kernel_zero,
        kernel_shape=list(window),
        strides=list(n.attrs["strides"]),
        dilations=list(n.attrs["dilation"]),
        group=int(n.attrs["groups"]),
        **_padding(n, pads),
    )
    return _finished(b, n, channels_last(b, made, rank), inputs)
