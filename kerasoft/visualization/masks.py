"""Segmentation masks laid over images."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import config
from .boxes import batch_of_images


def draw_segmentation_masks(
    images: Any,
    segmentation_masks: Any,
    num_classes: int | None = None,
    color_mapping: dict | None = None,
    alpha: float = 0.8,
    blend: bool = True,
    ignore_index: int = -1,
    data_format: str | None = None,
) -> np.ndarray:
    """Images (batch, height, width, 3) whose pixels have the colours of their classes.

    Args:
        images: a batch.
        segmentation_masks: class numbers (batch, height, width, 1).
        num_classes: classes below it are coloured; the largest class number by default.
        color_mapping: colour of each class.
        alpha: 0 shows the image alone, 1 the colours alone.
        blend: whether to lay over (uint8), or to replace the pixels (float32).
        ignore_index: the class number of pixels that keep their colour.

    Raises:
        ValueError, TypeError: not a batch of images, or masks that are not whole numbers.
    """
    data_format = data_format or config.image_data_format()
    images, masks = batch_of_images(images), np.asarray(segmentation_masks)
    if data_format == "channels_first":
        images, masks = images.transpose(0, 2, 3, 1), masks.transpose(0, 2, 3, 1)
    images = images.astype("float32")
    if masks.dtype.kind not in "iu":
        raise TypeError(
            f"`segmentation_masks` must be in integer dtype. Received: segmentation_masks.dtype={masks.dtype.name}"
        )
    if num_classes is None:
        num_classes = int(masks.max())
    palette = np.array([2**25 - 1, 2**15 - 1, 2**21 - 1])
    drawn, classes = images.copy(), masks[..., 0]
    for index in range(num_classes):
        drawn[classes == index] = color_mapping[index] if color_mapping is not None else index * palette % 255
    if not blend:
        return drawn
    mixed = images * np.float32(1 - alpha) + drawn * np.float32(alpha)
    return np.where((classes != ignore_index)[..., None], mixed, images).astype("uint8")
