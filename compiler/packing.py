"""From graphs over named tensors to functions over the flat vectors of `Layout`, stage by stage."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .errors import ProgramError
from .ir import Dim, Graph, Node, TensorType, bind, is_static
from .layout import Entry, Layout, SlotSpec
from .lower import Lowerer, by_xla, split_stages, stage_function, stage_leaves

CONTROL = ("valid", "row_id", "key", "rows", "share", "iteration")  # inputs of a step graph that are no batch arrays
UPDATE_INPUTS = ("param", "gradient", "segment", "learning_rate", "iteration")


@dataclasses.dataclass(frozen=True)
class PackedStage:
    """One stage as a function of flat vectors.

    Attributes:
        names: which arguments it takes: "params", "state", control inputs, and names of batch arrays (or, for an
            update, `UPDATE_INPUTS` and "slot/<name>").
        types: their types, in order.
        carried: types of what the stage before hands over.
        reduced: length of the vector of sums that it takes; None for the first stage.
        function: ``function(arrays, carried, reduced) -> (carried_out, vector | outputs)``.
    """

    names: tuple[str, ...]
    types: tuple[jax.ShapeDtypeStruct, ...]
    carried: tuple[jax.ShapeDtypeStruct, ...]
    reduced: Any
    function: Callable[[Sequence[Any], Sequence[Any], Any], tuple]


def unknown_sizes(graph: Graph) -> set[str]:
    """Names of the unknown sizes of the graph's inputs: "b", and "n1" and so on for variable lengths."""
    names: set[str] = set()
    for n in graph.inputs:
        assert isinstance(n.type, TensorType)
        names.update(str(d) for d in n.type.shape if not is_static(d))
    return names


def pack_step(
    graph: Graph, kind: str, layout: Layout, sizes: Mapping[str, Dim], lowerer: Lowerer = by_xla
) -> list[PackedStage]:
    """The stages of a train, test or predict graph over flat params and state.

    The last stage gives float32[V] (train), float32[M] (test) or a tuple of arrays (predict).

    Raises:
        ProgramError: the graph has a param, gradient, state or sum that the layout does not hold, or another shape.
    """
    finish = {"train": _finish_train, "test": _finish_test, "predict": _finish_predict}[kind]
    _check_names(graph, kind, layout)
    params = {e.name: (e, 0) for e in layout.params} | {e.name: (e, layout.P) for e in layout.states}
    trainable = {e.name for e in layout.params}
    outside = {"params": ((layout.P,), "float32"), "state": ((layout.S,), "float32"), "share": ((), "float32")}

    def leaf_names(n: Node) -> str:
        if n.op.name == "input":
            return n.attrs["name"]
        return "params" if n.attrs["name"] in trainable else "state"

    def value(n: Node, arrays: Mapping[str, Any]) -> Any:
        if n.op.name == "input":
            return arrays[n.attrs["name"]]
        entry, start = params[n.attrs["name"]]
        return _slice(arrays[leaf_names(n)], entry, start).astype(n.dtype)

    extra = _train_extras(graph, layout) if kind == "train" else ()
    return _pack(
        graph, sizes, leaf_names, value, outside, extra, lambda outs, arrays: finish(layout, outs, arrays), lowerer
    )


def pack_update(graph: Graph, slots: Sequence[SlotSpec], sizes: Mapping[str, Dim]) -> list[PackedStage]:
    """The stages of an update graph; the last gives ``(param, *slots)``. A slot that it does not set stays as it was.

    Raises:
        ProgramError: the graph reads or sets something that is no part of an update.
    """
    known = {*UPDATE_INPUTS, *(f"slot/{s.name}" for s in slots)}
    for n in graph.inputs:
        if n.attrs["name"] not in known:
            raise ProgramError(
                f"update graph: unknown input {n.attrs['name']!r}; it may read {', '.join(sorted(known))}"
            )
    if graph.params:
        raise ProgramError(
            f"update graph: reads param {graph.params[0].attrs['name']!r}; it gets vectors as inputs only"
        )
    if "param" not in graph.output_names:
        raise ProgramError(f"update graph: has no output 'param', got {', '.join(graph.output_names)}")
    outs = ["param", *(f"slot/{s.name}" for s in slots)]
    for name in graph.output_names:
        if name not in outs:
            raise ProgramError(f"update graph: unknown output {name!r}; it may set {', '.join(outs)}")
    kept = tuple(o for o in outs if o not in graph.output_names)
    shape = next(n.shape for n in graph.inputs if n.attrs["name"] == "param")
    outside = {o: (bind(shape, sizes), "float32") for o in kept}

    def finish(values: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple:
        return tuple(values[o] if o in values else arrays[o] for o in outs)

    return _pack(graph, sizes, lambda n: n.attrs["name"], lambda n, a: a[n.attrs["name"]], outside, kept, finish)


def _pack(graph, sizes, leaf_name, value, outside, extra, finish, lowerer=by_xla) -> list[PackedStage]:
    """`graph` in stages, with arguments by name.

    Args:
        leaf_name: which argument holds a leaf; value: the leaf's array, out of the arguments by name.
        outside: shape and dtype of arguments that are no inputs of the graph.
        extra: arguments that `finish` reads; finish: ``finish(outputs by name, arguments by name)``.
    """
    stages = split_stages(graph)
    inputs = {n.attrs["name"]: n for n in graph.inputs}
    types = {name: (bind(n.shape, sizes), n.dtype) for name, n in inputs.items()} | outside
    packed: list[PackedStage] = []
    carried: tuple[jax.ShapeDtypeStruct, ...] = ()
    reduced = None
    for k in range(len(stages)):
        leaves = stage_leaves(graph, stages, k)
        last = k == len(stages) - 1
        names = _ordered({leaf_name(n) for n in leaves} | set(extra if last else ()))
        function = _stage(graph, stages, k, sizes, leaves, names, value, finish if last else None, lowerer)
        avals = tuple(jax.ShapeDtypeStruct(*types[name]) for name in names)
        packed.append(PackedStage(names, avals, carried, reduced, function))
        if not last:
            vector = None if reduced is None else jax.ShapeDtypeStruct((reduced,), "float32")
            carried, sums = jax.eval_shape(function, avals, carried, vector)
            reduced = sums.shape[0]
    return packed


def _stage(graph, stages, k, sizes, leaves, names, value, finish, lowerer) -> Callable:
    inner = stage_function(graph, stages, k, sizes, lowerer)

    def function(arrays, carried, reduced):
        named = dict(zip(names, arrays))
        carried, out = inner({n: value(n, named) for n in leaves}, carried, reduced)
        return carried, (out if finish is None else finish(dict(zip(graph.output_names, out)), named))

    return function


def _ordered(names: set[str]) -> tuple[str, ...]:
    first = ("params", "state", *UPDATE_INPUTS)
    return tuple(sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name)))


def _slice(vector: Any, entry: Entry, start: int) -> Any:
    return jax.lax.slice(vector, (entry.offset - start,), (entry.end - start,)).reshape(entry.shape)


def _train_extras(graph: Graph, layout: Layout) -> tuple[str, ...]:
    assigned = {n for n in graph.output_names if n.startswith("state/")}
    return ("share", "state") if any(f"state/{e.name}" not in assigned for e in layout.states) else ()


def _finish_train(layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    parts = [_flat(outs.get(f"grad/{e.name}"), e) for e in layout.params]
    for e in layout.states:
        if f"state/{e.name}" in outs:
            parts.append(_flat(outs[f"state/{e.name}"], e))
        else:
            parts.append(_slice(arrays["state"], e, layout.P).ravel() * arrays["share"])
    return _concatenate(parts + [_flat(outs.get(f"sum/{e.name}"), e) for e in layout.sums])


def _finish_test(layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    return _concatenate([_flat(outs.get(f"sum/{e.name}"), e) for e in layout.sums])


def _finish_predict(layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple:
    return tuple(outs.values())


def _flat(value: Any, entry: Entry) -> Any:
    if value is None:
        return jnp.zeros(entry.size, jnp.float32)
    return jnp.ravel(value).astype(jnp.float32)


def _concatenate(parts: list[Any]) -> Any:
    """Vectors one behind the other, each written into its place.

    XLA fuses the sums over rows that give bias gradients into a `concatenate`, and computes them again and again: 24 of
    28 ms of a small MLP's step. It leaves them alone when their results are written into a vector.
    """
    whole, offset = jnp.zeros(sum(part.size for part in parts), jnp.float32), 0
    for part in parts:
        whole = jax.lax.dynamic_update_slice(whole, part, (offset,))
        offset += part.size
    return whole


def _check_names(graph: Graph, kind: str, layout: Layout) -> None:
    held = {e.name: e for e in (*layout.params, *layout.states)}
    for n in graph.params:
        entry = held.get(n.attrs["name"])
        if entry is None:
            raise ProgramError(f"{kind} graph: param {n.attrs['name']!r} is not in the layout")
        if entry.shape != tuple(n.shape):
            raise ProgramError(f"{kind} graph: param {entry.name!r} has shape {n.shape}, the layout says {entry.shape}")
    known = {
        "train": {
            **{f"grad/{e.name}": e for e in layout.params},
            **{f"state/{e.name}": e for e in layout.states},
            **{f"sum/{e.name}": e for e in layout.sums},
        },
        "test": {f"sum/{e.name}": e for e in layout.sums},
    }.get(kind)
    if known is None:
        return
    for name, n in zip(graph.output_names, graph.outputs):
        if name not in known:
            raise ProgramError(f"{kind} graph: output {name!r} has no place in the layout")
        if all(map(is_static, n.shape)) and math.prod(n.shape) != known[name].size:
            raise ProgramError(f"{kind} graph: output {name!r} is {n.type}, the layout says shape {known[name].shape}")
