"""What image layers do to boxes, besides `kerasoft.utils.bounding_boxes`: checks, and boxes around moved corners."""

from __future__ import annotations

import math
from typing import Any

from ... import ops


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
