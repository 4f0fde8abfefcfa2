"""Rescaling: y = x * scale + offset."""

from __future__ import annotations

import numpy as np

from .. import ops
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
        return ops.add(ops.multiply(x, scale), offset)
