"""Shards, the plan of an epoch, and who computes what: pure functions, the same on the driver and on every worker.

Training data is S logical shards, fixed by the data, not by the workers. An epoch of ``ceil(total / batch)`` steps
takes in step t from shard s the rows ``[c_s(t), c_s(t + 1))`` of that shard's permutation, where c(t) apportions
``min(t * batch, total)`` rows over the shards by Webster's method: imagine row i of a shard of n rows at the place
``(2 i + 1) / n``, walk along the line, ties to the lower shard, and stop after that many rows. So every row comes once
an epoch, each step holds its exact share of every shard, and nothing depends on the number of workers.

Source: house-monotone apportionment by divisors, M. L. Balinski and H. P. Young, *Fair Representation* (1982).
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

Block = dict[str, np.ndarray]
"""Rows as named arrays: ``x/<name>``, ``y/<name>``, ``sample_weight/<name>``; equal leading sizes, C-contiguous."""

Record = tuple[int, int, Block]
"""What a data RDD holds: (shard, sequence, block). A shard is its blocks in the order of `sequence`."""

_CHUNK_ROWS = 1 << 16
_SIMULATED_ROWS = 1 << 24
_LADDER = 4


@dataclasses.dataclass(frozen=True)
class ShardTable:
    """What is known of a data set before training: one entry a shard.

    Attributes:
        rows: number of rows.
        fingerprints: hex digest of the rows in order (`fingerprint`), by which a recomputed shard is recognised.
        bytes: size of the arrays.
    """

    rows: tuple[int, ...]
    fingerprints: tuple[str, ...]
    bytes: tuple[int, ...]

    def __post_init__(self):
        if not len(self.rows) == len(self.fingerprints) == len(self.bytes):
            raise ValueError(
                f"a ShardTable needs one entry a shard, got {len(self.rows)} rows, "
                f"{len(self.fingerprints)} fingerprints and {len(self.bytes)} bytes"
            )

    @property
    def total(self) -> int:
        """Rows of the whole data set."""
        return sum(self.rows)

    @property
    def offsets(self) -> tuple[int, ...]:
        """The ordinal of each shard's first row in the data set: what `row_id` counts from."""
        return tuple(itertools.accumulate(self.rows, initial=0))[:-1]

    def to_json(self) -> dict[str, list]:
        return {"rows": list(self.rows), "fingerprints": list(self.fingerprints), "bytes": list(self.bytes)}

    @classmethod
    def from_json(cls, value: dict[str, list]) -> ShardTable:
        return cls(tuple(value["rows"]), tuple(value["fingerprints"]), tuple(value["bytes"]))


class Fingerprint:
    """Digest of a shard's rows in order, whatever blocks they came in.

    XXH3 (128 bits) over the bytes: it tells accidents, not attacks, and runs at memory speed where SHA-256 takes longer
    than reading the rows.

    >>> one, two = Fingerprint(), Fingerprint()
    >>> one.add({"x/0": np.arange(4.0)})
    >>> two.add({"x/0": np.arange(2.0)}); two.add({"x/0": np.arange(2.0, 4.0)})
    >>> one.hexdigest() == two.hexdigest()
    True
    """

    def __init__(self):
        self._digests: dict[str, Any] = {}
        self._rows = 0

    def add(self, block: Block) -> None:
        """Takes in the next rows."""
        for name, array in block.items():
            array = np.ascontiguousarray(array)
            if name not in self._digests:
                self._digests[name] = xxhash.xxh3_128(f"{name} {array.dtype.str} {array.shape[1:]} ".encode())
            self._digests[name].update(array.reshape(-1).view(np.uint8))
        self._rows += len(next(iter(block.values()))) if block else 0

    def hexdigest(self) -> str:
        """64 hex digits; of no rows at all it is the digest of the number 0."""
        if not self._rows:
            return hashlib.sha256(b"0").hexdigest()
        parts = b"".join(self._digests[name].digest() for name in sorted(self._digests))
        return hashlib.sha256(str(self._rows).encode() + parts).hexdigest()


def table_of(shards: Sequence[Sequence[Block]]) -> ShardTable:
    """The table of shards that are at hand as lists of blocks."""
    rows, digests, sizes = [], [], []
    for blocks in shards:
        digest = Fingerprint()
        for block in blocks:
            digest.add(block)
        rows.append(sum(len(next(iter(b.values()))) for b in blocks))
        digests.append(digest.hexdigest())
        sizes.append(sum(a.nbytes for b in blocks for a in b.values()))
    return ShardTable(tuple(rows), tuple(digests), tuple(sizes))


class Plan:
    """The steps of one epoch: how many rows each step takes from each shard.

    It does not depend on the epoch's number or the seed; those only choose each shard's permutation (`permutation`).

    Args:
        rows: rows of each shard, any of them may be 0.
        batch_size: rows of a global batch, at least 1.
        steps: end the epoch after this many steps; None for all rows.

    >>> plan = Plan((3, 1), batch_size=2)
    >>> plan.steps, [tuple(int(n) for n in b - a) for a, b in plan]
    (2, [(2, 0), (1, 1)])
    """

    def __init__(self, rows: Sequence[int], batch_size: int, steps: int | None = None):
        if batch_size < 1:
            raise ValueError(f"batch_size needs at least 1 row, got {batch_size}")
        self.rows = tuple(int(n) for n in rows)
        self.batch_size = int(batch_size)
        self.total = sum(self.rows)
        whole = -(-self.total // self.batch_size)
        self.steps = whole if steps is None else min(whole, int(steps))
        self._n = np.array(self.rows, dtype=np.int64)

    def rows_in(self, step: int) -> int:
        """Rows of the global batch of `step`."""
        return min((step + 1) * self.batch_size, self.total) - min(step * self.batch_size, self.total)

    def counts(self, step: int) -> np.ndarray:
        """c(step): rows taken from each shard before `step`, int64[S]."""
        return apportion(self._n, min(step * self.batch_size, self.total))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self.iterate(0)

    def iterate(self, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(c(t), c(t + 1)) for t from `first` to the end of the epoch, int64[S] each. Memory: 65,536 rows' keys."""
        shards = np.arange(len(self.rows))
        stride = max(1, _CHUNK_ROWS // self.batch_size)
        start = self.counts(first)
        for t in range(first, self.steps, stride):
            end_step = min(t + stride, self.steps)
            end = self.counts(end_step)
            taken = end - start
            shard = np.repeat(shards, taken)
            row = np.arange(shard.size) - np.repeat(np.cumsum(taken) - taken, taken) + start[shard]
            order = np.lexsort((shard, _key(row, self._n[shard])))
            step = np.empty(shard.size, dtype=np.int64)
            step[order] = np.arange(shard.size) // self.batch_size
            table = np.bincount(step * len(shards) + shard, minlength=(end_step - t) * len(shards))
            bounds = start + np.cumsum(table.reshape(end_step - t, len(shards)), axis=0)
            for bound in bounds:
                yield start, bound
                start = bound

    def row_counts(self, owners: Sequence[int] | None = None) -> list[np.ndarray]:
        """For each group of shards, the different numbers of rows that a step takes from it, ascending.

        Args:
            owners: the group of each shard (ranks, as `assign` gives them); None for each shard alone.

        Returns:
            One int64 array a group. Over 16.8 million rows the epoch is not walked through: the array then holds one
            number, a bound that no step exceeds.
        """
        groups = np.arange(len(self.rows)) if owners is None else np.asarray(owners, dtype=np.int64)
        number = int(groups.max(initial=-1)) + 1
        if self.total > _SIMULATED_ROWS:
            loose = -(-(self.batch_size + 2 * len(self.rows)) * self._n // self.total) + 1
            loose = np.minimum(loose, np.minimum(self._n, self.batch_size))
            return [np.array([min(int(loose[groups == g].sum()), self.batch_size)]) for g in range(number)]
        seen: list[set[int]] = [set() for _ in range(number)]
        for a, b in self:
            for g, n in enumerate(np.bincount(groups, weights=b - a, minlength=number).astype(np.int64).tolist()):
                seen[g].add(n)
        return [np.array(sorted(s), dtype=np.int64) for s in seen]


def _key(row, rows):
    return (2.0 * row + 1.0) / rows


def apportion(rows: np.ndarray, count: int) -> np.ndarray:
    """The first `count` rows of all shards merged by ((2 i + 1) / n, shard): how many come from each shard, int64[S].

    Monotone in `count` and exact; at ``count = rows.sum()`` it is `rows`. Work O(S log S), whatever the rows.
    """
    rows = np.asarray(rows, dtype=np.int64)
    total = int(rows.sum())
    if not 0 <= count <= total:
        raise ValueError(f"cannot take {count} rows out of {total}")
    taken = np.zeros_like(rows)
    if count == 0:
        return taken
    live = np.flatnonzero(rows)
    n = rows[live].astype(np.float64)
    place = 2.0 * count / total
    # All rows at places <= `place`: a prefix of the merged order, off from `count` by at most half a row a shard.
    t = np.clip(np.floor((place * n + 1.0) / 2.0), 0, n)
    while (low := (t < n) & (_key(t, n) <= place)).any():
        t += low
    while (high := (t > 0) & (_key(t - 1, n) > place)).any():
        t -= high
    excess = int(t.sum()) - count
    if excess > 0:
        heap = [(-_key(a - 1, b), -i) for i, (a, b) in enumerate(zip(t.tolist(), n.tolist(), strict=True)) if a > 0]
        heapq.heapify(heap)
        for _ in range(excess):
            i = -heap[0][1]
            t[i] -= 1
            if t[i] > 0:
                heapq.heapreplace(heap, (-_key(t[i] - 1, n[i]), -i))
            else:
                heapq.heappop(heap)
    elif excess < 0:
        heap = [(_key(a, b), i) for i, (a, b) in enumerate(zip(t.tolist(), n.tolist(), strict=True)) if a < b]
        heapq.heapify(heap)
        for _ in range(-excess):
            i = heap[0][1]
            t[i] += 1
            if t[i] < n[i]:
                heapq.heapreplace(heap, (_key(t[i], n[i]), i))
            else:
                heapq.heappop(heap)
    taken[live] = t.astype(np.int64)
    return taken


def permutation(rows: int, seed: int, epoch: int, shard: int, shuffle: bool = True) -> np.ndarray:
    """The order in which an epoch takes the rows of a shard: integers[rows], from (seed, epoch, shard) alone."""
    order = np.arange(rows, dtype=np.uint32 if rows < 1 << 32 else np.uint64)
    if shuffle:
        words = (seed & 0xFFFFFFFFFFFFFFFF, epoch, shard)
        np.random.Generator(np.random.Philox(np.random.SeedSequence(words))).shuffle(order)
    return order


def assign(rows: Sequence[int], world_size: int, speeds: Sequence[float] | None = None) -> tuple[int, ...]:
    """The rank that owns each shard: contiguous, balanced by rows, a pure function. Ranks may stay empty.

    Args:
        speeds: of each rank, which gets rows in proportion; None: all alike.

    >>> assign((5, 5, 5, 5), 2), assign((5, 5, 5, 5), 2, speeds=(1.0, 3.0))
    ((0, 0, 1, 1), (0, 1, 1, 1))
    """
    if world_size < 1:
        raise ValueError(f"workers needs at least 1, got {world_size}")
    total = sum(rows)
    if total == 0:
        return tuple(0 for _ in rows)
    ranks, before = [], 0
    if speeds is not None:
        ends = np.cumsum(speeds) / sum(speeds)
        middles = (np.cumsum(rows) - np.asarray(rows) / 2) / total
        return tuple(int(r) for r in np.minimum(np.searchsorted(ends, middles, side="right"), world_size - 1))
    for n in rows:
        ranks.append(min(world_size - 1, world_size * (2 * before + n) // (2 * total)))
        before += n
    return tuple(ranks)


def ladder(counts: Sequence[np.ndarray], exact: bool, most: int = _LADDER) -> tuple[int, ...]:
    """The row numbers a program is compiled for, ascending, so that every count in `counts` has one at least as large.

    Args:
        counts: as `Plan.row_counts` gives them.
        exact: every count itself (models whose batches are never padded); else at most `most` sizes, each at most half
            the next, so that small shards do not pay for large ones.
    """
    if exact:
        return tuple(sorted({int(n) for c in counts for n in c if n > 0}))
    largest = sorted({int(c[-1]) for c in counts if len(c) and c[-1] > 0}, reverse=True)
    sizes: list[int] = []
    for n in largest:
        if not sizes or (n * 2 <= sizes[-1] and len(sizes) < most):
            sizes.append(n)
    return tuple(reversed(sizes))


def capacity(sizes: Sequence[int], rows: int) -> int:
    """The smallest of the compiled `sizes` that holds `rows` rows."""
    for size in sizes:
        if size >= rows:
            return size
    raise ValueError(f"{rows} rows do not fit a program compiled for {tuple(sizes)} rows")


def shard_of(record: Any) -> int:
    """The key by which records are placed on workers."""
    return record[0]
