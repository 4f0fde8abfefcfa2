"""Random affine changes: RandomFlip, RandomRotation, RandomZoom, RandomTranslation, RandomShear."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ... import ops
from ...ops.dispatch import lowered
from ...utils.bounding_boxes import clip_to_image_size, convert_format
from .base import ImageLayer, per_image
from .boxes import turned


class RandomFlip(ImageLayer):
    """Turns half of the images over, in training: left and right, top and bottom, or both.

    Args:
        mode: ``"horizontal"``, ``"vertical"`` or ``"horizontal_and_vertical"``.
    """

    takes_factor = False

    def __init__(self, mode="horizontal_and_vertical", seed=None, data_format=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(mode=mode)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        flips = ops.less_equal(self.draw(data, seed).uniform(), 0.5)
        return {"flips": per_image(flips), "input_shape": self.sizes(data)}

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training or transformation is None:
            return images
        for mode, axis in (("horizontal", self.width_axis), ("vertical", self.height_axis)):
            if mode in self.mode:
                images = ops.where(transformation["flips"], ops.flip(images, axis=axis), images)
        return images

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.transform_images(segmentation_masks, transformation, training)

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        if not training:
            return bounding_boxes
        height, width = transformation["input_shape"]
        flips = ops.squeeze(transformation["flips"], -1)
        boxes = convert_format(bounding_boxes["boxes"], self.bounding_box_format, "xyxy", height, width)
        for mode, size, axis in (("horizontal", width, 0), ("vertical", height, 1)):
            if mode in self.mode:
                parts = [boxes[..., i] for i in range(4)]
                parts[axis], parts[axis + 2] = size - parts[axis + 2], size - parts[axis]
                boxes = ops.where(flips, ops.stack(parts, axis=-1), boxes)
        result = clip_to_image_size({"boxes": boxes, "labels": bounding_boxes["labels"]}, height, width)
        boxes = convert_format(result["boxes"], "xyxy", self.bounding_box_format, height, width)
        return {**bounding_boxes, "boxes": boxes, "labels": result["labels"]}


class AffineLayer(ImageLayer):
    """Base of the layers that read images at places (a0 x + a1 y + a2, b0 x + b1 y + b2)."""

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        return self.moved(images, transformation, self.interpolation) if training else images

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.moved(segmentation_masks, transformation, "nearest") if training else segmentation_masks

    def moved(self, images, transformation, interpolation):
        """The images read at the drawn places."""
        if transformation is None:
            return images
        return ops.image.affine_transform(
            images,
            self.rows(transformation, *self.lengths(images)),
            interpolation=interpolation,
            fill_mode=self.fill_mode,
            fill_value=self.fill_value,
            data_format=self.data_format,
        )

    def rows(self, transformation, height, width):
        """(batch, 8): a0, a1, a2, b0, b1, b2, 0, 0 for each image."""
        raise NotImplementedError

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        if not training or transformation is None:
            return bounding_boxes
        height, width = transformation["input_shape"]
        boxes = convert_format(bounding_boxes["boxes"], self.bounding_box_format, "xyxy", height, width)
        boxes = self.moved_boxes(boxes, transformation, height, width)
        result = clip_to_image_size({"boxes": boxes, "labels": bounding_boxes["labels"]}, height, width)
        boxes = convert_format(result["boxes"], "xyxy", self.bounding_box_format, height, width)
        return {**bounding_boxes, "boxes": boxes, "labels": result["labels"]}

    def moved_boxes(self, boxes, transformation, height, width):
        """``"xyxy"`` boxes in the changed images, not yet cut to them."""
        raise NotImplementedError

    def pair_of(self, name, value, low, high, words, error):
        """(least, greatest) of a factor that may not leave `words`.

        Raises:
            ValueError: it does, or is no number or pair of numbers.
        """
        text = f"The {error} should be a number (or a list of two numbers) in the range {words}. "
        values = value if isinstance(value, (tuple, list)) else (value,)
        if isinstance(value, (tuple, list)) and len(value) != 2:
            raise ValueError(f"{text}Received: {name}={value}")
        for number in values:
            if not isinstance(number, (int, float)):
                raise ValueError(f"{text}Received: {name}={value}")
            if number > high or number < low:
                raise ValueError(f"{text}Received: input_number={number}")
        return tuple(sorted(value)) if len(values) == 2 else (-abs(value), abs(value))


@lowered
def _turn_rows(angle: Any, height: Any, width: Any) -> Any:
    radians = angle * (math.pi / 180.0)
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    cx, cy = (jnp.float32(0.5) * (jnp.float32(n) - 1) for n in (width, height))
    zero = jnp.zeros_like(cosine)
    rows = [cosine, -sine, cx - cx * cosine + cy * sine, sine, cosine, cy - cx * sine - cy * cosine, zero, zero]
    return jnp.stack(rows, axis=1)


class RandomRotation(AffineLayer):
    """Turns each image by an angle of its own, in training.

    Args:
        factor: greatest part of a full turn (2 pi), or (least, greatest); above 0 is anticlockwise.
        fill_mode: what stands outside: ``"reflect"``, ``"wrap"``, ``"nearest"`` or ``"constant"`` (`fill_value`).
        interpolation: ``"bilinear"`` or ``"nearest"``.
    """

    def __init__(
        self,
        factor,
        fill_mode="reflect",
        interpolation="bilinear",
        seed=None,
        fill_value=0.0,
        data_format=None,
        **kwargs,
    ):
        super().__init__(factor=factor, data_format=data_format, **kwargs)
        self.keep(factor=self.factor)
        self.keep_seed(seed)
        self.keep_sampling(interpolation, fill_mode, fill_value)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        low, high = self.factor
        angle = self.draw(data, seed).uniform(low * 360.0, high * 360.0)
        return {"angle": angle, "input_shape": self.sizes(data)}

    def rows(self, transformation, height, width):
        return _turn_rows(transformation["angle"], height, width)

    def moved_boxes(self, boxes, transformation, height, width):
        return turned(boxes, transformation["angle"], height, width)


class RandomZoom(AffineLayer):
    """Enlarges (factor below 0) or shrinks each image about its middle, in training.

    Args:
        height_factor, width_factor: greatest change as a part of the size, or (least, greatest); `width_factor` None
            keeps the ratio of sides.
    """

    takes_factor = False

    def __init__(
        self,
        height_factor,
        width_factor=None,
        fill_mode="reflect",
        interpolation="bilinear",
        seed=None,
        fill_value=0.0,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(height_factor=height_factor, width_factor=width_factor)
        self.height_range = self._range("height_factor", height_factor)
        self.width_range = None if width_factor is None else self._range("width_factor", width_factor)
        self.keep_sampling(interpolation, fill_mode, fill_value)
        self.keep_seed(seed)

    def _range(self, name, value):
        above = math.nextafter(-1.0, 0.0)
        return self.pair_of(name, value, above, 1.0, "(-1.0, 1.0]", "`height_factor` and `width_factor` arguments")

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw = self.draw(data, seed)
        height = draw.uniform(*(1.0 + v for v in self.height_range))
        width = height if self.width_range is None else draw.uniform(*(1.0 + v for v in self.width_range))
        return {"height_zoom": height, "width_zoom": width, "input_shape": self.sizes(data)}

    def rows(self, transformation, height, width):
        zoom_x, zoom_y = transformation["width_zoom"], transformation["height_zoom"]
        zero = ops.zeros_like(zoom_x)
        shift_x, shift_y = (1.0 - zoom_x) * ((width - 1.0) / 2.0), (1.0 - zoom_y) * ((height - 1.0) / 2.0)
        return ops.stack([zoom_x, zero, shift_x, zero, zoom_y, shift_y, zero, zero], axis=1)

    def moved_boxes(self, boxes, transformation, height, width):
        rows = ops.expand_dims(self.rows(transformation, height, width), 1)
        left, top = rows[..., 2], rows[..., 5]
        right, bottom = rows[..., 0] * width + left, rows[..., 4] * height + top
        scale_x, scale_y = width / (right - left), height / (bottom - top)
        x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
        x1, x2 = ((ops.clip(x, left, right) - left) * scale_x for x in (x1, x2))
        y1, y2 = ((ops.clip(y, top, bottom) - top) * scale_y for y in (y1, y2))
        return ops.stack((x1, y1, x2, y2), axis=-1)


class RandomTranslation(AffineLayer):
    """Moves each image down and to the right (factors below 0: up and to the left), in training.

    Args:
        height_factor, width_factor: greatest move as a part of the size, or (least, greatest).
    """

    takes_factor = False

    def __init__(
        self,
        height_factor,
        width_factor,
        fill_mode="reflect",
        interpolation="bilinear",
        seed=None,
        fill_value=0.0,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(height_factor=height_factor, width_factor=width_factor)
        words = ("[-1.0, 1.0]", "`factor` argument")
        self.height_range = self.pair_of("height_factor", height_factor, -1.0, 1.0, *words)
        self.width_range = self.pair_of("width_factor", width_factor, -1.0, 1.0, *words)
        self.keep_sampling(interpolation, fill_mode, fill_value)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw, (height, width) = self.draw(data, seed), self.lengths(data)
        down, across = draw.uniform(*self.height_range) * height, draw.uniform(*self.width_range) * width
        return {"translations": ops.stack([across, down], axis=1), "input_shape": (height, width)}

    def rows(self, transformation, height, width):
        across, down = (transformation["translations"][:, i] for i in range(2))
        one, zero = ops.ones_like(across), ops.zeros_like(across)
        return ops.stack([one, zero, -across, zero, one, -down, zero, zero], axis=1)

    def moved_boxes(self, boxes, transformation, height, width):
        moves = transformation["translations"]
        return boxes + ops.expand_dims(ops.concatenate([moves, moves], axis=1), 1)


class RandomShear(AffineLayer):
    """Slants each image, to either side, in training.

    Args:
        x_factor, y_factor: greatest slant, or (least, greatest), in [0, 1].
    """

    takes_factor = False

    def __init__(
        self,
        x_factor=0.0,
        y_factor=0.0,
        interpolation="bilinear",
        fill_mode="reflect",
        fill_value=0.0,
        data_format=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        words = ("[0, 1.0]", "`factor` argument")
        self.keep(
            x_factor=self.pair_of("x_factor", x_factor, 0.0, 1.0, *words),
            y_factor=self.pair_of("y_factor", y_factor, 0.0, 1.0, *words),
        )
        self.keep_sampling(interpolation, fill_mode, fill_value)
        self.keep_seed(seed)

    @classmethod
    def from_config(cls, config):
        # A pair (-x, x), as kept, stands for the number x, as given.
        given = {n: abs(v[1]) if v[0] == -v[1] else v for n in ("x_factor", "y_factor") if (v := config.get(n))}
        return super().from_config({**config, **given})

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw = self.draw(data, seed)
        side = ops.where(ops.greater(draw.uniform(), 0.5), -1.0, 1.0)
        factors = ops.stack([draw.uniform(*self.x_factor) * side, draw.uniform(*self.y_factor) * side], axis=1)
        return {"shear_factor": factors, "input_shape": self.sizes(data)}

    def rows(self, transformation, height, width):
        across, down = (transformation["shear_factor"][:, i] for i in range(2))
        one, zero = ops.ones_like(across), ops.zeros_like(across)
        return ops.stack([one, across, zero, down, one, zero, zero, zero], axis=1)

    def moved_boxes(self, boxes, transformation, height, width):
        across, down = (ops.expand_dims(transformation["shear_factor"][:, i], 1) for i in range(2))
        sizes = np.float32([width, height] * 2)
        x1, y1, x2, y2 = (ops.divide(boxes, sizes)[..., i] for i in range(4))
        left = ops.less(across, 0)
        x1, x2 = (
            ops.where(left, x1 - across * y1, x1 - across * y2),
            ops.where(left, x2 - across * y2, x2 - across * y1),
        )
        up = ops.greater(down, 0)
        y1, y2 = (ops.where(up, y1 - down * x2, y1 - down * x1), ops.where(up, y2 - down * x1, y2 - down * x2))
        return ops.multiply(ops.stack((x1, y1, x2, y2), axis=-1), sizes)
