"""Layers that mix the images of a batch: CutMix, MixUp. They need whole batches, as batch statistics do."""

from __future__ import annotations

from ... import ops
from .base import ImageLayer, per_image
from .filtering import box_of, inside


def _mixed_labels(labels, weight, order):
    weight = ops.reshape(weight, (weight.shape[0], *(1,) * (len(labels.shape) - 1)))
    labels = ops.cast(labels, "float32")
    return weight * labels + (1.0 - weight) * ops.take(labels, order, axis=0)


class CutMix(ImageLayer):
    """Puts a rectangle of another image of the batch into each image, in training; labels are mixed by area.

    Args:
        factor: greatest parameter of the beta distribution of the areas, or (least, greatest), in [0, 1].

    Source: Yun et al. 2019.
    """

    bounds, takes_factor = (0, 1), False

    def __init__(self, factor=1.0, seed=None, data_format=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(factor=self.range_of("factor", factor))
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        images = data["images"] if isinstance(data, dict) else data
        if not training or len(images.shape) == 3:
            return None
        draw, (height, width) = self.draw(data, seed), self.lengths(data)
        weight = draw.beta(draw.uniform_once(*self.factor) + 1e-6)
        ratio = ops.sqrt(1.0 - weight)
        x0, x1, y0, y1 = box = box_of(draw, ratio, ratio, height, width)
        return {
            "permutation_order": draw.order(),
            "batch_masks": inside(images, *box, axis=self.channel_axis),
            "mix_weight": 1.0 - (x1 - x0) * (y1 - y0) / (width * height),
        }

    def transform_images(self, images, transformation=None, training=True):
        images = self.compute(images)
        if not training or transformation is None:
            return images
        others = ops.take(images, transformation["permutation_order"], axis=0)
        return ops.where(transformation["batch_masks"], others, images)

    def transform_labels(self, labels, transformation=None, training=True):
        if not training or transformation is None:
            return labels
        return _mixed_labels(labels, transformation["mix_weight"], transformation["permutation_order"])

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.transform_images(segmentation_masks, transformation, training)

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        raise NotImplementedError("CutMix does not mix bounding boxes")


class MixUp(ImageLayer):
    """Mixes each image, and its labels, with another of the batch, in training.

    Args:
        alpha: both parameters of the beta distribution of an image's own share.

    Source: Zhang et al. 2018.
    """

    def __init__(self, alpha=0.2, data_format=None, seed=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(alpha=alpha)
        self.keep_seed(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        draw = self.draw(data, seed)
        return {"mix_weight": draw.beta(float(self.alpha)), "permutation_order": draw.order()}

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        return self._mixed(self.compute(images), transformation)

    def _mixed(self, images, transformation):
        weight = ops.cast(per_image(transformation["mix_weight"]), images.dtype)
        others = ops.take(images, transformation["permutation_order"], axis=0)
        return weight * images + (1.0 - weight) * others

    def transform_labels(self, labels, transformation=None, training=True):
        if not training:
            return labels
        return _mixed_labels(labels, transformation["mix_weight"], transformation["permutation_order"])

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self._mixed(self.compute(segmentation_masks), transformation) if training else segmentation_masks

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        if not training:
            return bounding_boxes
        order = transformation["permutation_order"]
        return {
            name: ops.concatenate([bounding_boxes[name], ops.take(bounding_boxes[name], order, axis=0)], axis=1)
            for name in ("boxes", "labels")
        }
