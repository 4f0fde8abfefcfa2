"""Bounding boxes: formats, clipping, and boxes under affine maps."""

from __future__ import annotations

import math
from typing import Any

from ... import ops

FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw", "rel_xyxy", "rel_yxyx", "rel_xywh", "rel_center_xywh")


def dense_boxes(boxes: Any, batched: bool) -> dict:
    """``{"boxes": (..., n, 4), "labels": (..., n)}`` as tensors.

    Raises:
        ValueError: another structure or other shapes.
    """
    if not isinstance(boxes, dict) or "boxes" not in boxes or "labels" not in boxes:
        raise ValueError(
            "Bounding boxes must be a dict with the keys `boxes` and `labels`. "
            f"Received: {list(boxes) if isinstance(boxes, dict) else type(boxes)}"
        )
    found = {name: ops.convert_to_tensor(boxes[name]) for name in ("boxes", "labels")}
    rank = 3 if batched else 2
    if len(found["boxes"].shape) != rank or found["boxes"].shape[-1] != 4:
        raise ValueError(
            f"`boxes` must have the shape {'(batch, boxes, 4)' if batched else '(boxes, 4)'}. "
            f"Received: boxes.shape={tuple(found['boxes'].shape)}"
        )
    return {"boxes": ops.cast(found["boxes"], "float32"), "labels": found["labels"]}


def _check(name: str) -> str:
    name = name.lower()
    if name not in FORMATS:
        raise ValueError(f"Unknown bounding box format '{name}'. Expected one of {FORMATS}.")
    return name


def converted(boxes: Any, source: str, target: str, height: Any, width: Any) -> Any:
    """Boxes (..., 4) of one format in another; `height` and `width` are those of the image."""
    source, target = _check(source), _check(target)
    if source == target:
        return boxes
    a, b, c, d = (boxes[..., i] for i in range(4))
    kind = source.removeprefix("rel_")
    if kind == "xyxy":
        x1, y1, x2, y2 = a, b, c, d
    elif kind == "yxyx":
        y1, x1, y2, x2 = a, b, c, d
    elif kind == "xywh":
        x1, y1, x2, y2 = a, b, a + c, b + d
    elif kind == "center_xywh":
        x1, y1, x2, y2 = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    else:
        x1, y1, x2, y2 = b - d / 2, a - c / 2, b + d / 2, a + c / 2
    if source.startswith("rel_"):
        x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
    if target.startswith("rel_"):
        x1, y1, x2, y2 = x1 / width, y1 / height, x2 / width, y2 / height
    kind = target.removeprefix("rel_")
    if kind == "xyxy":
        parts = (x1, y1, x2, y2)
    elif kind == "yxyx":
        parts = (y1, x1, y2, x2)
    elif kind == "xywh":
        parts = (x1, y1, x2 - x1, y2 - y1)
    elif kind == "center_xywh":
        parts = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    else:
        parts = ((y1 + y2) / 2, (x1 + x2) / 2, y2 - y1, x2 - x1)
    return ops.stack(parts, axis=-1)


def clipped(boxes: dict, height: Any, width: Any) -> dict:
    """``"xyxy"`` boxes cut to the image; those of no area get the label -1."""
    x1, y1, x2, y2 = (boxes["boxes"][..., i] for i in range(4))
    x1, x2 = ops.clip(x1, 0.0, width), ops.clip(x2, 0.0, width)
    y1, y2 = ops.clip(y1, 0.0, height), ops.clip(y2, 0.0, height)
    real = ops.greater((x2 - x1) * (y2 - y1), 0.0)
    labels = boxes["labels"]
    return {"boxes": ops.stack((x1, y1, x2, y2), axis=-1), "labels": ops.where(real, labels, ops.full_like(labels, -1))}


def around(xs: list, ys: list) -> Any:
    """The ``"xyxy"`` boxes around points, given as lists of coordinates of one shape."""
    xs, ys = ops.stack(xs, axis=-1), ops.stack(ys, axis=-1)
    return ops.stack((ops.min(xs, -1), ops.min(ys, -1), ops.max(xs, -1), ops.max(ys, -1)), axis=-1)


def turned(boxes: Any, angle: Any, height: Any, width: Any) -> Any:
    """``"xyxy"`` boxes around the corners of boxes in images turned by `angle` (batch,), in degrees."""
    radians = ops.reshape(angle * (math.pi / 180.0), (angle.shape[0], 1))
    cosine, sine = ops.cos(radians), ops.sin(radians)
    center_x, center_y = (width - 1) * 0.5, (height - 1) * 0.5
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    xs, ys = [], []
    for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
        xs.append(center_x + cosine * (x - center_x) + sine * (y - center_y))
        ys.append(center_y - sine * (x - center_x) + cosine * (y - center_y))
    return around(xs, ys)
