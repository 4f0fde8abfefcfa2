"""Results of an op that nobody reads are not computed."""

from __future__ import annotations

from ..ir import Graph, Node, source
from ..ops.registry import item
from .pass_base import Pass, bottom_up


class DropUnusedResults(Pass):
    """Tells ops with an attribute `wanted` (lstm, gru, their gradients, ...) which of their results are read.

    Keeps: inputs, outputs, types of what is read; values. Needs: gradients are taken already, because their rules count on
    all results. Gain: a prediction writes no gates to memory, a network's first layer computes no gradient of its input.
    """

    def find(self, graph: Graph) -> dict[Node, tuple[int, ...]]:
        """The results that are read, for each node that gives others too."""
        read: dict[Node, set[int]] = {n: set() for n in graph.nodes if "wanted" in n.attrs}
        whole = {o for o in graph.outputs}
        for n in graph.nodes:
            if n.op.name == "item" and n.inputs[0] in read:
                read[n.inputs[0]].add(n.attrs["index"])
            else:
                whole.update(n.inputs)
        return {
            n: tuple(sorted(used))
            for n, used in read.items()
            if n not in whole and used and len(used) < len(n.type.items)  # type: ignore[union-attr]
        }

    def replace(self, graph: Graph, found: dict[Node, tuple[int, ...]]) -> Graph:
        def change(old: Node, n: Node) -> Node:
            if n.op.name != "item" or old.inputs[0] not in found:
                return n
            used, many = found[old.inputs[0]], n.inputs[0]
            before = many.attrs["wanted"]
            wanted = used if before is None else tuple(before[i] for i in used)
            with source(many.source):
                narrow = many.op(*many.inputs, **{**many.attrs, "wanted": wanted})
                return item(narrow, used.index(n.attrs["index"]))

        return bottom_up(graph, change)
