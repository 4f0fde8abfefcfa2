"""What is known now is computed now."""

from __future__ import annotations

import numpy as np

from ..ir import Constant, Graph, Node, TensorType, is_static
from ..ops.registry import constant
from .pass_base import Pass, bottom_up

LEAVES = ("input", "param", "constant")
LARGEST = 1 << 16  # elements of a constant that may arise


class FoldConstants(Pass):
    """Computes nodes whose inputs are all constants.

    Keeps: inputs, outputs, types; nodes with effects; nodes whose result would be larger than 65,536 elements, or more
    than 64 elements and larger than all of its inputs together (a repeated number is better repeated by the step).
    Values agree to rounding: XLA may have fused the operation with its neighbours.
    Needs: nothing. Gain: fewer nodes for the passes after it; XLA folds what is left.
    """

    def find(self, graph: Graph) -> set[Node]:
        """Nodes that depend on constants only."""
        known: set[Node] = set()
        for n in graph.nodes:
            if n.op.name == "constant" or (
                n.op.name not in LEAVES and not n.op.has_effect and known.issuperset(n.inputs) and _known(n)
            ):
                known.add(n)
        return {n for n in known if _worth_it(n)}

    def replace(self, graph: Graph, found: set[Node]) -> Graph:
        values: dict[Node, np.ndarray] = {}

        def value(n: Node):
            if n not in values:
                values[n] = n.op.lower(*map(value, n.inputs), **n.attrs)
            return values[n]

        return bottom_up(graph, lambda old, n: _constant(value(old), old) if old in found else n)


def _worth_it(n: Node) -> bool:
    if n.op.name == "constant" or not isinstance(n.type, TensorType) or not _known(n):
        return False
    size = int(np.prod(n.shape, dtype=np.int64))
    given = sum(int(np.prod(i.shape, dtype=np.int64)) for i in n.inputs if isinstance(i.type, TensorType) and _known(i))
    return size <= LARGEST and (size <= 64 or size <= given)


def _known(n: Node) -> bool:
    """Whether neither its shape nor its attributes hold an unknown size."""
    types = (n.type,) if isinstance(n.type, TensorType) else n.type.items
    return all(is_static(d) for t in types for d in t.shape) and all(map(_plain, n.attrs.values()))


def _plain(value) -> bool:
    """Whether an attribute holds neither an unknown size, nor a graph, nor a user's function."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, Constant))


def _constant(value, old: Node) -> Node:
    made = constant(np.asarray(value), old.dtype)
    return made if made.type == old.type else old
