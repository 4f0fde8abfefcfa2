"""Filters and comparisons of images: Gaussian blur, Sobel edges, structural similarity."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import elementwise as e
from .dispatch import lowered, public, rank, tensor
from .image_input import image_input, shown


def _filtered(x: Any, kernel: Any, axis: int) -> Any:
    """Each channel of images convolved with one kernel (rows, columns), zeros outside."""
    batched = x if x.ndim == 4 else x[None]
    layout = "NCHW" if axis == -3 else "NHWC"
    channels = batched.shape[axis]
    kernel = jnp.tile(kernel[:, :, None, None], (1, 1, 1, channels))
    result = jax.lax.conv_general_dilated(
        batched, kernel, (1, 1), "SAME", dimension_numbers=(layout, "HWIO", layout), feature_group_count=channels
    )
    return result if x.ndim == 4 else result[0]


@lowered
def blur(x: Any, sigma: Any, *, size: tuple, axis: int) -> Any:
    def bell(count: int, width: Any) -> Any:
        places = jnp.arange(count, dtype=x.dtype) - jnp.asarray((count - 1) / 2, x.dtype)
        weights = jnp.exp(-0.5 * (places / width) ** 2)
        return weights / jnp.sum(weights)

    sigma = jnp.asarray(sigma, x.dtype)
    return _filtered(x, jnp.outer(bell(size[1], sigma[1]), bell(size[0], sigma[0])), axis)


@public("image", "GaussianBlur", "images")
def gaussian_blur(images: Any, kernel_size: Any = (3, 3), sigma: Any = (1.0, 1.0), data_format: Any = None) -> Any:
    """Images smoothed by a Gaussian kernel of `kernel_size` cells and standard deviations `sigma`."""
    images, _, _, axis = image_input(images, data_format)
    size = tuple(int(n) for n in kernel_size)
    return blur(images, np.asarray(sigma, "float32"), size=size, axis=axis)


@lowered
def _sobel(x: Any, *, axis: int) -> Any:
    across = jnp.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], x.dtype)
    return jnp.stack([_filtered(x, across.T, axis), _filtered(x, across, axis)], axis=-1)


@public("image", "SobelEdges", "images")
def sobel_edges(images: Any, data_format: Any = None) -> Any:
    """Slopes downwards and to the right: the shape of the images, and 2."""
    if rank(tensor(images)) != 4:
        raise ValueError(
            f"Invalid images rank: expected rank 4 (batch of images). Received: images.shape={shown(tensor(images))}"
        )
    images, _, _, axis = image_input(images, data_format)
    return _sobel(images, axis=axis)


@lowered
def _ssim(x: Any, y: Any, *, axis: int, limit: float, size: int, sigma: float, k1: float, k2: float) -> Any:
    kind = x.dtype
    wide = kind if jnp.issubdtype(kind, jnp.floating) else jnp.float32
    x, y = (jnp.moveaxis(v.astype(wide), axis, -1) for v in (x, y))
    places = jnp.arange(size, dtype=wide) - (size - 1) / 2.0
    bell = jnp.exp(-(places**2) / (2.0 * sigma**2))
    bell = bell / jnp.sum(bell)
    kernel = jnp.outer(bell, bell)[:, :, None, None]

    def smooth(v: Any) -> Any:
        batched = v if v.ndim == 4 else v[None]
        channels = batched.shape[-1]
        result = jax.lax.conv_general_dilated(
            batched,
            jnp.tile(kernel, (1, 1, 1, channels)),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
        )
        return result if v.ndim == 4 else result[0]

    c1, c2 = (k1 * limit) ** 2, (k2 * limit) ** 2
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    both = smooth(x * y) - mean_x * mean_y
    above = (2.0 * mean_x * mean_y + c1) * (2.0 * both + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return jnp.mean(above / below, axis=(-3, -2, -1)).astype(kind)


@public("image", "SSIM", "image1 image2")
def ssim(
    image1: Any,
    image2: Any,
    max_val: float = 1.0,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    data_format: Any = None,
) -> Any:
    """The structural similarity of pairs of images, 1 for equal ones.

    Source: Wang et al. 2004, equation 13.
    """
    image1, _, _, axis = image_input(image1, data_format, "image1")
    image2 = e.cast(image_input(image2, data_format, "image2")[0], str(image1.dtype))
    return _ssim(
        image1,
        image2,
        axis=axis,
        limit=float(max_val),
        size=int(filter_size),
        sigma=float(filter_sigma),
        k1=float(k1),
        k2=float(k2),
    )
