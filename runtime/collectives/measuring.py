"""What an all-reduce by each topology takes: alpha + beta n, measured with the ranks that are there.

1. All ranks make the calls that a step makes, at the same time. So Python's own part of a call, rounding, memory that no
   cache holds and cores that ranks share are in the seconds; a model made of single messages misses them.
2. A call or two with few numbers, then four times as many, up to the vector's length or as many as `LIMIT_S` allows; then
   several calls each, the longest vectors first: the first tenths of a second after connecting are faster than what
   follows, by up to two times for short vectors.
3. Between these lengths the cost is a straight line, beyond the last one the line goes on: R. Hockney's alpha + beta n, with
   a beta for each range, as caches make them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .base import ALIGNMENT

SCOUTS, PROBES, GROWTH, COLD = 1, (4, 31), 4, 2
LIMIT_S, EACH_S = 0.5, 0.05


class Line(NamedTuple):
    """Seconds of an all-reduce (the slowest rank's) of vectors of so many elements each.

    >>> line = Line((100, 200, 400), (1.0, 1.5, 3.5))
    >>> [line.seconds_of(n) for n in (10, 100, 150, 300, 600)]
    [1.0, 1.0, 1.25, 2.5, 5.5]
    """

    elements: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def slope_s(self) -> float:
        """Seconds of a further element beyond the longest vector."""
        if len(self.elements) == 1:
            return 0.0
        return max(0.0, (self.seconds[-1] - self.seconds[-2]) / (self.elements[-1] - self.elements[-2]))

    def seconds_of(self, elements: int) -> float:
        """Predicted seconds of an all-reduce of `elements` numbers."""
        inside = float(np.interp(elements, self.elements, self.seconds))
        return inside + self.slope_s * max(0, elements - self.elements[-1])


def lengths(world_size: int, elements: int) -> Iterator[int]:
    """The lengths at which vectors of up to `elements` are measured.

    >>> from kerasoft.runtime.collectives.measuring import lengths
    >>> list(lengths(2, 10_000))
    [128, 512, 2048, 10000]
    """
    length = ALIGNMENT * world_size
    most = max(length, elements)
    while 2 * length <= most:
        yield length
        length *= GROWTH
    yield most


def measured(collective: Any, names: Sequence[str], elements: int) -> dict[str, Line]:
    """The cost of each topology, the same on all ranks, which call it together.

    Args:
        collective: a `Routed`. names: topologies; the one in use afterwards is the last one. elements: of a step's vector.
    """
    scouted: dict[int, dict[str, float]] = {}  # by length, then topology
    going = list(names)
    for length in lengths(collective.world_size, elements):
        scouted[length] = _seconds(collective, going, length, SCOUTS)
        going = [name for name in going if GROWTH * scouted[length][name] <= LIMIT_S]
        if not going:
            break
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    for length, seconds in reversed(scouted.items()):
        rounds = min(max(int(EACH_S / max(seconds.values())), PROBES[0]), PROBES[1])
        for name, found_s in _seconds(collective, list(seconds), length, rounds).items():
            found[name][length] = found_s
    return {name: Line(tuple(sorted(s)), tuple(s[length] for length in sorted(s))) for name, s in found.items()}


def _seconds(collective: Any, names: Sequence[str], length: int, rounds: int) -> dict[str, float]:
    """The slowest rank's median for each topology, the same on all ranks; they take turns. The first `COLD` calls do not count."""
    vector = np.ones(length, np.float32)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds + COLD):
        for name in names:
            collective.use(name)
            collective.barrier()
            began = time.perf_counter()
            collective.all_gather(collective.reduce_scatter(vector), length)
            taken[name].append(time.perf_counter() - began)
    table = np.zeros((collective.world_size, len(names)))
    table[collective.rank] = [statistics.median(seconds[COLD:]) for seconds in taken.values()]
    slowest = collective.all_reduce_small(table.reshape(-1)).reshape(table.shape).max(0)
    return dict(zip(names, slowest.tolist(), strict=True))
