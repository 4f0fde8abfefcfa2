"""A worker's batches: in each step of an epoch, which rows of which shards go into which call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .shards import Plan, capacity, permutation
from .store import ShardStore

_RING = 3  # a batch's buffers are filled again two batches later


@dataclasses.dataclass
class Call:
    """The rows of one gradient call.

    Attributes:
        shard: the shard they come from, -1 for several.
        rows: real rows; arrays have `size` of them, the rest repeats a real row and has ``valid == 0``.
        batch: {name: [size, ...]}.
        valid: float32[size].
        row_id: uint32[size], ordinals in the whole data set.
    """

    shard: int
    rows: int
    size: int
    batch: dict[str, np.ndarray]
    valid: np.ndarray
    row_id: np.ndarray


@dataclasses.dataclass
class Step:
    """One step of an epoch: its calls on this worker and the rows of the global batch; `extra` after those of the plan."""

    step: int
    rows: int
    calls: list[Call]
    extra: bool = False


class Feed:
    """Makes the batches of one worker from its store.

    Args:
        store: this worker's rows.
        plan: of the whole data set.
        sizes: row numbers that the program is compiled for, ascending.
        one_by_one: a call for each shard (deterministic, or rows are coupled), else one call for all of them.
        specs: (name, row shape, dtype) of every array of a batch; from the program, as a worker may own no rows.
        seed, shuffle: as in `permutation`.
    """

    def __init__(
        self,
        store: ShardStore,
        plan: Plan,
        sizes: Sequence[int],
        one_by_one: bool,
        specs: Sequence[tuple[str, tuple[int, ...], Any]],
        seed: int,
        shuffle: bool,
    ):
        self.store, self.plan, self.sizes, self.one_by_one = store, plan, tuple(sizes), one_by_one
        self.seed, self.shuffle = seed, shuffle
        self._offsets = store.table.offsets
        self._specs = tuple(specs)
        self._groups = [(s,) for s in store.shards] if one_by_one else [store.shards]
        self._buffers: dict[tuple[int, int, int], Call] = {}

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """The steps of `epoch` from step `first` on. A step's arrays are good until the step after the next is asked."""
        order = {s: permutation(self.plan.rows[s], self.seed, epoch, s, self.shuffle) for s in self.store.shards}
        for t, (low, high) in enumerate(self.plan.iterate(first), first):
            calls = []
            for group, shards in enumerate(self._groups):
                parts = [(s, int(low[s]), int(high[s])) for s in shards if high[s] > low[s]]
                if parts:
                    calls.append(self._call(t % _RING, group, [(s, order[s][a:b]) for s, a, b in parts]))
            yield Step(t, self.plan.rows_in(t), calls)

    def in_order(self, batch_size: int) -> Iterator[Call]:
        """All rows of each shard in order, shard by shard, in calls of at most `batch_size` rows."""
        turn = 0
        for s in self.store.shards:
            for a in range(0, self.plan.rows[s], batch_size):
                rows = np.arange(a, min(a + batch_size, self.plan.rows[s]))
                yield self._call(turn % _RING, 0, [(s, rows)])
                turn += 1

    def calls_of(self, row_ids: np.ndarray) -> Iterator[Call]:
        """Calls with given rows of this worker's, by their ordinals; in any order, they come sorted by shard."""
        shards = np.searchsorted(np.array(self._offsets), row_ids, side="right") - 1
        for group, owned in enumerate(self._groups):
            parts = []
            for s in owned:
                index = row_ids[shards == s].astype(np.int64) - self._offsets[s]
                if len(index):
                    parts.append((s, index))
            if parts:
                yield self._call(0, group, parts)

    def empty(self, size: int) -> Call:
        """A call of `size` rows with padding only, zeros throughout."""
        return Call(-1, 0, size, self._arrays(size), np.zeros(size, np.float32), np.zeros(size, np.uint32))

    def _arrays(self, size: int) -> dict[str, np.ndarray]:
        return {name: np.zeros((size, *shape), dtype) for name, shape, dtype in self._specs}

    def _call(self, turn: int, group: int, parts: list[tuple[int, np.ndarray]]) -> Call:
        rows = sum(len(index) for _, index in parts)
        size = capacity(self.sizes, rows)
        key = (turn, group, size)
        call = self._buffers.get(key)
        if call is None:
            call = Call(-1, 0, size, self._arrays(size), np.zeros(size, np.float32), np.zeros(size, np.uint32))
            self._buffers[key] = call
        at = 0
        for shard, index in parts:
            self.store.gather(shard, index, call.batch, at)
            call.row_id[at : at + len(index)] = index + self._offsets[shard]
            at += len(index)
        call.valid[:rows], call.valid[rows:] = 1.0, 0.0
        call.row_id[rows:] = 0
        for array in call.batch.values():
            array[rows:] = array[0]
        call.shard, call.rows = parts[0][0] if len(parts) == 1 else -1, rows
        return dataclasses.replace(call)
