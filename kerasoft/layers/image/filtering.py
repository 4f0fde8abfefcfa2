"""Random filters and holes: RandomGaussianBlur, RandomSharpness, RandomErasing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import ops
from ...ops.dispatch import lowered
from ...ops.image_filters import blur
from .base import ImageLayer, per_image


class RandomGaussianBlur(ImageLayer):
    """Blurs some images, in training.

    Args:
        factor: the chance that an image is blurred, or (least, greatest) of it.
        kernel_size: odd number of cells, or one for each direction.
        sigma: greatest standard deviation, or (least, greatest), in [0, 1].
        value_range: least and greatest value of a channel.
    """

    bounds, takes_factor = (0, 1), False

    def __init__(
        self, factor=1.0, kernel_size=3, sigma=1.0, value_range=(0, 255), data_format=None, seed=None, **kwargs
    ):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(
            factor=self.range_of("factor", factor),
            kernel_size=self._odd(kernel_size),
            sigma=self.range_of("sigma", sigma),
            value_range=value_range,
        )
        self.keep_seed(seed)

    @staticmethod
    def _odd(size):
        sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        if len(sizes) != 2:
            raise ValueError(
                f"The `kernel_size` argument should be a number (or a list of two numbers) Received: kernel_size={size}"
            )
        if not all(isinstance(n, (int, float)) and n % 2 for n in sizes):
            raise ValueError(f"kernel_size must be an odd number. Received: kernel_size={size}")
        return sizes

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw = self.draw(data, seed)
        return {
            "should_apply_blur": draw.happens(self.factor),
            "blur_factor": draw.uniform_once(*self.sigma, shape=(2,)) + 1e-6,
        }

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training or transformation is None:
            return images
        size = tuple(int(n) for n in self.kernel_size)
        blurred = blur(images, transformation["blur_factor"], size=size, axis=self.channel_axis)
        images = ops.where(transformation["should_apply_blur"], blurred, images)
        return ops.clip(images, *self.value_range)


@lowered
def _smoothed(images: Any, *, axis: int) -> Any:
    layout = "NHWC" if axis == -1 else "NCHW"
    channels = images.shape[axis]
    kernel = jnp.full((3, 3, 1, channels), 1.0 / 13.0, images.dtype).at[1, 1].set(5.0 / 13.0)
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=(layout, "HWIO", layout), feature_group_count=channels
    )


class RandomSharpness(ImageLayer):
    """Sharpens (factor above 0.5) or smooths images, in training.

    Args:
        factor: greatest sharpness, or (least, greatest), in [0, 1]; 0.5 changes nothing.
        value_range: least and greatest value of a channel.
    """

    bounds, takes_factor = (0, 1), False

    def __init__(self, factor, value_range=(0, 255), data_format=None, seed=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor))
        self.keep_value_range(value_range)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        return {"factor": self.draw(data, seed).uniform(*self.factor)}

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training:
            return images
        factor = self.compute(per_image(transformation["factor"] * 2.0))
        smooth = _smoothed(images, axis=self.channel_axis)
        return ops.clip(images + (1.0 - factor) * (smooth - images), *self.value_range)


@lowered
def inside(images: Any, x0: Any, x1: Any, y0: Any, y1: Any, *, axis: int) -> Any:
    """bool (batch, height, width, 1), or (batch, 1, height, width): pixels in the boxes, (batch,) each."""
    height, width = (images.shape[-3], images.shape[-2]) if axis == -1 else (images.shape[-2], images.shape[-1])
    x0, x1, y0, y1 = (v[:, None, None] for v in (x0, x1, y0, y1))
    y, x = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    return jnp.expand_dims((x >= x0) & (x < x1) & (y >= y0) & (y < y1), axis)


def box_of(draw: Any, share_x: Any, share_y: Any, height: Any, width: Any) -> tuple:
    """x0, x1, y0, y1 of boxes that take a share of the width and height, somewhere."""
    bounds: list = []
    for share, size in ((share_x, width), (share_y, height)):
        length = share * size
        start = draw.uniform() * (size - length)
        bounds += [start, start + length]
    return tuple(bounds)


class RandomErasing(ImageLayer):
    """Fills a rectangle of some images, in training.

    Args:
        factor: the chance that an image gets one, or (least, greatest) of it.
        scale: area of the rectangle as a part of the image: greatest, or (least, greatest).
        fill_value: a number, one number a channel, or None for noise.
        value_range: least and greatest value of a channel.
    """

    bounds, takes_factor = (0, 1), False

    def __init__(
        self,
        factor=1.0,
        scale=(0.02, 0.33),
        fill_value=None,
        value_range=(0, 255),
        seed=None,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        if fill_value is not None and not isinstance(fill_value, (int, float)):
            if not isinstance(fill_value, (tuple, list)) or len(fill_value) != 3:
                raise ValueError("The `fill_value` argument should be a number (or a list of three numbers) ")
        self.keep(
            factor=self.range_of("factor", factor),
            scale=self.range_of("scale", scale),
            fill_value=fill_value,
            value_range=value_range,
        )
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        images, (height, width) = data["images"] if isinstance(data, dict) else data, self.lengths(data)
        draw, last = self.draw(data, seed), self.data_format == "channels_last"
        sides = [ops.sqrt(draw.uniform(*self.scale)) for _ in range(2)]
        box = box_of(draw, *sides, height, width)
        if self.fill_value is None:
            fill = draw.normal(tuple(images.shape[-3:])) * float(self.value_range[1])
        else:
            shape = (1, 1, 1, -1) if last else (1, -1, 1, 1)
            fill = ops.reshape(np.atleast_1d(np.asarray(self.fill_value, "float32")), shape)
        return {
            "apply_erasing": draw.happens(self.factor),
            "batch_masks": inside(images, *box, axis=self.channel_axis),
            "fill_value": ops.clip(fill, *self.value_range),
        }

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training:
            return images
        erased = ops.logical_and(transformation["batch_masks"], transformation["apply_erasing"])
        return ops.where(erased, self.compute(transformation["fill_value"]), images)
