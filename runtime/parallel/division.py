"""How the driver's whole vectors are cut among ranks that hold parts of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..collectives import slices
from ..division import Division
from .grid import Grid


class PartsDivision(Division):
    """A rank updates the slice of its replica of the vector of its part.

    Args:
        plan: has ``layouts``, ``localise(i, vector)`` and ``globalise(vectors)``, see `kerasoft.compiler.parallel`.
        grid: of the ranks.
    """

    def __init__(self, plan: Any, grid: Grid):
        self.plan, self.grid = plan, grid
        self._cuts = []
        for layout in plan.layouts:
            own = slices(layout.V, grid.replicas)
            self._cuts.append([slice(min(s.start, layout.P), min(s.stop, layout.P)) for s in own])

    def own(self, rank: int, vector: np.ndarray) -> np.ndarray:
        replica, part = self.grid.place(rank)
        return self.plan.localise(part, vector)[self._cuts[part][replica]]

    def whole(self, rank: int, vector: np.ndarray) -> np.ndarray:
        return self.plan.localise(self.grid.place(rank)[1], vector)

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        locals_ = [np.concatenate([parts[rank] for rank in self.grid.data_group(i)]) for i in range(self.grid.parts)]
        return self.plan.globalise(locals_)
