"""Copies of models with weights of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import tree
from ..layers.input_layer import Input, InputLayer
from ..tensors import KerasTensor
from .functional import Functional, constructor_is_functional
from .sequential import Sequential


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable | None = None,
    call_function: Callable | None = None,
    recursive: bool = False,
    **kwargs: Any,
) -> Any:
    """A model of the same architecture with new weights.

    Args:
        input_tensors: inputs to use in place of new ones.
        clone_function: ``layer -> layer``; by default a new layer of the same config.
        call_function: ``(layer, *args, **kwargs) -> outputs``, to change how layers are called.
        recursive: whether `clone_function` is asked for the layers of inner models too.

    A compiled model gives a compiled one, with an optimizer of its own.

    Raises:
        ValueError: an argument that a model of this kind does not take, or `input_tensors` of another structure.
    """
    cache: dict[int, Any] = kwargs.pop("cache", {})
    if kwargs:
        raise ValueError(f"Unexpected keyword argument(s): {tuple(kwargs)}")
    if not isinstance(model, (Functional, Sequential)):
        return _clone_by_config(model, input_tensors, clone_function, call_function)
    if isinstance(model, Sequential) and call_function is not None:
        raise ValueError(
            "`call_function` argument is not supported with Sequential models.  In a Sequential model, layers aren't "
            "called at model-construction time (they're merely listed). Use `call_function` with Functional models "
            f"only. Received model of type '{type(model).__name__}', with call_function={call_function}"
        )

    def clone(layer: Any) -> Any:
        if id(layer) not in cache:
            if recursive and isinstance(layer, (Functional, Sequential)):
                called = None if isinstance(layer, Sequential) else call_function
                cache[id(layer)] = clone_model(layer, None, clone_function, called, True, cache=cache)
            elif clone_function is not None and not isinstance(layer, InputLayer):
                cache[id(layer)] = clone_function(layer)
            else:
                cache[id(layer)] = type(layer).from_config(layer.get_config())
        return cache[id(layer)]

    if isinstance(model, Sequential):
        copy = _clone_sequential(model, input_tensors, clone)
    else:
        copy = _clone_functional(model, input_tensors, clone, call_function)
    if model.compiled:
        copy.compile_from_config(model.get_compile_config())
    return copy


def _clone_by_config(model: Any, input_tensors: Any, clone_function: Any, call_function: Any) -> Any:
    """A copy of a subclassed model, which has to say its config itself."""
    if clone_function or input_tensors:
        raise ValueError(
            "Arguments `clone_function` and `input_tensors` are only supported for Sequential models or Functional "
            f"models. Received model of type '{type(model).__name__}', with clone_function={clone_function} and "
            f"input_tensors={input_tensors}"
        )
    if call_function is not None:
        raise ValueError(
            "Argument `call_function` is only supported for Functional models. Received model of type "
            f"'{type(model).__name__}', with call_function={call_function}"
        )
    from ..saving.serialization import deserialize_keras_object, serialize_keras_object

    return deserialize_keras_object(serialize_keras_object(model), custom_objects={type(model).__name__: type(model)})


def _clone_sequential(model: Sequential, input_tensors: Any, clone: Callable) -> Sequential:
    first = [layer for layer in model._layers if isinstance(layer, InputLayer)]
    start = [Input(batch_shape=x.batch_shape, dtype=x.dtype, name=x.name, optional=x.optional) for x in first]
    if input_tensors is not None:
        start = list(input_tensors) if isinstance(input_tensors, (list, tuple)) else [input_tensors]
        if len(start) != 1:
            raise ValueError("Argument `input_tensors` must contain a single tensor.")
        if not isinstance(start[0], KerasTensor):
            raise ValueError(
                f"Argument `input_tensors` must be a KerasTensor. Received invalid value: input_tensors={start[0]}"
            )
    return Sequential([*start, *map(clone, model.layers)], name=model.name, trainable=model.trainable)


def _clone_functional(model: Functional, input_tensors: Any, clone: Callable, call_function: Callable | None) -> Any:
    if input_tensors is None:
        input_tensors = tree.map_structure(
            lambda x: Input(batch_shape=x.shape, dtype=x.dtype, name=x.name, optional=x.history.operation.optional),
            model.input,
        )
    else:
        if not all(isinstance(x, KerasTensor) for x in tree.flatten(input_tensors)):
            raise ValueError(
                "All entries in `input_tensors` must be KerasTensors. Received invalid values: "
                f"inputs_tensors={input_tensors}"
            )
        try:
            tree.assert_same_structure(input_tensors, model.input)
        except ValueError as error:
            raise ValueError(
                f"`input_tensors` must have the same structure as model.input\nReference structure: {model.input}\n"
                f"Received structure: {input_tensors}"
            ) from error

    def call(operation: Any, args: Any, kwargs: Any) -> Any:
        copy = clone(operation)
        return copy(*args, **kwargs) if call_function is None else call_function(copy, *args, **kwargs)

    outputs = model._graph.run(model.inputs, tree.flatten(input_tensors), model.outputs, call)
    made = type(model) if constructor_is_functional(type(model)) else Functional
    return made(input_tensors, tree.pack_as(model.output, outputs), name=model.name)
