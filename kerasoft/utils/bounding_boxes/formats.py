"""The ways of writing a box in four numbers."""

from __future__ import annotations

from typing import Any

from ... import ops

FORMATS = (
    *("xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw"),
    *("rel_xyxy", "rel_yxyx", "rel_xywh", "rel_center_xywh"),
)


def columns(boxes: Any) -> list:
    """The four numbers, each of shape (..., 1)."""
    return list(ops.split(boxes, 4, axis=-1))


def joined(*parts: Any) -> Any:
    return ops.concatenate(list(parts), axis=-1)


def convert_format(
    boxes: Any, source: str, target: str, height: Any = None, width: Any = None, dtype: str = "float32"
) -> Any:
    """Boxes in another format.

    Args:
        boxes: (..., 4), or a dict with `boxes`, which is changed.
        source, target: one of xyxy, yxyx, xywh, center_xywh, center_yxhw (pixels), rel_xyxy, rel_yxyx, rel_xywh,
            rel_center_xywh (fractions of the image).
        height, width: of the image; needed between pixels and fractions.
        dtype: to compute in.

    Raises:
        ValueError: not four numbers, an unknown format, or no image size where it is needed.

    >>> import numpy as np
    >>> np.asarray(convert_format(np.array([[1.0, 2.0, 5.0, 4.0]]), "xyxy", "center_xywh")).tolist()
    [[3.0, 3.0, 4.0, 2.0]]
    """
    if isinstance(boxes, dict):
        boxes["boxes"] = convert_format(boxes["boxes"], source, target, height, width, dtype)
        return boxes
    shape = tuple(boxes.shape) if hasattr(boxes, "shape") else ops.convert_to_tensor(boxes).shape
    if shape[-1] != 4:
        raise ValueError(f"`boxes` must be a tensor with the last dimension of 4. Received: boxes.shape={shape}")
    source, target = source.lower(), target.lower()
    if source not in FORMATS or target not in FORMATS:
        raise ValueError(f"Invalid source or target format. Supported formats: {FORMATS}")
    if (source.startswith("rel_") or target.startswith("rel_")) and (width is None or height is None):
        raise ValueError(
            "convert_format() must receive `height` and `width` transforming between relative and absolute formats. "
            f"convert_format() received source=`{source}`, target=`{target}`, but height={height} and width={width}."
        )
    boxes = ops.cast(ops.convert_to_tensor(boxes), dtype)
    if source == target:
        return boxes
    corners = _corners(boxes, source.removeprefix("rel_"))
    if source.startswith("rel_") != target.startswith("rel_"):
        sizes = [ops.cast(size, dtype) for size in (width, height, width, height)]
        change = ops.multiply if source.startswith("rel_") else ops.divide
        corners = [change(c, size) for c, size in zip(corners, sizes, strict=True)]
    return _written(corners, target.removeprefix("rel_"))


def _corners(boxes: Any, style: str) -> list:
    """x1, y1, x2, y2."""
    a, b, c, d = columns(boxes)
    if style == "xyxy":
        return [a, b, c, d]
    if style == "yxyx":
        return [b, a, d, c]
    if style == "xywh":
        return [a, b, a + c, b + d]
    x, y, w, h = (a, b, c, d) if style == "center_xywh" else (b, a, d, c)
    return [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]


def _written(corners: list, style: str) -> Any:
    x1, y1, x2, y2 = corners
    w, h = x2 - x1, y2 - y1
    return {
        "xyxy": lambda: joined(x1, y1, x2, y2),
        "yxyx": lambda: joined(y1, x1, y2, x2),
        "xywh": lambda: joined(x1, y1, w, h),
        "center_xywh": lambda: joined(x1 + w / 2.0, y1 + h / 2.0, w, h),
        "center_yxhw": lambda: joined(y1 + h / 2.0, x1 + w / 2.0, h, w),
    }[style]()
