"""ConvLSTM1D/2D/3D: an LSTM over images, whose products are convolutions."""

from __future__ import annotations

import numpy as np

from .. import activations, ops
from ..compiler.ops.conv_lstm import conv_lstm
from .configured import data_format_of, ints, padding_of
from .input_spec import InputSpec
from .rnn import RNN, RecurrentCell, of_cell

_ARGUMENTS = (
    "filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "activation",
    "recurrent_activation", "use_bias", "kernel_initializer", "recurrent_initializer", "bias_initializer",
    "unit_forget_bias", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "kernel_constraint",
    "recurrent_constraint", "bias_constraint", "dropout", "recurrent_dropout", "seed",
)  # fmt: skip


class ConvLSTMCell(RecurrentCell):
    """One step of ConvLSTM. Kernels: (*kernel_size, channels, 4 filters), gates in the order input, forget, candidate,
    output. The input is convolved with the layer's strides and padding, the state keeps its size.

    Source: Shi et al. 2015.
    """

    gates = 4

    def __init__(
        self,
        rank,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
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
        super().__init__(**kwargs)
        self.rank = rank
        self.keep(
            filters=filters,
            kernel_size=ints("kernel_size", kernel_size, rank),
            strides=ints("strides", strides, rank),
            padding=padding_of(padding),
            data_format=data_format_of(data_format),
            dilation_rate=ints("dilation_rate", dilation_rate, rank),
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
            dropout=min(1.0, max(0.0, dropout)),
            recurrent_dropout=min(1.0, max(0.0, recurrent_dropout)),
            seed=seed,
        )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "Specifying `strides > 1` is not compatible with `dilation_rate > 1`. Please provide `strides=1` or "
                f"`dilation_rate=1`. Received: strides={self.strides} and dilation_rate={self.dilation_rate}"
            )
        self.implementation = 1  # each gate has its own dropout mask
        self.input_spec = InputSpec(ndim=rank + 2)
        self.state_size = -1  # depends on the input's sizes
        self.reset_masks()

    def build(self, inputs_shape, states_shape=None):
        last = self.data_format == "channels_last"
        self.spatial = tuple(inputs_shape[1:-1] if last else inputs_shape[2:])
        channels = inputs_shape[-1 if last else 1]
        if None in self.spatial:
            raise ValueError(
                "ConvLSTM layers only support static input shapes for the spatial dimension. "
                f"Received invalid input shape: input_shape={inputs_shape}"
            )
        if channels is None:
            raise ValueError(
                "The channel dimension of the inputs (last axis) should be defined. Found None. Full input shape "
                f"received: input_shape={inputs_shape}"
            )
        filters = self.filters
        self.input_spec = InputSpec(shape=(None, *inputs_shape[1:]))
        self.kernel = self.weight("kernel", (*self.kernel_size, channels, filters * 4))
        self.recurrent_kernel = self.weight("recurrent_kernel", (*self.kernel_size, filters, filters * 4), "recurrent")
        self.bias = self.build_bias() if self.use_bias else None

    def build_bias(self):
        def forget_ones(shape, dtype=None):
            first = np.asarray(self.bias_initializer((self.filters,), dtype=dtype))
            rest = np.asarray(self.bias_initializer((2 * self.filters,), dtype=dtype))
            return np.concatenate([first, np.ones_like(first), rest])

        initializer = forget_ones if self.unit_forget_bias else self.bias_initializer
        return self.weight("bias", (4 * self.filters,), initializer=initializer)

    def get_initial_state(self, batch_size=None):
        sizes = []
        for n, k, s, d in zip(self.spatial, self.kernel_size, self.strides, self.dilation_rate, strict=True):
            sizes.append(-(-n // s) if self.padding == "same" else (n - d * (k - 1) - 1) // s + 1)
        last = self.data_format == "channels_last"
        shape = (batch_size, *sizes, self.filters) if last else (batch_size, self.filters, *sizes)
        return [ops.zeros(shape, dtype=self.compute_dtype), ops.zeros(shape, dtype=self.compute_dtype)]

    def call(self, inputs, states, training=False):
        h, c = states
        x = self.convolved(self.dropped(inputs, self.dropout, "input", training), self.kernel, False)
        r = self.convolved(self.dropped(h, self.recurrent_dropout, "recurrent", training), self.recurrent_kernel, True)
        i, f, g, o = (ops.add(a, b) for a, b in zip(x, r, strict=True))
        carried = ops.multiply(self.recurrent_activation(f), c)
        c = ops.add(carried, ops.multiply(self.recurrent_activation(i), self.activation(g)))
        h = ops.multiply(self.recurrent_activation(o), self.activation(c))
        return h, [h, c]

    def convolved(self, xs, kernel, recurrent):
        """The gates' convolutions: one with all filters when all gates see the same x."""
        channel = -1 if self.data_format == "channels_last" else 1
        if all(x is xs[0] for x in xs):
            return ops.split(self.convolution(xs[0], kernel, self.bias, recurrent), 4, axis=channel)
        kernels = ops.split(kernel, 4, axis=-1)
        biases = [None] * 4 if self.bias is None else ops.split(self.bias, 4)
        return [self.convolution(*parts, recurrent) for parts in zip(xs, kernels, biases, strict=True)]

    def convolution(self, x, kernel, bias, recurrent):
        if recurrent:
            return ops.conv(x, kernel, 1, "same", self.data_format)
        y = ops.conv(x, kernel, self.strides, self.padding, self.data_format, self.dilation_rate)
        if bias is None:
            return y
        ones = (1,) * self.rank
        size = bias.shape[0]
        return ops.add(
            y, ops.reshape(bias, (1, *ones, size) if self.data_format == "channels_last" else (1, size, *ones))
        )


@of_cell(*_ARGUMENTS)
class ConvLSTM(RNN):
    """Base of ConvLSTM1D/2D/3D; see `RNN` for states and masks.

    Shapes: (batch, steps, *spatial, channels) -> (batch, *spatial', filters), with steps if `return_sequences`;
    channels come before the spatial axes with ``data_format="channels_first"``.
    """

    rank: int

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
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
        **kwargs,
    ):
        cell = ConvLSTMCell(
            self.rank,
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
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
            dtype=kwargs.get("dtype"),
            name="conv_lstm_cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.input_spec = InputSpec(ndim=self.rank + 3)

    def loop(self, sequences, states, mask, training):
        cell = self.cell
        usual = cell.activation is activations.tanh and cell.recurrent_activation is activations.sigmoid
        if self.unroll or not usual or (training and (cell.dropout or cell.recurrent_dropout)):
            return super().loop(sequences, states, mask, training)
        batch, steps = sequences.shape[:2]
        first = cell.data_format == "channels_first"
        if self.go_backwards:
            sequences, mask = ops.flip(sequences, axis=1), None if mask is None else ops.flip(mask, axis=1)
        x = ops.reshape(sequences, (batch * steps, *sequences.shape[2:]))
        z = cell.convolution(x, ops.convert_to_tensor(cell.kernel), cell.bias, recurrent=False)
        if first:
            z, states = ops.moveaxis(z, 1, -1), [ops.moveaxis(s, 1, -1) for s in states]
        z = ops.reshape(z, (batch, steps, *z.shape[1:]))
        valid = None if mask is None else ops.cast(mask, "bool")
        outputs, *states = conv_lstm(z, *states, ops.convert_to_tensor(cell.recurrent_kernel), valid)
        last = states[0]
        if mask is not None and self.zero_output_for_mask:
            wide = ops.reshape(valid, (batch, steps, *(1,) * (cell.rank + 1)))
            outputs = ops.where(wide, outputs, ops.zeros_like(outputs))
            last = outputs[:, -1]
        if first:
            last, outputs = ops.moveaxis(last, -1, 1), ops.moveaxis(outputs, -1, 2)
            states = [ops.moveaxis(s, -1, 1) for s in states]
        return last, outputs, states

    def compute_mask(self, inputs, mask=None):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        output = mask if self.return_sequences else None
        return [output, None, None] if self.return_state else output


class ConvLSTM1D(ConvLSTM):
    """Convolutional LSTM over sequences of signals.

    >>> import kerasoft as ks
    >>> ks.layers.ConvLSTM1D(4, 3)(ks.Input((6, 10, 2))).shape
    (None, 8, 4)
    """

    rank = 1


class ConvLSTM2D(ConvLSTM):
    """Convolutional LSTM over sequences of images."""

    rank = 2


class ConvLSTM3D(ConvLSTM):
    """Convolutional LSTM over sequences of volumes."""

    rank = 3
