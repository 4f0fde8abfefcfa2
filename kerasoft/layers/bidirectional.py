"""Bidirectional: one recurrent layer forwards and one backwards over the same steps."""

from __future__ import annotations

from .. import ops
from .configured import Configured, build_inner, refuse, takes
from .layer import Layer
from .saved import from_saved, to_saved

_MODES = ("sum", "mul", "ave", "concat", None)


class Bidirectional(Configured):
    """Runs copies of a recurrent layer in both directions and merges their outputs.

    Shapes: (batch, steps, features) -> as of `layer`, with twice the units for ``"concat"``; two outputs for None.
    With `return_state` the states follow, forward ones first.

    Args:
        layer: an RNN, LSTM, GRU, ... layer.
        merge_mode: ``"concat"``, ``"sum"``, ``"mul"``, ``"ave"`` or None.
        backward_layer: what runs backwards; by default a copy of `layer` with `go_backwards` turned round.

    Raises:
        ValueError: no layer, another merge mode, or layers that do not fit together.

    >>> import kerasoft as ks
    >>> ks.layers.Bidirectional(ks.layers.LSTM(8))(ks.Input((10, 4))).shape
    (None, 16)
    """

    def __init__(self, layer, merge_mode="concat", weights=None, backward_layer=None, **kwargs):
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Please initialize `Bidirectional` layer with a `keras.layers.Layer` instance. Received: {layer}"
            )
        if not hasattr(layer, "go_backwards") or not hasattr(layer, "return_sequences"):
            raise ValueError(
                "`Bidirectional` needs a recurrent layer with `go_backwards` and `return_sequences`, such as LSTM, GRU "
                f"or RNN(cell). Received: {layer}"
            )
        if backward_layer is not None and not isinstance(backward_layer, Layer):
            raise ValueError(f"`backward_layer` need to be a `keras.layers.Layer` instance. Received: {backward_layer}")
        if merge_mode not in _MODES:
            raise ValueError(
                f'Invalid merge mode. Received: {merge_mode}. Merge mode should be one of {{"sum", "mul", "ave", '
                '"concat", None}'
            )
        super().__init__(**kwargs)
        refuse(self, weights=weights)
        self.keep(merge_mode=merge_mode)
        self.forward_layer = _copy(layer, "forward_")
        self.backward_layer = backward_layer or _copy(layer, "backward_", go_backwards=True)
        _check_pair(self.forward_layer, self.backward_layer)
        for one in (self.forward_layer, self.backward_layer):
            if getattr(one, "zero_output_for_mask", None) is not None:
                one.zero_output_for_mask = one.return_sequences
        self.return_sequences, self.return_state = layer.return_sequences, layer.return_state
        self.supports_masking = True
        self.input_spec = layer.input_spec

    def build(self, sequences_shape, initial_state_shape=None):
        for one in (self.forward_layer, self.backward_layer):
            build_inner(one, sequences_shape)

    def call(self, sequences, initial_state=None, mask=None, training=None):
        arguments = {}
        if takes(self.forward_layer, "training"):
            arguments["training"] = training
        if takes(self.forward_layer, "mask"):
            arguments["mask"] = mask
        first = second = None
        if initial_state is not None:
            half = len(initial_state) // 2
            first, second = list(initial_state[:half]), list(initial_state[half:])
        y = self.forward_layer(sequences, initial_state=first, **arguments)
        back = self.backward_layer(sequences, initial_state=second, **arguments)
        states = ()
        if self.return_state:
            states = (*y[1:], *back[1:])
            y, back = y[0], back[0]
        if self.return_sequences:
            back = ops.flip(back, axis=1)
        merged = self.merge(y, back)
        if self.merge_mode is None:
            return (*merged, *states)
        return (merged, *states) if self.return_state else merged

    def merge(self, y, back):
        if self.merge_mode == "concat":
            return ops.concatenate([y, back], axis=-1)
        if self.merge_mode == "sum":
            return ops.add(y, back)
        if self.merge_mode == "ave":
            return ops.divide(ops.add(y, back), 2.0)
        if self.merge_mode == "mul":
            return ops.multiply(y, back)
        return y, back

    def compute_mask(self, inputs, mask=None):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        output = mask if self.return_sequences else None
        outputs = [output, output] if self.merge_mode is None else [output]
        if self.return_state:
            return outputs + [None] * (2 * len(self.forward_layer.state_size))
        return outputs if self.merge_mode is None else output

    def reset_state(self):
        """Makes the kept states of both directions zero."""
        for one in (self.forward_layer, self.backward_layer):
            if hasattr(one, "reset_state"):
                one.reset_state()

    reset_states = reset_state

    def get_config(self):
        return {
            **super().get_config(),
            "layer": to_saved(self.forward_layer),
            "backward_layer": to_saved(self.backward_layer),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        backward = config.pop("backward_layer", None)
        return cls(from_saved(config.pop("layer")), backward_layer=backward and from_saved(backward), **config)


def _copy(layer, prefix, **changes):
    saved = to_saved(layer)
    name = layer.name.removeprefix(prefix)
    copied = from_saved({**saved, "config": {**saved["config"], **changes, "name": prefix + name}})
    if hasattr(layer, "use_cudnn"):  # an attribute that no config holds
        copied.use_cudnn = layer.use_cudnn
    return copied


def _check_pair(forward, backward):
    if forward.go_backwards == backward.go_backwards:
        raise ValueError(
            "Forward layer and backward layer should have different `go_backwards` value. Received: "
            f"forward_layer.go_backwards {forward.go_backwards}, backward_layer.go_backwards={backward.go_backwards}"
        )
    for name in ("stateful", "return_sequences", "return_state"):
        if getattr(forward, name) != getattr(backward, name):
            raise ValueError(
                "Forward layer and backward layer are expected to have the same value for attribute "
                f'"{name}", got "{getattr(forward, name)}" for forward layer and "{getattr(backward, name)}" for '
                "backward layer"
            )
