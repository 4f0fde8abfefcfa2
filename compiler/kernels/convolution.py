"""Convolutions and their gradients by oneDNN: float32, channels last, one to three spatial axes, any groups.

See compiler/kernels/cpp/onednn/convolution.h for how the work is cut.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import (
    bridge,
    space_to_depth,  # noqa: F401  (its lowerings come before these)
    winograd,  # noqa: F401  (so do these)
)
from .convolution_calls import attributes, call, floats, post_of, spec_of
from .lowerings import lowering

FORWARD, GRAD_INPUT, GRAD_KERNEL = 0, 1, 2
WIDE = 256  # channels; with more, the sides of a pointwise kernel's gradient are not turned


@functools.lru_cache(maxsize=4096)
def implementation(direction: int, spec: tuple[int, ...], half: bool = False) -> str:
    """oneDNN's name of its implementation, e.g. "brgconv:avx512_core"; "" where it has none. half: in bfloat16."""
    function = ctypes.CDLL(bridge.path("onednn")).kerasoft_conv_implementation
    function.restype = ctypes.c_char_p
    array = np.asarray(spec, np.int64)
    return function(
        ctypes.c_int64(direction), array.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(spec)), ctypes.c_bool(half)
    ).decode()


def is_supported(direction: int, spec: tuple[int, ...] | None, *dtypes: Any) -> bool:
    """Whether oneDNN has a kernel worth calling for these sizes and types."""
    if spec is None or any(np.dtype(d) != np.float32 for d in dtypes):
        return False
    name = implementation(direction, (*spec[:2], max(spec[2], 1), *spec[3:]))
    return name != "" and not name.startswith(("ref", "gemm"))


def fits_forward(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, kernel = types[:2]
    return is_supported(FORWARD, spec_of(x.shape, kernel.shape, attrs), x.dtype, kernel.dtype)


def fits_grad_input(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    dy, kernel = types
    return is_supported(GRAD_INPUT, spec_of(attrs["input_shape"], kernel.shape, attrs), dy.dtype, kernel.dtype)


def fits_grad_kernel(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, dy = types
    return is_supported(GRAD_KERNEL, spec_of(x.shape, attrs["kernel_shape"], attrs), x.dtype, dy.dtype)


def run_forward(x: Any, kernel: Any, attrs: Mapping[str, Any], bias: Any = None, add: Any = None, relu: bool = False):
    """max(conv(x, kernel) + bias + add, 0), where the last three are as asked for."""
    spec = spec_of(x.shape, kernel.shape, attrs)
    assert spec is not None
    rank = spec[0]
    extra = [a for a in (bias, add) if a is not None]
    post = post_of(bias is not None, add is not None, relu)
    result = floats(spec[2], *spec[5 + rank : 5 + 2 * rank], spec[4])
    aliases = None if add is None else {1 + len(extra): 0}
    return call("conv", result, x, kernel, *extra, aliases=aliases, **attributes(spec, post=post))


@lowering("conv", "onednn", fits=fits_forward, needs="onednn")
def conv(x: Any, kernel: Any, **attrs: Any) -> Any:
    return run_forward(x, kernel, attrs)


@lowering("conv_fused", "onednn", fits=fits_forward, needs="onednn")
def conv_fused(x: Any, kernel: Any, *rest: Any, has_bias: bool, has_sum: bool, relu: bool, **attrs: Any) -> Any:
    bias = rest[0] if has_bias else None
    return run_forward(x, kernel, attrs, bias, rest[-1] if has_sum else None, relu)


@lowering("conv_grad_input", "onednn", fits=fits_grad_input, needs="onednn")
def conv_grad_input(dy: Any, kernel: Any, *, input_shape: Any, **attrs: Any) -> Any:
    spec = spec_of(input_shape, kernel.shape, attrs)
    return call("conv_grad_input", floats(*input_shape), dy, kernel, **attributes(spec))


@lowering("conv_grad_kernel", "onednn", fits=fits_grad_kernel, needs="onednn")
def conv_grad_kernel(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> Any:
    *window, c, f = kernel_shape
    if _is_pointwise(window, attrs) and 2 * c <= f and c <= WIDE:  # the narrow side as dy: 5.6 -> 4.3 ms for 64 -> 256
        turned = conv_grad_kernel(dy, x, kernel_shape=(*window, f, c), **attrs)
        return jnp.swapaxes(turned, -1, -2)
    spec = spec_of(x.shape, kernel_shape, attrs)
    return call("conv_grad_kernel", floats(*kernel_shape), x, dy, **attributes(spec))


@lowering("conv_grad_kernel_bias", "onednn", fits=fits_grad_kernel, needs="onednn")
def conv_grad_kernel_bias(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> tuple:
    # oneDNN's own sum of dy takes three to ten times as long as XLA's
    dkernel = conv_grad_kernel(x, dy, kernel_shape=kernel_shape, **attrs)
    return dkernel, jnp.sum(jnp.asarray(dy), axis=tuple(range(dy.ndim - 1)))


# --- convolutions with windows of one element, as products ---------------------------------------------------------


def _is_pointwise(window: Sequence[int], attrs: Mapping[str, Any]) -> bool:
    padding = attrs["padding"]
    return (
        all(d == 1 for d in window)
        and all(s == 1 for s in attrs["strides"])
        and attrs["groups"] == 1
        and (isinstance(padding, str) or all(tuple(pair) == (0, 0) for pair in padding))
    )


def _fits_pointwise(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return _is_pointwise(types[1].shape[:-2], attrs)


def _is_float32(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return types[0].dtype == np.float32  # bfloat16: half.py


def _matrix(kernel: Any) -> Any:
    return kernel.reshape(kernel.shape[-2:])


@lowering("conv", "dot", fits=_fits_pointwise, prefer=_is_float32)
def pointwise(x: Any, kernel: Any, **attrs: Any) -> Any:
    return jnp.matmul(x, _matrix(kernel))


@lowering("conv_fused", "dot", fits=_fits_pointwise, prefer=_is_float32)
def pointwise_fused(x: Any, kernel: Any, *rest: Any, has_bias: bool, has_sum: bool, relu: bool, **attrs: Any) -> Any:
    y = sum(rest, start=jnp.matmul(x, _matrix(kernel)))
    return jax.nn.relu(y) if relu else y


@lowering("conv_grad_input", "dot", fits=_fits_pointwise, prefer=_is_float32)
def pointwise_grad_input(dy: Any, kernel: Any, **attrs: Any) -> Any:
    return jnp.matmul(dy, _matrix(kernel).T)


def _fits_pointwise_gradient(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return _is_pointwise(attrs["kernel_shape"][:-2], attrs)


@lowering("conv_grad_kernel", "dot", fits=_fits_pointwise_gradient, prefer=_is_float32)
def pointwise_grad_kernel(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> Any:
    rows, given = (jnp.reshape(a, (-1, a.shape[-1])) for a in (x, dy))
    return jnp.matmul(rows.T, given).reshape(kernel_shape)


@lowering("conv_grad_kernel_bias", "dot", fits=_fits_pointwise_gradient, prefer=_is_float32)
def pointwise_grad_kernel_bias(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> tuple:
    dkernel = pointwise_grad_kernel(x, dy, kernel_shape=kernel_shape, **attrs)
    return dkernel, jnp.sum(dy, axis=tuple(range(dy.ndim - 1)))
