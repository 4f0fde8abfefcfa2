"""Where the nodes of a graph belong when it is cut into stages, each computed by one worker.

The forward part of a training graph (what sums and states need) is laid out on a line, inputs before users, and the line is
cut into stages. All else follows: what reads no weights goes to its first user, what reads nothing but weights to the
weights, a weight to its first user, and a gradient to the last stage that has the forward values it reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ..ir import Graph, Node, topological
from ..layout import Layout
from .mesh import ParallelError

VIEWS = frozenset(("transpose", "reshape", "cast"))  # of a weight: made wherever they are read
CHEAP = frozenset(("reshape", "broadcast_to", "full", "iota", "zeros_like", "ones_like", "expand_dims", "squeeze"))


@dataclasses.dataclass(frozen=True)
class Kinds:
    """What the forward nodes of a graph depend on. A node is in exactly one of these, or a leaf.

    Attributes:
        order: all forward nodes, inputs before users, the results of a tuple right behind it.
        floating: on control inputs, constants and states alone: computed wherever they are read, as are gradients that
            depend on nothing else.
        data: on arrays of the batch, not on weights or states. weights: on weights and not on the batch; of them the views
            of one weight (transposed, cast) are computed wherever they are read, as is what floats.
        line: on both.
        users: the forward readers of each node.
        params: the leaves that are weights. arrays: those that are arrays of the batch.
    """

    order: tuple[Node, ...]
    floating: frozenset[Node]
    data: frozenset[Node]
    weights: frozenset[Node]
    views: frozenset[Node]
    line: tuple[Node, ...]
    users: Mapping[Node, tuple[Node, ...]]
    params: frozenset[Node]
    arrays: frozenset[Node]

    def weight_of(self, view: Node) -> Node:
        """The weight that a view is of."""
        while view not in self.params:
            view = view.inputs[0]
        return view


def is_forward(name: str) -> bool:
    """Whether an output of a graph is no gradient."""
    return not name.startswith("grad/")


def kinds_of(graph: Graph, layout: Layout, batch: Sequence[str]) -> Kinds:
    """
    Args:
        batch: names of the arrays of a batch.
    """
    learnt, arrays = {e.name for e in layout.params}, set(batch)
    order = _with_items(
        topological(o for name, o in zip(graph.output_names, graph.outputs) if is_forward(name)), graph.nodes
    )
    reads: dict[Node, tuple[bool, bool, bool]] = {}  # batch, params, states
    users: dict[Node, list[Node]] = {n: [] for n in order}
    floating, data, weights, line = set(), set(), set(), []
    learnt_nodes, array_nodes, views = set(), set(), set()
    for n in order:
        name = n.attrs.get("name")
        batch_, params, states = (any(reads[i][k] for i in n.inputs) for k in range(3))
        if n.op.name == "input":
            batch_ = name in arrays
            if batch_:
                array_nodes.add(n)
        elif n.op.name == "param":
            params, states = name in learnt, name not in learnt
            if params:
                learnt_nodes.add(n)
        reads[n] = (batch_, params, states)
        for i in dict.fromkeys(n.inputs):
            users[i].append(n)
        if not n.inputs:
            continue
        if batch_ and (params or states):
            line.append(n)
        elif batch_:
            data.add(n)
        elif params:
            weights.add(n)
            if n.op.name in VIEWS and (n.inputs[0] in views or n.inputs[0] in learnt_nodes):
                views.add(n)
        else:
            floating.add(n)
    return Kinds(
        tuple(order),
        frozenset(floating),
        frozenset(data),
        frozenset(weights),
        frozenset(views),
        tuple(line),
        {n: tuple(u) for n, u in users.items()},
        frozenset(learnt_nodes),
        frozenset(array_nodes),
    )


def _with_items(order: Sequence[Node], all_nodes: Sequence[Node]) -> list[Node]:
    chosen = set(order)
    items: dict[Node, list[Node]] = {}
    for n in all_nodes:
        if n.op.name == "item" and n.inputs[0] in chosen:
            items.setdefault(n.inputs[0], []).append(n)
    held = {n for found in items.values() for n in found}
    return [m for n in order if n not in held for m in (n, *items.get(n, ()))]


def forward_places(kinds: Kinds, line: Mapping[Node, int], last: int) -> tuple[dict[Node, int], dict[Node, int]]:
    """Places of all forward nodes, and of the weights, from those of the line; `last` where nothing says more."""
    place = dict(line)
    need: dict[Node, int] = {}  # of weights and what reads nothing else: the first place that reads them
    for n in reversed(kinds.order):
        users = kinds.users[n]
        if n in kinds.data:
            place[n] = min((place[u] for u in users if u in place), default=last)
        elif n in kinds.weights or n in kinds.params:
            reading = [need[u] if u in kinds.weights else place.get(u, last) for u in users]
            need[n] = min(reading, default=last)
    homes = {n: need[n] for n in kinds.order if n in kinds.params}
    at = dict(homes)
    for n in kinds.order:
        if n in kinds.weights:
            at[n] = max((at[i] for i in n.inputs if i in at), default=last)
            if n not in kinds.views:
                place[n] = at[n]
    return place, homes


def backward_places(
    order: Sequence[Node], kinds: Kinds, forward: Mapping[Node, int], homes: Mapping[Node, int], last: int
) -> dict[Node, int]:
    """Places of the nodes of `order` that are not in the forward part: gradients come from later places than they go to."""
    ahead = set(kinds.order)
    there: dict[Node, frozenset[int] | None] = {}

    def available(n: Node) -> frozenset[int] | None:
        """Places that have a forward value anyway; None: all."""
        if n not in there:
            held = n in kinds.params or n in kinds.views
            at: set[int] = set()
            if held or n in forward or n in kinds.arrays:
                at |= {forward[u] for u in kinds.users[n] if u in forward}
                at |= {where[n] for where in (forward, homes) if n in where}
            if held:
                at = at.union(*(available(u) or () for u in kinds.users[n] if u in kinds.views))
            if n in kinds.views:
                at.add(homes[kinds.weight_of(n)])
            there[n] = frozenset(at) or None
        return there[n]

    place: dict[Node, int] = {}
    for n in order:
        if n in ahead or not n.inputs:
            continue
        cap, held = last, None
        for i in n.inputs:
            if i in place:
                cap = min(cap, place[i])
            elif i in ahead and (at := available(i)) is not None:
                held = at if held is None else held & at
        if held is None and not any(i in place for i in n.inputs):
            continue  # of control inputs and constants alone: computed wherever it is read
        place[n] = max((p for p in held if p <= cap), default=cap) if held is not None else cap
    return place


def pins_of(line: Sequence[Node], placement: Mapping[str, int], stages: int) -> dict[Node, int]:
    """The stage of each node on the line whose layer has one; a layer's name, or its path, stands for all inside it.

    Raises:
        ParallelError: a stage that there is not; a layer that no node belongs to.
    """
    for name, stage in placement.items():
        if not isinstance(stage, int) or isinstance(stage, bool) or not 0 <= stage < stages:
            raise ParallelError(
                f"layer {name!r}: placement={stage!r}, but the pipeline has the stages 0 to {stages - 1}; "
                "give one of them, or None to leave it to the compiler"
            )
    found: dict[Node, int] = {}
    seen: set[str] = set()
    for n in line:
        layer = placed_layer(n.source, placement)
        if layer is not None:
            found[n] = placement[layer]
            seen.add(layer)
    missing = sorted(set(placement) - seen)
    if missing:
        known = sorted({n.source for n in line if n.source})
        raise ParallelError(
            f"placement names {', '.join(map(repr, missing))}, which compute nothing in the model's step; its layers are "
            f"{', '.join(known)}"
        )
    return found


def placed_layer(source: str | None, placement: Mapping[str, object]) -> str | None:
    """The innermost layer of a path such as ``block/dense`` that `placement` names."""
    parts = (source or "").split("/")
    for end in range(len(parts), 0, -1):
        for name in ("/".join(parts[:end]), parts[end - 1]):
            if name in placement:
                return name
    return None


def pinned_line(kinds: Kinds, pins: Mapping[Node, int], stages: int) -> tuple[tuple[Node, ...], list[int], list[int]]:
    """The line in an order in which pinned stages follow one another, and the least and last stage of each place on it.

    Raises:
        ParallelError: a layer is pinned before one that it reads.
    """
    least: dict[Node, int] = {}
    by: dict[Node, Node] = {}
    for n in kinds.line:
        before = max((i for i in n.inputs if i in least), key=least.__getitem__, default=None)
        least[n] = least[before] if before is not None else 0
        if before is not None and before in by:
            by[n] = by[before]
        if n in pins:
            if pins[n] < least[n]:
                raise ParallelError(
                    f"layer {n.source!r} has placement={pins[n]}, but it reads what layer {by[n].source!r} computes in "
                    f"stage {least[n]}; a stage reads earlier stages only. Raise the one or lower the other."
                )
            if pins[n] > least[n] or n not in by:
                by[n] = n
            least[n] = pins[n]
    latest: dict[Node, int] = {}
    for n in reversed(kinds.line):
        at = min((latest[u] for u in kinds.users[n] if u in latest), default=stages - 1)
        latest[n] = min(at, pins.get(n, at))
    line = tuple(sorted(kinds.line, key=least.__getitem__))
    return line, [least[n] for n in line], [latest[n] for n in line]
