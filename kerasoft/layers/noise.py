"""Random layers: Dropout, SpatialDropout, GaussianNoise, GaussianDropout, AlphaDropout. They act in training only.

A row's draws depend on the step's key, on the row's id and on the layer, never on the rows beside it: the same in a
local fit and on any number of workers.
"""

from __future__ import annotations

import math

from .. import ops
from ..compiler.ops import random
from ..scope import current_scope
from .configured import Configured, data_format_of, same_shape
from .input_spec import InputSpec


def row_ids(x):
    """One id (uint32) for each row of `x`: the data set's row ids; if `x` holds several rows for each, then distinct ones.

    Raises:
        ValueError: the scope has no row ids and no key.
    """
    scope = current_scope()
    if scope is None or scope.row_id is None or scope.key is None:
        raise ValueError("a random layer was called in training where no random key and row ids are given")
    rows, count = scope.row_id.shape[0], x.shape[0]
    if rows is count or rows == count:
        return scope.row_id
    times = count // rows
    if times * rows == count and isinstance(times, int):
        return spread_row_ids(scope.row_id, times)
    scope.exact_rows = scope.couples_rows = True  # rows were mixed: a row's draws hang on its place in the batch
    return ops.cast(ops.arange(count), "uint32")


def spread_row_ids(row_id, times):
    """Ids for `times` parts of each row, next to each other."""
    rows = row_id.shape[0]
    parts = ops.multiply(ops.cast(ops.arange(times), "uint32"), ops.cast(40503, "uint32"))
    ids = ops.add(ops.multiply(ops.expand_dims(row_id, 1), ops.cast(2654435, "uint32")), ops.expand_dims(parts, 0))
    return ops.reshape(ids, (rows * times,))


def salt_of(seed):
    """A number that tells this draw from the step's others; another one for another `seed`."""
    salt = current_scope().next_salt()
    return salt if seed is None else (salt + 7919 * (int(seed) + 1)) % 2**31


def dropout_mask(x, rate, seed, shape=None):
    """Factors for `x`: 0 with probability `rate`, else 1 / (1 - rate). `shape` is the noise shape, as in `Dropout`."""
    sizes = x.shape if shape is None else tuple(d if n is None else n for n, d in zip(shape, x.shape, strict=True))
    if rate >= 1.0:
        return ops.zeros_like(x)
    if shape is not None and shape[0] == 1:
        keep = random.bernoulli(current_scope().key, 1.0 - rate, salt=salt_of(seed), shape=sizes)
    else:
        ids = row_ids(x)
        keep = random.bernoulli_rows(current_scope().key, ids, 1.0 - rate, salt=salt_of(seed), shape=sizes[1:])
    return ops.multiply(ops.cast(keep, x.dtype), 1.0 / (1.0 - rate))


def normal_noise(x, stddev, seed):
    """Normal numbers of mean 0 in the shape of `x`."""
    ids = row_ids(x)
    noise = random.normal_rows(current_scope().key, ids, salt=salt_of(seed), shape=x.shape[1:], stddev=stddev)
    return ops.cast(noise, x.dtype)


class Noise(Configured):
    """Base of the layers that act in training only: `disturb` there, the input elsewhere."""

    _stateless = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def keep_rate(self, rate, seed):
        """Checks and keeps a rate.

        Raises:
            ValueError: not in [0, 1].
        """
        if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ValueError(
                "Invalid value received for argument `rate`. Expected a float value between 0 and 1. "
                f"Received: rate={rate}"
            )
        self.keep(rate=rate, seed=seed)

    quick_shape = same_shape

    def call(self, inputs, training=False):
        return self.disturb(inputs) if training else inputs

    def disturb(self, inputs):
        raise NotImplementedError


class Dropout(Noise):
    """Sets a fraction `rate` of the elements to 0 in training and divides the others by 1 - rate.

    Args:
        rate: 0 to 1.
        noise_shape: shape of the mask, which is broadcast over the input; None stands for the input's size.
        seed: an int gives other masks than None or another int.

    Source: Srivastava et al. 2014.

    >>> import kerasoft as ks
    >>> ks.layers.Dropout(0.5)(ks.ops.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.keep_rate(rate, seed)
        self.keep(noise_shape=_checked_shape(noise_shape))

    def quick_shape(self, shape):
        return shape if getattr(self, "noise_shape", None) is None else None

    def disturb(self, inputs):
        if self.rate == 0:
            return inputs
        return ops.multiply(inputs, dropout_mask(inputs, self.rate, self.seed, self.mask_shape(inputs)))

    def mask_shape(self, inputs):
        if self.noise_shape is not None and len(self.noise_shape) != len(inputs.shape):
            raise ValueError(
                f"Argument `noise_shape` of Dropout '{self.name}' must have one entry for each axis of the input, "
                f"{len(inputs.shape)}. Received: noise_shape={self.noise_shape}"
            )
        return self.noise_shape


def _checked_shape(shape):
    """
    Raises:
        ValueError: no sequence of positive ints and Nones.
    """
    if shape is None:
        return None
    wrong = "Invalid value received for argument `noise_shape`. Expected"
    if isinstance(shape, str) or not hasattr(shape, "__iter__"):
        raise ValueError(f"{wrong} a tuple or list of integers. Received: noise_shape={shape}")
    for i, size in enumerate(shape):
        if size is not None and not isinstance(size, int):
            raise ValueError(
                f"{wrong} all elements to be integers or None. "
                f"Received element at index {i}: {size} (type: {type(size).__name__})"
            )
        if size is not None and size <= 0:
            raise ValueError(
                f"{wrong} all dimensions to be positive integers or None. "
                f"Received negative or zero value at index {i}: {size}"
            )
    return tuple(shape)


class SpatialDropout(Dropout):
    """Base of SpatialDropout1D/2D/3D: drops whole channels."""

    rank: int

    def __init__(self, rate, data_format=None, seed=None, name=None, dtype=None, **kwargs):
        super().__init__(rate, seed=seed, name=name, dtype=dtype, **kwargs)
        self._kept = ("rate", "seed")
        if self.rank > 1:
            self.keep(data_format=data_format_of(data_format))
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def get_config(self):
        config = super().get_config()
        del config["trainable"]  # Keras's constructor does not take it
        config["dtype"] = self.dtype
        return config

    def mask_shape(self, inputs):
        if getattr(self, "data_format", None) == "channels_first":
            return (None, None, *(1,) * self.rank)
        return (None, *(1,) * self.rank, None)


class SpatialDropout1D(SpatialDropout):
    """Drops whole channels of sequences (batch, steps, channels) in training."""

    rank = 1

    def __init__(self, rate, seed=None, name=None, dtype=None, **kwargs):
        super().__init__(rate, None, seed, name, dtype, **kwargs)


class SpatialDropout2D(SpatialDropout):
    """Drops whole channels of images in training."""

    rank = 2


class SpatialDropout3D(SpatialDropout):
    """Drops whole channels of volumes in training."""

    rank = 3


class GaussianNoise(Noise):
    """Adds normal noise of standard deviation `stddev` in training.

    Raises:
        ValueError: `stddev` is negative.
    """

    def __init__(self, stddev, seed=None, **kwargs):
        super().__init__(**kwargs)
        if stddev < 0:
            raise ValueError(
                "Invalid value received for argument `stddev`. Expected a float value between 0 and 1. "
                f"Received: stddev={stddev}"
            )
        self.keep(stddev=stddev, seed=seed)

    def disturb(self, inputs):
        return ops.add(inputs, normal_noise(inputs, self.stddev, self.seed)) if self.stddev else inputs


class GaussianDropout(Noise):
    """Multiplies by normal noise of mean 1 and standard deviation sqrt(rate / (1 - rate)) in training."""

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.keep_rate(rate, seed)

    def disturb(self, inputs):
        if not 0 < self.rate < 1:
            return inputs
        noise = normal_noise(inputs, math.sqrt(self.rate / (1.0 - self.rate)), self.seed)
        return ops.multiply(inputs, ops.add(noise, 1.0))


class AlphaDropout(Dropout):
    """Dropout that keeps mean and variance of activations after `selu`: drops to its negative limit and rescales.

    Source: Klambauer et al. 2017.
    """

    def disturb(self, inputs):
        if self.rate == 0:
            return inputs
        limit = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
        keep = ops.greater(dropout_mask(inputs, self.rate, self.seed, self.mask_shape(inputs)), 0)
        kept = ops.where(keep, inputs, ops.full_like(inputs, limit))
        gain = ((1 - self.rate) * (1 + self.rate * limit**2)) ** -0.5 if self.rate < 1 else 0.0
        return ops.add(ops.multiply(kept, gain), -gain * limit * self.rate)
