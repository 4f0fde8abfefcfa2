"""Normalisations of one row at a time: Layer-, Group-, RMS- and UnitNormalization."""

from __future__ import annotations

import warnings

from .. import ops
from ..compiler.ops import layer_normalization
from .configured import Configured, known, same_shape
from .input_spec import InputSpec


class LayerNormalization(Configured):
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta with statistics over `axis` of each row.

    Shapes: any -> the same; gamma and beta span the axes of `axis`.

    Args:
        axis: int or list of ints, not the batch.

    Source: Ba, Kiros & Hinton 2016.
    """

    def __init__(
        self,
        axis=-1,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        **kwargs,
    ):
        rms_scaling = kwargs.pop("rms_scaling", False)
        if rms_scaling:
            warnings.warn(
                "You passed `rms_scaling=True`, which is deprecated. Please use the `RMSNormalization` layer instead.",
                stacklevel=2,
            )
        super().__init__(**kwargs)
        if not isinstance(axis, (int, list, tuple)):
            raise TypeError(f"Expected an int or a list/tuple of ints for the argument 'axis', but received: {axis!r}")
        self.keep(
            axis=axis if isinstance(axis, int) else list(axis),
            epsilon=epsilon,
            center=center,
            scale=scale,
            rms_scaling=rms_scaling,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )
        self.supports_masking, self.autocast = True, False

    def build(self, input_shape):
        rank = len(input_shape)
        axes = sorted(a % rank for a in ([self.axis] if isinstance(self.axis, int) else self.axis) if -rank <= a < rank)
        if len(axes) != (1 if isinstance(self.axis, int) else len(self.axis)):
            raise ValueError(
                f"Axis {self.axis} is out of bounds for input shape {tuple(input_shape)}. Received: axis={self.axis}"
            )
        self.axis = [self.axis] if isinstance(self.axis, int) else sorted(self.axis)  # as in Keras's config
        shape = tuple(known(self, input_shape, a) for a in self.axis)  # -1 before 1, as in Keras
        self.gamma = self.weight("gamma", shape, autocast=False) if self.scale or self.rms_scaling else None
        self.beta = self.weight("beta", shape, autocast=False) if self.center and not self.rms_scaling else None

    quick_shape = same_shape

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        axes = tuple(sorted(a % len(x.shape) for a in self.axis))
        if axes == (len(x.shape) - 1,) and self.gamma is not None and self.beta is not None:
            y = layer_normalization.layer_norm(x, self.gamma, self.beta, self.epsilon)
            return ops.cast(y, self.compute_dtype)
        mean = ops.mean(x, axis=axes, keepdims=True)
        centred = ops.subtract(x, mean)
        variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
        y = ops.multiply(x if self.rms_scaling else centred, ops.rsqrt(ops.add(variance, self.epsilon)))
        broadcast = tuple(d if a in axes else 1 for a, d in enumerate(x.shape))
        if self.gamma is not None:
            y = ops.multiply(y, ops.reshape(self.gamma, broadcast))
        if self.beta is not None:
            y = ops.add(y, ops.reshape(self.beta, broadcast))
        return ops.cast(y, self.compute_dtype)


class GroupNormalization(Configured):
    """Layer normalisation of `groups` groups of channels at a time; gamma and beta span the channels.

    Args:
        groups: number of groups, dividing the channels; -1 means one per channel (instance normalisation).

    Source: Wu & He 2018.
    """

    def __init__(
        self,
        groups=32,
        axis=-1,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        **kwargs,
    ):
        if not isinstance(groups, int) or (groups <= 0 and groups != -1):
            raise ValueError(
                "Received an invalid value for argument `groups`, expected a positive integer (or `-1` for instance "
                f"normalization). Received: groups={groups}"
            )
        super().__init__(**kwargs)
        self.keep(
            groups=groups,
            axis=axis,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )
        self.supports_masking, self.autocast = True, False

    def build(self, input_shape):
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(
                f"Axis {self.axis} of input tensor should have a defined dimension but the layer received an input with "
                f"shape {tuple(input_shape)}."
            )
        if self.groups == -1:
            self.groups = channels  # as in Keras's config
        if channels < self.groups:
            raise ValueError(
                f"Number of groups ({self.groups}) cannot be more than the number of channels ({channels})."
            )
        if channels % self.groups:
            raise ValueError(
                f"Number of groups ({self.groups}) must be a multiple of the number of channels ({channels})."
            )
        self.gamma = self.weight("gamma", (channels,), autocast=False) if self.scale else None
        self.beta = self.weight("beta", (channels,), autocast=False) if self.center else None
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})

    def call(self, inputs):
        shape = tuple(inputs.shape)
        channel = self.axis % len(shape)
        grouped = (*shape[:channel], self.groups, shape[channel] // self.groups, *shape[channel + 1 :])
        x = ops.reshape(ops.cast(inputs, "float32"), grouped)
        axes = tuple(a for a in range(1, len(grouped)) if a != channel)
        centred = ops.subtract(x, ops.mean(x, axis=axes, keepdims=True))
        variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
        y = ops.reshape(ops.multiply(centred, ops.rsqrt(ops.add(variance, self.epsilon))), shape)
        broadcast = tuple(d if a == channel else 1 for a, d in enumerate(shape))
        if self.gamma is not None:
            y = ops.multiply(y, ops.reshape(self.gamma, broadcast))
        if self.beta is not None:
            y = ops.add(y, ops.reshape(self.beta, broadcast))
        return ops.cast(y, self.compute_dtype)


class RMSNormalization(Configured):
    """y = scale * x / sqrt(mean(x²) + epsilon), mean over `axis`.

    Source: Zhang & Sennrich 2019.
    """

    def __init__(self, axis=-1, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.keep(axis=axis, epsilon=epsilon)

    def build(self, input_shape):
        axes = [self.axis] if isinstance(self.axis, int) else list(self.axis)
        self.axis = sorted(axes)  # as in Keras's config
        shape = tuple(known(self, input_shape, a) for a in sorted(a % len(input_shape) for a in axes))
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones", autocast=False)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        axes = tuple(sorted(a % len(x.shape) for a in self.axis))
        power = ops.mean(ops.square(x), axis=axes, keepdims=True)
        broadcast = tuple(d if a in axes else 1 for a, d in enumerate(x.shape))
        y = ops.multiply(x, ops.rsqrt(ops.add(power, self.epsilon)))
        return ops.cast(ops.multiply(y, ops.reshape(self.scale, broadcast)), self.compute_dtype)


class UnitNormalization(Configured):
    """x divided by its length along `axis` (an int, or a list of ints for a joint length)."""

    _stateless = True

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(axis, (int, list, tuple)):
            raise TypeError(
                f"Invalid value for `axis` argument: expected an int or a list/tuple of ints. Received: axis={axis}"
            )
        self.keep(axis=axis if isinstance(axis, int) else list(axis))
        self.supports_masking = True

    def call(self, inputs):
        axes = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        power = ops.sum(ops.square(inputs), axis=axes, keepdims=True)
        return ops.multiply(inputs, ops.rsqrt(ops.maximum(power, 1e-12)))
