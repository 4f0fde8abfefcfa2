"""Results that nobody reads."""

from __future__ import annotations

from ..ir import Graph, Node, source
from ..ir import node as make_node
from ..ops.registry import item, vjp_op
from .pass_base import Pass, bottom_up


class DropDeadNodes(Pass):
    """Narrows JAX's vector-Jacobian products to the gradients that are read.

    A node that no output needs is not in a graph at all, so what can be dead is one result of a node with several: the
    gradient of a convolution for its input when only the kernel's is wanted.

    Keeps: inputs, outputs, values, nodes with effects. Needs: nothing.
    Gain: FLOP counts and stage cuts are right; the unread product would be dropped by XLA too, after lowering.
    """

    def find(self, graph: Graph) -> dict[Node, list[int]]:
        """For each such node, which of its results are read."""
        read: dict[Node, set[int]] = {}
        for n in graph.nodes:
            if n.op.name == "item" and n.inputs[0].op is vjp_op:
                read.setdefault(n.inputs[0], set()).add(n.attrs["index"])
        return {n: sorted(r) for n, r in read.items() if len(r) < len(n.attrs["wrt"])}

    def replace(self, graph: Graph, found: dict[Node, list[int]]) -> Graph:
        def narrow(old: Node, n: Node) -> Node:
            if n.op.name != "item" or old.inputs[0] not in found:
                return n
            full, kept = n.inputs[0], found[old.inputs[0]]
            attrs = {**full.attrs, "wrt": tuple(full.attrs["wrt"][k] for k in kept)}
            with source(full.source):
                return item(make_node(full.op, full.inputs, attrs), kept.index(n.attrs["index"]))

        return bottom_up(graph, narrow)
