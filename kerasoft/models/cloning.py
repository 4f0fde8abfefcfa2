"""Copies of models with weights of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import tree
from ..errors import GraphError
from ..layers.input_layer import Input, InputLayer
from ..tensors import KerasTensor
from .functional import Functional
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

    Raises:
        GraphError: a subclassed model.
    """
    if kwargs:
        raise ValueError(f"Unexpected keyword argument(s): {tuple(kwargs)}")
    if not isinstance(model, (Functional, Sequential)):
        raise GraphError(
            "Expected `model` argument to be a `Model` instance, got a subclassed model instead. "
            f"Received: model={model} (of type {type(model)})"
        )

    def clone(layer: Any) -> Any:
        if recursive and isinstance(layer, (Functional, Sequential)):
            return clone_model(layer, clone_function=clone_function, call_function=call_function, recursive=True)
        if clone_function is not None and not isinstance(layer, InputLayer):
            return clone_function(layer)
        if isinstance(layer, (Functional, Sequential)):
            return clone_model(layer)
        return type(layer).from_config(layer.get_config())

    if isinstance(model, Sequential):
        return _clone_sequential(model, input_tensors, clone)
    return _clone_functional(model, input_tensors, clone, call_function)


def _clone_sequential(model: Sequential, input_tensors: Any, clone: Callable) -> Sequential:
    given = tree.flatten(input_tensors) if input_tensors is not None else []
    first = [layer for layer in model._layers if isinstance(layer, InputLayer)]
    start = given[:1] or [Input(batch_shape=x.batch_shape, dtype=x.dtype, name=x.name) for x in first]
    return type(model)([*start, *map(clone, model.layers)], name=model.name, trainable=model._trainable)


def _clone_functional(model: Functional, input_tensors: Any, clone: Callable, call_function: Callable | None) -> Any:
    if input_tensors is None:
        fresh = [Input(batch_shape=x.shape, dtype=x.dtype, name=x.history.operation.name) for x in model.inputs]
    else:
        fresh = [
            x if isinstance(x, KerasTensor) else Input(batch_shape=(None, *x.shape[1:]), dtype=x.dtype)
            for x in tree.flatten(input_tensors)
        ]
    copies: dict[int, Any] = {}

    def call(operation: Any, args: Any, kwargs: Any) -> Any:
        if id(operation) not in copies:
            copies[id(operation)] = clone(operation)
        copy = copies[id(operation)]
        return copy(*args, **kwargs) if call_function is None else call_function(copy, *args, **kwargs)

    outputs = model._graph.run(model.inputs, fresh, model.outputs, call)
    inputs = tree.pack_as(model.input, fresh)
    return Functional(inputs, tree.pack_as(model.output, outputs), name=model.name, trainable=model._trainable)
