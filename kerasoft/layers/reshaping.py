"""Layers that only rearrange elements: Flatten, Reshape, Permute, RepeatVector, Identity."""

from __future__ import annotations

import math

from .. import ops
from .configured import Configured, data_format_of
from .input_spec import InputSpec


class Identity(Configured):
    """Gives its input back."""

    _stateless = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.keep()
        self.supports_masking = True

    def call(self, inputs):
        return inputs


class Flatten(Configured):
    """All axes but the batch as one, in row-major order.

    Shapes: (batch, a, b, ...) -> (batch, a*b*...); (batch,) -> (batch, 1).

    >>> import kerasoft as ks
    >>> ks.layers.Flatten()(ks.Input((28, 28, 1))).shape
    (None, 784)
    """

    def __init__(self, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.keep(data_format=data_format_of(data_format))
        self.input_spec = InputSpec(min_ndim=1)

    def call(self, inputs):
        rank = len(inputs.shape)
        if self.data_format == "channels_first" and rank > 1:
            inputs = ops.transpose(inputs, (0, *range(2, rank), 1))
        return ops.reshape(inputs, (inputs.shape[0], math.prod(inputs.shape[1:])))


class Reshape(Configured):
    """The same elements in another shape; the batch axis stays.

    Args:
        target_shape: shape without the batch; one entry may be -1.

    Raises:
        ValueError: the sizes do not fit; more than one -1.
    """

    def __init__(self, target_shape, **kwargs):
        super().__init__(**kwargs)
        target_shape = tuple(target_shape)
        if target_shape.count(-1) > 1:
            raise ValueError(
                f"There must be at most one unknown dimension in target_shape. Received: target_shape={target_shape}."
            )
        if any(d is not None and d < -1 for d in target_shape):
            raise ValueError(
                "Each entry of `target_shape` must be a non-negative integer, or -1 for a size that follows. "
                f"Received: target_shape={target_shape}"
            )
        self.keep(target_shape=target_shape)

    def call(self, inputs):
        have, want = math.prod(inputs.shape[1:]), math.prod(d for d in self.target_shape if d != -1)
        if isinstance(have, int) and (have % max(want, 1) if -1 in self.target_shape else have != want):
            raise ValueError(
                "The total size of the tensor must be unchanged. Received: "
                f"input_shape={tuple(inputs.shape[1:])}, target_shape={self.target_shape} (layer '{self.name}')"
            )
        shape = tuple(have // want if d == -1 else d for d in self.target_shape)
        return ops.reshape(inputs, (inputs.shape[0], *shape))


class Permute(Configured):
    """Axes in another order; `dims` counts from 1 (the batch is axis 0 and stays).

    Raises:
        ValueError: `dims` is no permutation of 1..n.
    """

    def __init__(self, dims, **kwargs):
        super().__init__(**kwargs)
        dims = tuple(dims)
        if sorted(dims) != list(range(1, len(dims) + 1)):
            raise ValueError(
                "Invalid permutation argument `dims` for Permute Layer. The set of indices in `dims` must be "
                f"consecutive and start from 1. Received dims={dims}"
            )
        self.keep(dims=dims)
        self.input_spec = InputSpec(ndim=len(dims) + 1)

    def call(self, inputs):
        return ops.transpose(inputs, (0, *self.dims))


class RepeatVector(Configured):
    """A vector repeated `n` times.

    Shapes: (batch, features) -> (batch, n, features).
    """

    def __init__(self, n, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(n, int):
            raise TypeError(f"Expected an integer value for `n`, got {type(n)}.")
        if n <= 0:
            raise ValueError(f"Argument `n` should be a positive integer. Received: n={n}")
        self.keep(n=n)
        self.input_spec = InputSpec(ndim=2)

    def call(self, inputs):
        batch, features = inputs.shape
        return ops.broadcast_to(ops.expand_dims(inputs, 1), (batch, self.n, features))
