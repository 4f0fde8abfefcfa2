"""How many workers a group has: between two limits, as many as there is room for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

LOOK_S = 1.0
"""Between two looks at the cluster; what two in a row say is believed, as executors come and go one by one."""


@dataclasses.dataclass(frozen=True)
class Crew:
    """Limits of the number of workers.

    >>> Crew(2, 4).size(room=3), Crew(2, 4).size(room=9), Crew(2, 4).size(room=1)
    (3, 4, 2)
    """

    fewest: int
    most: int

    @property
    def elastic(self) -> bool:
        return self.fewest < self.most

    def size(self, room: int) -> int:
        """Workers of a group where `room` can run; `fewest` where that is too little."""
        return max(self.fewest, min(self.most, room))


class Lookout:
    """Compares the room that a cluster has with the workers of a running group.

    Args:
        crew: the limits.
        workers: of the group.
        room: tells how many workers could run at once, these included. Executors that are being decommissioned do not count.

    Attributes:
        wanted: workers that the next group should have.
        too_few: whether some will have to go and the rest are fewer than `crew.fewest`.
    """

    def __init__(self, crew: Crew, workers: int, room: Callable[[], int]):
        self.crew, self.workers = crew, workers
        self.wanted, self.too_few = workers, False
        self.room, self._before, self._looked_s = room, workers, time.monotonic()

    def look(self) -> None:
        """Looks if it is time."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        room = self.room()
        if min(room, self.crew.most) == self._before:
            self.wanted, self.too_few = self.crew.size(room), room < min(self.workers, self.crew.fewest)
        self._before = min(room, self.crew.most)
