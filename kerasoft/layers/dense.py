"""Dense: y = activation(x @ kernel + bias), on the last axis."""

from __future__ import annotations

from .. import ops
from .configured import Configured, keeps_shape, known, positive
from .input_spec import InputSpec
from .lora import LowRank, low_rank


class Dense(LowRank, Configured):
    """A fully connected layer on the last axis.

    Shapes: (batch, ..., features) -> (batch, ..., units).

    Args:
        units: size of the output's last axis, at least 1.
        activation: name or function; None means none.
        use_bias: whether a bias is added.

    Raises:
        ValueError: `units` is not a positive int; the input's last size is unknown.

    >>> import kerasoft as ks
    >>> ks.layers.Dense(3, activation="relu")(ks.Input((5,))).shape
    (None, 3)
    """

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        lora_rank=None,
        lora_alpha=None,
        quantization_config=None,
        **kwargs,
    ):
        if "input_dim" in kwargs:
            kwargs["input_shape"] = (kwargs.pop("input_dim"),)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.keep_lora(lora_rank, lora_alpha)
        self.keep(
            units=positive(self, "units", units),
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            quantization_config=quantization_config,
        )
        self.input_spec = InputSpec(min_ndim=2)
        self.supports_masking = True

    kernel = low_rank("kernel")

    def build(self, input_shape):
        features = known(self, input_shape, -1)
        if self.quantization_mode:
            self.quantized_build((features, self.units), mode=self.quantization_mode, config=self.quantization_config)
        else:
            self.kernel = self.weight("kernel", (features, self.units))
        self.bias = self.weight("bias", (self.units,)) if self.use_bias else None
        self.input_spec = InputSpec(min_ndim=2, axes={-1: features})
        self.build_lora()

    def quick_shape(self, shape):
        return (*shape[:-1], self.units) if keeps_shape(self.activation) else None

    def call(self, inputs):
        x = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)
