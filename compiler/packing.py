"""From graphs over named tensors to functions over the flat vectors of `Layout`, stage by stage."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .errors import ProgramError
from .ir import Dim, Graph, Node, TensorType, bind, is_static
from .layout import Entry, Layout, SlotSpec
from .lower import Lowerer, Stage, by_xla, split_at_outputs, split_stages, stage_function, stage_leaves
from .pieces import Pieces

CONTROL = ("valid", "row_id", "key", "rows", "share", "iteration")  # inputs of a step graph that are no batch arrays
Range = tuple[int, int]
UPDATE_INPUTS = ("param", "gradient", "segment", "counted", "learning_rate", "iteration")


@dataclasses.dataclass(frozen=True)
class PackedStage:
    """One stage as a function of flat vectors.

    Attributes:
        names: which arguments it takes: "params", "state", control inputs, and names of batch arrays (or, for an
            update, `UPDATE_INPUTS` and "slot/<name>").
        types: their types, in order.
        carried: types of what the stage before hands over.
        reduced: length of the vector of sums that it takes; None if nothing is summed before it.
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
    graph: Graph,
    kind: str,
    layout: Layout,
    sizes: Mapping[str, Dim],
    lowerer: Lowerer = by_xla,
    pieces: Pieces | None = None,
    further: Sequence[str] = (),
) -> list[PackedStage]:
    """The stages of a train, test or predict graph over flat params and state.

    The last stage gives float32[V] (train), float32[M] (test) or a tuple of arrays (predict).

    Args:
        pieces: params come as these pieces, by their names; a train graph then gives ``(gradients, state, sums)``, the
            gradients as pieces too.
        further: outputs of a train graph that the layout does not hold; with them it gives ``(what it gives, *further)``.

    Raises:
        ProgramError: the graph has a param, gradient, state or sum that the layout does not hold, or another shape.
    """
    finish: Callable = {"train": _finish_train, "test": _finish_test, "predict": _finish_predict}[kind]
    _check_names(graph, kind, layout, further)
    outside, homes = _homes(layout)
    if pieces is None:
        outside["params"] = ((layout.P,), "float32")
        homes |= {e.name: ("params", e.offset) for e in layout.params}
    else:
        outside |= {name: (shape, "float32") for name, shape in zip(pieces.names, pieces.shapes)}
        homes |= {e.name: pieces.home(e.name) for e in layout.params}
        if kind == "train":
            finish = functools.partial(_finish_pieces, pieces)
    extra = _train_extras(graph, layout) if kind == "train" else ()

    def finished(outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
        whole = finish(layout, outs, arrays)
        return (whole, *(outs[name] for name in further)) if further else whole

    stages = split_stages(graph)
    finishes = [*(None for _ in stages[1:]), (extra, finished)]
    return _pack(graph, stages, sizes, *_readers(homes), outside, finishes, lowerer)


def bucket_ranges(layout: Layout, count: int) -> tuple[Range, ...]:
    """At most `count` ranges of the flat vector of about equal numbers of parameters; none cuts a variable.

    The backward pass meets the layers from the last to the first. So the end of the vector comes first: the last layers'
    gradients, with states and sums, which need the forward pass only.

    >>> layout = Layout.of(params={"first": (6,), "second": (6,), "head": (2,)}, sums={"loss": ()})
    >>> bucket_ranges(layout, 2), bucket_ranges(layout, 9)
    (((6, 15), (0, 6)), ((12, 15), (6, 12), (0, 6)))
    """
    starts = [e.offset for e in layout.params if 0 < e.offset < layout.P]
    cuts = {min(starts, key=lambda s: abs(s - layout.P * k / count)) for k in range(1, count) if starts}
    ends = [0, *sorted(cuts), layout.V]
    return tuple(zip(ends[:-1], ends[1:]))[::-1]


def bucket_stages(graph: Graph, layout: Layout, ranges: Sequence[Range]) -> list[Stage]:
    """A train graph cut where it has all of a range's outputs.

    Raises:
        CompilerError: it cannot be cut like that (`lower.split_at_outputs`).
    """
    held = [_outputs(_held(layout, r)) for r in ranges]
    return split_at_outputs(graph, [[n for n in graph.output_names if n in names] for names in held])


def pack_buckets(
    graph: Graph, layout: Layout, sizes: Mapping[str, Dim], ranges: Sequence[Range], lowerer: Lowerer = by_xla
) -> list[PackedStage]:
    """A train graph as one stage for each range of the flat vector, which gives float32[stop - start].

    Args:
        ranges: of `bucket_ranges`.

    Raises:
        ProgramError: as `pack_step`.
        CompilerError: the graph cannot be cut like that (`lower.split_at_outputs`).
    """
    _check_names(graph, "train", layout, ())
    outside, homes = _homes(layout)
    outside["params"] = ((layout.P,), "float32")
    homes |= {e.name: ("params", e.offset) for e in layout.params}
    stages = bucket_stages(graph, layout, ranges)
    held = [_held(layout, r) for r in ranges]
    finishes = [(_train_extras(graph, h), functools.partial(_finish_range, layout.P, h)) for h in held]
    return _pack(graph, stages, sizes, *_readers(homes), outside, finishes, lowerer)


def pack_update(
    graph: Graph, slots: Sequence[SlotSpec], sizes: Mapping[str, Dim], lowerer: Lowerer = by_xla
) -> list[PackedStage]:
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

    named = lambda n, arrays: arrays[n.attrs["name"]]  # noqa: E731
    stages = split_stages(graph)
    finishes = [*(None for _ in stages[1:]), (kept, finish)]
    return _pack(graph, stages, sizes, lambda n: n.attrs["name"], named, outside, finishes, lowerer)


def _homes(layout: Layout) -> tuple[dict[str, tuple], dict[str, tuple[str, int]]]:
    """Arguments of a step that are no inputs of its graph; and of the states, the argument and place of each."""
    outside = {"state": ((layout.S,), "float32"), "share": ((), "float32")}
    return outside, {e.name: ("state", e.offset - layout.P) for e in layout.states}


def _readers(homes: Mapping[str, tuple[str, int]]) -> tuple[Callable, Callable]:
    """Which argument holds a leaf; and the leaf's array, out of the arguments by name."""

    def leaf_name(n: Node) -> str:
        return n.attrs["name"] if n.op.name == "input" else homes[n.attrs["name"]][0]

    def value(n: Node, arrays: Mapping[str, Any]) -> Any:
        if n.op.name == "input":
            return arrays[n.attrs["name"]]
        home, start = homes[n.attrs["name"]]
        array = slice_of(arrays[home], n.shape, start)
        return array if array.dtype == n.dtype else array.astype(n.dtype)

    return leaf_name, value


def _pack(
    graph, stages: Sequence[Stage], sizes, leaf_name, value, outside, finishes, lowerer=by_xla
) -> list[PackedStage]:
    """`graph` in these stages, with arguments by name.

    Args:
        leaf_name: which argument holds a leaf; value: the leaf's array, out of the arguments by name.
        outside: shape and dtype of arguments that are no inputs of the graph.
        finishes: for each stage that gives outputs, the further arguments that ``finish`` reads, and
            ``finish(outputs by name, arguments by name)``; None for others.
    """
    inputs = {n.attrs["name"]: n for n in graph.inputs}
    types = {name: (bind(n.shape, sizes), n.dtype) for name, n in inputs.items()} | outside
    packed: list[PackedStage] = []
    carried: tuple[jax.ShapeDtypeStruct, ...] = ()
    reduced = None
    for k, finishing in enumerate(finishes):
        leaves = stage_leaves(graph, stages, k)
        names = _ordered({leaf_name(n) for n in leaves} | set(finishing[0] if finishing else ()))
        function = _stage(graph, stages, k, sizes, leaves, names, value, finishing and finishing[1], lowerer)
        avals = tuple(jax.ShapeDtypeStruct(*types[name]) for name in names)
        packed.append(PackedStage(names, avals, carried, reduced, function))
        if k < len(stages) - 1:
            vector = None if reduced is None else jax.ShapeDtypeStruct((reduced,), "float32")
            carried, sums = jax.eval_shape(function, avals, carried, vector)
            reduced = sums.shape[0] if stages[k].reduce else None
    return packed


def _stage(graph, stages, k, sizes, leaves, names, value, finish, lowerer) -> Callable:
    inner = stage_function(graph, stages, k, sizes, lowerer)
    gives, outputs = stages[k].gives, tuple(zip(graph.output_names, graph.outputs))

    def function(arrays, carried, reduced):
        named = dict(zip(names, arrays))
        carried, out = inner({n: value(n, named) for n in leaves}, carried, reduced)
        if finish is None:
            return carried, out
        values = dict(zip(gives, out))
        return carried, finish({name: values[n] for name, n in outputs if n in values}, named)

    return function


def _ordered(names: set[str]) -> tuple[str, ...]:
    first = ("params", "state", *UPDATE_INPUTS)
    return tuple(sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name)))


def slice_of(array: Any, shape: tuple[int, ...], start: int) -> Any:
    """The part of a vector that holds a variable of this shape; or the array itself if it is the variable."""
    if array.shape == shape:
        return array
    return jax.lax.slice(array, (start,), (start + math.prod(shape),)).reshape(shape)


def _train_extras(graph: Graph, layout: Layout) -> tuple[str, ...]:
    assigned = {n for n in graph.output_names if n.startswith("state/")}
    return ("share", "state") if any(f"state/{e.name}" not in assigned for e in layout.states) else ()


def _finish_train(layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    return _finish_range(layout.P, layout, outs, arrays)


def _finish_range(first_state: int, layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """`_finish_train` for the entries of a part of a layout, whose states begin at `first_state`."""
    parts = [flat(outs.get(f"grad/{e.name}"), e) for e in layout.params]
    return join([*parts, *_states(layout.states, first_state, outs, arrays), *_sums(layout, outs)])


def _held(layout: Layout, span: Range) -> Layout:
    """The entries inside a range of the flat vector, at their places in the whole one."""
    parts = (layout.params, layout.states, layout.sums)
    return Layout(*(tuple(e for e in part if span[0] <= e.offset < span[1]) for part in parts))


def _outputs(layout: Layout) -> set[str]:
    """What a train graph may call its outputs."""
    kinds = (("grad", layout.params), ("state", layout.states), ("sum", layout.sums))
    return {f"{kind}/{e.name}" for kind, entries in kinds for e in entries}


def _finish_pieces(pieces: Pieces, layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    gradients = {e.name: flat(outs.get(f"grad/{e.name}"), e) for e in layout.params}
    return (
        pieces.gather(gradients, join),
        join(_states(layout.states, layout.P, outs, arrays)),
        join(_sums(layout, outs)),
    )


def _states(entries: Sequence[Entry], first: int, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[Any]:
    """New values of the states; those that the graph does not set, times this replica's share."""
    parts = []
    for e in entries:
        if f"state/{e.name}" in outs:
            parts.append(flat(outs[f"state/{e.name}"], e))
        else:
            start = e.offset - first
            parts.append(jax.lax.slice(arrays["state"], (start,), (start + e.size,)) * arrays["share"])
    return parts


def _sums(layout: Layout, outs: Mapping[str, Any]) -> list[Any]:
    return [flat(outs.get(f"sum/{e.name}"), e) for e in layout.sums]


def _finish_test(layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    return join(_sums(layout, outs))


def _finish_predict(layout: Layout, outs: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple:
    return tuple(outs.values())


def flat(value: Any, entry: Entry) -> Any:
    if value is None:
        return jnp.zeros(entry.size, jnp.float32)
    value = value if value.ndim == 1 else jax.lax.reshape(value, (entry.size,))
    return value if value.dtype == jnp.float32 else value.astype(jnp.float32)


def join(parts: list[Any]) -> Any:
    """Vectors one behind the other, each written into its place.

    XLA fuses the sums over rows that give bias gradients into a `concatenate`, and computes them again and again: 24 of
    28 ms of a small MLP's step. It leaves them alone when their results are written into a vector.
    """
    whole, offset = jnp.zeros(sum(part.size for part in parts), jnp.float32), 0
    for part in parts:
        whole = jax.lax.dynamic_update_slice(whole, part, (offset,))
        offset += part.size
    return whole


def _check_names(graph: Graph, kind: str, layout: Layout, further: Sequence[str]) -> None:
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
        if name in further:
            continue
        if name not in known:
            raise ProgramError(f"{kind} graph: output {name!r} has no place in the layout")
        if all(map(is_static, n.shape)) and math.prod(n.shape) != known[name].size:
            raise ProgramError(f"{kind} graph: output {name!r} is {n.type}, the layout says shape {known[name].shape}")
