"""Batches of the images in a folder."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import resizing
from .directories import dataset_of_files
from .images import data_format_of, in_color_mode, pillow

FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def image_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Any = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: Any = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Batches of float32 images (0 .. 255) of one size, and their classes, from folders named like the classes.

    Shapes: images (batch, height, width, channels); labels (batch,) int32 for "int", (batch, 1) float32 for "binary",
    (batch, classes) float32 for "categorical"; images alone without labels.

    Args:
        directory: where the images are.
        labels: "inferred", None, or the class numbers of the files in alphanumeric order.
        label_mode: "int", "categorical", "binary" or None.
        class_names: the folders to read and their order.
        color_mode: "rgb", "rgba" or "grayscale".
        batch_size: None gives single images.
        image_size: (height, width) or one number for both.
        shuffle, seed: whether files come in a random order.
        validation_split, subset: a fraction and which part of the files: "training", "validation" or "both".
        interpolation: "bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic".
        crop_to_aspect_ratio, pad_to_aspect_ratio: instead of distorting.
        format: accepted, "tf" or "grain"; the batches are NumPy arrays in both cases.

    Returns:
        A re-readable data set with `class_names` and `file_paths`; two of them for `subset="both"`.
    """
    if color_mode not in ("rgb", "rgba", "grayscale"):
        raise ValueError(
            f'`color_mode` must be one of {{"rgb", "rgba", "grayscale"}}. Received: color_mode={color_mode}'
        )
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if not isinstance(image_size, (list, tuple)) or len(image_size) != 2:
        raise ValueError(
            f"Invalid `image_size` value. Expected a tuple of 2 integers. Received: image_size={image_size}"
        )
    interpolation = interpolation.lower()
    if interpolation not in resizing.INTERPOLATIONS:
        raise ValueError(
            f"Argument `interpolation` should be one of {resizing.INTERPOLATIONS}. Received: interpolation={interpolation}"
        )
    if format not in ("tf", "grain"):
        raise ValueError(f'`format` should be either "tf" or "grain". Received: format={format}')
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("Only one of `pad_to_aspect_ratio`, `crop_to_aspect_ratio` can be set to `True`.")
    read = functools.partial(
        _read,
        color_mode=color_mode,
        size=tuple(image_size),
        interpolation=interpolation,
        crop=crop_to_aspect_ratio,
        pad=pad_to_aspect_ratio,
        channels_first=data_format_of(data_format) == "channels_first",
    )
    return dataset_of_files(
        directory,
        read,
        "image",
        FORMATS,
        labels=labels,
        label_mode=label_mode,
        class_names=class_names,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        validation_split=validation_split,
        subset=subset,
        follow_links=follow_links,
        verbose=verbose,
    )


def _read(
    path: str, color_mode: str, size: tuple[int, int], interpolation: str, crop: bool, pad: bool, channels_first: bool
) -> np.ndarray:
    with pillow("image_dataset_from_directory").open(path) as file:
        image = np.asarray(in_color_mode(file, color_mode), "float32")
    image = image[:, :, None] if image.ndim == 2 else image
    if crop:
        image = resizing.crop_to_ratio(image, size)
    elif pad:
        image = resizing.pad_to_ratio(image, size)
    image = resizing.resize(image, size, interpolation)
    return image.transpose(2, 0, 1) if channels_first else image
