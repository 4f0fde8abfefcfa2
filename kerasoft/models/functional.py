"""Functional: a model that is the graph of calls between symbolic inputs and outputs."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np

from .. import dtypes, tree
from ..errors import GraphError, LayerError, SerializationError
from ..layers.input_layer import Input, InputLayer
from ..layers.input_spec import InputSpec
from ..layers.layer import Layer
from ..scope import get_mask, set_mask
from ..tensors import Call, KerasTensor, Operation, known_shape
from .graph import call_of, map_graph
from .model import Model


class Functional(Model, manages_build=True):
    """A model made of symbolic inputs and outputs.

    Args:
        inputs: a KerasTensor, or a list, tuple or dict of them.
        outputs: as `inputs`, made from them by layers and ops.
        name: unique; made automatically by default.
        trainable: False freezes all layers.

    Raises:
        GraphError: the outputs are not computed from the inputs alone, or two layers have one name.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any):
        trainable = kwargs.pop("trainable", None)
        for what, given in (("inputs", inputs), ("outputs", outputs)):
            for x in tree.flatten(given):
                if not isinstance(x, KerasTensor):
                    raise GraphError(
                        f"All `{what}` values must be KerasTensors. Received: {what}={given} including invalid value {x} "
                        f"of type {type(x)}"
                    )
                if x.history is None:
                    raise GraphError(f"{x!r} among the {what} was made by no layer; begin with kerasoft.Input")
        Model.__init__(self, name=name, **kwargs)
        if not all(call_of(x).is_input for x in tree.flatten(inputs)):  # type: ignore[union-attr]
            inputs, outputs = _from_fresh_inputs(inputs, outputs)
        self._inputs_struct, self._outputs_struct = inputs, outputs
        self._inputs, self._outputs = tree.flatten(inputs), tree.flatten(outputs)
        if len({id(x) for x in self._inputs}) != len(self._inputs):
            raise GraphError(f"an input is given twice among the model's inputs: {[x.name for x in self._inputs]}")
        self._graph = map_graph(self._inputs, self._outputs, outputs)
        for layer in self.layers:
            self._track(layer)
        if trainable is not None:
            self.trainable = trainable
        self._build_shapes = {"input_shape": None}
        self.built = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_inputs_struct", "_outputs_struct", "_inputs", "_outputs", "_graph"):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # --- structure ---

    @property
    def operations(self) -> list[Operation]:
        """All layers and ops, inputs first."""
        return list(self._graph.operations)

    @property
    def layers(self) -> list[Any]:
        return [o for o in self._graph.operations if isinstance(o, Layer)]

    @layers.setter
    def layers(self, _: Any) -> None:
        raise AttributeError("`Model.layers` attribute is reserved and should not be used. Please use another name.")

    @property
    def inputs(self) -> list[KerasTensor]:
        return list(self._inputs)

    @property
    def outputs(self) -> list[KerasTensor]:
        return list(self._outputs)

    @property
    def input(self) -> Any:
        return self._inputs_struct

    @property
    def output(self) -> Any:
        return self._outputs_struct

    @property
    def input_shape(self) -> Any:
        """The shape of the input; a flat list for several."""
        return _alone([x.shape for x in self._inputs])

    @property
    def output_shape(self) -> Any:
        """The shape of the output; a flat list for several."""
        return _alone([x.shape for x in self._outputs])

    @property
    def input_names(self) -> list[str]:
        """The key of each of `inputs` in a dict of data."""
        if isinstance(self._inputs_struct, dict):
            return [str(path[-1]) for path, _ in tree.flatten_with_path(self._inputs_struct)]
        return [x.history.operation.name for x in self._inputs]

    @property
    def output_names(self) -> list[str]:
        """The name of the layer that makes each of `outputs`."""
        return [x.history.operation.name for x in self._outputs]

    @property
    def input_spec(self) -> Any:
        if self.__dict__.get("_given_spec") is not None:
            return self._given_spec
        if isinstance(self._inputs_struct, dict):
            if not all(isinstance(x, KerasTensor) for x in self._inputs_struct.values()):
                return None
            return [_spec(self._inputs_struct[name], name) for name in sorted(self._inputs_struct)]
        return [_spec(x, x.history.operation.name) for x in self._inputs]

    @input_spec.setter
    def input_spec(self, value: Any) -> None:
        object.__setattr__(self, "_given_spec", value)

    # --- running ---

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def _cast_inputs(self, structure: Any) -> Any:
        return structure  # each input is cast to its own dtype

    def _records_masks(self, call: Call) -> bool:
        return True

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        values = self._standardized(inputs)
        if mask is not None:
            for x, m in zip(values, tree.flatten(mask), strict=False):
                if m is not None and x is not None:
                    set_mask(x, m)

        def run(operation: Any, args: tuple, kwargs: dict) -> Any:
            if training is not None and "training" in kwargs:  # Keras's files hold the default of each call
                kwargs = {**kwargs, "training": training}
            return operation(*args, **kwargs)

        results = self._graph.run(self._inputs, values, self._outputs, run)
        return _alone(tree.pack_as(self._outputs_struct, results))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if args:
            args = (self._checked(args[0]), *args[1:])
        elif "inputs" in kwargs:
            kwargs = {**kwargs, "inputs": self._checked(kwargs["inputs"])}
        return super()._run(*args, **kwargs)

    def _checked(self, inputs: Any) -> Any:
        """`inputs` in the structure of the model's; warns of others, as Keras does.

        Raises:
            LayerError: None for an input that is not optional, or a list for a dict whose keys are not in sorted order.
        """
        named = self._by_name(inputs)
        for x, reference in zip(tree.flatten(named), self._inputs, strict=False):
            if x is None and not getattr(reference.history.operation, "optional", False):
                raise _missing(reference)
        expected = self._inputs_struct
        if isinstance(inputs, dict) and not isinstance(expected, dict):
            return named
        if isinstance(expected, (list, tuple)) and len(expected) == 1 and not tree.is_nested(inputs):
            return named
        if not tree.is_nested(expected) and isinstance(inputs, (list, tuple)) and len(inputs) == 1:
            return named
        if not _is_like(inputs, expected) and len(tree.flatten(named)) == len(self._inputs):
            text = (
                "The structure of `inputs` doesn't match the expected structure.\nExpected: "
                f"{tree.map_structure(lambda x: x.name, expected)}\nReceived: inputs="
                f"{tree.map_structure(lambda x: 'None' if x is None else f'Tensor(shape={known_shape(x)})', inputs)}"
            )
            if isinstance(expected, dict) and not isinstance(inputs, dict) and list(expected) != sorted(expected):
                raise LayerError(text)
            warnings.warn(text, stacklevel=5)
        return named

    def _by_name(self, inputs: Any) -> Any:
        """A dict of inputs in the structure that the model has; others as they are."""
        if not isinstance(inputs, dict):
            return inputs
        if isinstance(self._inputs_struct, dict):
            missing = [k for k in self._inputs_struct if k not in inputs]
            if missing:
                raise LayerError(
                    f'Missing data for input "{missing[0]}". You passed a data dictionary with keys {list(inputs)}. '
                    f"Expected the following keys: {list(self._inputs_struct)}"
                )
            return {k: inputs[k] for k in self._inputs_struct}
        names = {n: x for n, x in zip(self.input_names, self._inputs, strict=True)}
        missing = [n for n in names if n not in inputs]
        if missing:
            raise LayerError(
                f'Missing data for input "{missing[0]}". You passed a data dictionary with keys {list(inputs)}. '
                f"Expected the following keys: {list(names)}"
            )
        flat = [inputs[n] for n in names]
        return tree.pack_as(self._inputs_struct, flat)

    def _standardized(self, inputs: Any) -> list:
        """Flat inputs, each in its dtype, with a last axis of size 1 added or removed where one is expected."""
        from .. import ops

        inputs = self._by_name(inputs)
        flat = tree.flatten(inputs)
        if len(flat) != len(self._inputs):
            raise LayerError(
                "The structure of `inputs` doesn't match the expected structure.\n"
                f"Expected: {tree.map_structure(lambda x: x.name, self._inputs_struct)}\n"
                f"Received: {len(flat)} tensors of shapes {[known_shape(x) for x in flat]}"
            )
        values = []
        for x, reference in zip(flat, self._inputs, strict=True):
            if x is None:
                if not getattr(reference.history.operation, "optional", False):
                    raise _missing(reference)
                values.append(x)
                continue
            mask = get_mask(x)
            if isinstance(x, np.ndarray) and x.dtype.kind in "OUST":
                values.append(_text_of_rank(x, len(reference.shape)))
                continue
            wanted = dtypes.narrowed(reference.dtype)
            y = x if dtypes.standardize(x.dtype) == wanted else ops.cast(x, wanted)
            if len(y.shape) == len(reference.shape) + 1 and y.shape[-1] == 1:
                y = ops.squeeze(y, -1)
            elif len(y.shape) == len(reference.shape) - 1 and reference.shape[-1] == 1:
                y = ops.expand_dims(y, -1)
            elif len(y.shape) != len(reference.shape):
                paths = [path for path, _ in tree.flatten_with_path(self._inputs_struct)]
                path = ".".join(map(str, paths[len(values)]))
                raise LayerError(
                    f"Invalid input shape for input {x} with name '{reference.name}' and path '{path}'. Expected shape "
                    f"{reference.shape}, but input has incompatible shape {known_shape(x)}"
                )
            if mask is not None and y is not x:
                set_mask(y, mask)
            values.append(y)
        return values

    # --- configuration ---

    def get_build_config(self) -> dict:
        return {"input_shape": None}

    def get_config(self) -> dict[str, Any]:
        """Layers with their calls, inputs and outputs; calls are numbered within the model."""
        if not constructor_is_functional(type(self)):
            return Model.get_config(self)
        from ..saving.serialization import serialize_keras_object

        inside = set(self._graph.calls)
        layers = []
        for operation in self._graph.operations:
            nodes = [_serialize_call(c, inside) for c in operation._inbound_nodes if c in inside and not c.is_input]
            layers.append({**serialize_keras_object(operation), "name": operation.name, "inbound_nodes": nodes})

        def place(x: KerasTensor) -> list:
            operation, index, tensor = x.history
            return [operation.name, _index_inside(operation, index, inside) + isinstance(operation, Functional), tensor]

        return {
            "name": self.name,
            "trainable": self._trainable,
            "layers": layers,
            "input_layers": tree.map_structure(place, self._inputs_struct),
            "output_layers": tree.map_structure(place, self._outputs_struct),
        }


def _missing(reference: KerasTensor) -> LayerError:
    return LayerError(
        f"The input '{reference.name}' is not optional, but None was passed. Please provide a valid tensor."
    )


def _is_like(given: Any, expected: Any) -> bool:
    """Whether two structures are nested alike, lists and tuples being the same."""
    if isinstance(expected, dict):
        return (
            isinstance(given, dict)
            and set(given) == set(expected)
            and all(_is_like(given[key], expected[key]) for key in expected)
        )
    if isinstance(expected, (list, tuple)):
        same = isinstance(given, (list, tuple)) and len(given) == len(expected)
        return same and all(_is_like(g, e) for g, e in zip(given, expected, strict=True))
    return not tree.is_nested(given)


def _text_of_rank(x: np.ndarray, axes: int) -> np.ndarray:
    """Text with a last axis of 1 added or removed where the input has it or not."""
    if x.ndim == axes + 1 and x.shape[-1] == 1:
        return x[..., 0]
    return x[..., None] if x.ndim == axes - 1 else x


def _alone(value: Any) -> Any:
    """The item of a list or tuple of one."""
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def _spec(x: KerasTensor, name: str) -> InputSpec:
    optional = getattr(x.history.operation, "optional", False)
    return InputSpec(shape=(None, *x.shape[1:]), allow_last_axis_squeeze=True, name=name, optional=optional)


def constructor_is_functional(cls: type) -> bool:
    mine = inspect.signature(cls.__init__).parameters
    theirs = inspect.signature(Functional.__init__).parameters
    kinds = {p.kind for p in mine.values()}
    takes_all = inspect.Parameter.VAR_POSITIONAL in kinds and inspect.Parameter.VAR_KEYWORD in kinds
    return list(mine) == list(theirs) or takes_all


def _from_fresh_inputs(inputs: Any, outputs: Any) -> tuple[Any, Any]:
    """The part of a graph that begins at tensors in its middle, called again on inputs of its own."""
    old = tree.flatten(inputs)
    graph = map_graph(old, tree.flatten(outputs))
    new = [
        x
        if call_of(x).is_input  # type: ignore[union-attr]
        else Input(batch_shape=x.shape, dtype=x.dtype, sparse=x.sparse, name=f"{x.name}CLONE")
        for x in old
    ]
    results = graph.run(old, new, tree.flatten(outputs))
    return tree.pack_as(inputs, new), tree.pack_as(outputs, results)


# --- configs ------------------------------------------------------------------------------------------------------


def _index_inside(operation: Operation, index: int, inside: set[Call]) -> int:
    return sum(c in inside for c in operation._inbound_nodes[:index])


def _serialize_call(call: Call, inside: set[Call]) -> dict:
    from ..saving.serialization import serialize_keras_object

    def serialize(x: Any) -> Any:
        if not isinstance(x, KerasTensor):
            return serialize_keras_object(x)
        operation, index, tensor = x.history
        history = [operation.name, _index_inside(operation, index, inside), tensor]
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": x.shape, "dtype": x.dtype, "keras_history": history},
        }

    return {"args": list(_map_leaves(serialize, call.args)), "kwargs": _map_leaves(serialize, call.kwargs)}


def _map_leaves(function: Any, structure: Any) -> Any:
    return tree.map_structure(function, structure)


def functional_from_config(cls: type, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
    """The functional model that gave this config: its layers are made, then called as before.

    Raises:
        SerializationError: calls that cannot be resolved, or a name that is not among the layers.
    """
    from ..saving.registration import custom_object_scope
    from ..saving.serialization import deserialize_keras_object

    config = dict(config)
    layers_data, input_layers, output_layers = (config.pop(k) for k in ("layers", "input_layers", "output_layers"))
    name, trainable = config.pop("name", None), config.pop("trainable", None)
    made: dict[str, Any] = {}
    with custom_object_scope(custom_objects):
        for data in layers_data:
            made[data["name"]] = operation = deserialize_keras_object(data)
            if not isinstance(operation, Operation):
                raise SerializationError(f"expected a layer or an op for '{data['name']}', got {type(operation)}")
            if not isinstance(operation, InputLayer):
                operation._inbound_nodes.clear()  # a subclassed model was called to build it; the file counts from here
        waiting = {data["name"]: [n for n in data["inbound_nodes"] if n] for data in layers_data}
        while any(waiting.values()):
            progress = False
            for layer_name, calls in waiting.items():
                while calls:
                    try:
                        args, kwargs = _revive_call(calls[0], made)
                    except _NotYet:
                        break
                    made[layer_name](*args, **kwargs)
                    calls.pop(0)
                    progress = True
            if not progress:
                stuck = [layer_name for layer_name, calls in waiting.items() if calls]
                raise SerializationError(
                    "Invalid Functional model configuration. The graph of the Functional model either has loops or "
                    f"disconnected nodes. The following nodes failed to be resolved: {stuck}"
                )

    def tensor_at(place: list) -> KerasTensor:
        layer_name, index, tensor = place
        return _tensor(made, layer_name, index - isinstance(made.get(layer_name), Functional), tensor)

    def revive(structure: Any) -> Any:
        if isinstance(structure, (list, tuple)) and len(structure) == 3 and isinstance(structure[0], str):
            return tensor_at(list(structure))
        if isinstance(structure, dict):
            return {k: revive(v) for k, v in structure.items()}
        if isinstance(structure, tuple):
            return tuple(revive(v) for v in structure)
        return [revive(v) for v in structure]

    return cls(inputs=revive(input_layers), outputs=revive(output_layers), name=name, trainable=trainable, **config)


class _NotYet(Exception):
    """A tensor that a later call makes."""


def _tensor(made: dict[str, Any], name: str, index: int, tensor: int) -> KerasTensor:
    if name not in made:
        raise SerializationError(f"Unknown layer: {name}. The config has {list(made)}")
    calls = made[name]._inbound_nodes
    if not 0 <= index < len(calls):
        raise _NotYet
    return calls[index].outputs[tensor]


def _revive_legacy_call(data: list, made: dict[str, Any]) -> tuple[list, dict]:
    """A call as Keras 2 wrote it: of each input the layer's name, call and tensor, then arguments."""
    tensors, kwargs = [], {}
    for place in data:
        if len(place) not in (3, 4):
            raise SerializationError("Cannot deserialize the model (invalid config data?)")
        if place[0] not in made:
            raise SerializationError(f"Invalid Functional model configuration. Missing node: {place[0]}")
        tensors.append(_tensor(made, *place[:3]))
        kwargs = place[3] if len(place) == 4 else {}
    return [_alone(tensors)], kwargs


def _revive_call(data: Any, made: dict[str, Any]) -> tuple[list, dict]:
    from ..saving.serialization import deserialize_keras_object

    if isinstance(data, list):
        return _revive_legacy_call(data, made)

    def revive(x: Any) -> Any:
        if isinstance(x, KerasTensor):
            return _tensor(made, *x._keras_history)
        return x

    args, kwargs = deserialize_keras_object(data["args"]), deserialize_keras_object(data["kwargs"])
    return tree.map_structure(revive, args), tree.map_structure(revive, kwargs)


__all__ = ["Functional", "InputLayer", "functional_from_config"]
