"""MaxNumBoundingBoxes: the same number of boxes for each image."""

from __future__ import annotations

from ... import ops
from .base import ImageLayer


class MaxNumBoundingBoxes(ImageLayer):
    """Cuts or fills the boxes of each image up to `max_number`; images stay as they are.

    Args:
        fill_value: coordinates and label of the boxes that are added.
    """

    def __init__(self, max_number, fill_value=-1, **kwargs):
        super().__init__(**kwargs)
        self.keep(max_number=int(max_number))
        self.fill_value = int(fill_value)

    def transform_images(self, images, transformation=None, training=True):
        return images

    def transform_bounding_boxes(self, bounding_boxes, transformation=None, training=True):
        result = dict(bounding_boxes)
        for name in ("boxes", "labels"):
            value = bounding_boxes[name][:, : self.max_number]
            missing = self.max_number - value.shape[1]
            pads = [(0, 0), (0, missing)] + [(0, 0)] * (len(value.shape) - 2)
            result[name] = ops.pad(value, tuple(pads), constant_values=self.fill_value)
        return result
