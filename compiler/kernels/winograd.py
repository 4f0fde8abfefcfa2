"""Convolutions of 3 x 3 and 5 x 5 windows and their gradients with fewer products: float32, channels last.

A tile of 4 x 4 outputs (2 x 2 for a window of 5) takes 36 products for each pair of channels instead of 144 (100); see
compiler/kernels/cpp/winograd.h for the transforms and their rounding. Source: Lavin and Gray 2016 (arXiv:1509.09308).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .convolution_calls import attributes, call, floats, post_of, spec_of
from .lowerings import lowering

BY_SIZE = 0  # the order of the work, by the rule in winograd.cpp
TRANSFORMS = 16  # cycles for each channel and filter of a tile
GRADIENT_TRANSFORMS = 64  # those of kernels' gradients, which go through memory
WORTH = 1.25  # times fewer cycles than a plain convolution, by the estimate below, to be taken unmeasured


def _fits_sizes(x: Sequence[int], kernel: Sequence[int], attrs: Mapping[str, Any], *dtypes: Any) -> bool:
    return (
        tuple(kernel[:-2]) in ((3, 3), (5, 5))
        and attrs["groups"] == 1
        and all(one == 1 for one in (*attrs["strides"], *attrs["dilation"]))
        and all(np.dtype(d) == np.float32 for d in dtypes)
        and spec_of(x, kernel, attrs) is not None
    )


def cycles(
    x: Sequence[int], kernel: Sequence[int], attrs: Mapping[str, Any], transforms: int = TRANSFORMS
) -> tuple[float, float]:
    """Cycles of a core for a tile of outputs: of a plain convolution, and this way. Fitted to one processor with AVX-512.

    A product of 16 numbers takes a cycle; filters are padded to 32; the kernel is transformed once, whatever the number of
    tiles.
    """
    spec = spec_of(x, kernel, attrs)
    assert spec is not None
    taps, channels, filters = kernel[0], kernel[-2], -(-kernel[-1] // 32) * 32
    height, width, side = spec[7], spec[8], 7 - taps
    tiles = -(-height // side) * -(-width // side)
    plain = taps**2 * channels * kernel[-1] / 16 * height * width / tiles
    pairs = channels * filters
    return plain, 36 / 16 * pairs + transforms * (channels + filters) + 12 * pairs / max(1, tiles * x[0])


def _pays(*sizes: Any) -> bool:
    plain, transformed = cycles(*sizes)
    return plain > WORTH * transformed


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, kernel = types[:2]
    return _fits_sizes(x.shape, kernel.shape, attrs, x.dtype, kernel.dtype)


def _fits_grad_input(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    dy, kernel = types
    return _fits_sizes(attrs["input_shape"], kernel.shape, attrs, dy.dtype, kernel.dtype)


def _fits_grad_kernel(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, dy = types
    return _fits_sizes(x.shape, attrs["kernel_shape"], attrs, x.dtype, dy.dtype)


def _prefers(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return _pays(types[0].shape, types[1].shape, attrs)


def _prefers_grad_input(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return _pays(attrs["input_shape"], types[1].shape, attrs)


def _prefers_grad_kernel(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return _pays(types[0].shape, attrs["kernel_shape"], attrs, GRADIENT_TRANSFORMS)


def _forward(
    x: Any, kernel: Any, attrs: Mapping[str, Any], bias: Any = None, add: Any = None, relu: bool = False
) -> Any:
    spec = spec_of(x.shape, kernel.shape, attrs)
    assert spec is not None
    extra = [a for a in (bias, add) if a is not None]
    post = post_of(bias is not None, add is not None, relu)
    result = floats(spec[2], *spec[7:9], spec[4])
    aliases = None if add is None else {1 + len(extra): 0}
    return call("winograd", result, x, kernel, *extra, aliases=aliases, **attributes(spec, post=post, order=BY_SIZE))


@lowering("conv", "winograd", fits=_fits, prefer=_prefers, needs="native")
def conv(x: Any, kernel: Any, **attrs: Any) -> Any:
    return _forward(x, kernel, attrs)


@lowering("conv_fused", "winograd", fits=_fits, prefer=_prefers, needs="native")
def conv_fused(x: Any, kernel: Any, *rest: Any, has_bias: bool, has_sum: bool, relu: bool, **attrs: Any) -> Any:
    return _forward(x, kernel, attrs, rest[0] if has_bias else None, rest[-1] if has_sum else None, relu)


@lowering("conv_grad_input", "winograd", fits=_fits_grad_input, prefer=_prefers_grad_input, needs="native")
def conv_grad_input(dy: Any, kernel: Any, *, input_shape: Any, **attrs: Any) -> Any:
    spec = spec_of(input_shape, kernel.shape, attrs)
    return call("winograd_grad_input", floats(*input_shape), dy, kernel, **attributes(spec, order=BY_SIZE))


@lowering("conv_grad_kernel", "winograd", fits=_fits_grad_kernel, prefer=_prefers_grad_kernel, needs="native")
def conv_grad_kernel(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> Any:
    spec = spec_of(x.shape, kernel_shape, attrs)
    return call("winograd_grad_kernel", floats(*kernel_shape), x, dy, **attributes(spec))


@lowering("conv_grad_kernel_bias", "winograd", fits=_fits_grad_kernel, prefer=_prefers_grad_kernel, needs="native")
def conv_grad_kernel_bias(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> tuple:
    dkernel = conv_grad_kernel(x, dy, kernel_shape=kernel_shape, **attrs)
    return dkernel, jnp.sum(jnp.asarray(dy), axis=(0, 1, 2))
