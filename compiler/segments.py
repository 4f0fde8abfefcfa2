"""Cutting a forward graph into segments for rematerialisation, so that little is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from .costs import bound_type, size_bytes
from .ir import Node, TensorType, is_static
from .rematerialization import PASSING, Segment

ROWS, LENGTH = 32, 16  # that sizes are counted for
MOST = 64  # segments


def in_segments(nodes: Iterable[Node], order: Sequence[Node]) -> list[Segment]:
    """`nodes` cut, in the order of computation, into segments where few bytes pass from one to the next.

    As many as make least of what is kept at a time: all that passes between segments and the largest inside of one.

    Args:
        nodes: of a whole model. order: the forward nodes, inputs before users.
    """
    chosen = set(nodes)
    line = [n for n in order if n in chosen]
    if len(line) < 2:
        return [Segment(frozenset(line))]
    place = {n: i for i, n in enumerate(line)}
    last = {n: i for i, n in enumerate(line)}  # the last reader of each node's value
    needed: set[Node] = set()
    for n in order:
        for i in n.inputs:
            if i in place:
                last[i] = max(last[i], place.get(n, len(line)))
                if n.op.name not in PASSING:
                    needed.add(i)
    unknown = {str(d) for n in order if n.op.name == "input" for d in n.shape if not is_static(d)}
    sizes = {name: ROWS if name == "b" else LENGTH for name in unknown}
    weights = [size_bytes(bound_type(n.type, sizes)) if isinstance(n.type, TensorType) else 0 for n in line]
    crossing = [0] * (len(line) + 1)  # bytes alive before each place
    for n, at in place.items():
        crossing[at + 1] += weights[at]
        if last[n] < len(line):
            crossing[last[n] + 1] -= weights[at]
    crossing = list(itertools.accumulate(crossing))
    inside = list(itertools.accumulate((w if n in needed else 0 for n, w in zip(line, weights)), initial=0))
    best, cost = [0, len(line)], float(inside[-1])
    for count in range(2, min(MOST, len(line)) + 1):
        cuts = [0, *_cuts(count, inside, crossing), len(line)]
        kept = sum(crossing[c] for c in cuts[1:-1])
        now = kept + max(inside[b] - inside[a] for a, b in itertools.pairwise(cuts))
        if now < cost:
            best, cost = cuts, now
    return [Segment(frozenset(line[a:b])) for a, b in itertools.pairwise(best) if a < b]


def _cuts(count: int, inside: Sequence[int], crossing: Sequence[int]) -> list[int]:
    """Places of ``count - 1`` cuts at about equal distances in bytes, each where least passes nearby."""
    share = inside[-1] / count
    found: list[int] = []
    place = 1
    for k in range(1, count):
        while place < len(inside) - 1 and inside[place] < (k - 0.35) * share:
            place += 1
        end = place
        while end < len(inside) - 2 and inside[end + 1] <= (k + 0.35) * share:
            end += 1
        cut = min(range(place, end + 1), key=lambda p: crossing[p])
        if not found or cut > found[-1]:
            found.append(cut)
    return found
