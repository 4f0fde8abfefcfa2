"""LSTM: c' = f*c + i*activation(g), h' = o*activation(c'), with i, f, g, o = x @ kernel + bias + h @ recurrent_kernel."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..compiler.ops import recurrent
from .input_spec import InputSpec
from .rnn import OneOp, RecurrentCell, of_cell

_ARGUMENTS = (
    "units", "activation", "recurrent_activation", "use_bias", "kernel_initializer", "recurrent_initializer",
    "bias_initializer", "unit_forget_bias", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer",
    "kernel_constraint", "recurrent_constraint", "bias_constraint", "dropout", "recurrent_dropout", "seed",
)  # fmt: skip


class LSTMCell(RecurrentCell):
    """One step of `LSTM`. Kernels hold the gates in the order input, forget, candidate, output.

    Shapes: inputs (batch, features), states [h, c] of (batch, units) -> h, [h, c].

    Source: Hochreiter & Schmidhuber 1997; `unit_forget_bias`: Jozefowicz et al. 2015.
    """

    gates = 4

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias=True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        **kwargs,
    ):
        implementation = kwargs.pop("implementation", 2)
        super().__init__(**kwargs)
        self.keep_cell(
            units,
            dropout,
            recurrent_dropout,
            implementation,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            unit_forget_bias=unit_forget_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
        )
        self.state_size = [units, units]

    def build_bias(self):
        def forget_ones(shape, dtype=None):
            first = np.asarray(self.bias_initializer((self.units,), dtype=dtype))
            rest = np.asarray(self.bias_initializer((2 * self.units,), dtype=dtype))
            return np.concatenate([first, np.ones_like(first), rest])

        initializer = forget_ones if self.unit_forget_bias else self.bias_initializer
        return self.weight("bias", (4 * self.units,), initializer=initializer)

    def call(self, inputs, states, training=False):
        h, c = states
        x = self.project(self.dropped(inputs, self.dropout, "input", training), self.kernel, self.bias)
        r = self.project(self.dropped(h, self.recurrent_dropout, "recurrent", training), self.recurrent_kernel, None)
        i, f, g, o = (ops.add(a, b) for a, b in zip(x, r, strict=True))
        carried = ops.multiply(self.recurrent_activation(f), c)
        c = ops.add(carried, ops.multiply(self.recurrent_activation(i), self.activation(g)))
        h = ops.multiply(self.recurrent_activation(o), self.activation(c))
        return h, [h, c]


@of_cell(*_ARGUMENTS)
class LSTM(OneOp):
    """Long short-term memory; see `RNN` for shapes and masks. States: h, c.

    >>> import kerasoft as ks
    >>> ks.layers.LSTM(8)(ks.Input((None, 4))).shape
    (None, 8)
    """

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias=True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        use_cudnn="auto",
        **kwargs,
    ):
        cell = LSTMCell(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            implementation=kwargs.pop("implementation", 2),
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="lstm_cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.use_cudnn = use_cudnn
        self.input_spec = InputSpec(ndim=3)

    def run_op(self, *inputs, **attributes):
        return recurrent.lstm(*inputs, **attributes)
