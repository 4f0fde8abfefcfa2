"""Tables whose gradients are rows: which weights are only looked up, and the training graph without them.

A weight of n rows of which a batch looks up a few is not worth a gradient of n rows, nor a step of the optimiser over n
rows. `row_graph` takes such a table out of a training graph: the rows looked up become inputs, their gradients outputs.
`IdleRule` says what the optimiser's steps do to the rows that nobody looks up, so that they can be made good later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from .ir import Graph, Node, is_static, topological, walk
from .ops.registry import input_node

HISTORY = 4096  # steps after which every row is brought up to date; coefficients of `IdleRule` reach back so far
LEAST_SIZE = 1 << 16  # elements; a smaller table is updated as a whole
ROWS_PER_LOOKUP = 4  # a table with fewer rows for each lookup of a step is updated as a whole
UNKNOWN_LENGTH = 64  # lookups of an axis of unknown length, for that decision


@dataclasses.dataclass(frozen=True)
class AdamRows:
    """What the native kernels (`kernels.rows`) need to make Adam's steps on rows, those without gradient too.

    Attributes:
        beta_1, beta_2, epsilon: Adam's. clip: the largest gradient, or None. decays: whether there is weight decay.
        scales: what sqrt(v) shrinks to at each node of the sum over idle steps (docs/design/0007).
        rates: inputs "learning_rate" and "iteration"; outputs "rate", bias corrected, and "decay", the part of the weights
            that a step takes away.
    """

    beta_1: float
    beta_2: float
    epsilon: float
    clip: float | None
    decays: bool
    scales: tuple[float, ...]
    rates: Graph


@dataclasses.dataclass(frozen=True)
class IdleRule:
    """An optimiser's steps without gradient, many at once, as graphs.

    Attributes:
        first: the coefficients of a row just touched.
        advance: inputs "coefficient/k" float32[h] for each k, "age" float32[h], "learning_rate", "iteration"; outputs
            "coefficient/k". One step more for rows last touched h steps after the start of the history.
        catch_up: inputs "param" and "slot/..." float32[n, d], "coefficient/k" and "gap" float32[n, 1]; outputs "param" and
            the slots that change. Rows after the `gap` steps that they missed.
        adam: given if the optimiser is Adam with the slots "momentum" and "velocity" in this order.
    """

    first: tuple[float, ...]
    advance: Graph
    catch_up: Graph
    adam: AdamRows | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A weight float32[rows, ...] that a training graph only looks up.

    Attributes:
        name: of its param node. lookups: the nodes that read it; each has its ids as second input.
        gradients: what arrives at lookups, as pairs of ids and rows.
        inputs: the inputs that stand for the lookups' rows in `row_graph`.
    """

    name: str
    lookups: tuple[Node, ...]
    gradients: tuple[tuple[Node, Node], ...]
    inputs: tuple[Node, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.lookups[0].inputs[0].shape)

    @property
    def ids(self) -> tuple[Node, ...]:
        return tuple(n.inputs[1] for n in self.lookups)

    def lookups_of(self, batch: int) -> int:
        """Lookups of a step of `batch` rows, about."""
        return sum(batch * math.prod(d if is_static(d) else UNKNOWN_LENGTH for d in n.shape[1:]) for n in self.ids)

    def pays(self, batch: int) -> bool:
        """Whether a step over rows is less work than one over the whole table."""
        return math.prod(self.shape) >= LEAST_SIZE and self.shape[0] >= ROWS_PER_LOOKUP * self.lookups_of(batch)


def is_lookup(n: Node) -> bool:
    """Whether the node takes rows of its first input by whole numbers."""
    return n.op.name == "embedding_lookup" or (n.op.name == "take" and n.attrs["axis"] == 0)


def find_tables(graph: Graph) -> tuple[dict[str, Table], dict[str, str]]:
    """The tables of a training graph, and for each param of two or more axes that is looked up but no table: why not.

    Of a forward graph: those too that gradients may forbid.
    """
    users: dict[Node, list[Node]] = {}
    for n in graph.nodes:
        for i in n.inputs:
            users.setdefault(i, []).append(n)
    inside = {n for n in walk(graph) if n.op.name == "param"} - set(graph.params)
    named = dict(zip(graph.output_names, graph.outputs))
    tables: dict[str, Table] = {}
    reasons: dict[str, str] = {}
    for param in graph.params:
        name = param.attrs["name"]
        using = users.get(param, [])
        if not any(is_lookup(n) and n.inputs[0] is param for n in using) or len(param.shape) < 2:
            continue
        gradients = _row_gradients(named.get(f"grad/{name}"))
        others = [n for n in using if not is_lookup(n) or n.inputs[1] is param]
        ids = {n.inputs[1] for n in using if is_lookup(n)}
        if others or param in inside or param in graph.outputs:
            what = (
                f"'{others[0].op.name}'{' of ' + str(others[0].source) if others[0].source else ''}"
                if others
                else "a loop"
            )
            reasons[name] = f"it is read whole too, by {what}"
        elif param.dtype != "float32":
            reasons[name] = f"it is {param.dtype}, not float32"
        elif gradients is None:
            reasons[name] = "its gradient is more than rows placed at ids"
        elif not {i for i, _ in gradients} <= ids:
            reasons[name] = "its gradient arrives at other ids than those looked up"
        elif any(n.op.name in ("param", "all_reduce") for n in topological(ids)):
            reasons[name] = "the ids depend on weights"
        else:
            inputs = tuple(
                input_node(f"rows/{name}/{k}", (*n.inputs[1].shape, *param.shape[1:]), "float32")
                for k, n in enumerate(using)
            )
            tables[name] = Table(name, tuple(using), tuple(gradients), inputs)
    return tables, reasons


def _row_gradients(total: Node | None) -> list[tuple[Node, Node]] | None:
    """Pairs of ids and rows whose scattered sum is the node; None if it is something else."""
    if total is None:
        return []
    if total.op.name == "add" and all(i.type == total.type for i in total.inputs):
        parts = [_row_gradients(i) for i in total.inputs]
        return None if any(p is None for p in parts) else [pair for p in parts if p is not None for pair in p]
    if total.op.name == "scatter_rows":
        return [(total.inputs[1], total.inputs[0])]
    return None


def row_graph(graph: Graph, tables: Sequence[Table]) -> Graph:
    """The training graph with rows as inputs (`Table.inputs`) and their gradients as outputs "rows/<table>/<k>".

    A table's k-th output belongs to the k-th of its `gradients`.
    """
    dropped = {f"grad/{t.name}" for t in tables}
    kept = [(name, out) for name, out in zip(graph.output_names, graph.outputs) if name not in dropped]
    rows = [(f"rows/{t.name}/{k}", dy) for t in tables for k, (_, dy) in enumerate(t.gradients)]
    names, outputs = zip(*kept, *rows)
    mapping = {n: i for t in tables for n, i in zip(t.lookups, t.inputs)}
    inputs = (*graph.inputs, *(i for t in tables for i in t.inputs))
    return Graph(inputs, outputs, names).replace(mapping)


def ids_graph(graph: Graph, tables: Sequence[Table]) -> Graph:
    """The part of a training graph that computes the ids of the tables' lookups, in their order; without repetitions."""
    ids = tuple(dict.fromkeys(i for t in tables for i in t.ids))
    read = set(topological(ids))
    inputs = tuple(n for n in graph.inputs if n in read)
    return Graph(inputs, ids, tuple(f"ids/{k}" for k in range(len(ids))))


def applicable(tables: Mapping[str, Table], rules: Mapping[str, IdleRule], batch: int) -> list[Table]:
    """The tables that a step of `batch` rows updates by rows."""
    return [t for name, t in tables.items() if name in rules and t.pays(batch)]
