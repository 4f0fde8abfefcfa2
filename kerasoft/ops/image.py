"""`keras.ops.image`: resizing, geometric transformations, colour spaces and filters of images.

Images are (height, width, channels) or a batch of them; ``"channels_first"`` puts channels before height.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import manipulation as m
from .dispatch import is_static, lowered, public, rank, shape_of, tensor
from .image_filters import gaussian_blur, sobel_edges, ssim
from .image_geometry import (
    affine_transform,
    elastic_transform,
    map_coordinates,
    perspective_transform,
    scale_and_translate,
)
from .image_input import image_input, shown
from .nn import conv

__all__ = [
    "affine_transform", "crop_images", "elastic_transform", "extract_patches", "extract_patches_3d", "gaussian_blur",
    "hsv_to_rgb", "map_coordinates", "pad_images", "perspective_transform", "resize", "rgb_to_grayscale", "rgb_to_hsv",
    "scale_and_translate", "sobel_edges", "ssim",
]  # fmt: skip

RESIZE_INTERPOLATIONS = ("bilinear", "nearest", "lanczos3", "lanczos5", "bicubic")


# --- size ---------------------------------------------------------------------------------------------------------


@lowered
def _resize(x: Any, *, size: tuple, axes: tuple, method: str, antialias: bool) -> Any:
    shape = list(x.shape)
    shape[axes[0]], shape[axes[1]] = size
    resized = jax.image.resize(x, shape, method=method, antialias=antialias)
    if resized.dtype == x.dtype:
        return resized
    if jnp.issubdtype(x.dtype, jnp.integer):
        limits = jnp.iinfo(x.dtype)
        resized = jnp.clip(jnp.round(resized), limits.min, limits.max)
    return resized.astype(x.dtype)


@public("image", "Resize", "images")
def resize(
    images: Any,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: Any = None,
) -> Any:
    """Images in another size; pixels are cells, so centres move by half a pixel. Integers are rounded.

    Args:
        size: (height, width).
        interpolation: ``"bilinear"``, ``"nearest"``, ``"bicubic"``, ``"lanczos3"`` or ``"lanczos5"``.
        antialias: whether a wider kernel is used for smaller sizes.
        crop_to_aspect_ratio: cut the middle out first, so that nothing is distorted.
        pad_to_aspect_ratio: put borders of `fill_value` around first, so that nothing is distorted.

    >>> ks.ops.image.resize(np.array([[[0.0], [2.0]]], "float32"), (1, 4)).ravel().tolist()
    [0.0, 0.5, 1.5, 2.0]
    """
    if len(size) != 2:
        raise ValueError(f"Expected `size` to be a tuple of 2 integers. Received: size={size}")
    size = tuple(int(n) if is_static(n) else n for n in size)
    if any(is_static(n) and n <= 0 for n in size):
        raise ValueError(f"`size` must have positive height and width. Received: size={size}")
    images, height, width, _ = image_input(images, data_format)
    if pad_to_aspect_ratio and crop_to_aspect_ratio:
        raise ValueError("Only one of `pad_to_aspect_ratio` & `crop_to_aspect_ratio` can be `True`.")
    if interpolation not in RESIZE_INTERPOLATIONS:
        raise ValueError(
            f"Invalid value for argument `interpolation`. Expected of one {RESIZE_INTERPOLATIONS}. "
            f"Received: interpolation={interpolation}"
        )
    if fill_mode != "constant":
        raise ValueError(
            f"Invalid value for argument `fill_mode`. Only `'constant'` is supported. Received: fill_mode={fill_mode}"
        )
    if crop_to_aspect_ratio or pad_to_aspect_ratio:
        images = _to_ratio(images, (height, width), size, crop_to_aspect_ratio, fill_value)
    return _resize(images, size=size, axes=(height, width), method=interpolation, antialias=bool(antialias))


def _to_ratio(images: Any, axes: tuple[int, int], size: tuple[int, int], crop: bool, fill: float) -> Any:
    """Images cut, or with borders, to the ratio of `size`."""
    have = tuple(shape_of(images)[a] for a in axes)
    if not all(is_static(n) for n in have):
        raise ValueError(
            "resize to an aspect ratio needs images of known height and width. "
            f"Received: images.shape={shown(images)}. Give Input a fixed size."
        )
    (height, width), (target_height, target_width) = have, size
    rows, columns = int(float(width * target_height) / target_width), int(float(height * target_width) / target_height)
    if crop:
        rows, columns = max(min(height, rows), 1), max(min(width, columns), 1)
        key = [slice(None)] * rank(images)
        for axis, n, keep in zip(axes, have, (rows, columns), strict=True):
            start = int(float(n - keep) / 2)
            key[axis] = slice(start, start + keep)
        return m.get_item(images, tuple(key))
    before = [int(float(max(n, want) - n) / 2) for n, want in zip(have, (rows, columns), strict=True)]
    if before[0] > 0:
        before[1] = 0
    pads = [(0, 0)] * rank(images)
    for axis, count in zip(axes, before, strict=True):
        pads[axis] = (count, count)
    return m.pad(images, tuple(pads), constant_values=fill) if any(before) else images


def _non_negative(**values: Any) -> None:
    for name, value in values.items():
        if value is not None and is_static(value) and value < 0:
            raise ValueError(f"{name} must be >= 0. Received: {name}={value}")


def _two_of_three(**values: Any) -> None:
    if list(values.values()).count(None) != 1:
        got = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ValueError(f"Must specify exactly two of {', '.join(values)}. Received: {got}")


@public("image", "PadImages", "images")
def pad_images(
    images: Any,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: Any = None,
) -> Any:
    """Images with zeros around; of paddings and target size two a direction are given."""
    images, height, width, _ = image_input(images, data_format)
    _two_of_three(top_padding=top_padding, bottom_padding=bottom_padding, target_height=target_height)
    _two_of_three(left_padding=left_padding, right_padding=right_padding, target_width=target_width)
    _non_negative(target_height=target_height, target_width=target_width)
    rows, columns = shape_of(images)[height], shape_of(images)[width]
    top = target_height - bottom_padding - rows if top_padding is None else top_padding
    bottom = target_height - top - rows if bottom_padding is None else bottom_padding
    left = target_width - right_padding - columns if left_padding is None else left_padding
    right = target_width - left - columns if right_padding is None else right_padding
    _non_negative(top_padding=top, left_padding=left, right_padding=right, bottom_padding=bottom)
    pads = [(0, 0)] * rank(images)
    pads[height], pads[width] = (top, bottom), (left, right)
    return m.pad(images, tuple(pads))


@public("image", "CropImages", "images")
def crop_images(
    images: Any,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: Any = None,
) -> Any:
    """A part of images; of croppings and target size two a direction are given."""
    images, height, width, _ = image_input(images, data_format)
    _two_of_three(top_cropping=top_cropping, bottom_cropping=bottom_cropping, target_height=target_height)
    _two_of_three(left_cropping=left_cropping, right_cropping=right_cropping, target_width=target_width)
    rows, columns = shape_of(images)[height], shape_of(images)[width]
    for size, side, target in ((rows, "height", target_height), (columns, "width", target_width)):
        if target is None and not is_static(size):
            raise ValueError(f"When the {side} of the images is unknown, `target_{side}` must be specified.")
    top = rows - target_height - bottom_cropping if top_cropping is None else top_cropping
    left = columns - target_width - right_cropping if left_cropping is None else left_cropping
    target_height = rows - bottom_cropping - top if target_height is None else target_height
    target_width = columns - right_cropping - left if target_width is None else target_width
    _non_negative(top_cropping=top, target_height=target_height, left_cropping=left, target_width=target_width)
    key = [slice(None)] * rank(images)
    key[height], key[width] = slice(top, top + target_height), slice(left, left + target_width)
    return m.get_item(images, tuple(key))


@public("image", "ExtractPatches", "images")
def extract_patches(
    images: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
) -> Any:
    """Windows of images (or, with three sizes, of volumes), each as one vector of its pixels' channels.

    Shapes: (batch, height, width, channels) -> (batch, rows, columns, cells * channels).
    """
    if not isinstance(size, (int, tuple, list)):
        raise TypeError(
            f"Invalid `size` argument. Expected an int or a tuple. Received: size={size} of type {type(size).__name__}"
        )
    if not isinstance(size, int) and len(size) not in (2, 3):
        raise ValueError(
            f"Invalid `size` argument. Expected a tuple of length 2 or 3. Received: size={size} with length {len(size)}"
        )
    size = (size, size) if isinstance(size, int) else tuple(size)
    x, last, _, batched = _volume_input(images, len(size), data_format)
    channels = shape_of(x)[-1 if last else 1]
    count = int(np.prod(size)) * channels
    kernel = np.eye(count, dtype=str(x.dtype)).reshape(*size, channels, count)
    strides = size if not strides else strides
    if not isinstance(strides, int) and len(strides) != len(size):
        raise ValueError(f"`strides` must have {len(size)} values, as `size`. Received: strides={strides}, size={size}")
    x = conv(x, kernel, strides, padding, "channels_last" if last else "channels_first", dilation_rate)
    return x if batched else m.squeeze(x, 0)


def _volume_input(x: Any, axes: int, data_format: Any) -> tuple[Any, bool, int, bool]:
    from .patches import data_format_of

    x = tensor(x)
    batched = rank(x) == axes + 2
    x = x if batched else m.expand_dims(x, 0)
    return x, data_format_of(data_format) == "channels_last", axes, batched


def extract_patches_3d(
    volumes: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
) -> Any:
    """Windows of volumes (depth, height, width, channels) or batches of them, each as one vector."""
    size = (size,) * 3 if isinstance(size, int) else size
    if len(size) != 3:
        raise TypeError(f"Invalid `size` argument. Expected an int or a tuple of length 3. Received: size={size}")
    return extract_patches(volumes, size, strides, dilation_rate, padding, data_format)


# --- colour -------------------------------------------------------------------------------------------------------


@lowered
def _grayscale(x: Any, *, axis: int) -> Any:
    kind = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
    gray = jnp.tensordot(x.astype(kind), jnp.array([0.2989, 0.5870, 0.1140], kind), axes=(axis, -1))
    return jnp.expand_dims(gray, axis).astype(x.dtype)


@public("image", "RGBToGrayscale", "images")
def rgb_to_grayscale(images: Any, data_format: Any = None) -> Any:
    """0.2989 red + 0.587 green + 0.114 blue, in one channel."""
    images, _, _, axis = image_input(images, data_format)
    channels = shape_of(images)[axis]
    if is_static(channels) and channels not in (1, 3):
        raise ValueError(
            "Invalid channel size: expected 3 (RGB) or 1 (Grayscale). "
            f"Received input with shape: images.shape={shown(images)}"
        )
    return images if channels == 1 else _grayscale(images, axis=axis)


@lowered
def _to_hsv(x: Any, *, axis: int) -> Any:
    x = jnp.where(jnp.abs(x) < jnp.finfo(x.dtype).eps, 0.0, x)
    red, green, blue = (jnp.squeeze(part, axis) for part in jnp.split(x, 3, axis))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    span = value - jnp.minimum(jnp.minimum(red, green), blue)
    saturation = jnp.where(value > 0, span / jnp.where(value > 0, value, 1.0), 0.0)
    unit = 1.0 / (6.0 * jnp.where(span > 0, span, 1.0))
    hue = jnp.where(value == green, unit * (blue - red) + 2.0 / 6.0, unit * (red - green) + 4.0 / 6.0)
    hue = jnp.where(value == red, unit * (green - blue), hue)
    hue = jnp.where(span > 0, hue, 0.0) + (hue < 0.0).astype(hue.dtype)
    return jnp.stack([hue, saturation, value], axis=axis)


@lowered
def _to_rgb(x: Any, *, axis: int) -> Any:
    hue, saturation, value = (jnp.squeeze(part, axis) for part in jnp.split(x, 3, axis))
    turn = jnp.mod(hue, 1.0) * 6.0
    shares = (jnp.abs(turn - 3.0) - 1.0, 2.0 - jnp.abs(turn - 2.0), 2.0 - jnp.abs(turn - 4.0))
    planes = [value * (1.0 - saturation + saturation * jnp.clip(share, 0.0, 1.0)) for share in shares]
    return jnp.stack(planes, axis=axis)


def _float_input(images: Any, data_format: Any) -> tuple[Any, int]:
    images, _, _, axis = image_input(images, data_format)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"Invalid images dtype: expected float dtype. Received: images.dtype={images.dtype}")
    channels = shape_of(images)[axis]
    if is_static(channels) and channels != 3:
        raise ValueError(f"Input images must have 3 channels, but received images with {channels} channels.")
    return images, axis


@public("image", "RGBToHSV", "images")
def rgb_to_hsv(images: Any, data_format: Any = None) -> Any:
    """Hue, saturation and value of colours in [0, 1], all in [0, 1]."""
    images, axis = _float_input(images, data_format)
    return _to_hsv(images, axis=axis)


@public("image", "HSVToRGB", "images")
def hsv_to_rgb(images: Any, data_format: Any = None) -> Any:
    """The colours whose hue, saturation and value are given."""
    images, axis = _float_input(images, data_format)
    return _to_rgb(images, axis=axis)
