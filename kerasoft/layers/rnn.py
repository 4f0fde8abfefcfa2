"""RNN: a cell applied to one step after the other; StackedRNNCells: several cells as one."""

from __future__ import annotations

import numpy as np

from .. import activations, dtypes, ops, tree
from ..compiler.ops.control import scan
from ..scope import current_scope
from ..tensors import known_shape
from ..variables import Variable
from .configured import Configured, build_inner, takes
from .layer import Layer
from .noise import dropout_mask
from .saved import from_saved, to_saved


class RecurrentCell(Configured):
    """Base of SimpleRNNCell, LSTMCell and GRUCell: their arguments, weights and dropout masks.

    A cell is called as ``cell(inputs, states) -> (output, new_states)`` with inputs (batch, features) and states
    (batch, units). Dropout masks are drawn once per sequence.
    """

    gates: int  # the kernels hold that many blocks of `units` columns

    def keep_cell(self, units, dropout, recurrent_dropout, implementation=2, **arguments):
        if units <= 0:
            raise ValueError(
                f"Received an invalid value for argument `units`, expected a positive integer, got {units}."
            )
        self.keep(
            units=units,
            **arguments,
            dropout=min(1.0, max(0.0, dropout)),
            recurrent_dropout=min(1.0, max(0.0, recurrent_dropout)),
        )
        self.implementation = 1 if self.recurrent_dropout else implementation
        self.output_size = units
        self.reset_masks()

    def build(self, input_shape):
        features = input_shape[-1]
        if not isinstance(features, int):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' needs a known number of features (last axis), got input shape "
                f"{tuple(input_shape)}. Give Input a fixed last size."
            )
        self.kernel = self.weight("kernel", (features, self.units * self.gates))
        self.recurrent_kernel = self.weight("recurrent_kernel", (self.units, self.units * self.gates), role="recurrent")
        self.bias = self.build_bias() if self.use_bias else None

    def build_bias(self):
        return self.weight("bias", (self.units * self.gates,))

    def get_initial_state(self, batch_size=None):
        sizes = [self.state_size] if isinstance(self.state_size, int) else self.state_size
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in sizes]

    def reset_masks(self):
        """The next call draws new dropout masks."""
        object.__setattr__(self, "_masks", {})  # values of one call, no state

    def masks(self, x, rate, which, training):
        """The dropout masks of this sequence for `x`, one or one for each gate; None when nothing is dropped."""
        if not training or rate == 0.0:
            return None
        scope = current_scope()
        held, masks = self._masks.get(which, (None, None))
        if held is not scope:
            masks = [dropout_mask(x, rate, self.seed) for _ in range(self.gates if self.implementation == 1 else 1)]
            self._masks[which] = (scope, masks)
        return masks

    def dropped(self, x, rate, which, training):
        """What each gate sees of `x`."""
        masks = self.masks(x, rate, which, training) or [None]
        dropped = [x if mask is None else ops.multiply(x, mask) for mask in masks]
        return dropped * (self.gates // len(dropped))

    def project(self, xs, kernel, bias):
        """The gates' blocks ``x @ kernel + bias``: one product when all gates see the same x."""
        if all(x is xs[0] for x in xs):
            z = ops.matmul(xs[0], kernel)
            z = z if bias is None else ops.add(z, bias)
            return ops.split(z, self.gates, axis=-1) if self.gates > 1 else [z]
        kernels = ops.split(kernel, self.gates, axis=-1) if self.gates > 1 else [kernel]
        parts = [ops.matmul(x, k) for x, k in zip(xs, kernels, strict=True)]
        if bias is None:
            return parts
        biases = ops.split(bias, self.gates, axis=-1) if self.gates > 1 else [bias]
        return [ops.add(p, b) for p, b in zip(parts, biases, strict=True)]


class RNN(Configured):
    """Applies `cell` to each step and hands its states on.

    Shapes: (batch, steps, features) -> (batch, units), or (batch, steps, units) with `return_sequences`; with
    `return_state` a tuple of that and the last states.

    Masks: a masked step leaves the states as they are and repeats the output before it (or gives zeros with
    `zero_output_for_mask`).

    Args:
        cell: a cell layer, or an object with ``call(inputs, states)`` and `state_size`; or a list of cells.
        go_backwards: last step first; sequences come out in that order.
        unroll: whether the steps become separate nodes of the graph.

        stateful: whether row i of a batch goes on where row i of the batch before it ended; for calls on arrays. The
            compiled steps of `fit` and `predict` begin at the kept states and do not move them, as Keras with JAX.

    Raises:
        ValueError: `cell` has no `call` or no `state_size`; a stateful layer does not know its batch size, or gets
            another one.
    """

    def __init__(
        self,
        cell,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        zero_output_for_mask=False,
        **kwargs,
    ):
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell)
        if not hasattr(cell, "call"):
            raise ValueError(f"Argument `cell` should have a `call` method. Received: cell={cell}")
        if not isinstance(getattr(cell, "state_size", None), (list, tuple, int)):
            raise ValueError(
                "The RNN cell should have a `state_size` attribute (single integer or list of integers, one per state). "
                f"Received: cell={cell}"
            )
        super().__init__(**kwargs)
        object.__setattr__(self, "states", None)  # no weights, as in Keras
        self.keep(
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
        )
        self.cell = cell
        self.supports_masking = True

    @property
    def state_size(self):
        sizes = self.cell.state_size
        return [sizes] if isinstance(sizes, int) else list(sizes)

    def build(self, sequences_shape, initial_state_shape=None):
        if len(sequences_shape) < 3:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' needs (batch, steps, features), got input shape "
                f"{tuple(sequences_shape)}."
            )
        build_inner(self.cell, (sequences_shape[0], *sequences_shape[2:]))
        if self.stateful:
            if self.states is not None:
                self.reset_state()
            elif sequences_shape[0] is None:
                raise ValueError(
                    "When using `stateful=True` in a RNN, the batch size must be static. Found dynamic batch size: "
                    f"sequence.shape={tuple(sequences_shape)}"
                )
            else:
                object.__setattr__(
                    self, "states", tree.map_structure(_state, self.get_initial_state(sequences_shape[0]))
                )

    def get_initial_state(self, batch_size):
        state = initial_state_of(self.cell, batch_size, self.compute_dtype)
        return list(state) if tree.is_nested(state) else [state]

    def call(self, sequences, initial_state=None, mask=None, training=False):
        if initial_state is None:
            kept = self.stateful and self.states is not None
            initial_state = self.kept_states(sequences) if kept else self.get_initial_state(sequences.shape[0])
        states = list(initial_state) if tree.is_nested(initial_state) else [initial_state]
        last, outputs, states = self.loop(sequences, states, mask, training)
        if self.stateful and not current_scope().tracing:
            for variable, state in zip(tree.flatten(self.states), tree.flatten(states), strict=True):
                variable.assign(state)
        output = outputs if self.return_sequences else last
        return (output, *states) if self.return_state else output

    def kept_states(self, sequences):
        """The states after the call before.

        Raises:
            ValueError: another number of rows than then.
        """
        rows, expected = sequences.shape[0], tree.flatten(self.states)[0].shape[0]
        if isinstance(rows, int):
            if rows != expected:
                raise ValueError(
                    "If an RNN is stateful, the batch size of the input sequences must be the same as the batch size of "
                    f"the initial state. \n- Expected batch size: {expected}\n- Received batch size: {rows}"
                )
            return tree.map_structure(ops.convert_to_tensor, self.states)
        current_scope().exact_rows = True
        order = ops.mod(ops.arange(rows), expected)
        return tree.map_structure(lambda state: ops.take(state, order, axis=0), self.states)

    def reset_state(self):
        """Makes the kept states zero."""
        for variable in tree.flatten(self.states) if self.states is not None else ():
            variable.assign(np.zeros(variable.shape, variable.dtype))

    reset_states = reset_state

    def loop(self, sequences, states, mask, training):
        """Runs the steps; returns the last output, the outputs (batch, steps, units) and the last states."""
        reset_masks(self.cell)
        arguments = {"training": training} if takes(self.cell, "training") else {}
        run = self.cell if isinstance(self.cell, Layer) else self.cell.call

        structure = [states]  # of the states that the cell gives

        def step(flat, cells):
            before = tree.pack_as(states, flat)
            output, new = run(cells[0], before, **arguments)
            new = list(new) if tree.is_nested(new) else [new]
            structure[:] = [tree.map_structure(lambda _: 0, new)]
            new = tree.flatten(new)
            if mask is not None:
                instead = ops.zeros_like(output) if self.zero_output_for_mask else self.output_before(before)
                output = _where(cells[1], output, instead)
                new = [_where(cells[1], n, o) for n, o in zip(new, flat, strict=True)]
            return new, [output]

        xs = [sequences] if mask is None else [sequences, mask]
        if self.go_backwards:
            xs = [ops.flip(x, axis=1) for x in xs]
        last, outputs, flat = _unrolled(step, states, xs) if self.is_unrolled(sequences) else _scanned(step, states, xs)
        return last, outputs, tree.pack_as(structure[0], flat)

    def output_before(self, states):
        """The output of the step before: the first state, of the last cell in a stack."""
        last = states[-1] if isinstance(self.cell, StackedRNNCells) else states
        return last[0] if tree.is_nested(last) else last

    def is_unrolled(self, sequences):
        """Whether every step becomes nodes of its own: asked for, or an eager call.

        Raises:
            ValueError: asked for, and the number of steps is unknown.
        """
        if self.unroll and not isinstance(sequences.shape[1], int):
            raise ValueError(
                f"Cannot unroll {type(self).__name__} '{self.name}': the number of steps is unknown. Give Input a fixed "
                "number of steps, or leave `unroll` out."
            )
        return self.unroll or not current_scope().tracing

    def compute_mask(self, inputs, mask=None):
        mask = tree.flatten(mask)[0] if mask is not None else None
        output = mask if self.return_sequences else None
        return [output, *[None] * len(self.state_size)] if self.return_state else output

    def get_config(self):
        config = super().get_config()
        if type(self) is RNN:
            config["cell"] = to_saved(self.cell)
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if "cell" in config:
            return cls(from_saved(config.pop("cell")), **config)
        return cls(**config)


def _state(like):
    return Variable(np.zeros(known_shape(like), dtypes.narrowed(like.dtype)), trainable=False, name="rnn_state")


def _unrolled(step, states, xs):
    flat, outputs = tree.flatten(states), []
    for t in range(xs[0].shape[1]):
        flat, (output,) = step(flat, [x[:, t] for x in xs])
        outputs.append(output)
    return outputs[-1], ops.stack(outputs, axis=1), flat


def _scanned(step, states, xs):
    xs = [ops.swapaxes(x, 0, 1) for x in xs]
    flat, (outputs,) = scan(step, tree.flatten(states), xs)
    return outputs[-1], ops.swapaxes(outputs, 0, 1), flat


def _where(valid, a, b):
    return ops.where(ops.reshape(valid, (valid.shape[0],) + (1,) * (len(a.shape) - 1)), a, b)


# What the compiler's recurrent ops know by name.
_NAMES = {
    "linear",
    "relu",
    "sigmoid",
    "tanh",
    "softplus",
    "softsign",
    "hard_sigmoid",
    "silu",
    "selu",
    "mish",
    "log_sigmoid",
}


class OneOp(RNN):
    """Base of SimpleRNN, LSTM and GRU: all steps as one op of the compiler where it can express them."""

    activations: tuple[str, ...] = ("activation", "recurrent_activation")

    def loop(self, sequences, states, mask, training):
        cell = self.cell
        names = {name: getattr(getattr(cell, name), "__name__", None) for name in self.activations}
        known = all(n in _NAMES and getattr(cell, name) is getattr(activations, n) for name, n in names.items())
        each_gate_its_own = training and cell.dropout and cell.implementation == 1
        if self.unroll or each_gate_its_own or not known:
            return super().loop(sequences, states, mask, training)
        cell.reset_masks()
        drop = cell.masks(sequences[:, 0], cell.dropout, "input", training)
        if drop is not None:
            sequences = ops.multiply(sequences, ops.expand_dims(drop[0], 1))
        recurrent = cell.masks(states[0], cell.recurrent_dropout, "recurrent", training)
        outputs, *states = self.run_op(
            sequences,
            *states,
            *(ops.convert_to_tensor(w) for w in (cell.kernel, cell.recurrent_kernel)),
            None if cell.bias is None else ops.convert_to_tensor(cell.bias),
            None if mask is None else ops.cast(mask, "bool"),
            None if recurrent is None else ops.stack(recurrent, axis=0),
            go_backwards=self.go_backwards,
            **names,
        )
        last = states[0]
        if mask is not None and self.zero_output_for_mask:
            valid = ops.flip(mask, axis=1) if self.go_backwards else mask
            outputs = ops.where(ops.expand_dims(valid, -1), outputs, ops.zeros_like(outputs))
            last = outputs[:, -1]
        return last, outputs, states

    def run_op(self, *inputs, **attributes):
        """The compiler's op: the outputs, then the last states."""
        raise NotImplementedError


def reset_masks(cell):
    """Makes a cell, or all cells of a stack, draw new dropout masks."""
    for one in getattr(cell, "cells", [cell]):
        if hasattr(one, "reset_masks"):
            one.reset_masks()


class StackedRNNCells(Configured):
    """Cells one on top of another, used as one cell; its states are the list of theirs.

    Raises:
        ValueError: one of them has no `call` or no `state_size`.
    """

    def __init__(self, cells, **kwargs):
        super().__init__(**kwargs)
        self.keep()
        for cell in cells:
            if not hasattr(cell, "call"):
                raise ValueError(f"All cells must have a `call` method. Received cell without a `call` method: {cell}")
            if not hasattr(cell, "state_size"):
                raise ValueError(
                    f"All cells must have a `state_size` attribute. Received cell without a `state_size`: {cell}"
                )
        self.cells = list(cells)

    @property
    def state_size(self):
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self):
        return _output_size(self.cells[-1])

    def build(self, input_shape):
        for cell in self.cells:
            build_inner(cell, input_shape)
            input_shape = (input_shape[0], _output_size(cell))

    def get_initial_state(self, batch_size=None):
        return [initial_state_of(cell, batch_size, self.compute_dtype) for cell in self.cells]

    def call(self, inputs, states, training=False):
        new_states = []
        for cell, state in zip(self.cells, states, strict=True):
            arguments = {"training": training} if takes(cell, "training") else {}
            run = cell if isinstance(cell, Layer) else cell.call
            nested = tree.is_nested(state)
            inputs, new = run(inputs, list(state) if nested else [state], **arguments)
            new = list(new) if tree.is_nested(new) else [new]
            new_states.append(new if nested or len(new) > 1 else new[0])
        return inputs, new_states

    def get_config(self):
        return {**super().get_config(), "cells": [to_saved(cell) for cell in self.cells]}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls([from_saved(cell) for cell in config.pop("cells")], **config)


def initial_state_of(cell, batch_size, dtype):
    """The state that a cell starts from: what its `get_initial_state` says, else zeros of its `state_size`."""
    make = getattr(cell, "get_initial_state", None)
    if make is not None:
        return make(batch_size=batch_size)
    return tree.map_structure(lambda size: ops.zeros((batch_size, size), dtype=dtype), cell.state_size)


def _output_size(cell):
    size = getattr(cell, "output_size", None)
    if size is not None:
        return size
    return cell.state_size if isinstance(cell.state_size, int) else cell.state_size[0]


def of_cell(*names):
    """Class decorator: the named arguments of the layer's cell are readable on the layer, and part of its config."""

    def decorate(cls):
        for name in names:
            setattr(cls, name, property(lambda self, n=name: getattr(self.cell, n)))
        own = cls.get_config

        def get_config(self):
            cell = self.cell.get_config()
            return {"activity_regularizer": None, **own(self), **{name: cell[name] for name in names}}

        cls.get_config = get_config
        return cls

    return decorate
