"""Layers that change the size of images: Resizing, CenterCrop, RandomCrop."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ... import ops
from ...ops.dispatch import is_static, lowered
from ...tensors import KerasTensor
from ...utils.bounding_boxes import clip_to_image_size, convert_format
from .base import ImageLayer


class Sized(ImageLayer):
    """Base of the layers whose result has `self.height` rows and `self.width` columns."""

    def compute_output_spec(self, data, *args, **kwargs):
        """As traced; of images of unknown size too, which only calls on arrays can cut or fill to a ratio."""
        shape = getattr(data, "shape", ())
        if len(shape) not in (3, 4) or None not in (shape[self.height_axis], shape[self.width_axis]):
            return super().compute_output_spec(data, *args, **kwargs)
        sizes = list(shape)
        sizes[self.height_axis], sizes[self.width_axis] = self.height, self.width
        return KerasTensor(sizes, self.compute_dtype)


class Resizing(Sized):
    """Images in another size, in training and elsewhere. Integers stay integers.

    Args:
        height, width: of the result.
        interpolation: ``"bilinear"``, ``"nearest"``, ``"bicubic"``, ``"lanczos3"`` or ``"lanczos5"``.
        crop_to_aspect_ratio, pad_to_aspect_ratio: cut, or add borders of `fill_value`, so that nothing is distorted.
        antialias: whether a wider kernel is used for smaller sizes.

    >>> import kerasoft as ks
    >>> ks.layers.Resizing(16, 8)(ks.Input((None, None, 3))).shape
    (None, 16, 8, 3)
    """

    takes_factor = False

    def __init__(
        self,
        height,
        width,
        interpolation="bilinear",
        crop_to_aspect_ratio=False,
        pad_to_aspect_ratio=False,
        fill_mode="constant",
        fill_value=0.0,
        antialias=False,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(
            height=height,
            width=width,
            interpolation=interpolation,
            crop_to_aspect_ratio=crop_to_aspect_ratio,
            pad_to_aspect_ratio=pad_to_aspect_ratio,
            fill_mode=fill_mode,
            fill_value=fill_value,
            antialias=bool(antialias),
        )

    def get_random_transformation(self, data, training=True, seed=None):
        return self.sizes(data)

    def transform_images(self, images, transformation=None, training=True):
        return self._resized(images, self.interpolation)

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self._resized(segmentation_masks, "nearest")

    def _resized(self, images, interpolation):
        return ops.image.resize(
            images,
            (self.height, self.width),
            interpolation=interpolation,
            antialias=self.antialias,
            crop_to_aspect_ratio=self.crop_to_aspect_ratio,
            pad_to_aspect_ratio=self.pad_to_aspect_ratio,
            fill_mode=self.fill_mode,
            fill_value=self.fill_value,
            data_format=self.data_format,
        )

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        height, width = transformation
        boxes = bounding_boxes["boxes"]
        none = ops.logical_or(ops.all(ops.equal(boxes, -1.0), axis=-1), ops.all(ops.equal(boxes, 0.0), axis=-1))
        boxes = convert_format(boxes, self.bounding_box_format, "xyxy", height, width)
        scale_x, scale_y, left, top = self._box_map(height, width)
        boxes = ops.multiply(boxes, np.float32([scale_x, scale_y] * 2)) + np.float32([left, top] * 2)
        result = clip_to_image_size({"boxes": boxes, "labels": bounding_boxes["labels"]}, self.height, self.width)
        boxes = ops.where(ops.expand_dims(none, -1), ops.zeros_like(result["boxes"]), result["boxes"])
        boxes = convert_format(boxes, "xyxy", self.bounding_box_format, self.height, self.width)
        return {**bounding_boxes, "boxes": boxes, "labels": result["labels"]}

    def _box_map(self, height, width):
        """Scales and shifts of box coordinates."""
        scale_x, scale_y = self.width / width, self.height / height
        if self.pad_to_aspect_ratio:
            scale = min(scale_x, scale_y)
            return scale, scale, (self.width - width * scale) // 2, (self.height - height * scale) // 2
        if self.crop_to_aspect_ratio:
            scale = max(scale_x, scale_y)
            return scale, scale, -((width * scale - self.width) // 2), -((height * scale - self.height) // 2)
        return scale_x, scale_y, 0.0, 0.0


class CenterCrop(Sized):
    """The middle of images; smaller images are enlarged, without distortion, and cut.

    Args:
        height, width: of the result.
    """

    takes_factor = False

    def __init__(self, height, width, data_format=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(height=height, width=width)

    def get_random_transformation(self, data, training=True, seed=None):
        return {"input_shape": self.sizes(data)}

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        height, width = self.sizes(images)
        if all(not is_static(a) or a >= b for a, b in ((height, self.height), (width, self.width))):
            return self.cut(images, (height - self.height) // 2, (width - self.width) // 2)
        return ops.image.resize(
            images, (self.height, self.width), crop_to_aspect_ratio=True, data_format=self.data_format
        )

    def cut(self, images, top, left):
        """`self.height` rows and `self.width` columns."""
        key = [slice(None)] * len(images.shape)
        key[self.height_axis] = slice(top, top + self.height)
        key[self.width_axis] = slice(left, left + self.width)
        return ops.get_item(images, tuple(key))

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.transform_images(segmentation_masks)

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        height, width = transformation["input_shape"]
        boxes = convert_format(bounding_boxes["boxes"], self.bounding_box_format, "xyxy", height, width)
        rows, columns = self.height, self.width
        if height < rows or width < columns:
            rows = max(min(height, int(float(width * self.height) / self.width)), 1)
            columns = max(min(width, int(float(height * self.width) / self.height)), 1)
        boxes = boxes - np.float32([(width - columns) // 2, (height - rows) // 2] * 2)
        result = clip_to_image_size({"boxes": boxes, "labels": bounding_boxes["labels"]}, rows, columns)
        boxes = ops.multiply(result["boxes"], np.float32([self.width / columns, self.height / rows] * 2))
        boxes = convert_format(boxes, "xyxy", self.bounding_box_format, self.height, self.width)
        return {**bounding_boxes, "boxes": boxes, "labels": result["labels"]}


@lowered
def _window(images: Any, top: Any, left: Any, *, axes: tuple, size: tuple) -> Any:
    rows = jnp.asarray(top) + jnp.arange(size[0])
    columns = jnp.asarray(left) + jnp.arange(size[1])
    return jnp.take(jnp.take(images, rows, axis=axes[0]), columns, axis=axes[1])


class RandomCrop(Sized):
    """A part of the images at a place drawn for each call, in training; elsewhere the images as they are.

    Images that are not larger than the part are enlarged, without distortion, and cut in the middle.

    Args:
        height, width: of the result.
    """

    def __init__(self, height, width, seed=None, data_format=None, name=None, **kwargs):
        super().__init__(data_format=data_format, name=name, **kwargs)
        self.keep(height=height, width=width)
        self.keep_seed(seed)
        self.seed = self.generator.get_config()["seed"]

    def get_random_transformation(self, data, training=True, seed=None):
        height, width = self.sizes(data)
        if not is_static(height) or not is_static(width):
            raise ValueError(
                "RandomCrop requires the input to have a fully defined height and width. "
                f"Received: images of height {height} and width {width}"
            )
        if training and height > self.height and width > self.width:
            draw = self.draw(data, seed)
            top = draw.uniform_once(0, height - self.height + 1)
            left = draw.uniform_once(0, width - self.width + 1)
            return ops.cast(top, "int32"), ops.cast(left, "int32")
        rows = max(min(height, int(float(width * self.height) / self.width)), 1)
        columns = max(min(width, int(float(height * self.width) / self.height)), 1)
        return int(float(height - rows) / 2), int(float(width - columns) / 2)

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        images = self.compute(images)
        top, left = transformation
        if not isinstance(top, int):
            axes = (self.height_axis, self.width_axis)
            return _window(images, top, left, axes=axes, size=(self.height, self.width))
        cut = CenterCrop.cut(self, images, top, left)  # may be smaller: the image ends before
        if self.sizes(cut) == (self.height, self.width):
            return cut
        return self.compute(ops.image.resize(cut, (self.height, self.width), data_format=self.data_format))

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.transform_images(segmentation_masks, transformation, training)

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        if not training:
            return bounding_boxes
        top, left = (ops.cast(v, "float32") for v in transformation)
        boxes = convert_format(bounding_boxes["boxes"], self.bounding_box_format, "xyxy", self.height, self.width)
        boxes = ops.maximum(boxes - ops.stack([left, top, left, top]), 0.0)
        boxes = convert_format(boxes, "xyxy", self.bounding_box_format, self.height, self.width)
        return {**bounding_boxes, "boxes": boxes}
