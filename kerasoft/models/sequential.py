"""Sequential: layers one after the other."""

from __future__ import annotations

from typing import Any

from ..errors import GraphError
from ..layers.input_layer import InputLayer
from ..layers.layer import Layer
from ..layers.shapes import is_shape
from ..layers.sparse_dense import SparseDense
from ..tensors import KerasTensor
from .functional import Functional
from .model import Model


class Sequential(Model, manages_build=True):
    """Layers one after the other. Without an `Input` first, weights are made at the first call.

    Args:
        layers: layers, or an `Input` and layers.

    >>> import kerasoft as ks
    >>> class Twice(ks.Layer):
    ...     def call(self, x):
    ...         return x * 2
    >>> model = ks.Sequential([ks.Input((2,)), Twice(), Twice()])
    >>> model.output_shape, model([[1.0, 2.0]]).tolist()
    ((None, 2), [[4.0, 8.0]])
    """

    _sizes_of_data = False  # whether its Input's sizes are those of the first data, which others may differ from

    def __init__(self, layers: Any = None, trainable: bool = True, name: str | None = None):
        Model.__init__(self, trainable=trainable, name=name)
        self._functional: Functional | None = None
        for layer in layers or []:
            self._append(layer)
        self._rebuild()

    # --- changing ---

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Adds a layer at the end.

        Raises:
            GraphError: not a layer, a name that is there already, or a second Input.
        """
        self._append(layer)
        if rebuild:
            self._rebuild()

    def _append(self, layer: Any) -> None:
        if not self._layers and getattr(layer, "_input_shape_arg", None) is not None:
            self._append(InputLayer(shape=layer._input_shape_arg))
        if isinstance(layer, KerasTensor) and layer.history and isinstance(layer.history.operation, InputLayer):
            layer = layer.history.operation
        if not isinstance(layer, Layer):
            raise GraphError(
                "Only instances of `keras.Layer` can be added to a Sequential model. "
                f"Received: {layer} (of type {type(layer)})"
            )
        if any(other.name == layer.name and other is not layer for other in self._layers):
            raise GraphError(
                "All layers added to a Sequential model should have unique names. "
                f"Name '{layer.name}' is already the name of a layer in this model. Update the `name` argument to pass a "
                "unique name."
            )
        if isinstance(layer, InputLayer) and self._layers:
            first = self._layers[0]
            if isinstance(first, InputLayer):
                raise GraphError(
                    f"Sequential model '{self.name}' has already been configured to use input shape "
                    f"{first.batch_shape}. You cannot add a different Input layer to it."
                )
            raise GraphError(f"Sequential model '{self.name}': an Input must be the first layer")
        self._layers.append(layer)

    def pop(self, rebuild: bool = True) -> Layer:
        """Removes the last layer and returns it."""
        layer = self._layers.pop()
        self._functional, self.built = None, False
        if rebuild:
            self._rebuild()
        return layer

    def _rebuild(self) -> None:
        if not self._layers or len(self._layers) < 2:
            self._functional, self.built = None, False
            return
        first = self._layers[0]
        if isinstance(first, InputLayer):
            self._connect(first.batch_shape)
        elif is_shape(getattr(first, "input_shape", None)):
            self._connect(first.input_shape)

    # --- building ---

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights for inputs of this shape (batch axis included)."""
        if not self._layers:
            raise GraphError(
                f"Sequential model {self.name} cannot be built because it has no layers. Call `model.add(layer)`."
            )
        if not is_shape(input_shape):
            return
        shape = tuple(input_shape)
        first = self._layers[0]
        if isinstance(first, InputLayer) and first.batch_shape[1:] != shape[1:]:
            raise GraphError(
                f"Sequential model '{self.name}' has already been configured to use input shape {first.batch_shape}. You "
                f"cannot build it with input_shape {shape}"
            )
        self._connect(shape)

    def _connect(self, batch_shape: tuple) -> None:
        """The graph of the layers; calls of an earlier graph are used again."""
        if not isinstance(self._layers[0], InputLayer):
            self._layers.insert(0, _input_for(self._layers[0], batch_shape))
        x = inputs = self._layers[0].output
        with self._name_scope():
            for layer in self._layers[1:]:
                x = _call_once(layer, x)
        self._functional = Functional(inputs, x, name=self.name)
        self._build_shapes = {"input_shape": tuple(batch_shape)}
        self._after_build()

    def _begin_with(self, shape: tuple, dtype: str) -> None:
        """Puts an Input for rows of this shape and dtype first, and builds."""
        self._layers.insert(0, InputLayer(shape=shape, dtype=dtype))
        self._connect((None, *shape))
        self._sizes_of_data = True

    def _call_build(self, shapes: dict[str, Any]) -> None:
        shape = next(iter(shapes.values()), None)
        if is_shape(shape):
            self._sizes_of_data = not isinstance(self._layers[0], InputLayer)
            self.build((None, *shape[1:]))
        self._after_build()

    def build_from_config(self, config: dict) -> None:
        if not self.built and config.get("input_shape"):
            self.build(config["input_shape"])

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if self._functional is not None:
            return self._functional.call(inputs, training=training, mask=mask)
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs

    def _cast_inputs(self, structure: Any) -> Any:
        return structure if self._functional is not None else super()._cast_inputs(structure)

    # --- structure ---

    @property
    def layers(self) -> list[Any]:
        """The layers without the Input."""
        return self._layers[1:] if self._layers and isinstance(self._layers[0], InputLayer) else list(self._layers)

    @layers.setter
    def layers(self, _: Any) -> None:
        raise AttributeError(
            "`Sequential.layers` attribute is reserved and should not be used. Use `add()` and `pop()` to change the "
            "layers in this model."
        )

    def _part(self, name: str) -> Any:
        if self._functional is None:
            raise AttributeError(f"Sequential model '{self.name}' has no defined {name.replace('_', ' ')} yet.")
        return getattr(self._functional, name)

    inputs = property(lambda self: self._part("inputs"))
    outputs = property(lambda self: self._part("outputs"))
    input = property(lambda self: self._part("input"))
    output = property(lambda self: self._part("output"))
    input_shape = property(lambda self: self._part("input_shape"))
    output_shape = property(lambda self: self._part("output_shape"))
    input_names = property(lambda self: self._part("input_names"))
    output_names = property(lambda self: self._part("output_names"))

    @property
    def input_spec(self) -> Any:
        return (
            self._functional.input_spec
            if self._functional is not None and not self._sizes_of_data
            else self.__dict__.get("_given_spec")
        )

    @input_spec.setter
    def input_spec(self, value: Any) -> None:
        object.__setattr__(self, "_given_spec", value)

    @property
    def input_dtype(self) -> str:
        first = self._layers[0] if self._layers else None
        return first.input_dtype if isinstance(first, InputLayer) else self.compute_dtype

    # --- configuration ---

    def get_config(self) -> dict[str, Any]:
        from ..saving.serialization import serialize_keras_object

        config = {
            "name": self.name,
            "trainable": self._trainable,
            "dtype": serialize_keras_object(self.dtype_policy),
            "layers": [serialize_keras_object(layer) for layer in self._layers],
        }
        if self._functional is not None:
            config["build_input_shape"] = self._layers[0].batch_shape
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        from ..saving.registration import custom_object_scope
        from ..saving.serialization import deserialize_keras_object

        with custom_object_scope(custom_objects):
            model = cls(name=config.get("name"))
            for layer in config["layers"]:
                model._append(deserialize_keras_object(layer))
        model._rebuild()
        shape = config.get("build_input_shape")
        if model._functional is None and is_shape(shape) and model._layers:
            model.build(tuple(shape))
        if config.get("trainable") is False:
            model.trainable = False
        return model


def _input_for(layer: Layer, batch_shape: tuple) -> InputLayer:
    """An Input for the first layer of a model that has none."""
    sparse = isinstance(layer, SparseDense) and len(batch_shape) == 2
    return InputLayer(batch_shape=batch_shape, dtype=layer.input_dtype, sparse=sparse)


def _call_once(layer: Layer, x: Any) -> Any:
    """What `layer` gives for `x`, from a call that it has seen already if there is one."""
    for call in layer._inbound_nodes:
        if len(call.args) == 1 and call.args[0] is x and not call.kwargs and len(call.outputs) == 1:
            return call.outputs[0]
    return layer(x)
