"""Activations as layers: Activation, ReLU, LeakyReLU, ELU, PReLU, Softmax; and a penalty on activations."""

from __future__ import annotations

from .. import activations, ops, regularizers
from .configured import Configured, keeps_shape, known, same_shape
from .input_spec import InputSpec


class Activation(Configured):
    """An activation function, by name or given, as a layer.

    >>> import kerasoft as ks
    >>> ks.layers.Activation("relu")(ks.ops.array([[-1.0, 2.0]])).tolist()
    [[0.0, 2.0]]
    """

    _stateless = True

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.keep(activation=activation)
        self.supports_masking = True

    def quick_shape(self, shape):
        return shape if keeps_shape(self.activation) else None

    def call(self, inputs):
        return self.activation(inputs)


class ReLU(Configured):
    """x above `threshold` (at most `max_value`), `negative_slope * (x - threshold)` below.

    Raises:
        ValueError: a negative argument.
    """

    _stateless = True

    def __init__(self, max_value=None, negative_slope=0.0, threshold=0.0, **kwargs):
        super().__init__(**kwargs)
        if max_value is not None and max_value < 0:
            raise ValueError(f"max_value of a ReLU layer cannot be a negative value. Received: max_value={max_value}")
        for name, value in (("negative_slope", negative_slope), ("threshold", threshold)):
            if value is None or value < 0:
                raise ValueError(f"{name} of a ReLU layer cannot be None or a negative value. Received: {name}={value}")
        self.keep(max_value=max_value, negative_slope=negative_slope, threshold=threshold)
        self.supports_masking = True

    quick_shape = same_shape

    def call(self, inputs):
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(Configured):
    """x, or `negative_slope * x` below 0.

    Raises:
        ValueError: `negative_slope` is None or negative.
    """

    _stateless = True

    def __init__(self, negative_slope=0.3, **kwargs):
        if "alpha" in kwargs:  # the name of Keras 2
            negative_slope = kwargs.pop("alpha")
        super().__init__(**kwargs)
        if negative_slope is None or negative_slope < 0:
            raise ValueError(
                "The negative_slope value of a Leaky ReLU layer cannot be None or negative value. "
                f"Expected a float. Received: negative_slope={negative_slope}"
            )
        self.keep(negative_slope=negative_slope)
        self.supports_masking = True

    quick_shape = same_shape

    def call(self, inputs):
        return activations.leaky_relu(inputs, self.negative_slope)


class ELU(Configured):
    """x, or `alpha * (exp(x) - 1)` below 0."""

    _stateless = True

    def __init__(self, alpha=1.0, **kwargs):
        super().__init__(**kwargs)
        self.keep(alpha=alpha)
        self.supports_masking = True

    quick_shape = same_shape

    def call(self, inputs):
        return activations.elu(inputs, self.alpha)


class PReLU(Configured):
    """x, or `alpha * x` below 0, with a learnt alpha per element.

    Args:
        shared_axes: axes along which one alpha serves all elements, e.g. [1, 2] for one a channel of an image.
    """

    def __init__(
        self,
        alpha_initializer="Zeros",
        alpha_regularizer=None,
        alpha_constraint=None,
        shared_axes=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if shared_axes is not None:
            shared_axes = list(shared_axes) if isinstance(shared_axes, (list, tuple)) else [shared_axes]
        self.keep(
            alpha_initializer=alpha_initializer,
            alpha_regularizer=alpha_regularizer,
            alpha_constraint=alpha_constraint,
            shared_axes=shared_axes,
        )
        self.supports_masking = True

    def build(self, input_shape):
        shared = set(self.shared_axes or ())
        sizes = {a: known(self, input_shape, a) for a in range(1, len(input_shape)) if a not in shared}
        self.alpha = self.weight("alpha", tuple(sizes.get(a, 1) for a in range(1, len(input_shape))))
        self.input_spec = InputSpec(ndim=len(input_shape), axes=sizes)

    quick_shape = same_shape

    def call(self, inputs):
        negative = ops.multiply(self.alpha, ops.minimum(inputs, 0.0))
        return ops.add(ops.relu(inputs), negative)


class Softmax(Configured):
    """Softmax over `axis` (an int, or a tuple for a joint softmax); where `mask` is False the result is 0."""

    _stateless = True

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.keep(axis=axis)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is not None:
            _check_broadcast(mask.shape, inputs.shape)
            if mask.dtype != "bool":
                mask = ops.greater(mask, 0.5)
            inputs = ops.where(mask, inputs, ops.full_like(inputs, -1e9))
        axes = self.axis if isinstance(self.axis, (list, tuple)) else [self.axis]
        if len(axes) == 1:
            result = ops.softmax(inputs, axis=axes[0])
        else:
            result = ops.exp(ops.subtract(inputs, ops.logsumexp(inputs, axis=tuple(axes), keepdims=True)))
        return result if mask is None else ops.where(mask, result, ops.zeros_like(result))


def _check_broadcast(mask, inputs):
    """
    Raises:
        ValueError: a mask of the one shape cannot be broadcast over inputs of the other.
    """
    pairs = zip(reversed(mask), reversed(inputs), strict=False)
    if len(mask) > len(inputs) or any(isinstance(m, int) and isinstance(n, int) and m not in (1, n) for m, n in pairs):
        raise ValueError(
            "The `mask` must be broadcastable to `inputs` and must not have more dimensions. Each mask dimension must be 1 or "
            f"match the corresponding input dimension. Received: inputs.shape={tuple(inputs)}, mask.shape={tuple(mask)}"
        )


class ActivityRegularization(Configured):
    """Gives its input back and adds ``l1 * sum(|x|) + l2 * sum(x²)``, divided by the batch size, to the loss."""

    _stateless = True

    def __init__(self, l1=0.0, l2=0.0, **kwargs):
        super().__init__(activity_regularizer=regularizers.L1L2(l1=l1, l2=l2), **kwargs)
        self.keep(l1=l1, l2=l2)
        self.supports_masking = True

    def call(self, inputs):
        return inputs

    def get_config(self):
        config = super().get_config()
        del config["activity_regularizer"]
        return config
