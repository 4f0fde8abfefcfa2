"""The graph of a model's (or a function's) outputs in inference, for arrays of given shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from .. import dtypes, tree
from ..compiler.ir import Graph, symbol
from ..compiler.ops.registry import input_node
from ..compiler.passes.pipeline import optimise
from ..errors import SerializationError
from ..scope import Scope
from ..tensors import KerasTensor, known_shape


@dataclasses.dataclass
class Forward:
    """What is to be written.

    Attributes:
        graph: from inputs and params to outputs.
        params: the variable behind each of the graph's params, by name.
        inputs, outputs: ``{"name", "shape", "dtype"}`` of each, None for any size.
        structure: of the outputs: ``"one"``, ``"list"``, or the keys of a dict.
    """

    graph: Graph
    params: dict[str, Any]
    inputs: list[dict]
    outputs: list[dict]
    structure: Any


def signature_of(model: Any) -> Any:
    """KerasTensors like the inputs of a built model.

    Raises:
        SerializationError: a model whose inputs are not known.
    """
    if hasattr(model, "_inputs_struct") or getattr(model, "_functional", None) is not None:
        return model.input
    shapes = list((model._build_shapes or {}).values())
    if not model.built or not shapes:
        raise SerializationError(
            f"the inputs of model '{model.name}' are not known: call it on data first, or give `input_signature`"
        )
    return tree_of_shapes(shapes[0], model.input_dtype)


def tree_of_shapes(shape: Any, dtype: str) -> Any:
    if isinstance(shape, dict):
        return {key: tree_of_shapes(value, dtype) for key, value in shape.items()}
    if isinstance(shape, (list, tuple)) and not all(d is None or isinstance(d, int) for d in shape):
        return [tree_of_shapes(value, dtype) for value in shape]
    return KerasTensor((None, *shape[1:]), dtype)


def trace_forward(function: Callable, signature: Any, kind: str = "export") -> Forward:
    """The graph of ``function(signature)``.

    Args:
        signature: KerasTensors, InputSpecs or arrays in the structure that the function takes.

    Raises:
        SerializationError: an output that needs randomness or the host.
    """
    specs = tree.flatten(signature)
    names = _names(signature, specs)
    nodes, inputs = [], []
    for spec, name in zip(specs, names, strict=True):
        shape = spec.shape if isinstance(spec.shape, tuple) else tuple(spec.shape)
        dtype = dtypes.narrowed(spec.dtype or "float32")
        sizes = tuple(symbol("b" if i == 0 else f"n{i}") if d is None else d for i, d in enumerate(shape))
        nodes.append(input_node(name, sizes, dtype))
        inputs.append({"name": name, "shape": list(shape), "dtype": dtype})
    with Scope(training=False) as scope:
        results = function(tree.pack_as(signature, nodes))
        flat = [_as_node(x) for x in tree.flatten(results)]
    output_names = _output_names(function, results, len(flat))
    graph = optimise(Graph(tuple(nodes), tuple(flat), tuple(f"out{i}" for i in range(len(flat)))), kind)
    known = {n.attrs["name"] for n in nodes}
    loose = [n.attrs["name"] for n in graph.inputs if n.attrs["name"] not in known]
    if loose:
        raise SerializationError(
            f"the outputs depend on {loose}, which only training gives; such a model cannot be exported"
        )
    outputs = [
        {"name": name, "shape": list(known_shape(x)), "dtype": str(x.dtype)}
        for name, x in zip(output_names, flat, strict=True)
    ]
    structure = list(results) if isinstance(results, dict) else "list" if isinstance(results, (list, tuple)) else "one"
    return Forward(graph, dict(scope.params), inputs, outputs, structure)


def _as_node(x: Any) -> Any:
    from ..compiler.ir import Node
    from ..compiler.ops.registry import constant

    x = x.__graph_value__() if hasattr(x, "__graph_value__") else x
    return x if isinstance(x, Node) else constant(x)


def _names(signature: Any, specs: list) -> list[str]:
    if isinstance(signature, dict):
        return [str(path[-1]) for path, _ in tree.flatten_with_path(signature)]
    names: list[str] = []
    for i, spec in enumerate(specs):
        history = getattr(spec, "history", None)
        name = history.operation.name if history else getattr(spec, "name", None) or f"input_{i}"
        names.append(name if name not in names else f"{name}_{i}")
    return names


def _output_names(function: Any, results: Any, count: int) -> list[str]:
    if isinstance(results, dict) and len(results) == count:
        return [str(key) for key in results]
    names = list(getattr(function, "output_names", None) or [])
    return names if len(names) == count and len(set(names)) == count else [f"output_{i}" for i in range(count)]
