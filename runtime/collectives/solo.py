"""The collective of one rank: every sum is the vector itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .base import Collective, Gathered
from .tree import covers, finish


class Solo(Collective):
    """One rank; the same interface, contracts and checks as among many, and nothing on any wire.

    >>> import numpy as np
    >>> from kerasoft.runtime.collectives import Solo
    >>> with Solo() as collective:
    ...     owned = collective.reduce_scatter(np.arange(3, dtype=np.float32))
    ...     collective.all_gather(owned, 3, note=7).notes
    (7,)
    """

    transport = "solo"

    def __init__(self, timeout_s: float = 30.0):
        super().__init__(0, 1, timeout_s)

    def reduce_scatter(self, vector: np.ndarray) -> np.ndarray:
        self.counters.calls += 1
        return self._checked(vector)

    def reduce_scatter_tree(
        self, partials: Mapping[tuple[int, int], np.ndarray], bounds: Sequence[int], elements: int
    ) -> np.ndarray:
        self.counters.calls += 1
        covers(bounds)
        return finish(partials, bounds[-1], _add)

    def all_gather(
        self, owned: np.ndarray, elements: int, note: int = 0, out: np.ndarray | None = None, exact: bool = False
    ) -> Gathered:
        self.counters.calls += 1
        self._checked(owned, elements)
        vector = self._scratch("gathered", elements) if out is None else self._checked(out, elements)
        vector[...] = owned  # a vector of its own, as among many ranks: the caller may reuse `owned`
        return Gathered(vector, (note,))

    def all_reduce_small(self, vector: np.ndarray) -> np.ndarray:
        self.counters.calls += 1
        return np.array(vector)

    def all_reduce_small_tree(
        self, partials: Mapping[tuple[int, int], np.ndarray], bounds: Sequence[int], elements: int
    ) -> np.ndarray:
        self.counters.calls += 1
        covers(bounds)
        return np.array(finish(partials, bounds[-1], _add))


def _add(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left + right
