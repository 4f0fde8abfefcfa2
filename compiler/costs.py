"""What nodes cost, counted on the graph: floating-point operations and bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .ir import Dim, Graph, Node, TensorType, TupleType, Type, bind, inner_graphs
from .ops.registry import REGISTRY

FREE = frozenset(
    "input param constant item reshape broadcast_to transpose concatenate strided_slice pad flip roll cast zeros_like "
    "ones_like full iota stop_gradient all_reduce".split()
)  # no arithmetic
REDUCTIONS = frozenset("sum mean max min prod all any argmax argmin count_nonzero logsumexp".split())


def bound_type(t: Type, sizes: Mapping[str, Dim]) -> Type:
    """`t` with numbers for its unknown sizes."""
    if isinstance(t, TupleType):
        return TupleType(tuple(bound_type(i, sizes) for i in t.items))  # type: ignore[misc]
    return TensorType(bind(t.shape, sizes), t.dtype)


def elements(t: Type) -> int:
    return sum(map(elements, t.items)) if isinstance(t, TupleType) else math.prod(t.shape)


def size_bytes(t: Type) -> int:
    """Bytes of a value of type `t`."""
    return sum(map(size_bytes, t.items)) if isinstance(t, TupleType) else elements(t) * np.dtype(t.dtype).itemsize


def flops(n: Node, sizes: Mapping[str, Dim]) -> int:
    """Floating-point operations of one node; a multiply-add counts as two.

    A loop counts its body for every step (one step where the number is not known), a branch its longer side. An op without a formula of its own counts one for each element of its result (of its input for a reduction); a
    gradient by JAX counts twice its op.
    """
    types = [bound_type(i.type, sizes) for i in n.inputs]
    attrs = {k: bind(v, sizes) for k, v in n.attrs.items()}
    result = bound_type(n.type, sizes)
    bodies = inner_graphs(n)
    if bodies:
        return max(total_flops(body, sizes) for body in bodies) * _repeats(n, types) * (2 if n.op.name == "vjp" else 1)
    if n.op.name == "vjp":
        of, count = REGISTRY[attrs["of"]], attrs["count"]
        cotangents = types[count:]
        forward = cotangents[0] if len(cotangents) == 1 else TupleType(tuple(cotangents))  # type: ignore[arg-type]
        return 2 * _flops(of, types[:count], dict(attrs["attrs"]), forward)
    return _flops(n.op, types, attrs, result)


def _repeats(n: Node, types: list[Type]) -> int:
    attrs = dict(n.attrs["attrs"]) if n.op.name == "vjp" else n.attrs
    if "carried" not in attrs or "scanned" not in attrs:
        return 1
    first = types[attrs["carried"]] if attrs["scanned"] else None
    return first.shape[0] if isinstance(first, TensorType) else attrs["length"] or 1


def _flops(op, types, attrs, result) -> int:
    if op.flops is not None:
        return int(op.flops(types, attrs, result))
    if op.name in FREE:
        return 0
    return elements(types[0] if op.name in REDUCTIONS else result)


def bytes_moved(n: Node, sizes: Mapping[str, Dim]) -> int:
    """Bytes read and written by one node alone; fusion spares much of it. Of a table the rows that are looked up count."""
    if n.op.name in ("input", "param", "constant", "item"):
        return 0
    if n.op.name == "embedding_lookup":
        return 2 * size_bytes(bound_type(n.type, sizes)) + size_bytes(bound_type(n.inputs[1].type, sizes))
    return size_bytes(bound_type(n.type, sizes)) + sum(size_bytes(bound_type(i.type, sizes)) for i in n.inputs)


def total_flops(graph: Graph, sizes: Mapping[str, Dim]) -> int:
    """Floating-point operations of the graph."""
    return sum(flops(n, sizes) for n in graph.nodes)


def total_bytes(graph: Graph, sizes: Mapping[str, Dim]) -> int:
    """Bytes read and written if every node ran alone."""
    return sum(bytes_moved(n, sizes) for n in graph.nodes)


def peak_bytes(graph: Graph, sizes: Mapping[str, Dim]) -> int:
    """Bytes of all values that are alive at once, at most, if the nodes ran in their order without fusion.

    Inputs, params and constants are not counted, views neither: what remains are the temporaries of a step, with the
    forward values kept for the gradients.
    """
    views = ("input", "param", "constant", "item", "reshape", "broadcast_to", "full", "iota")
    nodes = graph.nodes
    size = {n: 0 if n.op.name in views else size_bytes(bound_type(n.type, sizes)) for n in nodes}
    last: dict[Node, int] = {}
    for i, n in enumerate(nodes):
        for x in (n, *n.inputs):
            last[x] = i
    ends: dict[int, list[Node]] = {}
    for n, i in last.items():
        ends.setdefault(i, []).append(n)
    live = peak = 0
    for i, n in enumerate(nodes):
        live += size[n]
        peak = max(peak, live)
        live -= sum(size[x] for x in ends.get(i, ()))
    return peak


def readable(number: float, unit: str = "") -> str:
    """Three digits and a power of a thousand.

    >>> readable(1234567, "B"), readable(12), readable(0)
    ('1.23 MB', '12', '0')
    """
    for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "k")):
        if abs(number) >= 1000**power:
            return f"{number / 1000**power:.3g} {letter}{unit}"
    return f"{number:.3g}{' ' + unit if unit else ''}"
