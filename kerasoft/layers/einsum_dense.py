"""EinsumDense: y = activation(einsum(equation, x, kernel) + bias)."""

from __future__ import annotations

import copy
import re

from .. import ops
from ..initializers import VarianceScaling
from ..tensors import KerasTensor
from .configured import Configured, known
from .lora import LowRank, low_rank


class EinsumDense(LowRank, Configured):
    """A dense layer between any axes, written as an einsum equation.

    Args:
        equation: ``"ab,bc->ac"`` style; the input may begin or end with ``...``.
        output_shape: sizes of the output's axes but the batch and those of ``...``; None for an axis of the input.
        bias_axes: letters of the output axes along which the bias differs; None means no bias.

    Raises:
        ValueError: an equation that is none.

    >>> import kerasoft as ks
    >>> ks.layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d")(ks.Input((5, 4))).shape
    (None, None, 8)
    """

    def __init__(
        self,
        equation,
        output_shape,
        activation=None,
        bias_axes=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        lora_rank=None,
        lora_alpha=None,
        gptq_unpacked_column_size=None,
        quantization_config=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.keep_lora(lora_rank, lora_alpha)
        if not re.fullmatch(r"(\.\.\.)?[a-zA-Z]+(\.\.\.)?,[a-zA-Z]+->(\.\.\.)?[a-zA-Z]+(\.\.\.)?", equation):
            raise ValueError(
                f"Invalid einsum equation '{equation}'. Equations must be in the form [X],[Y]->[Z], "
                "...[X],[Y]->...[Z], or [X]...,[Y]->[Z]...."
            )
        self.keep(
            output_shape=(output_shape,) if isinstance(output_shape, int) else tuple(output_shape),
            equation=equation,
            activation=activation,
            bias_axes=bias_axes,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            quantization_config=quantization_config,
        )

    kernel = low_rank("kernel")

    def build(self, input_shape):
        left, result = self.equation.split("->")
        source, kernel = left.split(",")
        rank = len(input_shape)
        letters = source.replace("...", "")
        first = rank - len(letters) if source.startswith("...") else 0
        sizes = {letter: first + i for i, letter in enumerate(letters)}
        # The batch and the axes of "..." are not in output_shape.
        named = result.replace("...", "")
        own = named if source.startswith("...") else named[1:]
        given = dict(zip(reversed(own), reversed(self.output_shape), strict=False))

        def size(letter):
            return known(self, input_shape, sizes[letter]) if letter in sizes else given[letter]

        self._einsum_rank = rank
        shape = tuple(size(letter) for letter in kernel)
        if self.quantization_mode:
            self.quantized_build(shape, mode=self.quantization_mode, config=self.quantization_config)
        else:
            self.kernel = self.weight("kernel", shape, initializer=self._first_kernel(kernel, result))
        self.bias = None
        if self.bias_axes:
            axes = [size(letter) if letter in self.bias_axes else 1 for letter in named]
            axes = axes[min(named.index(letter) for letter in self.bias_axes) :]
            trailing = rank - len(letters) if result.endswith("...") else 0
            self.bias = self.weight("bias", (*axes, *(1,) * trailing))
        self.build_lora()

    def _first_kernel(self, kernel, result):
        """The kernel's initializer; one that asks for the fans learns which axes are inputs and which outputs."""
        first = self.kernel_initializer
        if not isinstance(first, VarianceScaling) or None not in (first.input_axes, first.output_axes):
            return first
        first = copy.copy(first)
        first.input_axes = [i for i, letter in enumerate(kernel) if letter not in result]
        first.output_axes = [i for i, letter in enumerate(kernel) if letter in result]
        return first

    def compute_output_shape(self, input_shape):
        """The shape as `output_shape` tells it: its None stay None, as in Keras."""
        source = self.equation.split(",")[0]
        elided = len(input_shape) - len(source.replace("...", ""))
        given, shape = list(self.output_shape), tuple(input_shape)
        if source.startswith("..."):
            return (*shape[:elided], *given)
        return (shape[0], *given, *shape[len(shape) - elided :])

    def compute_output_spec(self, inputs):
        return KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def call(self, inputs):
        x = ops.einsum(self.equation, inputs, self.kernel)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

    def get_config(self):
        return {"activity_regularizer": None, **super().get_config()}
