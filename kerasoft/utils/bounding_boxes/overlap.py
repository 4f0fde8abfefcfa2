"""How much boxes overlap."""

from __future__ import annotations

import math
from typing import Any

from ... import config, ops
from .formats import columns, convert_format


def _as(target: str, boxes: Any, bounding_box_format: str, image_shape: Any) -> Any:
    height, width = (None, None) if image_shape is None else image_shape[:2]
    return convert_format(boxes, source=bounding_box_format, target=target, height=height, width=width)


def compute_iou(
    boxes1: Any,
    boxes2: Any,
    bounding_box_format: str,
    use_masking: bool = False,
    mask_val: float = -1,
    image_shape: Any = None,
) -> Any:
    """Intersection over union of every box of `boxes1` with every box of `boxes2`.

    Shapes: (n, 4) and (m, 4) -> (n, m); (batch, n, 4) and (m, 4) or (batch, m, 4) -> (batch, n, m).

    Args:
        use_masking: whether pairs with a box of negative numbers (padding) get `mask_val`.
        image_shape: (height, width, channels), for formats of fractions.

    Raises:
        ValueError: another rank, or no image shape where it is needed.
    """
    ranks = [len(ops.convert_to_tensor(boxes).shape) for boxes in (boxes1, boxes2)]
    for name, rank in zip(("boxes1", "boxes2"), ranks, strict=True):
        if rank not in (2, 3):
            raise ValueError(
                f"compute_iou() expects {name} to be batched, or to be unbatched. Received len(boxes1.shape)={ranks[0]}, "
                f"len(boxes2.shape)={ranks[1]}. Expected either len({name}.shape)=2 AND or len({name}.shape)=3."
            )
    if "rel" in bounding_box_format and image_shape is None:
        raise ValueError(
            "When using relative bounding box formats (e.g. `rel_yxyx`) the `image_shape` argument must be provided. "
            f"Received `image_shape`: {image_shape}"
        )
    boxes1, boxes2 = (_as("xyxy", boxes, bounding_box_format, image_shape) for boxes in (boxes1, boxes2))
    first, second = columns(boxes1), [_swapped(c) for c in columns(boxes2)]
    width = ops.maximum(ops.minimum(first[2], second[2]) - ops.maximum(first[0], second[0]), 0.0)
    height = ops.maximum(ops.minimum(first[3], second[3]) - ops.maximum(first[1], second[1]), 0.0)
    both = width * height
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (first, second)]
    result = both / (areas[0] + areas[1] - both + config.epsilon())
    if not use_masking:
        return result
    padding = [ops.less(ops.max(boxes, axis=-1, keepdims=True), 0.0) for boxes in (boxes1, boxes2)]
    masked = ops.logical_or(padding[0], _swapped(padding[1]))
    return ops.where(masked, ops.cast(mask_val, result.dtype), result)


def _swapped(x: Any) -> Any:
    return ops.transpose(x, (1, 0) if len(x.shape) == 2 else (0, 2, 1))


def compute_ciou(boxes1: Any, boxes2: Any, bounding_box_format: str, image_shape: Any = None) -> Any:
    """Complete IoU of pairs of boxes: less for distant centres and for other proportions.

    Shapes: (..., 4) and (..., 4) -> (...).

    Source: Zheng et al., "Distance-IoU Loss" (2020).
    """
    if "rel" in bounding_box_format and image_shape is None:
        raise ValueError(
            "When using relative bounding box formats (e.g. `rel_yxyx`) the `image_shape` argument must be provided. "
            f"Received `image_shape`: {image_shape}"
        )
    first, second = (columns(_as("xyxy", boxes, bounding_box_format, image_shape)) for boxes in (boxes1, boxes2))
    small = config.epsilon()
    widths = [c[2] - c[0] for c in (first, second)]
    heights = [c[3] - c[1] + small for c in (first, second)]
    shared = [ops.minimum(first[i + 2], second[i + 2]) - ops.maximum(first[i], second[i]) for i in (0, 1)]
    both = ops.maximum(shared[0], 0) * ops.maximum(shared[1], 0)
    iou = both / (widths[0] * heights[0] + widths[1] * heights[1] - both + 2 * small)
    around = [ops.maximum(first[i + 2], second[i + 2]) - ops.minimum(first[i], second[i]) for i in (0, 1)]
    apart = [(first[i] + first[i + 2]) / 2 - (second[i] + second[i + 2]) / 2 for i in (0, 1)]
    distance = (apart[0] ** 2 + apart[1] ** 2) / (around[0] ** 2 + around[1] ** 2 + small)
    angles = ops.arctan(widths[1] / heights[1]) - ops.arctan(widths[0] / heights[0])
    shape = 4 / math.pi**2 * angles**2
    return ops.squeeze(iou - (distance + shape * shape / (shape - iou + 1 + small)), axis=-1)
