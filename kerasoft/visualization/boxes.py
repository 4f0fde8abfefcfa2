"""Bounding boxes drawn into images."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import config
from ..utils.bounding_boxes import convert_format
from ..utils.images import pillow


def batch_of_images(images: Any) -> np.ndarray:
    """The images in NumPy.

    Raises:
        ValueError: not a batch of images.
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"`images` must be batched 4D tensor. Received: images.shape={images.shape}")
    return images


def draw_bounding_boxes(
    images: Any,
    bounding_boxes: Any,
    bounding_box_format: str,
    class_mapping: dict | None = None,
    color: Any = (128, 128, 128),
    line_thickness: int = 2,
    text_thickness: int = 1,
    font_scale: float = 1.0,
    data_format: str | None = None,
) -> np.ndarray:
    """uint8 images (batch, height, width, 3) with rectangles and class names.

    Args:
        images: a batch; floats of at most 1 are stretched to 0 .. 255.
        bounding_boxes: dict of `boxes` (batch, boxes, 4), `labels` (batch, boxes; -1 for no box), and maybe `confidences`.
        bounding_box_format: "xyxy", "xywh", "center_xywh", "rel_xyxy", ...
        class_mapping: names of classes to write.
        color: of lines and text.
        line_thickness: in pixels.
        text_thickness, font_scale: of the text.

    Raises:
        ValueError, TypeError: not a batch of images, or not such a dict.
    """
    data_format = data_format or config.image_data_format()
    images = batch_of_images(images)
    if not isinstance(bounding_boxes, dict):
        raise TypeError(
            f"`bounding_boxes` should be a dict. Received: bounding_boxes={bounding_boxes} of type {type(bounding_boxes)}"
        )
    if "boxes" not in bounding_boxes or "labels" not in bounding_boxes:
        raise ValueError(
            "`bounding_boxes` should be a dict containing 'boxes' and 'labels' keys. Received: "
            f"bounding_boxes={bounding_boxes}"
        )
    height, width = images.shape[1:3] if data_format == "channels_last" else images.shape[2:]
    boxes = np.asarray(convert_format(bounding_boxes["boxes"], bounding_box_format, "xyxy", height, width))
    labels, confidences = np.asarray(bounding_boxes["labels"]), bounding_boxes.get("confidences")
    images = as_bytes(images)
    for i, image in enumerate(images):
        for j, (corners, label) in enumerate(zip(boxes[i], labels[i], strict=True)):
            if int(label) == -1:
                continue
            x1, y1, x2, y2 = (int(c) for c in corners)
            _rectangle(image, x1, y1, x2, y2, color, line_thickness)
            text = (class_mapping or {}).get(int(label))
            if text is not None:
                if confidences is not None:
                    text = f"{text} | {np.asarray(confidences)[i][j]:.2f}"
                _write(
                    image, text, *_text_place(x1, y1, font_scale, text_thickness or line_thickness), color, font_scale
                )
    return images


def as_bytes(images: np.ndarray) -> np.ndarray:
    """A copy in uint8; floats of at most 1 are stretched."""
    if images.dtype.kind == "f" and images.size:
        images = np.clip(images, 0, 1) * 255 if images.max() <= 1.0 else np.clip(images, 0, 255)
    return images.astype("uint8", copy=True)


def _rectangle(image: np.ndarray, x1: int, y1: int, x2: int, y2: int, color: Any, thickness: int) -> None:
    before, after = thickness // 2, (thickness + 1) // 2
    for y in (y1, y2):
        image[max(y - before, 0) : max(y + after, 0), max(x1 - before, 0) : max(x2 + after, 0)] = color
    for x in (x1, x2):
        image[max(y1 - before, 0) : max(y2 + after, 0), max(x - before, 0) : max(x + after, 0)] = color


def _text_place(x: int, y: int, font_scale: float, thickness: int) -> tuple[int, int]:
    """Left end of the base line: above the box if there is room, else inside."""
    height = int(font_scale * 12)
    return (x, y - 8) if y - 8 - 2 * height > 0 else (x + 3, y + 2 * height + thickness + 3)


def _write(image: np.ndarray, text: str, x: int, y: int, color: Any, font_scale: float) -> None:
    pillow("draw_bounding_boxes")
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(image)
    font = ImageFont.load_default(size=22 * font_scale)
    ImageDraw.Draw(picture).text((x, y), text, fill=tuple(color), font=font, anchor="ls")
    image[:] = np.asarray(picture)
