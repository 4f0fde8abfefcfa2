"""Random warps: RandomPerspective, RandomElasticTransform."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ... import ops
from ...ops.dispatch import lowered
from ...ops.image_geometry import FILL_MODES, ORDERS, homography, shifted
from ...utils.bounding_boxes import clip_to_image_size, convert_format
from .base import INTERPOLATIONS, ImageLayer
from .boxes import around


class RandomPerspective(ImageLayer):
    """Shows some images as if seen from elsewhere, in training.

    Args:
        factor: the chance that an image is changed, or (least, greatest) of it.
        scale: how far corners move, in [0, 1].
        interpolation: ``"bilinear"`` or ``"nearest"``; fill_value: what stands outside.
    """

    bounds, takes_factor = (0, 1), False

    def __init__(
        self, factor=1.0, scale=1.0, interpolation="bilinear", fill_value=0.0, seed=None, data_format=None, **kwargs
    ):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor), scale=scale)
        if not 0.0 <= scale <= 1.0:
            raise ValueError(f"The `scale` argument should be a number in the range [0,1]. Received: scale={scale}")
        self.keep_sampling(interpolation, fill_value=fill_value)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw, (height, width) = self.draw(data, seed), self.lengths(data)
        moves = draw.uniform(-0.5 * self.scale, 0.5 * self.scale, (4, 2))
        unit = np.float32([[0, 0], [1, 0], [0, 1], [1, 1]])
        x, y = ops.zeros_like(moves[..., 0]) + unit[:, 0], ops.zeros_like(moves[..., 1]) + unit[:, 1]
        start = ops.stack([x * (width - 1.0), y * (height - 1.0)], axis=-1)
        return {
            "apply_perspective": draw.happens(self.factor),
            "start_points": start,
            "end_points": start + start * moves,
            "input_shape": (height, width),
        }

    def _seen(self, images, transformation, interpolation):
        changed = ops.image.perspective_transform(
            images,
            transformation["start_points"],
            transformation["end_points"],
            interpolation=interpolation,
            fill_value=self.fill_value,
            data_format=self.data_format,
        )
        return ops.where(transformation["apply_perspective"], changed, images)

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        return self._seen(images, transformation, self.interpolation) if training else images

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self._seen(segmentation_masks, transformation, "nearest") if training else segmentation_masks

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        if not training:
            return bounding_boxes
        height, width = transformation["input_shape"]
        boxes = convert_format(bounding_boxes["boxes"], self.bounding_box_format, "xyxy", height, width)
        corners = _seen_corners(boxes, transformation["start_points"], transformation["end_points"])
        moved = around([corners[..., i, 0] for i in range(4)], [corners[..., i, 1] for i in range(4)])
        boxes = ops.where(ops.squeeze(transformation["apply_perspective"], -1), moved, boxes)
        result = clip_to_image_size({"boxes": boxes, "labels": bounding_boxes["labels"]}, height, width)
        boxes = convert_format(result["boxes"], "xyxy", self.bounding_box_format, height, width)
        return {**bounding_boxes, "boxes": boxes, "labels": result["labels"]}


@lowered
def _seen_corners(boxes: Any, start: Any, end: Any) -> Any:
    """Where the corners of ``"xyxy"`` boxes (batch, boxes, 4) are seen: (batch, boxes, 4, 2)."""
    numbers = homography(start, end)
    matrix = jnp.concatenate([numbers, jnp.ones_like(numbers[:, :1])], axis=1).reshape(-1, 3, 3)
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    one = jnp.ones_like(x1)
    points = [jnp.stack([x, y, one], axis=-1) for x, y in ((x1, y1), (x2, y2), (x1, y2), (x2, y1))]
    seen = jnp.einsum("bij,bncj->bnci", jnp.linalg.inv(matrix), jnp.stack(points, axis=2))
    return seen[..., :2] / seen[..., 2:]


@lowered
def _distorted(images: Any, noise: Any, factor: Any, *, axis: int, order: int, mode: str, fill: float) -> Any:
    """Pixels moved by smooth noise: as `ops.image.elastic_transform`, with its width drawn too."""
    height, width = (images.shape[1], images.shape[2]) if axis == -1 else (images.shape[2], images.shape[3])
    alpha, sigma = max(height, width) * 0.1 * factor, min(height, width) * 0.05 * factor
    cells = int(6 * min(height, width) * 0.05) | 1  # as wide as the greatest sigma needs
    places = jnp.arange(cells) - cells // 2
    bell = jnp.exp(-0.5 * (places / jnp.maximum(sigma, 1e-6)) ** 2)
    bell = bell / jnp.sum(bell)
    smooth = noise * sigma
    for n in (1, 2):
        pads = [(0, 0)] * 3
        pads[n] = (cells // 2, cells // 2)
        padded = jnp.pad(smooth, pads)
        smooth = sum(bell[i] * jnp.take(padded, jnp.arange(smooth.shape[n]) + i, axis=n) for i in range(cells))
    return shifted(images, smooth * alpha, axis, order, mode, fill)


class RandomElasticTransform(ImageLayer):
    """Distorts some images by random smooth shifts, in training.

    Args:
        factor: the chance that an image is distorted, or (least, greatest) of it.
        scale: strength, or (least, greatest), in [0, 1].
        interpolation: ``"bilinear"`` or ``"nearest"``; fill_mode, fill_value: what stands outside.
        value_range: least and greatest value of a channel.

    Source: Simard et al. 2003.
    """

    bounds, takes_factor = (0, 1), False

    def __init__(
        self,
        factor=1.0,
        scale=1.0,
        interpolation="bilinear",
        fill_mode="reflect",
        fill_value=0.0,
        value_range=(0, 255),
        seed=None,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        if interpolation not in INTERPOLATIONS:
            raise NotImplementedError(f"Unknown `interpolation` {interpolation}. Expected of one {INTERPOLATIONS}.")
        if fill_mode not in FILL_MODES:
            raise NotImplementedError(f"Unknown `fill_mode` {fill_mode}. Expected of one {FILL_MODES}.")
        self.keep(
            factor=self.range_of("factor", factor),
            scale=self.range_of("scale", scale),
            interpolation=interpolation,
            fill_mode=fill_mode,
            fill_value=fill_value,
            value_range=value_range,
        )
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training or self.scale[1] == 0 or self.factor[1] == 0:
            return None
        draw = self.draw(data, seed)
        return {
            "apply_transform": draw.happens(self.factor),
            "distortion_factor": draw.uniform_once(*self.scale),
            "noise": draw.normal(self.sizes(data)),
        }

    def _moved(self, images, transformation, interpolation):
        if transformation is None:
            return images
        changed = _distorted(
            images,
            transformation["noise"],
            transformation["distortion_factor"],
            axis=self.channel_axis,
            order=ORDERS[interpolation],
            mode=self.fill_mode,
            fill=self.fill_value,
        )
        images = ops.where(transformation["apply_transform"], changed, images)
        return self.compute(ops.clip(images, *self.value_range))

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        return self._moved(images, transformation, self.interpolation) if training else images

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self._moved(segmentation_masks, transformation, "nearest") if training else segmentation_masks

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        raise NotImplementedError("RandomElasticTransform does not move bounding boxes")
