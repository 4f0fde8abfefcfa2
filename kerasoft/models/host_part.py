"""Models that begin with text or other raw columns: what runs in NumPy on the host, and what is compiled.

The calls of a model are split at its `HostLayer`s. Those, and what they need before them, become a `HostPlan`: plain
functions of arrays, without layers, which the driver runs on arrays and Spark's executors on their rows. The rest is the
`DevicePart`, which is traced and compiled; its inputs are the tensors at the cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes, tree
from ..errors import LayerError
from ..host.plan import HostPlan, Slot
from ..layers.layer import Layer
from ..layers.preprocessing.host_layer import HostLayer
from ..tensors import KerasTensor, Operation

# --- calls, nested models opened ------------------------------------------------------------------------------------


class Token:
    """A tensor of one run through the model: a KerasTensor, or what it is in one call of a nested model."""

    def __init__(self, tensor: KerasTensor, name: str):
        self.shape, self.dtype, self.sparse, self.name = tensor.shape, tensor.dtype, tensor.sparse, name


@dataclasses.dataclass
class Step:
    """A call with tokens in place of tensors."""

    operation: Operation
    args: tuple
    kwargs: dict
    outputs: list[Token]

    @property
    def inputs(self) -> list[Token]:
        return [x for x in tree.flatten((self.args, self.kwargs)) if isinstance(x, Token)]


def graph_of(model: Any) -> Any:
    """The functional graph behind a model; None for a subclassed or an unbuilt one."""
    inner = model.__dict__.get("_functional", model)
    return inner if hasattr(inner, "_graph") else None


def has_host_layers(model: Any) -> bool:
    """Whether there is a `HostLayer` in it, at any depth."""
    return any(isinstance(layer, HostLayer) for layer in model._flatten_layers())


def steps_of(functional: Any, tokens: dict[int, Token]) -> list[Step]:
    """The calls of a functional model in order; models that hold host layers are opened. Fills `tokens` by tensor id."""

    def fill(x: Any) -> Any:
        return tokens[id(x)] if isinstance(x, KerasTensor) else x

    steps: list[Step] = []
    for call in functional._graph.calls:
        if call.is_input or not all(id(x) in tokens for x in call.inputs):
            continue
        operation = call.operation
        args, kwargs = tree.map_structure(fill, call.args), tree.map_structure(fill, call.kwargs)
        inner = graph_of(operation) if isinstance(operation, Layer) and has_host_layers(operation) else None
        if inner is not None:
            inside = dict(zip(map(id, inner._inputs), [tokens[id(x)] for x in call.inputs], strict=True))
            steps += steps_of(inner, inside)
            tokens.update({id(x): inside[id(y)] for x, y in zip(call.outputs, inner._outputs, strict=True)})
            continue
        several = len(call.outputs) > 1
        made = [Token(x, f"{operation.name}_{i}" if several else operation.name) for i, x in enumerate(call.outputs)]
        tokens.update(zip(map(id, call.outputs), made, strict=True))
        steps.append(Step(operation, args, kwargs, made))
    return steps


# --- the split ------------------------------------------------------------------------------------------------------


class DevicePart:
    """The compiled part of a model that begins on the host. What tracing asks of a model, it answers for the cut.

    Attributes:
        inputs: a KerasTensor for each cut tensor; input_names: their names, keys of the dict that it is called with.
        plan: makes the `HostPlan`, with the vocabularies that the layers have now.
    """

    def __init__(self, model: Any, functional: Any):
        self.model, self.name = model, model.name
        names = functional.input_names
        self._raw = [Token(x, name) for x, name in zip(functional._inputs, names, strict=True)]
        tokens = dict(zip(map(id, functional._inputs), self._raw, strict=True))
        steps = steps_of(functional, tokens)
        self._host, self._device = _divided(steps, self._raw)
        self._outputs = [tokens[id(x)] for x in functional._outputs]
        self._outputs_struct = functional._outputs_struct
        known = {*self._raw, *(t for step in self._host for t in step.outputs)}
        needed = [t for step in self._device for t in step.inputs] + self._outputs
        cuts = list(dict.fromkeys(t for t in needed if t in known))
        by_name = sorted(zip(_unique([t.name for t in cuts]), cuts, strict=True), key=lambda pair: pair[0])
        self.input_names = [name for name, _ in by_name]  # in the order in which dicts are flattened
        self._cuts = [token for _, token in by_name]
        self._inputs_struct = {
            name: KerasTensor(t.shape, dtypes.narrowed(t.dtype), t.sparse, name=name)
            for name, t in zip(self.input_names, self._cuts, strict=True)
        }
        self.inputs = list(self._inputs_struct.values())

    def plan(self) -> HostPlan:
        slots = {token: i for i, token in enumerate(self._raw)}
        steps: list[tuple[Callable, Any, int]] = []
        for step in self._host:
            (argument,) = step.args or tuple(step.kwargs.values())
            slots[step.outputs[0]] = len(slots)
            argument = tree.map_structure(lambda t: Slot(slots[t]), argument)
            operation: Any = step.operation
            made = operation.sparse_function if step.outputs[0].sparse else operation.host_function
            steps.append((made(), argument, slots[step.outputs[0]]))
        inputs = [(t.name, t.dtype, len(t.shape)) for t in self._raw]
        cuts = [
            (name, slots[t], "object" if t.dtype == "string" else dtypes.narrowed(t.dtype))
            for name, t in zip(self.input_names, self._cuts, strict=True)
        ]
        return HostPlan(f"{type(self.model).__name__} '{self.name}'", inputs, steps, cuts)

    def __call__(self, x: dict[str, Any], training: Any = None) -> Any:
        values = {token: x[name] for name, token in zip(self.input_names, self._cuts, strict=True)}

        def fill(leaf: Any) -> Any:
            return values[leaf] if isinstance(leaf, Token) else leaf

        for step in self._device:
            args, kwargs = tree.map_structure(fill, step.args), tree.map_structure(fill, step.kwargs)
            results = tree.flatten(step.operation(*args, **kwargs))  # type: ignore[operator]
            values.update(zip(step.outputs, results, strict=True))
        return tree.pack_as(self._outputs_struct, [values[t] for t in self._outputs])


def _divided(steps: list[Step], raw: list[Token]) -> tuple[list[Step], list[Step]]:
    """Steps for the host and for the device, each in order."""
    makers = {token: step for step in steps for token in step.outputs}
    possible = set(raw)
    host: set[int] = set()
    for step in steps:
        capable = hasattr(step.operation, "host_function") and all(t in possible for t in step.inputs)
        if capable:
            possible.update(step.outputs)
        if isinstance(step.operation, HostLayer) and capable:
            waiting = [step]
            while waiting:
                found = waiting.pop()
                host.add(id(found))
                waiting += [makers[t] for t in found.inputs if t in makers and id(makers[t]) not in host]
        elif isinstance(step.operation, HostLayer) and not step.operation.has_device_call:
            before = [makers[t].operation.name for t in step.inputs if t not in possible]
            raise LayerError(
                f"{type(step.operation).__name__} '{step.operation.name}' works on strings or 64-bit numbers before the "
                f"compiled step, but takes what '{before[0]}' computes inside it. Put it directly behind an Input."
            )
    return [s for s in steps if id(s) in host], [s for s in steps if id(s) not in host]


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        count = seen[name] = seen.get(name, 0) + 1
        found.append(name if count == 1 else f"{name}_{count - 1}")
    return found


def entry(model: Any) -> Any:
    """What is traced for a model: itself, or its `DevicePart` if it has layers that run on the host."""
    functional = graph_of(model) if isinstance(model, Layer) else None
    if functional is None or not has_host_layers(model):
        return model
    kept = functional.__dict__.get("_device_part")
    if kept is None:
        kept = DevicePart(model, functional)
        object.__setattr__(functional, "_device_part", kept)
    return kept


def on_host(model: Any, x: Any) -> Any:
    """x as the traced part of the model takes it: raw columns looked up, split and hashed, if it has such layers."""
    build_for_text(model, x)
    part = entry(model)
    return x if part is model else part.plan()(x)


def build_for_text(model: Any, x: Any) -> None:
    """Builds a Sequential model without an Input whose first layer takes raw columns, for an array of them."""
    from .sequential import Sequential

    if isinstance(model, Sequential) and not model.built and model.layers and isinstance(model.layers[0], HostLayer):
        array = np.asarray(x)
        model._begin_with(array.shape[1:], "string" if array.dtype.kind in "OUST" else array.dtype.name)
