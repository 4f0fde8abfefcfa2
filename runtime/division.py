"""How the driver's whole vectors are cut among the ranks of a fit, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .worker import Settings


class Division:
    """Every rank has a slice of one vector. Vectors are float32[P]: parameters or one slot each.

    Args:
        parts: the slice of each rank, in order.
    """

    def __init__(self, parts: Sequence[slice]):
        self._parts = tuple(parts)

    def own(self, rank: int, vector: np.ndarray) -> np.ndarray:
        """What `rank` updates of `vector`."""
        return vector[self._parts[rank]]

    def whole(self, rank: int, vector: np.ndarray) -> np.ndarray:
        """What `rank` computes with."""
        return vector

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The whole vector from what the ranks update, in their order."""
        return np.concatenate(parts)


def slices_of(layout: Any, settings: Settings) -> Division:
    """The division of a fit whose model lies whole on every rank."""
    return Division(settings.method.parts(layout.P, layout.V, settings.world_size))
