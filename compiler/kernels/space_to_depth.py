"""Convolutions with strides and few input channels, as ones without strides on blocks of cells laid side by side.

A block of stride x stride cells becomes one cell of stride * stride * channels, the kernel alike. So a 4x4 convolution of 3
channels with strides of 2 is a 2x2 one of 12. Windows must be multiples of the strides: a kernel filled up with zeros would
spread NaN to cells outside of the window.

Shipped rule: the gradient of the input only, which is also what a transposed convolution to few channels computes (2 to 7
times as fast as oneDNN's). Forward and for the kernel's gradient oneDNN's direct convolution is about as fast, so these two
are taken where they measure faster (docs/design/0013-convolutional-nets.md).

Source: Ying et al., "Image Classification at Supercomputer Scale", 2018, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from .convolution_calls import attributes, call, floats, spec_of
from .lowerings import lowering

CHANNELS = 4  # of the input, at most

Pads = tuple[tuple[int, int], ...]


def _spec(x: Sequence[int], kernel: Sequence[int], attrs: Mapping[str, Any]) -> tuple[tuple[int, ...], Pads] | None:
    """The sizes of the convolution of blocks; and how many cells come (negative: go) around each axis of the input."""
    spec = spec_of(x, kernel, attrs)
    if len(x) != 4 or spec is None or attrs["groups"] != 1 or x[-1] > CHANNELS or set(attrs["dilation"]) != {1}:
        return None
    strides, output, before = attrs["strides"], spec[7:9], spec[15:17]
    if min(strides) < 2 or any(k % s for k, s in zip(kernel, strides)):
        return None
    window = tuple(k // s for k, s in zip(kernel, strides))
    sizes = tuple(o - 1 + k for o, k in zip(output, window))
    pads = tuple((lo, s * m - n - lo) for lo, s, m, n in zip(before, strides, sizes, x[1:3]))
    channels = x[-1] * math.prod(strides)
    return (2, 1, x[0], channels, kernel[-1], *sizes, *output, *window, 1, 1, 1, 1, 0, 0, 0, 0), pads


def _fits(direction: int, x: Sequence[int], kernel: Sequence[int], attrs: Mapping[str, Any], types: Any) -> bool:
    from .convolution import is_supported

    found = _spec(x, kernel, attrs)
    return found is not None and is_supported(direction, found[0], *(t.dtype for t in types))


def _blocks(x: Any, pads: Pads, strides: Sequence[int]) -> Any:
    """(b, h, w, c) -> (b, h / s, w / t, s * t * c), padded or cut before."""
    x = x[:, : x.shape[1] + min(pads[0][1], 0), : x.shape[2] + min(pads[1][1], 0)]
    x = jnp.pad(x, ((0, 0), *((lo, max(hi, 0)) for lo, hi in pads), (0, 0)))
    (rows, height, width, channels), (s, t) = x.shape, strides
    cut = x.reshape(rows, height // s, s, width // t, t, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(rows, height // s, width // t, s * t * channels)


def _cells(x: Any, strides: Sequence[int]) -> Any:
    """(b, h, w, s * t * c) -> (b, s * h, t * w, c)."""
    (rows, height, width, channels), (s, t) = x.shape, strides
    cut = x.reshape(rows, height, width, s, t, channels // (s * t))
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(rows, height * s, width * t, channels // (s * t))


def _kernel(kernel: Any, strides: Sequence[int]) -> Any:
    """(h, w, c, f) -> (ceil(h / s), ceil(w / t), s * t * c, f)."""
    pads = tuple((0, -k % s) for k, s in zip(kernel.shape, strides))
    return jnp.moveaxis(_blocks(jnp.moveaxis(kernel, -1, 0), pads, strides), 0, -1)


def _never(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return False


@lowering("conv", "space-to-depth", fits=lambda types, attrs: _fits(0, types[0].shape, types[1].shape, attrs, types), needs="onednn", prefer=_never)  # fmt: skip
def conv(x: Any, kernel: Any, **attrs: Any) -> Any:
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    spec, pads = _spec(x.shape, kernel.shape, attrs)  # type: ignore[misc]
    blocks, cells = _blocks(x, pads, attrs["strides"]), _kernel(kernel, attrs["strides"])
    return call("conv", floats(x.shape[0], *spec[7:9], spec[4]), blocks, cells, **attributes(spec, post=0))


@lowering("conv_grad_kernel", "space-to-depth", fits=lambda types, attrs: _fits(2, types[0].shape, attrs["kernel_shape"], attrs, types), needs="onednn", prefer=_never)  # fmt: skip
def conv_grad_kernel(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> Any:
    x = jnp.asarray(x)
    spec, pads = _spec(x.shape, kernel_shape, attrs)  # type: ignore[misc]
    blocks = _blocks(x, pads, attrs["strides"])
    (found,) = call("conv_grad_kernel", [floats(*spec[9:11], spec[3], spec[4])], blocks, dy, **attributes(spec))
    cells = jnp.moveaxis(_cells(jnp.moveaxis(found, -1, 0), attrs["strides"]), 0, -1)
    return cells[: kernel_shape[0], : kernel_shape[1]]


@lowering("conv_grad_input", "space-to-depth", fits=lambda types, attrs: _fits(1, attrs["input_shape"], types[1].shape, attrs, types), needs="onednn")  # fmt: skip
def conv_grad_input(dy: Any, kernel: Any, *, input_shape: Any, **attrs: Any) -> Any:
    kernel = jnp.asarray(kernel)
    spec, pads = _spec(input_shape, kernel.shape, attrs)  # type: ignore[misc]
    blocks = floats(input_shape[0], *spec[5:7], spec[3])
    found = call("conv_grad_input", blocks, dy, _kernel(kernel, attrs["strides"]), **attributes(spec))
    cells = _cells(found, attrs["strides"])
    (top, bottom), (left, right) = pads
    cells = cells[:, top : cells.shape[1] - max(bottom, 0), left : cells.shape[2] - max(right, 0)]
    return jnp.pad(cells, ((0, 0), *((0, max(-high, 0)) for _, high in pads), (0, 0)))
