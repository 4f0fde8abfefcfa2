"""Cutting the line of a training graph into stages that take about the same time, where few bytes pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..costs import FREE, bound_type, bytes_moved, flops, size_bytes
from ..explain import explain
from ..ir import Dim, Node
from ..program import StepSource
from .mesh import ParallelError
from .places import Kinds, backward_places, forward_places

FLOPS_S, BYTES_S, WIRE_BYTES_S = 50e9, 10e9, 1e9  # of a worker that nobody has measured: only their ratios matter
UPDATE_BYTES = 24  # that an optimiser's step moves for each element of a weight

Cost = Callable[[Node], float]


def counted(sizes: Mapping[str, Dim]) -> Cost:
    """Seconds of a node by its floating-point operations and bytes."""
    return lambda n: max(flops(n, sizes) / FLOPS_S, bytes_moved(n, sizes) / BYTES_S)


@dataclasses.dataclass(frozen=True)
class Line:
    """The line with its costs.

    Attributes:
        nodes: in order. seconds: of each, with the gradients that belong to it and the update of its weights.
        crossing: bytes alive before each place, one more than nodes.
    """

    nodes: tuple[Node, ...]
    seconds: np.ndarray
    crossing: np.ndarray


def weighed(
    kinds: Kinds, line: Sequence[Node], all_nodes: Sequence[Node], sizes: Mapping[str, Dim], cost: Cost
) -> Line:
    """Each node of the graph charged to a place on the line."""
    at = {n: i for i, n in enumerate(line)}
    last = len(line) - 1
    forward, homes = forward_places(kinds, at, last)
    backward = backward_places(all_nodes, kinds, forward, homes, last)
    seconds = np.zeros(len(line))
    for place in (forward, backward):
        for n, i in place.items():
            seconds[i] += cost(n)
    for n, i in homes.items():
        seconds[i] += UPDATE_BYTES * size_bytes(n.type) / 4 / BYTES_S
    change = np.zeros(len(line) + 1)
    for n, i in at.items():
        if n.op.name == "item":
            continue
        readers = [u for u in kinds.users[n]]
        readers += [u for r in kinds.users[n] if r.op.name == "item" for u in kinds.users[r]]
        ends = max((at[u] for u in readers if u in at), default=i)
        if ends > i:
            size = size_bytes(bound_type(n.type, sizes))
            change[i + 1] += size
            change[ends + 1 if ends + 1 <= last else last + 1] -= size
    return Line(tuple(line), seconds, np.cumsum(change))


def cuts(line: Line, stages: int, least: Sequence[int], latest: Sequence[int]) -> list[int]:
    """Where each stage begins (the first at 0): the slowest stage, with what it sends, is as fast as possible.

    Args:
        least, latest: the stages that each node may be in, rising along the line.

    Raises:
        ParallelError: the line is shorter than the number of stages.
    """
    count = len(line.nodes)
    if count < stages:
        raise ParallelError(
            f"the model's step has {count} operations that depend on weights, too few for {stages} stages; "
            f"give pipeline= at most {max(count, 1)}"
        )
    total = np.concatenate([[0.0], np.cumsum(line.seconds)])
    wire = 2 * line.crossing / WIRE_BYTES_S
    wire[[0, count]] = 0.0
    closed = np.array([False, *(n.op.name == "item" for n in line.nodes[1:]), False])  # no cut between tuple and item
    lo, hi = np.asarray(least), np.asarray(latest)
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    begins: list[np.ndarray] = []
    for s in range(stages):
        outside = np.concatenate([[0], np.cumsum((lo > s) | (hi < s))])
        now = np.full(count + 1, np.inf)
        start = np.zeros(count + 1, np.int64)
        for end in range(s + 1, count + 1):
            if closed[end] or (s == stages - 1 and end < count):
                continue
            time = np.maximum(best[:end], total[end] - total[:end] + wire[:end] + wire[end])
            time = np.where(outside[:end] == outside[end], time, np.inf)
            start[end] = int(np.argmin(time))
            now[end] = time[start[end]]
        best = now
        begins.append(start)
    if not np.isfinite(best[count]):
        raise ParallelError(
            f"no cut into {stages} stages gives each at least one operation and keeps to the layers' placement; "
            "use fewer stages, or pin fewer layers"
        )
    found, end = [], count
    for start in reversed(begins):
        end = int(start[end])
        found.append(end)
    return found[::-1]


def measured(source: StepSource, rows: int, lengths: Mapping[str, int] | None = None) -> Cost:
    """Seconds of a node as it ran here in a whole step of `rows` rows (`explain`); nodes of one kernel share its time."""
    part = explain(source, "train" if source.train is not None else "predict", rows, lengths, measure=True).parts[0]
    found: dict[Node, float] = {}
    for region in part.regions:
        busy = [n for n in region.nodes if n.op.name not in FREE] or list(region.nodes)
        for n in busy:
            found[n] = found.get(n, 0.0) + region.seconds / len(busy)
    return lambda n: found.get(n, 0.0)
