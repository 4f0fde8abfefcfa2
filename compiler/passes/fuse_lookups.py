"""A dense layer whose input is rows of tables, side by side, becomes one op with the lookups."""

from __future__ import annotations

from ..ir import Graph, Node, TensorType
from ..ops import dense, shape
from ..ops.registry import item
from .fuse_convolutions import users_of
from .pass_base import Pass, bottom_up


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

        return bottom_up(graph, lambda old, n: made(n, found[old]) if old in found else n)


def multiply_rows_once(graph: Graph, ids: dict[Node, Node]) -> Graph:
    """A row graph (`compiler.rows`) whose dense layers on rows of tables, and their gradients, work once for each row.

    Args:
        ids: for some of the inputs that stand for rows looked up, int32[b]: the position that stands for a row's id. Outputs
            "rows/..", of which the sums over equal ids count, may then have them at one position.
    """
    users = users_of(graph)
    outputs = {o for name, o in zip(graph.output_names, graph.outputs) if name.startswith("rows/")}
    layers: dict[Node, list[tuple[Node, Node]]] = {}
    gradients: dict[Node, tuple[Node, list[tuple[Node, Node]]]] = {}
    for n in graph.nodes:
        if n.op.name != "dense" or n.inputs[0].op.name != "concatenate" or n.inputs[0].ndim != 2:
            continue
        x, kernel = n.inputs[:2]
        parts = [_given(part, users, ids) for part in x.inputs]
        others = [u for u in users[x] if u is not n]
        if any(p is None for p in parts) or len(others) != 1 or others[0].op.name != "dense_grad_kernel":
            continue
        dy = others[0].inputs[1]
        back = [u for u in users[dy] if u.op.name == "dense_grad_input" and u.inputs == (dy, kernel)]
        if others[0].inputs[0] is x and len(back) == 1 and _only_reaches(back[0], outputs, users):
            layers[n] = [p for p in parts if p is not None]
            gradients |= {g: (kernel, layers[n]) for g in (others[0], back[0])}
    made: dict[Node, Node] = {}

    def change(old: Node, n: Node) -> Node:
        if old in layers:
            return dense.dense_of_rows(*_flat(layers[old]), *n.inputs[1:], tables=len(layers[old]), **n.attrs)
        if old not in gradients:
            return n
        kernel, parts = gradients[old]
        dy = n.inputs[1 if n.op.name == "dense_grad_kernel" else 0]
        if dy not in made:
            made[dy] = dense.dense_of_rows_gradients(*_flat(parts), dy, kernel, tables=len(parts))
        if n.op.name == "dense_grad_kernel":
            return made[dy]
        return shape.concatenate([item(made[dy], 2 + j) for j in range(len(parts))], axis=1)

    if not layers:
        return graph
    inputs = (*graph.inputs, *dict.fromkeys(i for parts in layers.values() for _, i in parts))
    return bottom_up(Graph(inputs, graph.outputs, graph.output_names), change)


def _flat(parts: list[tuple[Node, Node]]) -> list[Node]:
    return [i for pair in parts for i in pair]


def _given(n: Node, users: dict[Node, list[Node]], ids: dict[Node, Node]) -> tuple[Node, Node] | None:
    """The input of rows, as (b, d), and the ids that belong to it."""
    read = n
    while read.op.name == "reshape":
        read = read.inputs[0]
    if read not in ids or ids[read].shape != n.shape[:1] or read.shape[-1:] != n.shape[1:]:
        return None
    return n, ids[read]


def _only_reaches(n: Node, outputs: set[Node], users: dict[Node, list[Node]]) -> bool:
    """Whether slices of `n` are these outputs, and nothing else comes of it."""
    if n in outputs:
        return all(u is n for u in users.get(n, []))
    following = users.get(n, [])
    return bool(following) and all(
        u.op.name in ("strided_slice", "reshape") and _only_reaches(u, outputs, users) for u in following
    )


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
