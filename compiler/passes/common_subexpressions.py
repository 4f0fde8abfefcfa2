"""Equal expressions in another order of operands."""

from __future__ import annotations

from ..ir import Graph, Node, source
from ..ir import node as make_node
from .pass_base import Pass, bottom_up

COMMUTATIVE = {
    "add", "multiply", "maximum", "minimum", "equal", "not_equal", "logical_and", "logical_or", "logical_xor",
    "bitwise_and", "bitwise_or", "bitwise_xor",
}  # fmt: skip


class CommonSubexpressions(Pass):
    """Makes ``b + a`` the node ``a + b`` where both stand in a graph.

    Nodes of the same op, inputs and attributes are one object already, so operands in another order are what is left.
    Keeps: inputs, outputs, values bit for bit (these ops are commutative in floating point). Needs: nothing.
    Gain: fewer nodes; products with the same mask or scale are computed once across stages, where XLA cannot see.
    """

    def find(self, graph: Graph) -> bool:
        """Whether some commutative node stands in the graph in both orders."""
        seen: set[tuple] = set()
        for n in graph.nodes:
            if n.op.name in COMMUTATIVE and n.inputs[0] is not n.inputs[1]:
                key = (n.op, frozenset(n.inputs))
                if key in seen:
                    return True
                seen.add(key)
        return False

    def replace(self, graph: Graph, found: bool) -> Graph:
        first: dict[tuple, Node] = {}

        def change(old: Node, n: Node) -> Node:
            if n.op.name not in COMMUTATIVE:
                return n
            with source(n.source):
                known = first.setdefault((n.op, frozenset(n.inputs)), n)
                return known if known.type == n.type else make_node(n.op, n.inputs, n.attrs)

        return bottom_up(graph, change)
