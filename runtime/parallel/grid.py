"""Where a rank stands in a fit whose model is cut: which part of the model it has, and which rows."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Grid:
    """``replicas x parts`` ranks: rank ``j * parts + i`` has part i of the model and the rows of replica j.

    The ranks of a replica are neighbours, so that they tend to share a host.

    >>> grid = Grid(replicas=2, parts=3)
    >>> grid.place(4), grid.model_group(4), grid.data_group(4)
    ((1, 1), (3, 4, 5), (1, 4))
    """

    replicas: int
    parts: int

    @property
    def world_size(self) -> int:
        return self.replicas * self.parts

    def place(self, rank: int) -> tuple[int, int]:
        """(replica, part) of a rank."""
        return divmod(rank, self.parts)

    def model_group(self, rank: int) -> tuple[int, ...]:
        """The ranks that together hold the model of this rank's rows, by part."""
        first = rank - rank % self.parts
        return tuple(range(first, first + self.parts))

    def data_group(self, rank: int) -> tuple[int, ...]:
        """The ranks that hold the same part of the model, by replica."""
        return tuple(range(rank % self.parts, self.world_size, self.parts))
