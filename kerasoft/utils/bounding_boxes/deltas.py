"""Boxes as differences from anchors, which is what detectors learn."""

from __future__ import annotations

from typing import Any

from ... import config, ops
from .formats import convert_format


def _check(name: str, encoding: str, variance: Any) -> Any:
    if encoding not in ("center_xywh", "center_yxhw"):
        raise ValueError(f"`{name}` should be one of 'center_xywh' or 'center_yxhw', got {encoding}")
    if variance is None:
        return None
    variance = ops.convert_to_tensor(variance, "float32")
    if variance.shape[-1] != 4:
        raise ValueError(f"`variance` must be length 4, got {variance}")
    return variance


def encode_box_to_deltas(
    anchors: Any,
    boxes: Any,
    anchor_format: str,
    box_format: str,
    encoding_format: str = "center_yxhw",
    variance: Any = None,
    image_shape: Any = None,
) -> Any:
    """(centre of the box - centre of the anchor) / size of the anchor, and the logarithm of the ratio of the sizes.

    Args:
        encoding_format: "center_yxhw" or "center_xywh", the order of the result.
        variance: four numbers that the result is divided by.
        image_shape: (height, width, channels), for formats of fractions.
    """
    variance = _check("encoding_format", encoding_format, variance)
    height, width = (None, None) if image_shape is None else image_shape[:2]
    anchors = convert_format(anchors, anchor_format, encoding_format, height, width)
    boxes = convert_format(boxes, box_format, encoding_format, height, width)
    sizes = ops.maximum(anchors[..., 2:], config.epsilon())
    ratios = ops.maximum(boxes[..., 2:], config.epsilon()) / sizes
    deltas = ops.concatenate([(boxes[..., :2] - anchors[..., :2]) / sizes, ops.log(ratios)], axis=-1)
    return deltas if variance is None else deltas / variance


def decode_deltas_to_boxes(
    anchors: Any,
    boxes_delta: Any,
    anchor_format: str,
    box_format: str,
    encoded_format: str = "center_yxhw",
    variance: Any = None,
    image_shape: Any = None,
) -> Any:
    """The boxes that `encode_box_to_deltas` encoded; also for dicts of anchors and deltas."""
    variance = _check("encoded_format", encoded_format, variance)
    height, width = (None, None) if image_shape is None else image_shape[:2]

    def decode(anchor: Any, delta: Any) -> Any:
        anchor = convert_format(anchor, anchor_format, encoded_format, height, width)
        delta = delta if variance is None else delta * variance
        sizes = anchor[..., 2:]
        box = ops.concatenate([delta[..., :2] * sizes + anchor[..., :2], ops.exp(delta[..., 2:]) * sizes], axis=-1)
        return convert_format(box, encoded_format, box_format, height, width)

    if isinstance(anchors, dict) and isinstance(boxes_delta, dict):
        return {level: decode(anchor, boxes_delta[level]) for level, anchor in anchors.items()}
    return decode(anchors, boxes_delta)
