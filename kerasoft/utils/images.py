"""Images between files, Pillow and NumPy; Pillow is optional."""

from __future__ import annotations

import io
import os
import pathlib
import warnings
from typing import Any

import numpy as np

from .. import config, dtypes


def pillow(what: str) -> Any:
    """Pillow's `Image` module.

    Raises:
        ImportError: Pillow is not there.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            f"Could not import PIL.Image. The use of `{what}` requires PIL: `pip install pillow`."
        ) from None
    return Image


def data_format_of(data_format: str | None) -> str:
    """`data_format`, or the global setting for None."""
    if data_format is None:
        return config.image_data_format()
    if str(data_format).lower() not in ("channels_first", "channels_last"):
        raise ValueError(
            "The `data_format` argument must be one of {'channels_first', 'channels_last'}. "
            f"Received: data_format={data_format}"
        )
    return str(data_format).lower()


def _dtype(dtype: Any) -> str:
    return dtypes.standardize(dtype)


def array_to_img(x: Any, data_format: str | None = None, scale: bool = True, dtype: Any = None) -> Any:
    """A Pillow image of an array (height, width, channels) with 1, 3 or 4 channels.

    Args:
        x: array-like.
        data_format: "channels_last" or "channels_first".
        scale: whether to stretch the values over 0 .. 255.
        dtype: to compute in.

    Raises:
        ValueError: another rank or number of channels.
    """
    data_format, image = data_format_of(data_format), pillow("array_to_img")
    x = np.asarray(x, dtype=_dtype(dtype))
    if x.ndim != 3:
        raise ValueError(f"Expected image array to have rank 3 (single image). Got array with shape: {x.shape}")
    if data_format == "channels_first":
        x = x.transpose(1, 2, 0)
    if scale:
        x = x - np.min(x)
        largest = np.max(x)
        x = (x / largest if largest != 0 else x) * 255
    channels = x.shape[2]
    if channels not in (1, 3, 4):
        raise ValueError(f"Unsupported channel number: {channels}")
    if channels == 1 and np.max(x) > 255:
        return image.fromarray(np.ascontiguousarray(x[:, :, 0].astype("int32")))
    return image.fromarray(np.ascontiguousarray((x[:, :, 0] if channels == 1 else x).astype("uint8")))


def img_to_array(img: Any, data_format: str | None = None, dtype: Any = None) -> np.ndarray:
    """An array (height, width, channels) of a Pillow image."""
    first = data_format_of(data_format) == "channels_first"
    x = np.asarray(img, dtype=_dtype(dtype))
    if x.ndim == 2:
        return x[None] if first else x[:, :, None]
    if x.ndim != 3:
        raise ValueError(f"Unsupported image shape: {x.shape}")
    return x.transpose(2, 0, 1) if first else x


def save_img(
    path: Any,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Writes an array as an image file; the format is that of the name unless given."""
    if file_format is None and isinstance(path, (str, os.PathLike)):
        file_format = pathlib.Path(path).suffix[1:].lower()
    if file_format and file_format.lower() == "jpg":
        file_format = "jpeg"
    img = array_to_img(x, data_format=data_format, scale=scale)
    if img.mode == "RGBA" and file_format == "jpeg":
        warnings.warn("The JPEG format does not support RGBA images, converting to RGB.", stacklevel=2)
        img = img.convert("RGB")
    img.save(path, format=file_format or None, **kwargs)


_MODES = {"grayscale": ("L", ("L", "I;16", "I")), "rgb": ("RGB", ("RGB",)), "rgba": ("RGBA", ("RGBA",))}


def in_color_mode(img: Any, color_mode: str) -> Any:
    """A Pillow image with the channels of "grayscale", "rgb" or "rgba"."""
    if color_mode not in _MODES:
        raise ValueError('color_mode must be "grayscale", "rgb", or "rgba"')
    mode, fitting = _MODES[color_mode]
    return img if img.mode in fitting else img.convert(mode)


def load_img(
    path: Any,
    color_mode: str = "rgb",
    target_size: Any = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Any:
    """The Pillow image in a file.

    Args:
        path: name, path or BytesIO.
        color_mode: "grayscale", "rgb" or "rgba".
        target_size: (height, width) to resize to.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: whether to cut out the middle first instead of distorting.
    """
    image = pillow("load_img")
    if isinstance(path, io.BytesIO):
        img = image.open(path)
    elif isinstance(path, (pathlib.Path, bytes, str)):
        with open(path, "rb") as file:
            img = image.open(io.BytesIO(file.read()))
    else:
        raise TypeError(f"path should be path-like or io.BytesIO, not {type(path)}")
    img = in_color_mode(img, color_mode)
    if target_size is None or img.size == (target_size[1], target_size[0]):
        return img
    methods = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")
    if interpolation not in methods:
        raise ValueError(
            f"Invalid interpolation method {interpolation} specified. Supported methods are {', '.join(methods)}"
        )
    resample, size = getattr(image.Resampling, interpolation.upper()), (target_size[1], target_size[0])
    if not keep_aspect_ratio:
        return img.resize(size, resample)
    width, height = img.size
    crop_height, crop_width = min(height, width * size[1] // size[0]), min(width, height * size[0] // size[1])
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return img.resize(size, resample, box=[left, top, left + crop_width, top + crop_height])


def smart_resize(
    x: Any, size: Any, interpolation: str = "bilinear", data_format: str = "channels_last", **kwargs: Any
) -> Any:
    """Images resized without distortion: the largest middle part of the right proportions is cut out first.

    Shapes: (height, width, channels) or (batch, height, width, channels) -> the same with `size`.
    """
    from .. import ops

    if kwargs:
        raise TypeError(f"smart_resize() got unexpected keyword arguments: {list(kwargs)}")
    if len(size) != 2:
        raise ValueError(f"Expected `size` to be a tuple of 2 integers, but got: {size}.")
    images = ops.convert_to_tensor(x)
    rank = len(images.shape)
    if rank not in (3, 4):
        raise ValueError(
            "Expected an image array with shape `(height, width, channels)`, or `(batch_size, height, width, "
            f"channels)`, but got input with incorrect rank, of shape {images.shape}."
        )
    row = rank - 3 if data_format == "channels_last" else rank - 2
    height, width = images.shape[row], images.shape[row + 1]
    crop_height = max(min(height, int(float(width * size[0]) / size[1])), 1)
    crop_width = max(min(width, int(float(height * size[1]) / size[0])), 1)
    top, left = int((height - crop_height) / 2), int((width - crop_width) / 2)
    cut = [slice(None)] * rank
    cut[row], cut[row + 1] = slice(top, top + crop_height), slice(left, left + crop_width)
    images = ops.image.resize(images[tuple(cut)], size=size, interpolation=interpolation, data_format=data_format)
    return np.array(images) if isinstance(x, np.ndarray) else images
