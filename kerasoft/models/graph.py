"""The calls between symbolic inputs and outputs, in Keras's order (which is the order of layers and weights)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from .. import tree
from ..errors import GraphError
from ..tensors import Call, KerasTensor, Operation


@dataclasses.dataclass(frozen=True)
class CallGraph:
    """What a functional model runs.

    Attributes:
        calls: in running order, input calls included.
        depths: distance of each call from the outputs.
        operations: each once, the deepest first, then in order of discovery from the outputs.
    """

    calls: list[Call]
    depths: dict[Call, int]
    operations: list[Operation]

    def run(self, inputs: list, values: list, outputs: list, call: Callable | None = None) -> list:
        """Values of `outputs` for `values` of `inputs`; `call(operation, args, kwargs)` replaces the plain call."""
        known = {id(x): value for x, value in zip(inputs, values, strict=True)}

        def fill(x: Any) -> Any:
            return known[id(x)] if isinstance(x, KerasTensor) else x

        for record in self.calls:
            if record.is_input or not all(id(x) in known for x in record.inputs):
                continue
            args, kwargs = tree.map_structure(fill, record.args), tree.map_structure(fill, record.kwargs)
            operation = record.operation
            results = operation(*args, **kwargs) if call is None else call(operation, args, kwargs)
            known.update({id(x): value for x, value in zip(record.outputs, tree.flatten(results), strict=True)})
        for x in outputs:
            if id(x) not in known:
                raise GraphError(f"output {x!r} is not connected to the inputs")
        return [known[id(x)] for x in outputs]


def call_of(tensor: KerasTensor) -> Call | None:
    """The call that made a tensor."""
    history = tensor.history
    return None if history is None else history.operation._inbound_nodes[history.node_index]


def map_graph(inputs: list, outputs: list, structure: Any = None) -> CallGraph:
    """The graph between `inputs` and `outputs`.

    Args:
        structure: of the outputs, for errors that say which one; a flat list by default.

    Raises:
        GraphError: an output depends on a tensor that no input leads to, or two operations have one name.
    """
    order, found = _search(inputs, outputs)
    inside = set(order)
    depths: dict[Call, int] = {}
    operation_depths: dict[Operation, int] = {}
    for call in reversed(order):
        depth = max(depths.setdefault(call, 0), operation_depths.get(call.operation, 0))
        operation_depths[call.operation] = depths[call] = depth
        for parent in call.parents:
            if parent in inside:
                depths[parent] = max(depth + 1, depths.get(parent, 0))
        for x, ops in call.mask_sources:  # Keras has operations for what a mask is computed by
            parent = call_of(x)
            if parent in inside:
                depths[parent] = max(depth + 1 + ops, depths.get(parent, 0))
    for x in inputs:  # inputs that lead nowhere are kept: they may be used by losses
        call = call_of(x)
        if call is not None and call.operation not in operation_depths and call.is_input:
            operation_depths[call.operation] = depths[call] = 0
            found[call.operation] = -1
    calls = sorted(depths, key=lambda c: -depths[c])
    operations = sorted(operation_depths, key=lambda o: (-operation_depths[o], found[o]))
    _check_connected(inputs, calls, outputs if structure is None else structure)
    _check_names(operations)
    return CallGraph(calls, depths, operations)


def _search(inputs: list, outputs: list) -> tuple[list[Call], dict[Operation, int]]:
    """Calls from inputs to outputs (depth-first), and the order in which operations were met."""
    order: list[Call] = []
    done: set[Call] = set()
    open_calls: set[Call] = set()
    found: dict[Operation, int] = {}
    given = {id(x) for x in inputs}
    stack: list[tuple[str, Any]] = [("visit", x) for x in reversed(outputs)]
    while stack:
        what, item = stack.pop()
        if what == "finish":
            open_calls.discard(item)
            done.add(item)
            order.append(item)
            continue
        call = call_of(item)
        if call is None or call in done:
            continue
        if not call.is_input and id(item) in given:
            done.add(call)
            continue
        if call in open_calls:
            raise GraphError(f"Tensor {item} from operation '{call.operation.name}' is part of a cycle.")
        found.setdefault(call.operation, len(found))
        open_calls.add(call)
        stack.append(("finish", call))
        stack.extend(("visit", x) for x in reversed(call.inputs))
    return order, found


def _check_connected(inputs: list, calls: Iterable[Call], outputs: Any) -> None:
    computable = {id(x) for x in inputs}
    reached: list[str] = []
    for call in calls:
        for x in call.inputs:
            if id(x) not in computable:
                raise GraphError(
                    f"Graph disconnected: cannot find parent for tensor {x} at operation '{call.operation.name}'"
                    + (f" (called at {call.line})" if call.line else "")
                    + f". The following previous operations were accessed without issue: {reached}"
                )
        reached.append(call.operation.name)
        if call.is_input and not all(id(x) in computable for x in call.outputs):
            raise GraphError(
                f"Output with path `{_path_from(call, outputs)}` is not connected to `inputs`. Graph disconnected: the "
                f"output depends on Input '{call.operation.name}', which is not among the model's inputs "
                f"{[x.name for x in inputs]}."
            )
        computable.update(id(x) for x in call.outputs)


def _path_from(call: Call, outputs: Any) -> str:
    """The path of the first output that depends on a call."""
    for path, x in tree.flatten_with_path(outputs):
        waiting, seen = [call_of(x)], set()
        while waiting:
            found = waiting.pop()
            if found is call:
                return ".".join(map(str, path))
            if found is not None and found not in seen:
                seen.add(found)
                waiting.extend(found.parents)
    return ""


def _check_names(operations: list[Operation]) -> None:
    names = [o.name for o in operations]
    for name in names:
        if names.count(name) != 1:
            raise GraphError(
                f'The name "{name}" is used {names.count(name)} times in the model. All operation names should be unique.'
            )
