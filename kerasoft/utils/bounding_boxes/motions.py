"""What happens to boxes when their image is clipped, cropped, padded or moved."""

from __future__ import annotations

import math
from typing import Any

from ... import ops
from .formats import columns, joined


def _only_xyxy(bounding_box_format: str) -> None:
    if bounding_box_format != "xyxy":
        raise NotImplementedError(f"only boxes in the format 'xyxy' can be moved, got {bounding_box_format!r}")


def clip_to_image_size(
    bounding_boxes: dict, height: Any = None, width: Any = None, bounding_box_format: str = "xyxy"
) -> dict:
    """The boxes' parts inside the image; boxes of which nothing is left get the label -1.

    Args:
        bounding_boxes: dict of `boxes` (..., boxes, 4) and maybe `labels` (..., boxes).
        height, width: of the image, for "xyxy".
        bounding_box_format: "xyxy" or "rel_xyxy".
    """
    if bounding_box_format not in ("xyxy", "rel_xyxy"):
        raise NotImplementedError(f"the format must be 'xyxy' or 'rel_xyxy', got {bounding_box_format!r}")
    if bounding_box_format == "xyxy" and (height is None or width is None):
        raise ValueError("`height` and `width` must be set if `format='xyxy'`.")
    limits = (width, height) if bounding_box_format == "xyxy" else (1.0, 1.0)
    x1, y1, x2, y2 = columns(ops.convert_to_tensor(bounding_boxes["boxes"]))
    x1, x2 = ops.clip(x1, 0, limits[0]), ops.clip(x2, 0, limits[0])
    y1, y2 = ops.clip(y1, 0, limits[1]), ops.clip(y2, 0, limits[1])
    result = {**bounding_boxes, "boxes": joined(x1, y1, x2, y2)}
    if bounding_boxes.get("labels") is not None:
        area = ops.squeeze((x2 - x1) * (y2 - y1), axis=-1)
        result["labels"] = ops.where(area > 0, bounding_boxes["labels"], -1)
    return result


def crop(boxes: Any, top: Any, left: Any, height: Any, width: Any, bounding_box_format: str = "xyxy") -> Any:
    """Boxes in the coordinates of the part of the image that begins at (top, left)."""
    _only_xyxy(bounding_box_format)
    x1, y1, x2, y2 = columns(ops.convert_to_tensor(boxes))
    xs, ys = (ops.clip(x - left, 0, width) for x in (x1, x2)), (ops.clip(y - top, 0, height) for y in (y1, y2))
    (x1, x2), (y1, y2) = xs, ys
    return joined(x1, y1, x2, y2)


def pad(
    boxes: Any, top: Any, left: Any, height: Any = None, width: Any = None, bounding_box_format: str = "xyxy"
) -> Any:
    """Boxes in the coordinates of an image with `top` rows and `left` columns before it."""
    _only_xyxy(bounding_box_format)
    x1, y1, x2, y2 = columns(ops.convert_to_tensor(boxes))
    return joined(x1 + left, y1 + top, x2 + left, y2 + top)


def affine_transform(
    boxes: Any,
    angle: Any,
    translate_x: Any,
    translate_y: Any,
    scale: Any,
    shear_x: Any,
    shear_y: Any,
    height: Any,
    width: Any,
    center_x: Any = None,
    center_y: Any = None,
    bounding_box_format: str = "xyxy",
) -> Any:
    """The boxes around boxes (batch, boxes, 4) that are turned, moved, scaled and sheared.

    Args:
        angle, shear_x, shear_y: float[batch], degrees.
        translate_x, translate_y: float[batch], fractions of the image.
        scale: float[batch].
        center_x, center_y: the point that stays, as fractions of the image; its middle by default.
    """
    _only_xyxy(bounding_box_format)
    angle = ops.convert_to_tensor(angle)
    a, b = _matrix(
        *(angle, translate_x, translate_y, scale, shear_x, shear_y, height, width),
        0.5 if center_x is None else center_x,
        0.5 if center_y is None else center_y,
    )
    x1, y1, x2, y2 = columns(ops.cast(ops.convert_to_tensor(boxes), angle.dtype))
    xs, ys = joined(x1, x2, x2, x1), joined(y1, y1, y2, y2)

    def moved(row: list) -> Any:
        p, q, r = (ops.reshape(value, (-1, 1, 1)) for value in row)
        return p * xs + q * ys + r

    new_x, new_y = moved(a), moved(b)
    corners = [ops.min(new_x, -1), ops.min(new_y, -1), ops.max(new_x, -1), ops.max(new_y, -1)]
    return ops.stack(corners, axis=-1)


def _matrix(
    angle: Any, translate_x: Any, translate_y: Any, scale: Any, shear_x: Any, shear_y: Any, height: Any, width: Any,
    center_x: Any, center_y: Any,
) -> tuple[list, list]:  # fmt: skip
    """The two rows of the matrix that takes a point of the old image to the new one."""
    radians = math.pi / 180.0
    cx, cy = center_x * (width - 1), center_y * (height - 1)
    turn, sx, sy = -angle * radians, -shear_x * radians, -shear_y * radians
    tx, ty = -translate_x * (width - 1), -translate_y * (height - 1)
    a = ops.cos(turn - sy) / ops.cos(sy)
    b = a * ops.tan(sx) + ops.sin(turn)
    c = -ops.sin(turn - sy) / ops.cos(sy)
    d = ops.cos(turn) - c * ops.tan(sx)
    first, second = [d * scale, -b * scale], [-c * scale, a * scale]
    first.append(cx - first[0] * (cx + tx) - first[1] * (cy + ty))
    second.append(cy - second[0] * (cx + tx) - second[1] * (cy + ty))
    return first, second
