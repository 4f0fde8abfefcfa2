"""Random changes of colour: contrast, brightness, hue, saturation, grayscale, inversion, posterising, solarising."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ... import ops
from ...ops.dispatch import lowered
from .base import ImageLayer, per_image, rescaled


class RandomContrast(ImageLayer):
    """Moves values away from, or towards, each channel's mean, in training.

    Args:
        factor: greatest change, or (down, up): the distance is multiplied by 1 - down to 1 + up.
        value_range: least and greatest value of a channel.
    """

    bounds = (0, 1)

    def __init__(self, factor, value_range=(0, 255), seed=None, **kwargs):
        super().__init__(**kwargs)
        self.keep(factor=self.range_of("factor", factor), value_range=value_range)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        factor = self.draw(data, seed).uniform(1.0 - self.factor[0], 1.0 + self.factor[1])
        return {"contrast_factor": per_image(factor)}

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        images = self.compute(images)
        mean = ops.mean(images, axis=(self.height_axis, self.width_axis), keepdims=True)
        factor = self.compute(transformation["contrast_factor"])
        return ops.clip((images - mean) * factor + mean, *self.value_range)


class RandomBrightness(ImageLayer):
    """Adds one number to all pixels of an image, in training. Integers stay integers.

    Args:
        factor: greatest part of the value range that is added or taken away, or (least, greatest).
        value_range: least and greatest value of a channel.
    """

    def __init__(self, factor, value_range=(0, 255), seed=None, **kwargs):
        super().__init__(factor=factor, **kwargs)
        self.keep(factor=self.factor)
        self.keep_seed(seed)
        self.keep_value_range(value_range)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        delta = self.draw(data, seed).uniform(*self.factor) * float(self.value_range[1] - self.value_range[0])
        return {"rgb_delta": per_image(delta)}

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        changed = self.compute(images) + self.compute(transformation["rgb_delta"])
        return ops.cast(ops.clip(changed, *self.value_range), images.dtype)


class RandomHue(ImageLayer):
    """Turns the hue of each image, to either side, in training.

    Args:
        factor: greatest turn as a part of a half turn, or (least, greatest), in [0, 1].
        value_range: least and greatest value of a channel.
    """

    bounds = (0, 1)

    def __init__(self, factor, value_range=(0, 255), data_format=None, seed=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor), value_range=value_range)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        draw = self.draw(data, seed)
        side = ops.where(ops.greater(draw.uniform(), 0.5), -0.5, 0.5)
        return {"factor": side * draw.uniform(*self.factor)}

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        images = rescaled(self.compute(images), self.value_range, (0, 1))
        hue, saturation, value = ops.split(
            ops.image.rgb_to_hsv(images, data_format=self.data_format), 3, self.channel_axis
        )
        hue = hue + self.compute(per_image(transformation["factor"]))
        hue = ops.where(ops.greater(hue, 1.0), hue - 1.0, hue)
        hue = ops.where(ops.less(hue, 0.0), hue + 1.0, hue)
        images = ops.concatenate([hue, saturation, value], axis=self.channel_axis)
        images = ops.clip(ops.image.hsv_to_rgb(images, data_format=self.data_format), 0.0, 1.0)
        return rescaled(images, (0, 1), self.value_range)


class RandomSaturation(ImageLayer):
    """Makes colours stronger (factor above 0.5) or weaker, in training.

    Args:
        factor: (least, greatest), or one number f for (-f, f); 0.5 changes nothing, 0 gives grey, 1 the strongest.
        value_range: least and greatest value of a channel.
    """

    def __init__(self, factor, value_range=(0, 255), data_format=None, seed=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor))
        self.keep_value_range(value_range)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        factor = self.draw(data, seed).uniform(*self.factor)
        return {"factor": factor / (1.0 - factor + 1e-7)}

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        hue, saturation, value = ops.split(
            ops.image.rgb_to_hsv(self.compute(images), data_format=self.data_format), 3, self.channel_axis
        )
        saturation = ops.clip(saturation * self.compute(per_image(transformation["factor"])), *self.value_range)
        images = ops.concatenate([hue, saturation, value], axis=self.channel_axis)
        return ops.image.hsv_to_rgb(images, data_format=self.data_format)


class RandomColorDegeneration(ImageLayer):
    """Mixes each image with its grayscale version, in training.

    Args:
        factor: greatest share of grey, or (least, greatest).
        value_range: least and greatest value of a channel.
    """

    def __init__(self, factor, value_range=(0, 255), data_format=None, seed=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor))
        self.keep_value_range(value_range)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        return {"factor": per_image(self.draw(data, seed).uniform(*self.factor))}

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        images = self.compute(images)
        gray = ops.image.rgb_to_grayscale(images, data_format=self.data_format)
        mixed = images + self.compute(transformation["factor"]) * (gray - images)
        return ops.clip(mixed, *self.value_range)


class RandomGrayscale(ImageLayer):
    """Makes a share `factor` of the images grey (with equal channels), in training.

    Raises:
        ValueError: `factor` is outside of [0, 1].
    """

    def __init__(self, factor=0.5, data_format=None, seed=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        if factor < 0 or factor > 1:
            raise ValueError(f"`factor` should be between 0 and 1. Received: factor={factor}")
        self.keep_seed(seed)
        self._kept = ("data_format",)  # as in Keras, the seed is not in the config
        self.keep(factor=factor)

    def get_random_transformation(self, data, training=True, seed=None):
        return per_image(ops.less(self.draw(data, seed).uniform(), self.factor))

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        gray = ops.image.rgb_to_grayscale(images, data_format=self.data_format)
        return ops.where(transformation, gray, images)


class RandomInvert(ImageLayer):
    """Replaces values by the greatest value less themselves in some images, in training.

    Args:
        factor: the chance that an image is inverted, or (least, greatest) of it.
        value_range: least and greatest value of a channel.
    """

    bounds, takes_factor = (0, 1), False

    def __init__(self, factor=1.0, value_range=(0, 255), seed=None, data_format=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor), value_range=value_range)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        return {"apply_inversion": self.draw(data, seed).happens(self.factor)} if training else None

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        images = self.compute(images)
        return ops.where(transformation["apply_inversion"], self.value_range[1] - images, images)


@lowered
def _posterized(images: Any, shift: Any) -> Any:
    whole = images.astype("uint8")
    shift = shift.astype("uint8")
    return jnp.left_shift(jnp.right_shift(whole, shift), shift).astype(images.dtype)


class RandomPosterization(ImageLayer):
    """Keeps only the `factor` highest bits of values (in 0 to 255), in training.

    Args:
        factor: bits, 1 to 8, or (least, greatest).
        value_range: least and greatest value of a channel.
    """

    bounds, takes_factor = (1, 8), False

    def __init__(self, factor, value_range=(0, 255), data_format=None, seed=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor))
        self.keep_value_range(value_range)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        low, high = self.factor
        bits = ops.floor(self.draw(data, seed).uniform(low, high))
        return {"shift_factor": per_image(8.0 - bits)}

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        images = rescaled(self.compute(images), self.value_range, (0, 255))
        return rescaled(_posterized(images, transformation["shift_factor"]), (0, 255), self.value_range)


class Solarization(ImageLayer):
    """Adds a number to all values and inverts those at or above a threshold, in training.

    Args:
        addition_factor, threshold_factor: greatest part of 255, or (least, greatest), in [0, 1].
        value_range: least and greatest value of a channel.
    """

    takes_factor = False

    def __init__(self, addition_factor=0.0, threshold_factor=0.0, value_range=(0, 255), seed=None, **kwargs):
        super().__init__(**kwargs)
        self.keep_seed(seed)
        self.keep(
            addition_factor=self._factor("addition_factor", addition_factor),
            threshold_factor=self._factor("threshold_factor", threshold_factor),
        )
        self.keep_value_range(value_range)

    @staticmethod
    def _factor(name, value):
        text = (
            "The `addition_factor` and `threshold_factor` arguments should be a number (or a list of two numbers) in "
            "the range [0, 1]. "
        )
        values = value if isinstance(value, (tuple, list)) else (0, value)
        if len(values) != 2 or not all(isinstance(v, (int, float)) for v in values):
            raise ValueError(f"{text}Received: {name}={value}")
        for number in values:
            if not 0 <= number <= 1:
                raise ValueError(f"{text}Received: input_number={number}")
        return tuple(sorted(values))

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw = self.draw(data, seed)
        return {
            name: per_image(draw.uniform(low, high * 255))
            for name, (low, high) in (("additions", self.addition_factor), ("thresholds", self.threshold_factor))
        }

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training or transformation is None:
            return images
        values = rescaled(images, self.value_range, (0, 255)) + self.compute(transformation["additions"])
        values = ops.clip(values, 0.0, 255.0)
        values = ops.where(ops.less(values, self.compute(transformation["thresholds"])), values, 255.0 - values)
        return rescaled(values, (0, 255), self.value_range)


class RandomColorJitter(ImageLayer):
    """RandomBrightness, RandomContrast, RandomSaturation and RandomHue, those of which a factor is given.

    Args:
        value_range: least and greatest value of a channel.
        brightness_factor, contrast_factor, saturation_factor, hue_factor: as in those layers, or None.
    """

    def __init__(
        self,
        value_range=(0, 255),
        brightness_factor=None,
        contrast_factor=None,
        saturation_factor=None,
        hue_factor=None,
        seed=None,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        factors = {
            "brightness_factor": brightness_factor,
            "contrast_factor": contrast_factor,
            "saturation_factor": saturation_factor,
            "hue_factor": hue_factor,
        }
        self.keep(value_range=value_range, **factors)
        self.keep_seed(seed)
        self.random_brightness = self.random_contrast = self.random_saturation = self.random_hue = None
        kinds = (RandomBrightness, RandomContrast, RandomSaturation, RandomHue)
        for kind, (name, factor) in zip(kinds, factors.items(), strict=True):
            if factor is not None:
                made = kind(
                    factor, value_range=value_range, seed=seed, data_format=data_format, dtype=self.dtype_policy
                )
                setattr(self, "random_" + name.removesuffix("_factor"), made)

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        images = self.compute(images)
        for layer in (self.random_brightness, self.random_contrast, self.random_saturation, self.random_hue):
            if layer is not None:
                images = layer.transform_images(images, layer.get_random_transformation(images))
        return self.compute(images)
