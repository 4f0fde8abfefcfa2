"""SpectralNormalization: the wrapped layer's kernel divided by its largest singular value, in training."""

from __future__ import annotations

from .. import initializers, ops
from .input_spec import InputSpec
from .time_distributed import Wrapper


class SpectralNormalization(Wrapper):
    """Divides the kernel (or the embeddings) of `layer` by its spectral norm at each call in training.

    The norm is followed by power iteration on a vector that is kept between calls.

    Args:
        layer: a layer with a `kernel` or `embeddings`.
        power_iterations: rounds of the power iteration at each call, at least 1.

    Raises:
        ValueError: `power_iterations` is below 1; the layer has neither.

    Source: Miyato et al. 2018.
    """

    def __init__(self, layer, power_iterations=1, **kwargs):
        super().__init__(layer, **kwargs)
        if power_iterations <= 0:
            raise ValueError(
                f"`power_iterations` should be greater than zero. Received: `power_iterations={power_iterations}`"
            )
        self.keep(power_iterations=power_iterations)

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = InputSpec(min_ndim=1, axes={-1: input_shape[-1]})
        name = next((n for n in ("kernel", "embeddings") if hasattr(self.layer, n)), None)
        if name is None:
            raise ValueError(f"{type(self.layer).__name__} object has no attribute 'kernel' nor 'embeddings'")
        self.kernel = getattr(self.layer, name)
        self.vector_u = self.add_weight(
            shape=(1, self.kernel.shape[-1]),
            initializer=initializers.TruncatedNormal(stddev=0.02),
            trainable=False,
            name="vector_u",
            dtype=self.kernel.dtype,
        )

    def call(self, inputs, training=False):
        if training:
            u, kernel = self.normalized_weights()
            empty = ops.all(ops.equal(self.kernel, 0.0))
            self.vector_u.assign(ops.where(empty, self.vector_u, u))
            self.kernel.assign(ops.where(empty, self.kernel, kernel))
        return ops.cast(self.layer(inputs), inputs.dtype)

    def normalized_weights(self):
        """The next vector, and the kernel divided by its norm."""
        kernel = ops.convert_to_tensor(self.kernel)
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        u = ops.convert_to_tensor(self.vector_u)
        for _ in range(self.power_iterations):
            v = _unit(ops.matmul(u, ops.transpose(matrix)))
            u = _unit(ops.matmul(v, matrix))
        u, v = ops.stop_gradient(u), ops.stop_gradient(v)
        sigma = ops.matmul(ops.matmul(v, matrix), ops.transpose(u))
        return u, ops.reshape(ops.divide(matrix, sigma), kernel.shape)


def _unit(x):
    return ops.multiply(x, ops.rsqrt(ops.maximum(ops.sum(ops.square(x)), 1e-12)))
