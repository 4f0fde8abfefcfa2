"""The rules that every graph keeps, checked.

1. Every op is in the registry.
2. Every `input` node that is used is among the graph's inputs; inputs and params each have names of their own.
3. Every node's type is what its op infers from its inputs.
4. There is at least one output; outputs have names of their own and are arrays, not tuples.
5. The graphs inside nodes (bodies of loops and branches) keep these rules too and hold no node with effects.
6. Interned: no two nodes of the same op, inputs and attributes.
"""

from __future__ import annotations

from ..errors import CompilerError, VerifyError
from ..ops.registry import REGISTRY
from .graph import Graph, Node, inner_graphs, topological, walk
from .types import TensorType

LEAVES = ("input", "param", "constant")


def verify(graph: Graph, after: str | None = None) -> Graph:
    """The same graph, checked.

    Args:
        after: name of the pass that made it, for the error.

    Raises:
        VerifyError: a rule is broken; names the node, the rule and the pass.
    """
    where = f"after pass {after}: " if after else ""

    def fail(text: str) -> None:
        raise VerifyError(where + text)

    if not graph.outputs:
        fail("the graph has no outputs")
    if len(graph.outputs) != len(graph.output_names):
        fail(f"{len(graph.outputs)} outputs have {len(graph.output_names)} names")
    _unique(list(graph.output_names), "output", fail)
    for n in graph.inputs:
        if n.op.name != "input":
            fail(f"graph input {n!r} is no input node")
    _unique([n.attrs["name"] for n in graph.inputs], "input", fail)
    for name, n in zip(graph.output_names, graph.outputs):
        if not isinstance(n.type, TensorType):
            fail(f"output {name!r} is {n!r}: a tuple; take one of its items")
    nodes = topological(graph.outputs)
    _unique([n.attrs["name"] for n in nodes if n.op.name == "param"], "param", fail)
    given = set(graph.inputs)
    seen: dict[tuple, Node] = {}
    for n in nodes:
        _check(n, given, fail)
        key = (n.op.name, tuple(map(id, n.inputs)), repr(sorted(n.attrs.items())) if n.inputs else id(n))
        if n.op.name not in LEAVES and seen.setdefault(key, n).attrs == n.attrs and seen[key] is not n:
            fail(f"{n!r} stands twice in the graph: it was not made by `node`")
    return graph


def _check(n: Node, given: set[Node], fail) -> None:
    if REGISTRY.get(n.op.name) is not n.op:
        fail(f"{n!r}: op {n.op.name!r} is not in the registry")
    if n.op.name == "input" and n not in given:
        fail(f"input {n.attrs['name']!r} is used but not among the graph's inputs")
    if n.op.name in LEAVES[:2]:
        return
    for inner in inner_graphs(n):
        for m in walk(inner):
            if m.op.has_effect:
                fail(f"{m!r} stands inside {n!r}: sums over replicas and other effects belong to the outer graph")
        try:
            verify(inner)
        except VerifyError as error:
            fail(f"inside {n!r}: {error}")
    try:
        expected = n.op.infer(n.inputs, n.attrs)
    except CompilerError as error:
        fail(f"{n!r}: {error}")
    if expected != n.type:
        fail(f"{n!r} has type {n.type}, its op infers {expected}")


def _unique(names: list[str], what: str, fail) -> None:
    for name in names:
        if names.count(name) > 1:
            fail(f"two {what}s are named {name!r}")


def verify_same_interface(before: Graph, graph: Graph, after: str) -> None:
    """What a pass must keep: inputs, output names and output types, and every effect that outputs still need.

    Raises:
        VerifyError: something of this differs; names the pass.
    """
    if graph.inputs != before.inputs:
        raise VerifyError(f"after pass {after}: the inputs differ")
    if graph.output_names != before.output_names:
        raise VerifyError(f"after pass {after}: the outputs are named {graph.output_names}, were {before.output_names}")
    for name, old, new in zip(before.output_names, before.outputs, graph.outputs):
        if old.type != new.type:
            raise VerifyError(f"after pass {after}: output {name!r} has type {new.type}, was {old.type}")
    lost = _effects(before) - _effects(graph)
    if lost > 0:
        raise VerifyError(f"after pass {after}: {lost} nodes with effects are gone")


def _effects(graph: Graph) -> int:
    return sum(n.op.has_effect for n in graph.nodes)
