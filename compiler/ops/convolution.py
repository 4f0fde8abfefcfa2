"""Convolutions of one to three dimensions, channels last, and their two gradients as ops of their own.

x is (batch, *spatial, channels), a kernel (*window, channels / groups, filters). Padding is ``"same"``, ``"valid"`` or
one (before, after) for each spatial axis; negative widths cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node, TensorType
from . import rules, shape
from .registry import VJP, op


def _convolve(x: Any, kernel: Any, strides: tuple, padding: Any, dilation: tuple, groups: int) -> jax.Array:
    letters = "DHW"[-len(strides) :] if len(strides) <= 3 else "ABCDEFG"[: len(strides)]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding.upper() if isinstance(padding, str) else padding,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=groups,
    )


def _check(types: Sequence[Any], attrs: Any) -> None:
    x, kernel = types
    rank, groups = len(attrs["strides"]), attrs["groups"]
    if x.rank != rank + 2 or kernel.rank != rank + 2:
        raise ShapeError(
            f"conv over {rank} spatial axes needs an input (batch, {rank} sizes, channels) and a kernel "
            f"({rank} sizes, channels, filters), got {x} and {kernel}"
        )
    channels, taken, filters = x.shape[-1], kernel.shape[-2], kernel.shape[-1]
    if channels != taken * groups:
        raise ShapeError(
            f"conv of {x}: the kernel {kernel} with groups={groups} takes {taken * groups} channels, got {channels}"
        )
    if filters % groups:
        raise ShapeError(f"conv of {x}: {filters} filters cannot be cut into groups={groups}")


def _known(dims: Sequence[Any]) -> int:
    return math.prod(d for d in dims if isinstance(d, int))


def _conv_gradient(n: Node, dy: Node) -> tuple:
    x, kernel = n.inputs
    return (
        conv_grad_input(dy, kernel, input_shape=x.shape, **n.attrs),
        conv_grad_kernel(x, dy, kernel_shape=kernel.shape, **n.attrs),
    )


conv_op = op(
    "conv",
    lower=lambda x, kernel, *, strides, padding, dilation, groups: _convolve(
        jnp.asarray(x), jnp.asarray(kernel), strides, padding, dilation, groups
    ),
    gradient=_conv_gradient,
    check=_check,
    result=rules.convolved,
    flops=lambda types, attrs, result: 2 * _known(result.shape) * _known(types[1].shape[:-1]),
    doc="Convolution: (b, s.., c), (k.., c/groups, f) -> (b, t.., f).",
)


def _grad_input(dy: Any, kernel: Any, *, input_shape, strides, padding, dilation, groups) -> jax.Array:
    """The gradient for x: (b, t.., f), (k.., c/groups, f) -> input_shape."""
    dy, kernel = jnp.asarray(dy), jnp.asarray(kernel)
    like = jax.ShapeDtypeStruct(input_shape, dy.dtype)
    forward = lambda x: _convolve(x, kernel, strides, padding, dilation, groups)
    return jax.linear_transpose(forward, like)(dy)[0]


def _grad_input_gradient(n: Node, ddx: Node) -> tuple:
    dy, kernel = n.inputs
    attrs = {k: v for k, v in n.attrs.items() if k != "input_shape"}
    return conv_op(ddx, kernel, **attrs), conv_grad_kernel(ddx, dy, kernel_shape=kernel.shape, **attrs)


conv_grad_input = op(
    "conv_grad_input",
    lower=_grad_input,
    result=lambda types, attrs: TensorType(attrs["input_shape"], types[0].dtype),
    gradient=_grad_input_gradient,
    flops=lambda types, attrs, result: 2 * _known(types[0].shape) * _known(types[1].shape[:-1]),
)


def _grad_kernel(x: Any, dy: Any, *, kernel_shape, strides, padding, dilation, groups) -> jax.Array:
    """The gradient for the kernel: (b, s.., c), (b, t.., f) -> kernel_shape."""
    x, dy = jnp.asarray(x), jnp.asarray(dy)
    like = jax.ShapeDtypeStruct(kernel_shape, dy.dtype)
    forward = lambda kernel: _convolve(x, kernel, strides, padding, dilation, groups)
    return jax.linear_transpose(forward, like)(dy)[0]


def _grad_kernel_gradient(n: Node, ddk: Node) -> tuple:
    x, dy = n.inputs
    attrs = {k: v for k, v in n.attrs.items() if k != "kernel_shape"}
    return conv_grad_input(dy, ddk, input_shape=x.shape, **attrs), conv_op(x, ddk, **attrs)


conv_grad_kernel = op(
    "conv_grad_kernel",
    lower=_grad_kernel,
    result=lambda types, attrs: TensorType(attrs["kernel_shape"], types[1].dtype),
    gradient=_grad_kernel_gradient,
    flops=lambda types, attrs, result: 2 * _known(types[1].shape) * _known(result.shape[:-1]),
)


# --- with what follows a convolution; made by passes ---------------------------------------------------------------


def _fused(x: Any, kernel: Any, *rest: Any, has_bias: bool, has_sum: bool, relu: bool, **attrs: Any) -> jax.Array:
    """max(conv(x, kernel)[ + bias (f)][ + sum (b, t.., f)], 0), without the maximum if not `relu`."""
    y = conv_op.lower(x, kernel, **attrs)
    for one in rest:
        y = y + one
    return jax.nn.relu(y) if relu else y


conv_fused = op(
    "conv_fused",
    lower=_fused,
    gradient=VJP,
    result=rules.convolved,
    flops=lambda types, attrs, result: 2 * _known(result.shape) * _known(types[1].shape[:-1]),
)


def _grads(x: Any, dy: Any, **attrs: Any) -> tuple:
    """The gradients for the kernel and for a bias: (b, s.., c), (b, t.., f) -> kernel_shape, (f)."""
    dy = jnp.asarray(dy)
    return conv_grad_kernel.lower(x, dy, **attrs), jnp.sum(dy, axis=tuple(range(dy.ndim - 1)))


conv_grad_kernel_bias = op(
    "conv_grad_kernel_bias",
    lower=_grads,
    gradient=VJP,
    result=rules.kernel_and_bias,
    flops=lambda types, attrs, result: 2 * _known(types[1].shape) * _known(result.items[0].shape[:-1]),
)


# --- with Keras' arguments ----------------------------------------------------------------------------------------


def each(value: Any, rank: int) -> tuple:
    """`value` for each of `rank` axes: an int for all, or one an axis."""
    return (int(value),) * rank if isinstance(value, int) else tuple(int(v) for v in value)


def channels_last(x: Any, data_format: str | None) -> Any:
    """`x` with its channels moved last when `data_format` is ``"channels_first"``."""
    return shape.moveaxis(x, 1, -1) if data_format == "channels_first" else x


def channels_back(x: Any, data_format: str | None) -> Any:
    """Undoes `channels_last`."""
    return shape.moveaxis(x, -1, 1) if data_format == "channels_first" else x


def _padding(padding: Any) -> Any:
    return padding.lower() if isinstance(padding, str) else tuple((int(lo), int(hi)) for lo, hi in padding)


def window_fits(sizes: Sequence[Any], window: Sequence[int], what: str) -> None:
    """
    Raises:
        ShapeError: a window without padding is larger than the input along some axis.
    """
    if any(isinstance(n, int) and 0 < n < k for n, k in zip(sizes, window)):
        need = tuple(int(k) for k in window)
        raise ShapeError(
            f"Computed output size would be zero or negative. {what} of size {need} does not fit spatial sizes {tuple(sizes)}: with padding='valid' they must be at "
            f"least {', '.join(map(str, need))}. Use padding='same', a smaller window or a larger input."
        )


def conv(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
    groups: int | None = None,
) -> Any:
    """Convolution of `x` (batch, *spatial, channels) with `kernel` (*window, channels / groups, filters).

    Args:
        strides, dilation_rate: an int, or one for each spatial axis.
        padding: ``"same"``, ``"valid"``, ``"causal"`` (one spatial axis), or one (before, after) for each axis.
        groups: into how many groups channels and filters are cut; by default channels / (the kernel's channels).

    Raises:
        ShapeError: ranks or channels do not fit.
    """
    rank = kernel.ndim - 2
    x = channels_last(x, data_format)
    if groups is None:
        taken = kernel.shape[-2]
        groups = max(x.shape[-1] // taken, 1) if x.shape[-1] % taken == 0 else 1
    dilation = each(dilation_rate, rank)
    if isinstance(padding, str) and padding.lower() == "valid":
        window = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape)]
        window_fits(x.shape[1:-1], window, "a kernel")
    if padding == "causal":
        padding = tuple((d * (k - 1), 0) for d, k in zip(dilation, kernel.shape))
    attrs = {"strides": each(strides, rank), "padding": _padding(padding), "dilation": dilation, "groups": groups}
    return channels_back(conv_op(x, kernel, **attrs), data_format)


def depthwise_conv(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Each channel with filters of its own: kernel (*window, channels, m) -> (..., channels * m), channel-major."""
    *window, channels, multiplier = kernel.shape
    flat = shape.reshape(kernel, shape=(*window, 1, channels * multiplier))
    return conv(x, flat, strides, padding, data_format, dilation_rate, groups=channels)


def separable_conv(
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """A depthwise convolution and then one with windows of size 1."""
    y = depthwise_conv(x, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(y, pointwise_kernel, data_format=data_format, groups=1)


def _transposed_padding(k: int, stride: int, dilation: int, padding: str, extra: int | None) -> tuple[int, int, int]:
    """The padding of the convolution this one is the gradient of, and its input's size less (n - 1) * stride.

    Source: Keras' rules for `padding` and `output_padding` of transposed convolutions.
    """
    k = (k - 1) * dilation + 1
    if padding == "valid":
        left = k - 1
        right = k - 1 + (max(k, stride) - k if extra is None else extra)
    else:
        both = stride + k - 2 if extra is None else k + k % 2 - 2 + extra
        left = min(both // 2 + both % 2, k - 1)
        right = both - left
    return k - 1 - left, k - 1 - right, 2 + left + right - k


def conv_transpose(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """The gradient of a convolution for its input: x (batch, *spatial, channels), kernel (*window, filters, channels).

    Raises:
        ShapeError: the channels do not fit, or `padding` is not "same" or "valid".
    """
    rank = kernel.ndim - 2
    x = channels_last(x, data_format)
    if padding not in ("same", "valid"):
        raise ShapeError(f"conv_transpose takes padding 'same' or 'valid', got {padding!r}")
    if x.ndim != rank + 2 or x.shape[-1] != kernel.shape[-1]:
        raise ShapeError(
            f"conv_transpose of shape {tuple(x.shape)}: the kernel {tuple(kernel.shape)} needs "
            f"(batch, {rank} sizes, {kernel.shape[-1]} channels)"
        )
    steps, dilation = each(strides, rank), each(dilation_rate, rank)
    extra = (None,) * rank if output_padding is None else each(output_padding, rank)
    plan = [_transposed_padding(*v[:3], padding, v[3]) for v in zip(kernel.shape, steps, dilation, extra)]
    sizes = tuple((n - 1) * s + size for n, s, (_, _, size) in zip(x.shape[1:-1], steps, plan))
    y = conv_grad_input(
        x,
        kernel,
        input_shape=(x.shape[0], *sizes, kernel.shape[-2]),
        strides=steps,
        padding=tuple((lo, hi) for lo, hi, _ in plan),
        dilation=dilation,
        groups=1,
    )
    return channels_back(y, data_format)
