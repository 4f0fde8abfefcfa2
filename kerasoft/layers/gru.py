"""GRU: h' = z*h + (1-z)*activation(x_h + r*(h @ U_h)), with gates z, r = sigmoid(x @ kernel + h @ recurrent_kernel)."""

from __future__ import annotations

from .. import ops, tree
from ..compiler.ops import recurrent
from .input_spec import InputSpec
from .rnn import OneOp, RecurrentCell, of_cell

_ARGUMENTS = (
    "units", "activation", "recurrent_activation", "use_bias", "kernel_initializer", "recurrent_initializer",
    "bias_initializer", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "kernel_constraint",
    "recurrent_constraint", "bias_constraint", "dropout", "recurrent_dropout", "reset_after", "seed",
)  # fmt: skip


class GRUCell(RecurrentCell):
    """One step of `GRU`. Kernels hold the gates in the order update, reset, candidate.

    With `reset_after` the reset gate acts after the recurrent product and the bias is (2, 3 * units), for the input
    and for the recurrent part; without it acts before and the bias is (3 * units,).

    Shapes: inputs (batch, features), states [(batch, units)] -> output (batch, units), new states.

    Source: Cho et al. 2014.
    """

    gates = 3

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
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
        reset_after=True,
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
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            reset_after=reset_after,
            seed=seed,
        )
        self.state_size = units

    def build_bias(self):
        return self.weight("bias", (2, 3 * self.units) if self.reset_after else (3 * self.units,))

    def call(self, inputs, states, training=False):
        before = states[0] if tree.is_nested(states) else states
        input_bias, recurrent_bias = self.bias, None
        if self.bias is not None and self.reset_after:
            input_bias, recurrent_bias = self.bias[0], self.bias[1]
        x_z, x_r, x_h = self.project(self.dropped(inputs, self.dropout, "input", training), self.kernel, input_bias)
        hs = self.dropped(before, self.recurrent_dropout, "recurrent", training)
        if self.reset_after:
            r_z, r_r, r_h = self.project(hs, self.recurrent_kernel, recurrent_bias)
        else:
            u_z, u_r, u_h = ops.split(self.recurrent_kernel, 3, axis=-1)
            r_z, r_r = ops.matmul(hs[0], u_z), ops.matmul(hs[1], u_r)
        z = self.recurrent_activation(ops.add(x_z, r_z))
        r = self.recurrent_activation(ops.add(x_r, r_r))
        r_h = ops.multiply(r, r_h) if self.reset_after else ops.matmul(ops.multiply(r, hs[2]), u_h)
        candidate = self.activation(ops.add(x_h, r_h))
        h = ops.add(ops.multiply(z, before), ops.multiply(ops.subtract(1.0, z), candidate))
        return h, [h] if tree.is_nested(states) else h


@of_cell(*_ARGUMENTS)
class GRU(OneOp):
    """Gated recurrent unit; see `RNN` for shapes and masks.

    >>> import kerasoft as ks
    >>> ks.layers.GRU(8)(ks.Input((None, 4))).shape
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
        reset_after=True,
        use_cudnn="auto",
        **kwargs,
    ):
        cell = GRUCell(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
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
            reset_after=reset_after,
            seed=seed,
            implementation=kwargs.pop("implementation", 2),
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="gru_cell",
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
        return recurrent.gru(*inputs, reset_after=self.cell.reset_after, **attributes)
