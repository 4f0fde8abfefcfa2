"""Activations, convolutions, pooling, normalisation, attention and cross-entropies."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..compiler.ops import attention, convolution, pooling
from ..dtypes import is_float
from ..tensors import known_shape
from . import elementwise as e
from . import manipulation as m
from . import reduction as r
from .creation import arange, multi_hot, one_hot  # noqa: F401
from .ctc import ctc_decode, ctc_loss  # noqa: F401
from .dispatch import dtype_of, is_static, kernel, lowered, public, rank, shape_of, tensor
from .linalg import norm
from .linear import einsum
from .patches import (  # noqa: F401
    adaptive_average_pool,
    adaptive_max_pool,
    data_format_of,
    depth_to_space,
    fold,
    space_to_depth,
    unfold,
)
from .reduction import moments  # noqa: F401

EPSILON = 1e-7


def _activation(name: str, class_name: str, text: str):
    def function(x: Any) -> Any:
        return kernel(name)(e._as_float(tensor(x)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    function.__module__ = __name__
    return public("nn", class_name)(function)


sigmoid = _activation("sigmoid", "Sigmoid", "1 / (1 + exp(-x)).")
softplus = _activation("softplus", "Softplus", "log(exp(x) + 1).")
softsign = _activation("softsign", "Softsign", "x / (|x| + 1).")
silu = _activation("silu", "Silu", "x * sigmoid(x).")
log_sigmoid = _activation("log_sigmoid", "LogSigmoid", "log(sigmoid(x)).")
selu = _activation("selu", "Selu", "The self-normalising exponential unit.")
relu6 = _activation("relu6", "Relu6", "min(max(x, 0), 6).")
hard_sigmoid = _activation("hard_sigmoid", "HardSigmoid", "relu6(x + 3) / 6.")
hard_silu = _activation("hard_silu", "HardSilu", "x * hard_sigmoid(x).")
swish, hard_swish, tanh = silu, hard_silu, e.tanh


@public("nn", "Relu")
def relu(x: Any) -> Any:
    """max(x, 0).

    >>> relu([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    return kernel("relu")(tensor(x))


@public("nn", "LeakyRelu")
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x, or `negative_slope * x` below 0."""
    x = tensor(x)
    return kernel("leaky_relu")(x, negative_slope=float(negative_slope))


@public("nn", "Elu")
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x, or `alpha * (exp(x) - 1)` below 0."""
    return kernel("elu")(tensor(x), alpha=float(alpha))


@public("nn", "Celu")
def celu(x: Any, alpha: float = 1.0) -> Any:
    """x, or `alpha * (exp(x / alpha) - 1)` below 0."""
    return kernel("celu")(tensor(x), alpha=float(alpha))


@public("nn", "Gelu")
def gelu(x: Any, approximate: bool = True) -> Any:
    """x times the normal distribution function of x; by tanh when `approximate`."""
    return kernel("gelu")(tensor(x), approximate=bool(approximate))


@public("nn", "Glu")
def glu(x: Any, axis: int = -1) -> Any:
    """The first half along `axis` times the sigmoid of the second."""
    a, b = m.split(x, 2, axis)
    return e.multiply(a, sigmoid(b))


@public("nn", "TanhShrink")
def tanh_shrink(x: Any) -> Any:
    """x - tanh(x)."""
    return e.subtract(x, e.tanh(x))


@public("nn", "HardTanh")
def hard_tanh(x: Any) -> Any:
    """x, at least -1 and at most 1."""
    x = tensor(x)
    return e.clip(x, -1.0, 1.0) if is_float(dtype_of(x)) else e.clip(x, -1, 1)


@public("nn", "HardShrink")
def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x where |x| > `threshold`, else 0."""
    x = tensor(x)
    return e.where(e.greater(e.abs(x), threshold), x, 0.0)


@public("nn", "SoftShrink")
def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x moved by `threshold` towards 0, not beyond."""
    x = tensor(x)
    return e.multiply(e.sign(x), e.maximum(e.subtract(e.abs(x), threshold), 0.0))


@public("nn", "Threshold")
def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """x where it is above `threshold`, else `default_value`.

    >>> ks.ops.threshold([1.0, 3.0], 2.0, 0.0).tolist()
    [0.0, 3.0]
    """
    x = tensor(x)
    return e.where(e.greater(x, threshold), x, default_value)


@public("nn", "SparsePlus")
def sparse_plus(x: Any) -> Any:
    """0 below -1, a parabola up to 1, then x."""
    x = tensor(x)
    middle = e.multiply(e.square(e.add(x, 1.0)), 0.25)
    return e.where(e.less_equal(x, -1.0), 0.0, e.where(e.greater_equal(x, 1.0), x, middle))


@public("nn", "SparseSigmoid")
def sparse_sigmoid(x: Any) -> Any:
    """(x + 1) / 2, at least 0 and at most 1."""
    return e.multiply(e.clip(e.add(e._as_float(tensor(x)), 1.0), 0.0, 2.0), 0.5)


@public("nn", "Squareplus")
def squareplus(x: Any, b: Any = 4) -> Any:
    """(x + sqrt(x * x + b)) / 2, a smooth relu.

    Source: Barron 2021, <https://arxiv.org/abs/2112.11687>.
    """
    x = e._as_float(tensor(x))
    return e.multiply(e.add(x, e.sqrt(e.add(e.square(x), float(b)))), 0.5)


@lowered
def _complex(real: Any, imaginary: Any) -> Any:
    return jax.lax.complex(real, imaginary)


@public("nn", "Polar", "abs_ angle")
def polar(abs_: Any, angle: Any) -> Any:
    """The complex number of size `abs_` and angle `angle` (radians)."""
    abs_, angle = e._as_float(tensor(abs_)), e._as_float(tensor(angle))
    return _complex(e.multiply(abs_, e.cos(angle)), e.multiply(abs_, e.sin(angle)))


@public("nn", "PSNR", "x1 x2")
def psnr(x1: Any, x2: Any, max_val: float) -> Any:
    """The peak signal-to-noise ratio in decibels: 20 log10(max_val) - 10 log10(mean((x1 - x2)**2)).

    Raises:
        ValueError: the shapes differ.
    """
    x1, x2 = tensor(x1), tensor(x2)
    if known_shape(x1) != known_shape(x2):
        raise ValueError(f"Input shapes {known_shape(x1)} and {known_shape(x2)} must match for PSNR calculation. ")
    error = e._as_float(r.mean(e.square(e.subtract(x1, x2))))
    return e.subtract(20.0 * float(np.log10(np.float32(max_val))), e.multiply(e.log10(error), 10.0))


@public("nn", "Softmax")
def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) / sum(exp(x)) over `axis`."""
    x = e._as_float(tensor(x))
    return kernel("softmax")(x, axis=_one_axis(x, axis))


@public("nn", "LogSoftmax")
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """log(softmax(x)) over `axis`."""
    x = e._as_float(tensor(x))
    return kernel("log_softmax")(x, axis=_one_axis(x, axis))


@public("nn", "Sparsemax")
def sparsemax(x: Any, axis: int = -1) -> Any:
    """The point of the simplex nearest to x along `axis`: many exact zeros."""
    return kernel("sparsemax")(tensor(x), axis=axis)


def _one_axis(x: Any, axis: Any) -> Any:
    axes = r.axes_of(x, axis)
    return axes[0] if len(axes) == 1 else axes


# --- convolution and pooling ---------------------------------------------------------------------------------------


def _pair(inputs: Any, kernel: Any) -> list:
    return m._one_dtype([tensor(inputs), tensor(kernel)])


@public("nn", "Conv", "inputs kernel")
def conv(
    inputs: Any, kernel: Any, strides: Any = 1, padding: str = "valid", data_format: Any = None, dilation_rate: Any = 1
) -> Any:
    """Convolution of (batch, ..., channels) with a kernel (..., channels / groups, filters).

    Args:
        padding: ``"valid"``, ``"same"``, or (in one dimension) ``"causal"``.
        data_format: ``"channels_last"`` (default) or ``"channels_first"``.
    """
    inputs, kernel = tensor(inputs), tensor(kernel)  # as in Keras, the kernel says in what is computed
    inputs = inputs if dtype_of(inputs) == dtype_of(kernel) else e.cast(inputs, dtype_of(kernel))
    return convolution.conv(inputs, kernel, strides, padding, data_format_of(data_format), dilation_rate)


@public("nn", "DepthwiseConv", "inputs kernel")
def depthwise_conv(
    inputs: Any, kernel: Any, strides: Any = 1, padding: str = "valid", data_format: Any = None, dilation_rate: Any = 1
) -> Any:
    """Each channel convolved with its own kernels (..., channels, multiplier)."""
    data_format = data_format_of(data_format)
    return convolution.depthwise_conv(*_pair(inputs, kernel), strides, padding, data_format, dilation_rate)


@public("nn", "SeparableConv", "inputs depthwise_kernel pointwise_kernel")
def separable_conv(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    """A depthwise convolution and then one of size 1."""
    x = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(x, pointwise_kernel, 1, "valid", data_format, 1)


@public("nn", "ConvTranspose", "inputs kernel")
def conv_transpose(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    """The gradient of a convolution as a function of its own; kernel (..., filters, channels).

    The result has ``(n-1)*s + k + max(s-k, 0)`` places (valid) or ``n*s`` (same), k counting the dilation.
    """
    return convolution.conv_transpose(
        *_pair(inputs, kernel), strides, padding, output_padding, data_format_of(data_format), dilation_rate
    )


@public("nn", "MaxPool", "inputs")
def max_pool(inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None) -> Any:
    """The greatest value of each window."""
    return pooling.max_pool(tensor(inputs), pool_size, strides, padding, data_format_of(data_format))


@public("nn", "AveragePool", "inputs")
def average_pool(
    inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None
) -> Any:
    """The mean of each window; with ``"same"``, of its real cells."""
    return pooling.average_pool(e._as_float(tensor(inputs)), pool_size, strides, padding, data_format_of(data_format))


# --- normalisation and attention -----------------------------------------------------------------------------------


@public("nn", "BatchNorm", "x mean variance offset scale")
def batch_normalization(
    x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, with vectors along `axis`."""
    x = tensor(x)
    shape, size = [1] * rank(x), shape_of(x)[axis]
    shape[axis] = -1
    for name, vector in (("mean", mean), ("variance", variance), ("offset", offset), ("scale", scale)):
        given = shape_of(tensor(vector)) if vector is not None else (size,)
        if given != (size,) and all(map(is_static, (size, *given))):
            raise ValueError(
                f"Arguments `{name}` must be a vector of length `x.shape[axis]`. Expected: `{(size,)}`. "
                f"Received: `{given}`."
            )
    mean, variance, offset, scale = (
        None if v is None else m.reshape(v, shape) for v in (mean, variance, offset, scale)
    )
    gain = e.rsqrt(e.add(variance, epsilon))
    gain = gain if scale is None else e.multiply(gain, scale)
    shift = e.multiply(e.negative(mean), gain)
    return e.add(e.multiply(x, gain), shift if offset is None else e.add(shift, offset))


@public("nn", "LayerNorm", "x gamma beta")
def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Any:
    """x with mean 0 and variance 1 over `axis`, times gamma plus beta, of the sizes of `axis`; in float32 inside."""
    x = tensor(x)
    kind, x = dtype_of(x), _wide(x)
    axes = sorted(a % rank(x) for a in r.axes_of(x, axis))
    sizes = tuple(d if a in axes else 1 for a, d in enumerate(shape_of(x)))
    mean, variance = r.moments(x, axes, True)
    x = e.multiply(e.subtract(x, mean), e.rsqrt(e.add(variance, EPSILON if epsilon is None else epsilon)))
    gamma, beta = (None if v is None else m.reshape(_wide(tensor(v)), sizes) for v in (gamma, beta))
    x = x if gamma is None else e.multiply(x, gamma)
    return e.cast(x if beta is None else e.add(x, beta), kind)


def _wide(x: Any) -> Any:
    """x in float32, or float64 if it is that."""
    return x if dtype_of(x) in ("float32", "float64") else e.cast(x, "float32")


@public("nn", "RMSNorm", "x scale")
def rms_normalization(x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None) -> Any:
    """x divided by the root of its mean square over `axis`, times scale; in float32 inside."""
    x = tensor(x)
    kind, x = dtype_of(x), _wide(x)
    x = e.multiply(x, e.rsqrt(e.add(r.mean(e.square(x), axis, True), EPSILON if epsilon is None else epsilon)))
    return e.cast(x if scale is None else e.multiply(x, _wide(tensor(scale))), kind)


@public("nn", "DotProductAttention", "query key value bias mask scale")
def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
    is_causal: bool = False,
    flash_attention: Any = None,
    attn_logits_soft_cap: Any = None,
) -> Any:
    """softmax(query key' * scale + bias) value, per head: (batch, steps, heads, size) each.

    Args:
        mask: true where attention is allowed, broadcast to (batch, heads, query steps, key steps).
        scale: 1 / sqrt(size) by default.
    """
    query, key, value = tensor(query), tensor(key), tensor(value)
    scale = float(1.0 / np.sqrt(shape_of(query)[-1]) if scale is None else scale)
    if attn_logits_soft_cap is None and all(map(is_float, map(dtype_of, (query, key, value)))):
        return fused_attention(query, key, value, mask, bias, scale, is_causal)
    groups = shape_of(query)[2] // shape_of(key)[2]
    if groups > 1:
        key, value = m.repeat(key, groups, 2), m.repeat(value, groups, 2)
    logits = e.multiply(einsum("btnh,bsnh->bnts", query, key), scale)
    if attn_logits_soft_cap is not None:
        logits = e.multiply(e.tanh(e.divide(logits, attn_logits_soft_cap)), attn_logits_soft_cap)
    logits = logits if bias is None else e.add(logits, bias)
    if is_causal:
        steps, sources = shape_of(logits)[-2:]
        allowed = e.less_equal(arange(sources)[None, :], arange(steps)[:, None])
        mask = allowed if mask is None else e.logical_and(mask, allowed)
    if mask is not None:
        logits = e.where(mask, logits, -0.7 * float(np.finfo(np.float32).max))
    return einsum("bnts,bsnh->btnh", softmax(logits, -1), value)


def fused_attention(query: Any, key: Any, value: Any, mask: Any, bias: Any, scale: float, is_causal: bool) -> Any:
    """The compiler's attention, which keeps no matrix of all scores; `mask` and `bias` may lack leading axes.

    Shapes: query (b, t, h, d), key (b, s, g, d), value (b, s, g, e), mask and bias broadcast to (b, h, t, s).
    """
    mask, bias = (None if x is None else _with_four_axes(tensor(x)) for x in (mask, bias))
    mask = mask if mask is None or dtype_of(mask) == "bool" else e.cast(mask, "bool")
    return attention.scaled_dot_product(query, key, value, mask, bias, scale, is_causal)


def _with_four_axes(x: Any) -> Any:
    return m.reshape(x, (*(1,) * (4 - rank(x)), *shape_of(x))) if rank(x) < 4 else x


@public("nn", "Normalize")
def normalize(x: Any, axis: int = -1, order: int = 2, epsilon: float | None = None) -> Any:
    """x divided by its norm over `axis` (at least `epsilon`).

    Raises:
        ValueError: `order` is no int of 1 or more.
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"Argument `order` must be an int >= 1. Received: order={order}")
    x = e._as_float(tensor(x))
    x = m.expand_dims(x, 0) if rank(x) == 0 else x
    epsilon = EPSILON if epsilon is None else epsilon
    if order == 2:
        return e.multiply(x, e.minimum(e.rsqrt(r.sum(e.square(x), axis, True)), 1.0 / epsilon))
    return e.divide(x, e.maximum(norm(x, order, axis, True), epsilon))


# --- cross-entropies -----------------------------------------------------------------------------------------------


@public("nn", "BinaryCrossentropy", "target output")
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:
    """-(target log(output) + (1 - target) log(1 - output)), element by element."""
    target, output = _same_shape("binary_crossentropy", target, output)
    if from_logits:
        return e.subtract(
            e.add(e.maximum(output, 0.0), e.log1p(e.exp(e.negative(e.abs(output))))), e.multiply(output, target)
        )
    output = e.clip(output, EPSILON, 1.0 - EPSILON)
    term = e.multiply(target, e.log(output))
    return e.negative(e.add(term, e.multiply(e.subtract(1.0, target), e.log(e.subtract(1.0, output)))))


def _same_shape(name: str, target: Any, output: Any) -> tuple[Any, Any]:
    target, output = e._as_float(tensor(target)), e._as_float(tensor(output))
    if rank(target) != rank(output) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(shape_of(target), shape_of(output), strict=False)
    ):
        raise ValueError(
            f"{name}: arguments `target` and `output` must have the same shape. "
            f"Received: target.shape={shape_of(target)}, output.shape={shape_of(output)}"
        )
    return target, output


@public("nn", "CategoricalCrossentropy", "target output")
def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """-sum(target log(output)) over the classes on `axis`; outputs are divided by their sum."""
    target, output = _same_shape("categorical_crossentropy", target, output)
    return e.negative(r.sum(e.multiply(target, _log_probabilities(output, from_logits, axis)), axis))


def _log_probabilities(output: Any, from_logits: bool, axis: int) -> Any:
    if from_logits:
        return log_softmax(output, axis)
    output = e.divide(output, r.sum(output, axis, True))
    return e.log(e.clip(output, EPSILON, 1.0 - EPSILON))


@public("nn", "SparseCategoricalCrossentropy", "target output")
def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """-log(output[target]) over the classes on `axis`, for class numbers `target`."""
    target, output = e.cast(tensor(target), "int32"), e._as_float(tensor(output))
    if rank(target) == rank(output) and shape_of(target)[-1] == 1:
        target = m.squeeze(target, -1)
    if rank(target) != rank(output) - 1:
        raise ValueError(
            "Argument `output` must have rank (ndim) `target.ndim - 1`. "
            f"Received: target.shape={shape_of(target)}, output.shape={shape_of(output)}"
        )
    picked = one_hot(target, shape_of(output)[axis], axis=axis)
    return e.negative(r.sum(e.multiply(picked, _log_probabilities(output, from_logits, axis)), axis))
