"""Windows of images and back: adaptive pooling, fold and unfold, depth to space and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import config
from ..tensors import known_shape
from . import manipulation as m
from .dispatch import is_static, lowered, public, rank, shape_of, tensor

__all__ = ["adaptive_average_pool", "adaptive_max_pool", "depth_to_space", "fold", "space_to_depth", "unfold"]


def data_format_of(value: Any) -> str:
    """``"channels_last"`` or ``"channels_first"``; None is what `kerasoft.config` says.

    Raises:
        ValueError: anything else.
    """
    return config.standardize_data_format(value)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value),) * 2 if hasattr(value, "__index__") else tuple(int(v) for v in value)  # type: ignore


# --- adaptive pooling ---------------------------------------------------------------------------------------------


def _windows(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """First and past-the-last place of each of `count` windows that cover `size` places: floor(i n/m), ceil((i+1) n/m)."""
    i = np.arange(count)
    return i * size // count, -(-(i + 1) * size // count)


@lowered
def _adaptive_average(x: Any, *, sizes: tuple, first: int) -> Any:
    for axis, count in enumerate(sizes, first):
        start, stop = _windows(x.shape[axis], count)
        places = np.arange(x.shape[axis])
        inside = (places >= start[:, None]) & (places < stop[:, None])
        weights = jnp.asarray(inside / (stop - start)[:, None], x.dtype)
        x = jnp.moveaxis(jnp.tensordot(x, weights, axes=[[axis], [1]]), -1, axis)
    return x


@lowered
def _adaptive_max(x: Any, *, sizes: tuple, first: int) -> Any:
    for axis, count in enumerate(sizes, first):
        start, stop = _windows(x.shape[axis], count)
        places = np.minimum(start[:, None] + np.arange((stop - start).max()), stop[:, None] - 1)
        x = jnp.max(jnp.take(x, places, axis=axis), axis=axis + 1)
    return x


def _adaptive(name: str, function: Any, inputs: Any, output_size: Any, data_format: Any) -> Any:
    inputs = tensor(inputs)
    dimensions = rank(inputs) - 2
    if dimensions not in (1, 2, 3):
        raise ValueError(f"{name} supports only 1D/2D/3D inputs")
    first = 1 if data_format_of(data_format) == "channels_last" else 2
    sizes = (output_size,) * dimensions if isinstance(output_size, int) else tuple(output_size)
    spatial = shape_of(inputs)[first : first + dimensions]
    if not all(is_static(d) for d in spatial):
        raise ValueError(f"{name} needs known spatial sizes. Received: inputs.shape={known_shape(inputs)}")
    return function(inputs, sizes=sizes, first=first)


@public("nn", "AdaptiveAveragePool", "inputs")
def adaptive_average_pool(inputs: Any, output_size: Any, data_format: Any = None) -> Any:
    """Means of as many windows as `output_size` says, which cover each spatial axis.

    >>> adaptive_average_pool(np.arange(6, dtype="float32").reshape(1, 6, 1), 2).ravel().tolist()
    [1.0, 4.0]
    """
    return _adaptive("adaptive_average_pool", _adaptive_average, inputs, output_size, data_format)


@public("nn", "AdaptiveMaxPool", "inputs")
def adaptive_max_pool(inputs: Any, output_size: Any, data_format: Any = None) -> Any:
    """The greatest values of as many windows as `output_size` says, which cover each spatial axis."""
    return _adaptive("adaptive_max_pool", _adaptive_max, inputs, output_size, data_format)


# --- fold and unfold ----------------------------------------------------------------------------------------------


def _places(size: int, kernel: int, dilation: int, padding: int, stride: int) -> np.ndarray:
    """Place in the padded axis of each kernel cell (rows) of each window (columns)."""
    count = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return np.arange(kernel)[:, None] * dilation + np.arange(count)[None, :] * stride


@lowered
def _unfold(x: Any, *, kernel: tuple, dilation: tuple, padding: tuple, stride: tuple) -> Any:
    batch, channels, height, width = x.shape
    rows, columns = (_places(*each) for each in zip((height, width), kernel, dilation, padding, stride))
    x = jnp.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    x = x[:, :, rows[:, None, :, None], columns[None, :, None, :]]
    return x.reshape(batch, channels * kernel[0] * kernel[1], rows.shape[1] * columns.shape[1])


@lowered
def _fold(x: Any, *, size: tuple, kernel: tuple, dilation: tuple, padding: tuple, stride: tuple) -> Any:
    rows, columns = (_places(*each) for each in zip(size, kernel, dilation, padding, stride))
    batch, channels = x.shape[0], x.shape[1] // (kernel[0] * kernel[1])
    x = x.reshape(batch, channels, *kernel, rows.shape[1], columns.shape[1])
    padded = jnp.zeros((batch, channels, *(n + 2 * p for n, p in zip(size, padding))), x.dtype)
    padded = padded.at[:, :, rows[:, None, :, None], columns[None, :, None, :]].add(x)
    return jax.lax.slice_in_dim(
        jax.lax.slice_in_dim(padded, padding[0], padding[0] + size[0], axis=2), padding[1], padding[1] + size[1], axis=3
    )


@public("nn", "Unfold")
def unfold(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The windows of images as columns: (batch, channels, height, width) -> (batch, channels * cells, windows)."""
    x = tensor(x)
    if rank(x) != 4:
        raise ValueError(f"Input must be a 4D tensor. Received: input.shape={shape_of(x)}")
    return _unfold(x, kernel=_pair(kernel_size), dilation=_pair(dilation), padding=_pair(padding), stride=_pair(stride))


@public("nn", "Fold")
def fold(x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Columns as windows of images, added up where they overlap: the transpose of `unfold`.

    Shapes: (batch, channels * cells, windows) -> (batch, channels, *output_size).
    """
    x = tensor(x)
    if rank(x) != 3:
        raise ValueError(f"Input must be a 3D tensor. Received: input.shape={shape_of(x)}")
    kernel = _pair(kernel_size)
    cells, rows = kernel[0] * kernel[1], shape_of(x)[1]
    if is_static(rows) and rows % cells:
        raise ValueError(
            f"The second dimension of the input ({rows}) must be divisible by kernel_size product ({cells})."
        )
    return _fold(
        x,
        size=_pair(output_size),
        kernel=kernel,
        dilation=_pair(dilation),
        padding=_pair(padding),
        stride=_pair(stride),
    )


# --- depth and space ----------------------------------------------------------------------------------------------


def _block_checks(name: str, x: Any, block: int) -> None:
    if block < 2:
        raise ValueError(f"`block_size` must be at least 2. Received: block_size={block}")
    if rank(x) != 4:
        raise ValueError(f"`{name}` requires a 4D input tensor. Received: x.shape={known_shape(x)}")


@public("nn", "DepthToSpace")
def depth_to_space(x: Any, block_size: int, data_format: Any = "channels_last") -> Any:
    """Channels spread over blocks of pixels: (b, h, w, c) -> (b, h * block, w * block, c / block**2)."""
    x, last = tensor(x), data_format_of(data_format) == "channels_last"
    _block_checks("depth_to_space", x, block_size)
    batch, a, b, c = shape_of(x)
    height, width, channels = (a, b, c) if last else (b, c, a)
    if is_static(channels) and channels % block_size**2:
        raise ValueError(f"The number of channels ({channels}) must be divisible by block_size**2 ({block_size**2}).")
    few, block = channels // block_size**2, (block_size, block_size)
    if last:
        x = m.transpose(m.reshape(x, (batch, height, width, *block, few)), (0, 1, 3, 2, 4, 5))
        return m.reshape(x, (batch, height * block_size, width * block_size, few))
    x = m.transpose(m.reshape(x, (batch, few, *block, height, width)), (0, 1, 4, 2, 5, 3))
    return m.reshape(x, (batch, few, height * block_size, width * block_size))


@public("nn", "SpaceToDepth")
def space_to_depth(x: Any, block_size: int, data_format: Any = "channels_last") -> Any:
    """Blocks of pixels as channels: (b, h, w, c) -> (b, h / block, w / block, c * block**2)."""
    x, last = tensor(x), data_format_of(data_format) == "channels_last"
    _block_checks("space_to_depth", x, block_size)
    batch, a, b, c = shape_of(x)
    height, width, channels = (a, b, c) if last else (b, c, a)
    for name, size in (("Height", height), ("Width", width)):
        if is_static(size) and size % block_size:
            raise ValueError(f"{name} ({size}) must be divisible by block_size ({block_size}).")
    rows, columns, many = height // block_size, width // block_size, channels * block_size**2
    if last:
        x = m.transpose(m.reshape(x, (batch, rows, block_size, columns, block_size, channels)), (0, 1, 3, 2, 4, 5))
        return m.reshape(x, (batch, rows, columns, many))
    x = m.transpose(m.reshape(x, (batch, channels, rows, block_size, columns, block_size)), (0, 1, 3, 5, 2, 4))
    return m.reshape(x, (batch, many, rows, columns))
