"""Chains of random changes: RandAugment, AugMix."""

from __future__ import annotations

import random as python_random

from ... import ops
from .base import ImageLayer
from .color import (
    RandomBrightness,
    RandomColorDegeneration,
    RandomContrast,
    RandomPosterization,
    Solarization,
)
from .filtering import RandomSharpness
from .geometry import RandomRotation, RandomShear, RandomTranslation
from .histogram import AutoContrast, Equalization

GEOMETRY_AND_TONES = (
    "random_shear", "random_translation", "random_rotation", "random_posterization", "solarization", "auto_contrast",
    "equalization",
)  # fmt: skip
COLORS = ("random_brightness", "random_color_degeneration", "random_contrast", "random_sharpness")


class Policy(ImageLayer):
    """Base of the layers that hold other image layers, one attribute each."""

    bounds, takes_factor = (0, 1), False
    names: tuple[str, ...]

    def make_layers(self, **kwargs):
        """Makes the layers in `names`, with this layer's factor and settings."""
        factor, given = self.factor, {"data_format": self.data_format, **kwargs}
        shared = {"seed": self.seed, **given}
        ranged = {"value_range": self.value_range, **shared}
        moved = {"interpolation": self.interpolation, **shared}
        plain = {"value_range": self.value_range, **given}
        makers = {
            "random_shear": lambda: RandomShear(x_factor=factor, y_factor=factor, **moved),
            "random_translation": lambda: RandomTranslation(height_factor=factor, width_factor=factor, **moved),
            "random_rotation": lambda: RandomRotation(factor=factor, **moved),
            "random_brightness": lambda: RandomBrightness(factor=factor, **ranged),
            "random_color_degeneration": lambda: RandomColorDegeneration(factor=factor, **ranged),
            "random_contrast": lambda: RandomContrast(factor=factor, **ranged),
            "random_sharpness": lambda: RandomSharpness(factor=factor, **ranged),
            "random_posterization": lambda: RandomPosterization(factor=max(1, int(8 * factor[1])), **ranged),
            "solarization": lambda: Solarization(addition_factor=factor, threshold_factor=factor, **ranged),
            "auto_contrast": lambda: AutoContrast(**plain),
            "equalization": lambda: Equalization(**plain),
        }
        for name in self.names:
            setattr(self, name, makers[name]())

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        return self._boxes(bounding_boxes, transformation) if training else bounding_boxes

    def _inner(self, name):
        """The layer, with this layer's bounding box format."""
        layer = getattr(self, name)
        layer.bounding_box_format = self.bounding_box_format
        return layer


class RandAugment(Policy):
    """Makes `num_ops` changes, drawn from eleven, to the images of a batch, in training.

    Args:
        value_range: least and greatest value of a channel.
        num_ops: changes one after the other.
        factor: strength of the changes, or (least, greatest), in [0, 1].

    Source: Cubuk et al. 2020.
    """

    names = (
        "random_shear", "random_translation", "random_rotation", "random_brightness", "random_color_degeneration",
        "random_contrast", "random_sharpness", "random_posterization", "solarization", "auto_contrast", "equalization",
    )  # fmt: skip

    def __init__(
        self,
        value_range=(0, 255),
        num_ops=2,
        factor=0.5,
        interpolation="bilinear",
        seed=None,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(
            value_range=value_range,
            num_ops=num_ops,
            factor=self.range_of("factor", factor),
            interpolation=interpolation,
        )
        self.keep_seed(seed)
        self.make_layers(dtype=self.dtype_policy)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        chosen = ops.cast(self.draw(data, seed).uniform_once(0, len(self.names), (self.num_ops,)), "int32")
        transforms = {
            name: getattr(self, name).get_random_transformation(data, training=training) for name in self.names
        }
        return {"transforms": transforms, "layer_idxes": chosen}

    def _each(self, value, transformation, change):
        """`value` after the chosen changes; `change(name, value)` makes one."""
        for i in range(self.num_ops):
            chosen, start = transformation["layer_idxes"][i], value
            for index, name in enumerate(self.names):
                value = ops.where(ops.equal(chosen, index), change(name, start), value)
        return value

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training:
            return images
        drawn = transformation["transforms"]
        change = lambda name, x: self.compute(getattr(self, name).transform_images(x, drawn[name]))
        return self._each(images, transformation, change)

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        if not training:
            return segmentation_masks
        drawn = transformation["transforms"]
        change = lambda name, x: getattr(self, name).transform_segmentation_masks(x, drawn[name])
        return self._each(segmentation_masks, transformation, change)

    def _boxes(self, boxes, transformation):
        for i in range(self.num_ops):
            chosen, start = transformation["layer_idxes"][i], boxes
            for index, name in enumerate(self.names):
                moved = self._inner(name).transform_bounding_boxes(start, transformation["transforms"][name])
                boxes = {k: ops.where(ops.equal(chosen, index), moved[k], boxes[k]) for k in boxes}
        return boxes


class AugMix(Policy):
    """Mixes each image with several chains of changes of it, in training.

    The changes of a chain are drawn by Python's `random` at every eager call, and from the layer's seed when a model is
    traced; their strength and the shares of the chains are drawn at every step.

    Args:
        value_range: least and greatest value of a channel.
        num_chains, chain_depth: chains, and changes in each.
        factor: strength of the changes, or (least, greatest), in [0, 1].
        alpha: parameter of the distributions of the shares.
        all_ops: whether changes of brightness, colour, contrast and sharpness are among them.

    Source: Hendrycks et al. 2020.
    """

    def __init__(
        self,
        value_range=(0, 255),
        num_chains=3,
        chain_depth=3,
        factor=0.3,
        alpha=1.0,
        all_ops=True,
        interpolation="bilinear",
        seed=None,
        data_format=None,
        **kwargs,
    ):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(
            value_range=value_range,
            num_chains=num_chains,
            chain_depth=chain_depth,
            factor=self.range_of("factor", factor),
            alpha=alpha,
            all_ops=all_ops,
            interpolation=interpolation,
        )
        self.keep_seed(seed)
        self.names = GEOMETRY_AND_TONES + (COLORS if all_ops else ())
        self.make_layers(dtype=self.dtype_policy)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw = self.draw(data, seed)
        shares, own = draw.gamma_once(self.alpha, (self.num_chains,)), draw.gamma_once(self.alpha, (2,))
        # A trace must come out the same in every process that makes it, also in one that resumes a training.
        chooser = python_random.Random(f"{self.seed} {draw.salt()}") if draw.traced else python_random
        chains = []
        for _ in range(self.num_chains):
            chosen = [chooser.choice([*self.names, None]) for _ in range(self.chain_depth)]
            chains.append(
                [(name, getattr(self, name).get_random_transformation(data)) for name in chosen if name is not None]
            )
        return {
            "chain_mixing_weights": shares / ops.sum(shares),
            "weight_sample": own[0] / ops.sum(own),
            "chain_transforms": chains,
        }

    def _mixed(self, value, transformation, change):
        total = ops.zeros_like(value)
        for index, chain in enumerate(transformation["chain_transforms"]):
            changed = value
            for name, drawn in chain:
                changed = change(name, changed, drawn)
            total = total + changed * self.compute(transformation["chain_mixing_weights"][index])
        own = self.compute(transformation["weight_sample"])
        return own * value + (1.0 - own) * total

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training:
            return images
        change = lambda name, x, drawn: self.compute(getattr(self, name).transform_images(x, drawn))
        return ops.clip(self._mixed(images, transformation, change), *self.value_range)

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        if not training:
            return segmentation_masks
        change = lambda name, x, drawn: getattr(self, name).transform_segmentation_masks(x, drawn)
        return self._mixed(self.compute(segmentation_masks), transformation, change)

    def _boxes(self, boxes, transformation):
        return boxes
