"""Pooling over windows and over all steps: Max/AveragePooling, GlobalMax/AveragePooling."""

from __future__ import annotations

from .. import dtypes, ops
from .configured import Configured, data_format_of, ints, padding_of, window_shape
from .input_spec import InputSpec


class Pooling(Configured):
    """Base of the window poolings.

    Shapes: (batch, *spatial, channels) -> the same with spatial sizes (n - pool) // stride + 1 (``"valid"``) or
    ceil(n / stride) (``"same"``: padding counts neither for the maximum nor for the mean).

    Args:
        pool_size: int or one int for each spatial axis.
        strides: the same; None means `pool_size`.
        padding: ``"valid"`` or ``"same"``.
        data_format: ``"channels_last"`` or ``"channels_first"``.
    """

    _stateless = True

    rank: int

    def __init__(self, pool_size, strides=None, padding="valid", data_format=None, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        pool_size = ints("pool_size", pool_size, self.rank)
        self.keep(
            pool_size=pool_size,
            padding=padding_of(padding),
            strides=pool_size if strides is None else ints("strides", strides, self.rank),
            data_format=data_format_of(data_format),
        )
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def quick_shape(self, shape):
        return window_shape(self, shape, self.pool_size, None)

    def call(self, inputs):
        if not isinstance(self, _Max) and not dtypes.is_float(inputs.dtype):
            inputs = ops.cast(inputs, self.compute_dtype)
        pool = ops.max_pool if isinstance(self, _Max) else ops.average_pool
        return pool(inputs, self.pool_size, self.strides, self.padding, self.data_format)


class _Max:
    """Marks the poolings that take the maximum."""


class MaxPooling(_Max, Pooling):
    """Base of MaxPooling1D/2D/3D."""

    def __init__(self, pool_size=2, strides=None, padding="valid", data_format=None, name=None, **kwargs):
        super().__init__(pool_size, strides, padding, data_format, name, **kwargs)


class MaxPooling1D(MaxPooling):
    """Maximum of each window of steps."""

    rank = 1


class MaxPooling2D(MaxPooling):
    """Maximum of each window of pixels.

    >>> import kerasoft as ks
    >>> ks.layers.MaxPooling2D()(ks.Input((28, 28, 3))).shape
    (None, 14, 14, 3)
    """

    rank = 2
    DEFAULTS = {"pool_size": (2, 2)}


class MaxPooling3D(MaxPooling):
    """Maximum of each window of a volume."""

    rank = 3
    DEFAULTS = {"pool_size": (2, 2, 2)}


class AveragePooling1D(Pooling):
    """Mean of each window of steps."""

    rank = 1


class AveragePooling2D(Pooling):
    """Mean of each window of pixels."""

    rank = 2


class AveragePooling3D(Pooling):
    """Mean of each window of a volume."""

    rank = 3


class GlobalPooling(Configured):
    """Base of the poolings over all steps or pixels.

    Shapes: (batch, *spatial, channels) -> (batch, channels), or (batch, 1, ..., channels) with `keepdims`.
    """

    _stateless = True

    rank: int

    def __init__(self, data_format=None, keepdims=False, **kwargs):
        super().__init__(**kwargs)
        self.keep(data_format=data_format_of(data_format), keepdims=keepdims)
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def axes(self) -> tuple[int, ...]:
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.rank))

    def call(self, inputs):
        reduce = ops.max if isinstance(self, _Max) else ops.mean
        return reduce(inputs, axis=self.axes(), keepdims=self.keepdims)


class GlobalMaxPooling1D(_Max, GlobalPooling):
    """Maximum over all steps."""

    rank = 1


class GlobalMaxPooling2D(_Max, GlobalPooling):
    """Maximum over all pixels."""

    rank = 2


class GlobalMaxPooling3D(_Max, GlobalPooling):
    """Maximum over all cells of a volume."""

    rank = 3


class GlobalAveragePooling1D(GlobalPooling):
    """Mean over the steps; with a mask over the valid ones (a row without any is NaN, as in Keras)."""

    rank = 1

    def __init__(self, data_format=None, keepdims=False, **kwargs):
        super().__init__(data_format, keepdims, **kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            return super().call(inputs)
        (steps,) = self.axes()
        weight = ops.expand_dims(ops.cast(mask, inputs.dtype), 2 if steps == 1 else 1)
        total = ops.sum(ops.multiply(inputs, weight), axis=steps, keepdims=self.keepdims)
        return ops.divide(total, ops.sum(weight, axis=steps, keepdims=self.keepdims))

    def compute_mask(self, inputs, mask=None):
        return None


class GlobalAveragePooling2D(GlobalPooling):
    """Mean over all pixels."""

    rank = 2


class GlobalAveragePooling3D(GlobalPooling):
    """Mean over all cells of a volume."""

    rank = 3


class AdaptivePooling(Configured):
    """Base of the poolings to a given number of windows, which cover each spatial axis.

    Shapes: (batch, *spatial, channels) -> (batch, *output_size, channels).

    Args:
        output_size: int or one int for each spatial axis.
        data_format: ``"channels_last"`` or ``"channels_first"``.
    """

    rank: int

    def __init__(self, output_size, data_format=None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(output_size, int):
            output_size = (output_size,) * self.rank
        if not isinstance(output_size, (tuple, list)):
            raise TypeError(
                f"`output_size` must be an integer or tuple of {self.rank} integers. "
                f"Received: {output_size} of type {type(output_size)}"
            )
        if len(output_size) != self.rank:
            kind = ValueError if self.rank == 1 else TypeError
            raise kind(
                f"For {self.rank}D input, `output_size` tuple must have length {self.rank}. Received: {output_size}"
            )
        self.keep(output_size=tuple(output_size), data_format=data_format_of(data_format))

    def call(self, inputs):
        pool = ops.adaptive_max_pool if isinstance(self, _Max) else ops.adaptive_average_pool
        return pool(inputs, self.output_size, self.data_format)


class AdaptiveAveragePooling1D(AdaptivePooling):
    """Means of windows of steps."""

    rank = 1


class AdaptiveAveragePooling2D(AdaptivePooling):
    """Means of windows of pixels.

    >>> import kerasoft as ks
    >>> ks.layers.AdaptiveAveragePooling2D(2)(ks.Input((7, 5, 3))).shape
    (None, 2, 2, 3)
    """

    rank = 2


class AdaptiveAveragePooling3D(AdaptivePooling):
    """Means of windows of a volume."""

    rank = 3


class AdaptiveMaxPooling1D(_Max, AdaptivePooling):
    """Maxima of windows of steps."""

    rank = 1


class AdaptiveMaxPooling2D(_Max, AdaptivePooling):
    """Maxima of windows of pixels."""

    rank = 2


class AdaptiveMaxPooling3D(_Max, AdaptivePooling):
    """Maxima of windows of a volume."""

    rank = 3
