"""Shared memory among the ranks of one host below an exchange between hosts: up to the leader, and down again.

    up     1. everybody puts its partial sums into the segment  2. everybody joins a part of them, in pieces
    down   the leader puts what the others need into the result, where they read it
    back   everybody puts its updated slice into the result, where the leader reads it
    all    the leader puts everybody else's slices beside them; all read the result where it is

The leader is the host's lowest rank. Flags, memory and the noticing of lost ranks are those of `SharedMemory`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from .base import Stopwatch, slices
from .exchange import ALL_GATHER, TREE
from .shared import BIG, LINE_WORDS, PIECE, SharedMemory
from .tree import PLAIN, Node, merged, put


class Near(SharedMemory):
    """The ranks of one host, numbered from 0, the leader. Not a collective of its own: sockets stay with their owner.

    Args:
        as in `SharedMemory`; `links` by number on this host.
    """

    def fits(self, nodes: Sequence[Sequence[Node]], shards: int, elements: int) -> bool:
        """Whether there is memory for `up` with these arguments; the same answer on all ranks of the host."""
        return self._region(elements, self._rows(nodes, shards)) is not None

    def _rows(self, nodes: Sequence[Sequence[Node]], shards: int) -> int:
        """Vectors for each rank: its own nodes, and on the leader's place those put together."""
        return max(map(len, nodes)) + len(self._together(nodes, shards))

    @staticmethod
    def _together(nodes: Sequence[Sequence[Node]], shards: int) -> list[Node]:
        return merged([n for own in nodes for n in own], shards) if shards else [PLAIN]

    def up(
        self, partials: Mapping[Node, np.ndarray], nodes: Sequence[Sequence[Node]], shards: int, elements: int
    ) -> dict[Node, np.ndarray]:
        """The partial sums of all ranks of the host, put together as far as they go; valid until the next call.

        Args:
            partials: this rank's. nodes: of each rank here. shards: of the fixed tree; 0 with the one node `PLAIN`.
        """
        watch = Stopwatch()
        together, rows = self._together(nodes, shards), max(map(len, nodes))
        region = self._region(elements, self._rows(nodes, shards))
        assert region is not None
        call = self._enter()
        self._await(BIG, 4 * region.summed_at + 2, TREE, watch)
        for row, node in enumerate(nodes[self.rank]):
            region.sent[self.rank, row] = partials[node]
        self._raise_and_await(BIG, 4 * call + 1, TREE, watch)
        out = region.sent[0, rows:]
        mine = slices(elements, self.world_size)[self.rank]
        for start in range(mine.start, mine.stop, PIECE):
            piece = slice(start, min(start + PIECE, mine.stop))
            held: dict[Node, np.ndarray] = {}
            ours: set[int] = set()
            for other, own in enumerate(nodes):
                for row, node in enumerate(own):
                    put(held, node, region.sent[other, row, piece], shards, ours)
            for row, node in enumerate(together):
                out[row, piece] = held[node]
        self._flags[self._line + BIG] = 4 * call + 2
        region.summed_at = call
        if self.rank == 0:
            self._await(BIG, 4 * call + 2, TREE, watch)
        return {node: out[row] for row, node in enumerate(together)}

    def result(self, elements: int) -> np.ndarray | None:
        """float32[elements], the same memory for all; None when there is none."""
        region = self._any_region(elements)
        return None if region is None else region.result

    def notes(self, count: int) -> np.ndarray:
        """int64[count], the same memory for all."""
        region = self._region(2 * count, 1)
        assert region is not None
        return region.sent[0, 0].view(np.int64)

    def enter(self, elements: int) -> int:
        """Begins a call that writes the result: nobody reads it any more when this returns."""
        region = self._any_region(elements)
        assert region is not None
        call = self._enter()
        self._flags[self._line + BIG] = 4 * call
        self._await(BIG, 4 * (region.gathered_at + 1), ALL_GATHER, Stopwatch())
        return call

    def members_done(self, call: int) -> None:
        """Everybody but the leader has written; the leader waits for that."""
        if self.rank:
            self._flags[self._line + BIG] = 4 * call + 1
            return
        for other in self._others:
            self._sleep_until(self._flags, other * LINE_WORDS + BIG, 4 * call + 1, other, ALL_GATHER)

    def leader_done(self, call: int, elements: int, gathered: bool) -> None:
        """The leader has written; everybody waits for that.

        Args:
            gathered: whether the result is read where it is until the next call.
        """
        if self.rank == 0:
            self._flags[BIG] = 4 * call + 2
        else:
            self._sleep_until(self._flags, BIG, 4 * call + 2, 0, ALL_GATHER)
        region = self._any_region(elements)
        if gathered and region is not None:
            region.gathered_at = call

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._regions.clear()
            os.close(self._descriptor)
