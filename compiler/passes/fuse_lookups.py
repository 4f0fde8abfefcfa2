"""A dense layer whose input is rows of tables, side by side, becomes one op with the lookups."""

from __future__ import annotations

from ..ir import Graph, Node, TensorType
from ..ops import dense, shape
from .fuse_convolutions import users_of
from .pass_base import Pass


class FuseLookups(Pass):
    """Makes ``dense(concatenate(table1[ids1], table2[ids2], ..), kernel)`` one op, which can multiply each row once for all
    that look it up.

    Keeps: inputs, outputs, types; values agree to rounding. Needs: `FuseDense`. Gain: docs/design/0007.
    """

    def find(self, graph: Graph) -> dict[Node, list[tuple[Node, Node]]]:
        users = users_of(graph)
        found = {}
        for n in graph.nodes:
            if n.op.name != "dense" or n.inputs[0].ndim != 2 or n.inputs[0] in graph.outputs:
                continue
            x = n.inputs[0]
            if x.op.name != "concatenate" or x.attrs["axis"] not in (1, -1) or users.get(x) != [n]:
                continue
            parts = [_lookup(part, users) for part in x.inputs]
            if all(p is not None for p in parts):
                found[n] = [p for p in parts if p is not None]
        return found

    def replace(self, graph: Graph, found: dict[Node, list[tuple[Node, Node]]]) -> Graph:
        def made(n: Node, parts: list[tuple[Node, Node]]) -> Node:
            rows = [i for table, ids in parts for i in (table, _vector(ids, n.shape[:1]))]
            return dense.dense_of_rows(*rows, *n.inputs[1:], tables=len(parts), **n.attrs)

        return graph.replace({n: made(n, parts) for n, parts in found.items()})


def _lookup(n: Node, users: dict[Node, list[Node]]) -> tuple[Node, Node] | None:
    """The table (n, d) and the ids, one for each row, of rows (b, d) that nobody else reads."""
    read = n
    while read.op.name == "reshape" and users.get(read, []) and len(users[read]) == 1:
        read = read.inputs[0]
    if read.op.name not in ("embedding_lookup", "take") or len(users.get(read, [])) != 1 or read.attrs.get("axis"):
        return None
    table, ids = read.inputs
    if not isinstance(ids.type, TensorType) or ids.dtype != "int32" or table.dtype != "float32" or table.ndim != 2:
        return None
    if table.shape[1] != n.shape[1] or ids.shape[:1] != n.shape[:1] or any(d != 1 for d in ids.shape[1:]):
        return None
    return table, ids


def _vector(ids: Node, wanted: tuple) -> Node:
    return ids if ids.shape == wanted else shape.reshape(ids, shape=wanted)
