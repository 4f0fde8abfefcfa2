"""Which rank sends what to whom in a reduce-scatter and in an all-gather: pure functions.

A schedule is rounds of messages (from, to, slices). In a reduce-scatter a message hands over what its sender has added up of
these slices so far; in the end slice j's sum is at rank j. In an all-gather a message copies slices that its sender has.

| topology | rounds (N ranks) | floats that the busiest rank sends, of V |
|---|---|---|
| direct | 1 + 1 | 2 (N - 1) / N |
| ring | 2 (N - 1) | 2 (N - 1) / N |
| tree | 2 log2 N + 2 | about 2 + log2 N |
| two-level (G hosts) | 2 (G - 1) + 4 | 2 (G - 1) / G at a leader, none at others (they share memory) |

Source of the ring: P. Patarasuk and X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations (2009),
brought to deep learning by Baidu (2017). What each costs: `measuring.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Transfer(NamedTuple):
    """One message: the slices `what` from rank `source` to rank `target`."""

    source: int
    target: int
    what: tuple[int, ...]


class Schedule(NamedTuple):
    """Rounds of messages of the two halves of an all-reduce; `routed` by `Routed`, not by direct exchange."""

    reduce: tuple[tuple[Transfer, ...], ...]
    gather: tuple[tuple[Transfer, ...], ...]
    routed: bool = True


NAMES = ("direct", "ring", "tree", "two_level")


def schedule(name: str, groups: Sequence[int]) -> Schedule:
    """The schedule of a topology.

    Args:
        name: one of `NAMES`.
        groups: for each rank the lowest rank on its host; only "two_level" looks at the values.

    >>> schedule("ring", (0, 0)).reduce
    ((Transfer(source=0, target=1, what=(1,)), Transfer(source=1, target=0, what=(0,))),)
    """
    world = len(groups)
    everything = tuple(range(world))
    if name == "direct":
        pairs = [(i, j) for i in everything for j in everything if i != j]
        return Schedule(
            (tuple(Transfer(i, j, (j,)) for i, j in pairs),), (tuple(Transfer(i, j, (i,)) for i, j in pairs),), False
        )
    if name == "ring":
        return _ring(everything, [(r,) for r in everything])
    if name == "tree":
        return _tree(everything)
    if name == "two_level":
        return _two_level(groups)
    raise ValueError(f"topology should be one of {NAMES}, got {name!r}.")


def _ring(ranks: Sequence[int], chunks: Sequence[tuple[int, ...]]) -> Schedule:
    """`chunks[i]` ends at `ranks[i]`."""
    count = len(ranks)
    reduce = [
        tuple(Transfer(ranks[i], ranks[(i + 1) % count], chunks[(i - t - 1) % count]) for i in range(count))
        for t in range(count - 1)
    ]
    gather = [
        tuple(Transfer(ranks[i], ranks[(i + 1) % count], chunks[(i - t) % count]) for i in range(count))
        for t in range(count - 1)
    ]
    return Schedule(tuple(reduce), tuple(gather))


def _tree(everything: tuple[int, ...]) -> Schedule:
    """Binomial trees to and from rank 0, one direct round to and from the owners."""
    world = len(everything)
    widths = [1 << k for k in range((world - 1).bit_length())]
    up = [tuple(Transfer(r, r - w, everything) for r in range(w, world, 2 * w)) for w in widths]
    down = [tuple(Transfer(r - w, r, everything) for r in range(w, world, 2 * w)) for w in reversed(widths)]
    return Schedule(
        (*up, tuple(Transfer(0, j, (j,)) for j in everything[1:])),
        (tuple(Transfer(j, 0, (j,)) for j in everything[1:]), *down),
    )


def _two_level(groups: Sequence[int]) -> Schedule:
    """Members to their leader, a ring of leaders, leaders to their members."""
    everything = tuple(range(len(groups)))
    leaders = sorted(set(groups))
    chunks = [tuple(r for r in everything if groups[r] == leader) for leader in leaders]
    members = [(r, groups[r]) for r in everything if r != groups[r]]
    between = _ring(leaders, chunks)
    reduce = [tuple(Transfer(r, leader, everything) for r, leader in members), *between.reduce]
    gather = [tuple(Transfer(r, leader, (r,)) for r, leader in members), *between.gather]
    reduce.append(tuple(Transfer(leader, r, (r,)) for r, leader in members))
    gather.append(tuple(Transfer(leader, r, tuple(s for s in everything if s != r)) for r, leader in members))
    return Schedule(tuple(r for r in reduce if r), tuple(g for g in gather if g))
