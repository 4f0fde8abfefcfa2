"""Pipeline: layers one after the other, as one layer."""

from __future__ import annotations

import inspect

from .. import tree
from ..saving import deserialize_keras_object, serialize_keras_object
from ..scope import get_mask
from .layer import Layer


class Pipeline(Layer):
    """Calls `layers` one after the other. `training` is True unless a model says otherwise."""

    def __init__(self, layers, name=None):
        super().__init__(name=name)
        self._pipeline_layers = list(layers)

    @property
    def layers(self):
        return list(self._pipeline_layers)

    def call(self, inputs, training=True, mask=None):
        for layer in self._pipeline_layers:
            takes = inspect.signature(layer.call).parameters
            kwargs = {"training": training} if "training" in takes and training is not None else {}
            if "mask" in takes and mask is not None:
                kwargs["mask"] = mask
            inputs = layer(inputs, **kwargs)
            masks = tree.map_structure(get_mask, inputs)
            mask = None if all(m is None for m in tree.flatten(masks)) else masks
        return inputs

    def get_config(self):
        return {"layers": serialize_keras_object(list(self._pipeline_layers)), "name": self.name}

    @classmethod
    def from_config(cls, config):
        layers = config.get("layers")
        if not isinstance(layers, (list, tuple)):
            raise ValueError(
                "`Pipeline` config must contain a `layers` key mapping to a list of serialized layers. "
                f"Received config with layers={layers}."
            )
        return cls(**{**config, "layers": [deserialize_keras_object(x) for x in layers]})
