"""Resizing one image in NumPy, so that reading a folder of images of many sizes compiles nothing.

Source: separable resampling with half-pixel centres, as in TensorFlow's and JAX's `image.resize`; cubic by Keys (1981) with
a = -0.5, Mitchell and Netravali (1988).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - x)


def _cubic(x: np.ndarray) -> np.ndarray:
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x >= 2.0, 0.0, np.where(x >= 1.0, far, near))


def _mitchell(x: np.ndarray) -> np.ndarray:
    near = ((7.0 * x - 12.0) * x * x + 16.0 / 3.0) / 6.0
    far = (((-7.0 / 3.0 * x + 12.0) * x - 20.0) * x + 32.0 / 3.0) / 6.0
    return np.where(x >= 2.0, 0.0, np.where(x >= 1.0, far, near))


def _gaussian(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 1.5, 0.0, np.exp(-x * x / (2 * 0.5**2)))


def _lanczos(radius: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.where(x >= radius, 0.0, np.sinc(x) * np.sinc(x / radius))


_KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bilinear": _linear,
    "bicubic": _cubic,
    "gaussian": _gaussian,
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
    "mitchellcubic": _mitchell,
}
INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic")


def weights(size_in: int, size_out: int, interpolation: str) -> np.ndarray:
    """float64[size_out, size_in]: how much each pixel of a line gives to each pixel of the resized line."""
    scale = size_in / size_out
    if interpolation == "nearest":
        taken = np.minimum(np.floor((np.arange(size_out) + 0.5) * scale).astype(int), size_in - 1)
        return np.eye(size_in)[taken]
    if interpolation == "area":
        begins = np.arange(size_out)[:, None] * scale
        covered = np.minimum(begins + scale, np.arange(size_in) + 1) - np.maximum(begins, np.arange(size_in))
        return np.maximum(covered, 0.0) / scale
    centres = (np.arange(size_out) + 0.5) * scale - 0.5
    found = _KERNELS[interpolation](np.abs(centres[:, None] - np.arange(size_in)))
    return found / found.sum(1, keepdims=True)


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear") -> np.ndarray:
    """float32 image (height, width, channels) in another size.

    >>> resize(np.array([[[0.0], [4.0]]]), (1, 4))[0, :, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    rows = weights(image.shape[0], size[0], interpolation)
    columns = weights(image.shape[1], size[1], interpolation)
    lines = np.tensordot(rows, image.astype("float64"), 1)
    return np.einsum("xw,hwc->hxc", columns, lines).astype("float32")


def crop_to_ratio(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest middle part of the proportions of `size`."""
    height, width = image.shape[:2]
    rows = max(min(height, int(float(width * size[0]) / size[1])), 1)
    columns = max(min(width, int(float(height * size[1]) / size[0])), 1)
    top, left = int((height - rows) / 2), int((width - columns) / 2)
    return image[top : top + rows, left : left + columns]


def pad_to_ratio(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image in the middle of a black one of the proportions of `size`."""
    height, width = image.shape[:2]
    rows = max(height, int(float(width * size[0]) / size[1]))
    columns = max(width, int(float(height * size[1]) / size[0]))
    top, left = int((rows - height) / 2), int((columns - width) / 2)
    return np.pad(image, ((top, rows - height - top), (left, columns - width - left), (0, 0)))
