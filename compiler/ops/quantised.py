"""Arithmetic of 8-bit integers: x = q * scale with zero as zero, sums in int32.

Activations are uint8 (0 ... 255) where no value is negative, else int8 (-127 ... 127); kernels are int8. After the sum a
linear op applies, in float32, one factor and one offset for each output channel, a scaled addend, relu and an upper
bound; with an integer result these are in units of its scale, and the result is rounded (half to even) and saturated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeError
from ..ir import TensorType
from . import convolution
from .registry import op

LIMITS = {"uint8": (0, 255), "int8": (-127, 127)}
_EXACT = 2**24  # float32 adds integers below this without rounding


def _rounded(y: Any, dtype: str) -> jax.Array:
    if dtype == "float32":
        return y
    low, high = LIMITS[dtype]
    return jnp.clip(jnp.round(y), -128 if low < 0 else low, high).astype(dtype)


def _quantize(x: Any, *, scale: float, dtype: str) -> jax.Array:
    """x as integers of `scale`: float (...) -> dtype (...)."""
    low, high = LIMITS[dtype]
    return jnp.clip(jnp.round(jnp.asarray(x) * np.float32(1 / scale)), low, high).astype(dtype)


quantize_op = op("quantize", lower=_quantize)
dequantize_op = op(
    "dequantize",
    lower=lambda q, *, scale: jnp.asarray(q).astype("float32") * np.float32(scale),
    doc="Integers of `scale` as floats: (...) -> float32 (...).",
)


def finished(total: Any, multiplier: Any, bias: Any, addend: tuple, attrs: Mapping[str, Any]) -> jax.Array:
    """From int32 sums to the result."""
    y = jnp.asarray(total).astype("float32") * multiplier + bias
    if addend:
        y = y + addend[0].astype("float32") * np.float32(attrs["add_scale"])
    if attrs["relu"]:
        y = jnp.maximum(y, 0)
    if attrs["upper"] is not None:
        y = jnp.minimum(y, np.float32(attrs["upper"]))
    return _rounded(y, attrs["dtype"])


def exact_product(x: Any, kernel: Any) -> jax.Array:
    """The int32 product of integers (..., k) and int8 (k, n): XLA has one for int8 only, so uint8 is shifted by 128."""
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    shifted = x.dtype == jnp.uint8
    if shifted:
        x = jax.lax.bitcast_convert_type(x ^ np.uint8(128), jnp.int8)
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    total = jax.lax.dot_general(x, kernel, dims, preferred_element_type=jnp.int32)
    return total + 128 * jnp.sum(kernel, axis=0, dtype=jnp.int32) if shifted else total


def exact_convolution(x: Any, kernel: Any, strides: tuple, padding: Any, dilation: tuple, groups: int) -> jax.Array:
    """The int32 convolution of integers.

    XLA's convolution of integers is not vectorised; its float32 one is exact while no sum reaches 2^24, so the channels
    are cut into slices for which that holds, whose results are summed as int32.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    window, taken = math.prod(kernel.shape[:-2]), kernel.shape[-2]
    channels = _EXACT // (255 * 128 * max(window, 1))
    run = lambda a, k: convolution._convolve(a, k, strides, padding, dilation, groups)
    if taken <= channels or (groups == 1 and channels >= 1):
        x, kernel = x.astype("float32"), kernel.astype("float32")
        step = channels if groups == 1 else taken
        parts = [
            run(x[..., i : i + step], kernel[..., i : i + step, :]) if taken > step else run(x, kernel)
            for i in range(0, taken, step)
        ]
        return sum(p.astype("int32") for p in parts)  # type: ignore[return-value]
    return run(x.astype("int32"), kernel.astype("int32"))


def _check(types: Sequence[Any], attrs: Mapping[str, Any]) -> None:
    filters = types[1].shape[-1]
    for name, t in zip(("multiplier", "bias"), types[2:4], strict=True):
        if t.shape != (filters,) or t.dtype != "float32":
            raise ShapeError(f"the {name} of a quantised op with {filters} filters is float32[{filters}], got {t}")
    if types[1].dtype != "int8" or types[0].dtype not in LIMITS:
        raise ShapeError(f"a quantised op takes uint8 or int8 and an int8 kernel, got {types[0]} and {types[1]}")
    if attrs["dtype"] not in (*LIMITS, "float32"):
        raise ShapeError(f"the result of a quantised op is uint8, int8 or float32, not {attrs['dtype']!r}")


def _conv(x, kernel, multiplier, bias, *addend, strides, padding, dilation, groups, digest=None, **attrs):
    """Convolution of integers: (b, s.., c), (k.., c/groups, f), (f,), (f,)[, (b, t.., f)] -> dtype (b, t.., f)."""
    pointwise = all(d == 1 for d in (*kernel.shape[:-2], *strides)) and groups == 1
    if pointwise and (isinstance(padding, str) or not any(map(any, padding))):
        total = exact_product(x, jnp.reshape(kernel, kernel.shape[-2:]))
    else:
        total = exact_convolution(x, kernel, strides, padding, dilation, groups)
    return finished(total, multiplier, bias, addend, attrs)


def _conv_type(types: Sequence[Any], attrs: Mapping[str, Any]) -> TensorType:
    names = ("strides", "padding", "dilation", "groups")
    floats = [TensorType(t.shape, "float32") for t in types[:2]]
    from .registry import _Attrs, _infer

    found = _infer(convolution.conv_op, tuple(floats), _Attrs({name: attrs[name] for name in names}))
    return TensorType(found.shape, attrs["dtype"])  # type: ignore[union-attr]


def _checked_conv(types: Sequence[Any], attrs: Mapping[str, Any]) -> None:
    _check(types, attrs)
    convolution._check(types[:2], attrs)


quantised_conv = op(
    "quantised_conv",
    lower=_conv,
    check=_checked_conv,
    result=_conv_type,
    flops=lambda types, attrs, result: 2 * convolution._known(result.shape) * convolution._known(types[1].shape[:-1]),
)


def _dense(x, kernel, multiplier, bias, *addend, digest=None, **attrs):
    """Product of integers: (..., k), (k, n), (n,), (n,)[, (..., n)] -> dtype (..., n)."""
    return finished(exact_product(x, kernel), multiplier, bias, addend, attrs)


quantised_dense = op(
    "quantised_dense",
    lower=_dense,
    check=_check,
    result=lambda types, attrs: TensorType((*types[0].shape[:-1], types[1].shape[-1]), attrs["dtype"]),
    flops=lambda types, attrs, result: 2 * convolution._known(result.shape) * types[1].shape[0],
)
