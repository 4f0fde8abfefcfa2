"""SimpleRNN: h' = activation(x @ kernel + bias + h @ recurrent_kernel)."""

from __future__ import annotations

from .. import ops, tree
from ..compiler.ops import recurrent
from .input_spec import InputSpec
from .rnn import OneOp, RecurrentCell, of_cell

_ARGUMENTS = (
    "units", "activation", "use_bias", "kernel_initializer", "recurrent_initializer", "bias_initializer",
    "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "kernel_constraint", "recurrent_constraint",
    "bias_constraint", "dropout", "recurrent_dropout",
)  # fmt: skip


class SimpleRNNCell(RecurrentCell):
    """One step of `SimpleRNN`.

    Shapes: inputs (batch, features), states [(batch, units)] -> output (batch, units), new states.
    """

    gates = 1

    def __init__(
        self,
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
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
        super().__init__(**kwargs)
        self.keep_cell(
            units,
            dropout,
            recurrent_dropout,
            activation=activation,
            use_bias=use_bias,
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
        self.state_size = units

    def call(self, sequence, states, training=False):
        before = states[0] if tree.is_nested(states) else states
        (x,) = self.project(self.dropped(sequence, self.dropout, "input", training), self.kernel, self.bias)
        (h,) = self.dropped(before, self.recurrent_dropout, "recurrent", training)
        output = self.activation(ops.add(x, ops.matmul(h, self.recurrent_kernel)))
        return output, [output] if tree.is_nested(states) else output


@of_cell(*_ARGUMENTS)
class SimpleRNN(OneOp):
    """Fully connected recurrent layer; see `RNN` for shapes and masks.

    >>> import kerasoft as ks
    >>> ks.layers.SimpleRNN(8, return_sequences=True)(ks.Input((10, 4))).shape
    (None, 10, 8)
    """

    activations = ("activation",)

    def __init__(
        self,
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        seed=None,
        **kwargs,
    ):
        cell = SimpleRNNCell(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="simple_rnn_cell",
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
        self.input_spec = InputSpec(ndim=3)

    def run_op(self, *inputs, **attributes):
        return recurrent.simple_rnn(*inputs, **attributes)
