"""Lowering: a graph becomes a JAX function, whole or cut into stages, at its `all_reduce` nodes or its outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from .errors import CompilerError, ShapeError
from .ir import Dim, Graph, Node, TensorType, bind, inner_graphs, is_static, walk


def sizes_of(nodes: Sequence[Node], arrays: Sequence[Any]) -> dict[str, Dim]:
    """The number behind each unknown size, read off the arrays given for `nodes`.

    While JAX traces with symbolic sizes (`jax.export`), these are the symbolic sizes of the arrays.

    Raises:
        ShapeError: an array does not fit its node's type; names the input, both shapes.
    """
    sizes: dict[str, Dim] = {}
    for n, a in zip(nodes, arrays):
        fits = len(n.shape) == len(a.shape)
        for want, got in zip(n.shape, a.shape):
            if is_static(want):
                fits = fits and want == got
            elif str(want).isidentifier():
                got = int(got) if is_static(got) else got
                fits = fits and sizes.setdefault(str(want), got) == got
        if not fits:
            raise ShapeError(f"{n.attrs.get('name', n.op.name)} needs {n.type}, got shape {tuple(a.shape)}")
    return sizes


Lowerer = Callable[[Node, Sequence[Any], Mapping[str, Any]], Callable[..., Any]]


def by_xla(n: Node, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Callable[..., Any]:
    """The op's own lowering, which JAX can also differentiate and batch."""
    return n.op.lower


def evaluate(
    nodes: Sequence[Node], known: dict[Node, Any], sizes: Mapping[str, Dim], lowerer: Lowerer = by_xla
) -> dict[Node, Any]:
    """Computes `nodes` (in topological order) with JAX, reading and extending `known`.

    Args:
        lowerer: gives the function that computes a node from its inputs, e.g. a `kernels.choice.Chooser`.

    Raises:
        CompilerError: a node reads a value that is neither in `known` nor in `nodes`; or an unknown size has no number.
    """
    for n in nodes:
        if n in known:
            continue
        try:
            inputs = [known[i] for i in n.inputs]
        except KeyError as error:
            raise CompilerError(f"{n!r} needs {error.args[0]!r}, which is neither an input nor computed") from None
        try:
            attrs = {name: bind(value, sizes) for name, value in n.attrs.items()}
        except KeyError as error:
            raise CompilerError(f"{n!r}: the size {error.args[0]!r} is unknown; known are {dict(sizes)}") from None
        known[n] = lowerer(n, inputs, attrs)(*inputs, **attrs)
    return known


def function(graph: Graph, bound: Sequence[Node] | None = None, lowerer: Lowerer = by_xla) -> Callable[..., tuple]:
    """``f(*arrays) -> outputs``: one array for each node of `bound` (the graph's inputs and params by default)."""
    bound = list(bound) if bound is not None else [*graph.inputs, *graph.params]
    nodes = graph.nodes

    def run(*arrays):
        if len(arrays) != len(bound):
            names = [n.attrs.get("name", n.op.name) for n in bound]
            raise ShapeError(f"expected {len(bound)} arrays ({', '.join(map(str, names))}), got {len(arrays)}")
        values = [jnp.asarray(a) for a in arrays]
        known = evaluate(nodes, dict(zip(bound, values)), sizes_of(bound, values), lowerer)
        return tuple(known[o] for o in graph.outputs)

    return run


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a graph cut at its `all_reduce` nodes, or where some of its outputs are ready.

    Attributes:
        carried_in: nodes computed by earlier stages that this one or a later one reads.
        reduced_in: `all_reduce` nodes whose sums this stage is the first to read, in flat order.
        carried_out: what the next stage gets.
        reduce: the nodes whose values are summed over replicas after this stage, in flat order; empty in the last.
        gives: the graph's outputs that this stage gives, if nothing is summed after it.
    """

    carried_in: tuple[Node, ...]
    reduced_in: tuple[Node, ...]
    carried_out: tuple[Node, ...]
    reduce: tuple[Node, ...] = ()
    gives: tuple[Node, ...] = ()


def split_stages(graph: Graph) -> list[Stage]:
    """The graph cut at its `all_reduce` nodes; one stage when it has none.

    Raises:
        CompilerError: an `all_reduce` stands inside a loop or branch, where no cut can be made.
    """
    nodes = graph.nodes
    for n in nodes:
        if any(m.op.name == "all_reduce" for inner in inner_graphs(n) for m in walk(inner)):
            raise CompilerError(f"{n!r} holds an all_reduce; a loop's or branch's body cannot sum over replicas")
    level: dict[Node, int] = {}
    for n in nodes:
        level[n] = max((level[i] + (i.op.name == "all_reduce") for i in n.inputs), default=0)
    last = max([level[n] + (n.op.name == "all_reduce") for n in nodes], default=0)
    final_use: dict[Node, int] = {}
    for n in nodes:
        for i in n.inputs:
            final_use[i] = max(final_use.get(i, 0), level[n])
    for o in graph.outputs:
        final_use[o] = last
    sums = [tuple(n for n in nodes if n.op.name == "all_reduce" and level[n] == k) for k in range(last)]
    leaves = {"input", "param", "constant"}

    def live(k: int) -> tuple[Node, ...]:
        """Nodes ready before stage k that stage k or a later one reads, but for leaves and the sums that k brings in."""
        fresh = set(sums[k - 1])
        return tuple(
            n
            for n in nodes
            if n.op.name not in leaves
            and n not in fresh
            and (level[n] < k - 1 if n.op.name == "all_reduce" else level[n] < k)
            and final_use.get(n, -1) >= k
        )

    carries = [()] + [live(k) for k in range(1, last + 1)] + [()]
    return [
        Stage(
            carried_in=carries[k],
            reduced_in=sums[k - 1] if k else (),
            carried_out=carries[k + 1],
            reduce=sums[k] if k < last else (),
            gives=() if k < last else graph.outputs,
        )
        for k in range(last + 1)
    ]


def split_at_outputs(graph: Graph, groups: Sequence[Sequence[str]]) -> list[Stage]:
    """The graph cut into one stage for each group of its outputs; a stage computes what those before it did not need.

    Nothing is summed between these stages: each can be set going as soon as the one before is.

    Args:
        groups: names of outputs; each output is in one of them.

    Raises:
        CompilerError: the graph holds an `all_reduce`, or a value of several arrays would pass a cut.
    """
    if any(m.op.name == "all_reduce" for m in walk(graph)):
        raise CompilerError("a graph with sums over replicas is cut at them, and cannot be cut at its outputs too")
    outputs = dict(zip(graph.output_names, graph.outputs))
    gives = [tuple(outputs[name] for name in names) for names in groups]
    level = {n: len(groups) - 1 for n in graph.nodes}
    for k in reversed(range(len(groups))):
        level.update(dict.fromkeys(gives[k], k))
    for n in reversed(graph.nodes):
        for i in n.inputs:
            level[i] = min(level[i], level[n])
    for n in graph.nodes:
        if n.op.name == "item":
            level[n] = level[n.inputs[0]]  # an array can be carried on, what it is taken from cannot
    final_use = {n: level[n] for n in graph.nodes}
    for n in graph.nodes:
        for i in n.inputs:
            final_use[i] = max(final_use[i], level[n])
    for k, given in enumerate(gives):
        for n in given:
            final_use[n] = max(final_use[n], k)
    inner = [n for n in graph.nodes if n.op.name not in ("input", "param", "constant")]
    carries: list[tuple[Node, ...]] = [()]
    for k in range(1, len(groups)):
        carries.append(tuple(n for n in inner if level[n] < k <= final_use[n]))
        for n in carries[-1]:
            if not isinstance(n.type, TensorType):
                raise CompilerError(f"{n!r} is several arrays and would pass from one stage to the next")
    carries.append(())
    return [Stage(carries[k], (), carries[k + 1], gives=given) for k, given in enumerate(gives)]


def stage_leaves(graph: Graph, stages: Sequence[Stage], k: int) -> list[Node]:
    """The `input` and `param` nodes that stage `k` reads."""
    stage = stages[k]
    given = {*stage.carried_in, *stage.reduced_in}
    needed = _needed(graph.nodes, _wanted(graph, stages, k), given)
    return [n for n in needed if n.op.name in ("input", "param")]


def stage_function(
    graph: Graph, stages: Sequence[Stage], k: int, sizes: Mapping[str, Dim], lowerer: Lowerer = by_xla
) -> Callable[[Mapping[Node, Any], Sequence[Any], Any], tuple]:
    """Stage `k` as ``f(leaves, carried, reduced) -> (carried_out, to_reduce | outputs)``.

    Args:
        graph, stages: a graph and its `split_stages`.
        k: which stage.
        sizes: the number behind each unknown size.
        lowerer: see `evaluate`.

    The function takes an array for each node of `stage_leaves`, what the stage before carried out, and the sums as one
    float32 vector (None if there are none). It gives what the next stage needs, and a float32 vector to be summed over
    replicas or, where nothing is to be summed, the tuple of the outputs that it `gives`.
    """
    stage = stages[k]
    wanted = _wanted(graph, stages, k)
    order = graph.nodes

    def run(leaves, carried, reduced):
        known = dict(leaves)
        known.update(zip(stage.carried_in, carried))
        offset = 0
        for n in stage.reduced_in:
            shape = bind(n.shape, sizes)
            size = math.prod(shape)
            known[n] = reduced[offset : offset + size].reshape(shape).astype(n.dtype)
            offset += size
        known = evaluate(_needed(order, wanted, known), known, sizes, lowerer)
        if not stage.reduce:
            return tuple(known[n] for n in stage.carried_out), tuple(known[o] for o in stage.gives)
        flat = [jnp.ravel(known[n.inputs[0]]).astype(jnp.float32) for n in stage.reduce]
        return tuple(known[n] for n in stage.carried_out), jnp.concatenate(flat)

    return run


def _wanted(graph: Graph, stages: Sequence[Stage], k: int) -> tuple[Node, ...]:
    stage = stages[k]
    return (*stage.carried_out, *stage.gives, *(n.inputs[0] for n in stage.reduce))


def _needed(order: Sequence[Node], wanted: Sequence[Node], known: Container[Node]) -> list[Node]:
    need: set[Node] = set()
    stack = list(wanted)
    while stack:
        n = stack.pop()
        if n not in need and n not in known:
            need.add(n)
            stack.extend(n.inputs)
    return [n for n in order if n in need]
