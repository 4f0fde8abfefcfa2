"""The product of sparse rows with a matrix becomes one op, which never writes the rows that it looks up."""

from __future__ import annotations

from ..ir import Graph, Node, TensorType
from ..ops.sparse import sparse_dot
from .fuse_convolutions import users_of
from .pass_base import Pass, bottom_up

EQUATION = "bk,bkd->bd"  # as `ops.sparse.sparse_product` writes it


class FuseSparseProducts(Pass):
    """Makes ``einsum("bk,bkd->bd", values, embedding_lookup(table, ids))`` one op.

    Keeps: inputs, outputs, types; values agree to rounding. Needs: nobody else reads the rows, nor updates the table by
    them (so not for graphs of a training step). Gain: docs/design/0011.
    """

    def find(self, graph: Graph) -> dict[Node, tuple[Node, Node, Node]]:
        users = users_of(graph)
        found = {}
        for n in graph.nodes:
            if n.op.name != "einsum" or n.attrs["equation"] != EQUATION:
                continue
            values, rows = n.inputs
            if rows.op.name != "embedding_lookup" or users.get(rows) != [n] or rows in graph.outputs:
                continue
            table, ids = rows.inputs
            kinds = [i.dtype if isinstance(i.type, TensorType) else None for i in (ids, values, table)]
            if kinds == ["int32", "float32", "float32"] and table.ndim == 2:
                found[n] = (ids, values, table)
        return found

    def replace(self, graph: Graph, found: dict[Node, tuple[Node, Node, Node]]) -> Graph:
        def made(n: Node) -> Node:
            values, rows = n.inputs
            table, ids = rows.inputs
            return sparse_dot(ids, values, table)

        return bottom_up(graph, lambda old, n: made(n) if old in found else n)
