"""BatchNormalization: y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, statistics over the batch."""

from __future__ import annotations

from .. import ops
from ..compiler.ops.collective import all_reduce
from ..compiler.ops.normalization import batch_norm
from ..scope import current_scope
from .batch_renormalization import build_renormalization, checked_clipping, renormalized
from .configured import Configured, known, same_shape
from .input_spec import InputSpec


class BatchNormalization(Configured):
    """Normalises each channel by the statistics of the batch (in training) or by their moving averages.

    In training the moving averages become ``moving * momentum + batch * (1 - momentum)``; the batch variance is the
    biased one (divided by the number of elements). Padding rows and masked steps count for nothing. In a distributed
    fit the statistics are those of one shard, as those of one replica in Keras; with `synchronized` they are those of
    the whole global batch, at the price of one small sum over the workers in each direction.

    Shapes: any -> the same.

    Args:
        axis: the channels.
        momentum: how much of the moving averages stays, 0 to 1.
        epsilon: added to the variance.
        center, scale: whether beta is added, whether gamma multiplies.
        synchronized: whether statistics are taken over the global batch.
        renorm: whether the batch's statistics are corrected towards moving ones, see `batch_renormalization`;
            `renorm_clipping` bounds the corrections, `renorm_momentum` is the moving statistics' momentum.

    Source: Ioffe & Szegedy 2015.

    >>> import kerasoft as ks, numpy as np
    >>> layer = ks.layers.BatchNormalization(momentum=0.5)
    >>> y = layer(np.float32([[1.0], [3.0]]), training=True)
    >>> layer.moving_mean.numpy().tolist(), layer.moving_variance.numpy().tolist()
    ([1.0], [1.0])
    """

    def __init__(
        self,
        axis=-1,
        momentum=0.99,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        moving_mean_initializer="zeros",
        moving_variance_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        renorm=False,
        renorm_clipping=None,
        renorm_momentum=0.99,
        synchronized=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.keep(
            axis=int(axis),
            momentum=float(momentum),
            epsilon=float(epsilon),
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
            renorm=renorm,
            renorm_clipping=checked_clipping(renorm_clipping) if renorm else renorm_clipping,
            renorm_momentum=renorm_momentum,
            synchronized=synchronized,
        )
        self.supports_masking = True

    def build(self, input_shape):
        rank = len(input_shape)
        if not -rank <= self.axis < rank:
            raise ValueError(
                f"Axis {self.axis} is out of bounds for input shape {tuple(input_shape)}. Received: axis={self.axis}"
            )
        channels = known(self, input_shape, self.axis)
        self.gamma = self.weight("gamma", (channels,), autocast=False) if self.scale else None
        self.beta = self.weight("beta", (channels,), autocast=False) if self.center else None
        self.moving_mean = self.weight("moving_mean", (channels,), trainable=False, autocast=False)
        self.moving_variance = self.weight("moving_variance", (channels,), trainable=False, autocast=False)
        if self.renorm:
            build_renormalization(self, channels)
        self.input_spec = InputSpec(ndim=rank, axes={self.axis: channels})

    quick_shape = same_shape

    def call(self, inputs, training=None, mask=None):
        if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
            raise ValueError(
                "The mask provided should be one dimension less than the inputs. Received: "
                f"mask.shape={tuple(mask.shape)}, inputs.shape={tuple(inputs.shape)}"
            )
        x = ops.cast(inputs, "float32")
        channel = self.axis % len(x.shape)
        broadcast = tuple(d if a == channel else 1 for a, d in enumerate(x.shape))
        is_last = channel == len(x.shape) - 1
        corrections = None
        if training and self.trainable and mask is None and not self.synchronized and not self.renorm and is_last:
            return ops.cast(self.normalised(x), self.compute_dtype)
        if training and self.trainable:
            mean, variance = self.statistics(x, mask, channel, broadcast)
            if self.renorm:
                corrections = renormalized(self, mean, variance)
            else:
                self.follow(mean, variance)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        y = ops.subtract(x, ops.reshape(mean, broadcast))
        y = ops.multiply(y, ops.reshape(ops.rsqrt(ops.add(variance, self.epsilon)), broadcast))
        if corrections is not None:
            r, d = corrections
            y = ops.add(ops.multiply(y, ops.reshape(r, broadcast)), ops.reshape(d, broadcast))
        if self.gamma is not None:
            y = ops.multiply(y, ops.reshape(self.gamma, broadcast))
        if self.beta is not None:
            y = ops.add(y, ops.reshape(self.beta, broadcast))
        return ops.cast(y, self.compute_dtype)

    def follow(self, mean, variance):
        """Moves the moving statistics towards a batch's."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept = ops.multiply(ops.cast(moving, "float32"), self.momentum)
            moving.assign(ops.add(kept, ops.multiply(batch, 1.0 - self.momentum)))

    def normalised(self, x):
        """`x` normalised by its own statistics, channels last, as one op with one gradient."""
        scope = current_scope()
        scope.couples_rows = True
        channels = x.shape[-1:]
        gamma = ops.ones(channels) if self.gamma is None else self.gamma
        beta = ops.zeros(channels) if self.beta is None else self.beta
        y, mean, variance = batch_norm(x, gamma, beta, scope.valid, self.epsilon)
        self.follow(mean, variance)
        return y

    def statistics(self, x, mask, channel, broadcast):
        """Mean and biased variance of each channel over the elements that count, two float32[channels]."""
        scope = current_scope()
        scope.couples_rows = scope.couples_rows or not self.synchronized
        axes = tuple(a for a in range(len(x.shape)) if a != channel)
        weight = _weight(x, mask, scope.valid)
        if not self.synchronized and weight is None:
            mean = ops.mean(x, axis=axes)
            return mean, ops.mean(ops.square(ops.subtract(x, ops.reshape(mean, broadcast))), axis=axes)
        # Sums of x less the moving mean: one round over the workers suffices, and nothing cancels once it is near.
        shift = ops.reshape(ops.stop_gradient(self.moving_mean), broadcast)
        shifted = ops.subtract(x, shift)
        weight = ops.ones_like(x) if weight is None else weight
        sums = [
            ops.sum(ops.multiply(shifted, weight), axis=axes),
            ops.sum(ops.multiply(ops.square(shifted), weight), axis=axes),
            ops.sum(ops.multiply(weight, ops.ones_like(x)), axis=axes),
        ]
        if self.synchronized:
            total, squares, count = (all_reduce(s) for s in sums)
        else:
            total, squares, count = sums
        count = ops.maximum(count, 1.0)
        offset = ops.divide(total, count)
        variance = ops.subtract(ops.divide(squares, count), ops.square(offset))
        return ops.add(offset, ops.reshape(shift, offset.shape)), ops.maximum(variance, 0.0)


def _weight(x, mask, valid):
    """1 for elements that count and 0 for padding and masked ones, broadcast over `x`; None when all count."""
    rank = len(x.shape)
    weight = None
    if mask is not None:
        weight = ops.expand_dims(ops.cast(ops.cast(mask, "bool"), "float32"), -1)
    if valid is not None:
        rows = ops.reshape(valid, (x.shape[0],) + (1,) * (rank - 1))
        weight = rows if weight is None else ops.multiply(weight, rows)
    return weight
