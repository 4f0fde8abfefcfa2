"""Rescaling: y = x * scale + offset."""

from __future__ import annotations

import numpy as np

from .. import config, ops
from ..saving.serialization import deserialize_keras_object, serialize_keras_object
from .configured import Configured


class Rescaling(Configured):
    """x times `scale` plus `offset`; numbers, or lists of one number a channel.

    >>> import kerasoft as ks
    >>> ks.layers.Rescaling(1 / 255)(ks.ops.array([[0.0, 255.0]])).tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, scale, offset=0.0, **kwargs):
        super().__init__(**kwargs)
        self.keep(scale=scale, offset=offset)
        self.supports_masking = True

    def call(self, inputs):
        x = ops.cast(inputs, self.compute_dtype)
        scale, offset = (np.asarray(v, self.compute_dtype) for v in (self.scale, self.offset))
        if scale.ndim and config.image_data_format() == "channels_first":
            scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))
        return ops.add(ops.multiply(x, scale), offset)

    def get_config(self):
        arrays = {"scale": self.scale, "offset": self.offset}
        return {**super().get_config(), **{name: serialize_keras_object(value) for name, value in arrays.items()}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        arrays = {name: deserialize_keras_object(config[name]) for name in ("scale", "offset") if name in config}
        return super().from_config({**config, **arrays})
