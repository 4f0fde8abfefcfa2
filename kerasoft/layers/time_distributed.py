"""Wrapper: a layer that holds one; TimeDistributed: the same layer on every step."""

from __future__ import annotations

import contextlib

from .. import ops
from ..scope import current_scope
from .batch_normalization import BatchNormalization
from .configured import Configured, build_inner, takes
from .layer import Layer
from .noise import spread_row_ids
from .saved import from_saved, to_saved


class Wrapper(Configured):
    """Base of layers that hold another one, as `self.layer`.

    Raises:
        ValueError: `layer` is no layer.
    """

    def __init__(self, layer, **kwargs):
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Layer {layer} supplied to {type(self).__name__} isn't a supported layer type. "
                "Please ensure wrapped layer is a valid Keras layer."
            )
        super().__init__(**kwargs)
        self.keep()
        self.layer = layer

    def build(self, input_shape=None):
        build_inner(self.layer, input_shape)

    def get_config(self):
        return {**super().get_config(), "layer": to_saved(self.layer)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls(from_saved(config.pop("layer")), **config)


class TimeDistributed(Wrapper):
    """One layer applied to every step on its own.

    Shapes: (batch, steps, ...) -> (batch, steps, the layer's output shape). All steps are computed as rows of one
    larger batch, but for BatchNormalization in training, which takes its statistics step by step.

    >>> import kerasoft as ks
    >>> ks.layers.TimeDistributed(ks.layers.Dense(8))(ks.Input((10, 16))).shape
    (None, 10, 8)
    """

    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        if len(input_shape) < 3:
            raise ValueError(
                "`TimeDistributed` Layer should be passed an `input_shape` with at least 3 dimensions, "
                f"received: {tuple(input_shape)}"
            )
        super().build((input_shape[0], *input_shape[2:]))

    def call(self, inputs, training=None, mask=None):
        batch, steps = inputs.shape[:2]
        arguments = {}
        if mask is not None:
            if len(mask.shape) < 2:
                raise ValueError(
                    "The `mask` passed to the `TimeDistributed` layer must be at least 2D (e.g., `(batch_size, "
                    f"timesteps)`), but it has {len(mask.shape)} dimension(s) with shape {tuple(mask.shape)}."
                )
            if any(
                isinstance(m, int) and isinstance(n, int) and m != n
                for m, n in zip(mask.shape[:2], inputs.shape[:2], strict=True)
            ):
                raise ValueError(
                    f"The `mask` passed to the `TimeDistributed` layer has a shape {tuple(mask.shape)} that is "
                    f"incompatible with the input shape {tuple(inputs.shape)}. The first two dimensions of the mask "
                    "(batch size and timesteps) must match the input's first two dimensions. Expected mask shape "
                    f"prefix: ({batch}, {steps})."
                )
            if takes(self.layer, "mask"):
                arguments["mask"] = ops.reshape(mask, (batch * steps, *mask.shape[2:]))
        if takes(self.layer, "training"):
            arguments["training"] = training
        if training and isinstance(steps, int) and self.moves_statistics():
            return self.one_by_one(inputs, steps, mask, arguments)
        with steps_as_rows(batch, steps):
            result = self.layer(ops.reshape(inputs, (batch * steps, *inputs.shape[2:])), **arguments)
        return ops.reshape(result, (batch, steps, *result.shape[1:]))

    def moves_statistics(self):
        """Whether the layer takes statistics of its batch, which are those of one step then."""
        return any(isinstance(layer, BatchNormalization) for layer in self.layer._flatten_layers())

    def one_by_one(self, inputs, steps, mask, arguments):
        results = []
        for t in range(steps):
            if "mask" in arguments:
                arguments["mask"] = mask[:, t]
            results.append(self.layer(inputs[:, t], **arguments))
        return ops.stack(results, axis=1)


@contextlib.contextmanager
def steps_as_rows(batch, steps):
    """Inside, the scope's rows are the steps of the rows outside: padding and random draws follow them."""
    scope = current_scope()
    valid, row_id = scope.valid, scope.row_id
    try:
        if valid is not None:
            spread = ops.broadcast_to(ops.expand_dims(valid, 1), (batch, steps))
            scope.valid = ops.reshape(spread, (batch * steps,))
        if row_id is not None:
            scope.row_id = spread_row_ids(row_id, steps)
        yield
    finally:
        scope.valid, scope.row_id = valid, row_id
