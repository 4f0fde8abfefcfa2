"""Steps whose gradients travel by buckets while the rest of the backward pass is computed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .collectives import aligned_empty, slices
from .collectives.tree import TreeSum
from .division import Division
from .feed import Call, Step
from .reports import Stopwatch
from .step import Arguments, DistributedStep, Finish
from .worker import Method, Settings


@dataclasses.dataclass(frozen=True)
class Buckets(Method):
    """What the workers of ``AllReduce(buckets=n)`` do.

    Args:
        count: parts of the gradient, at most.
    """

    count: int = 2

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> BucketedStep:
        return BucketedStep(
            program, rank, settings.bounds(), settings.train_sizes, settings.test_sizes, settings.deterministic, watch
        )

    @property
    def buckets(self) -> int:
        return self.count


class _Total:
    """The sum of one bucket over this rank's calls: along the tree over its shards, or one after another.

    Args:
        size: elements. tree: None if the order does not matter.
    """

    def __init__(self, size: int, tree: TreeSum | None):
        self.size, self.tree = size, tree
        self._following = tree.start if tree else 0
        self._sum: np.ndarray | None = None

    def add(self, shard: int, vector: np.ndarray) -> None:
        if self.tree is not None:
            self._zeros_up_to(shard)
            self.tree.add(vector)
            self._following = shard + 1
        elif self._sum is None:
            self._sum = vector
        else:
            self._sum = self._sum + vector

    def _zeros_up_to(self, shard: int) -> None:
        assert self.tree is not None
        for _ in range(self._following, shard):
            self.tree.add(np.zeros(self.size, np.float32))

    def reduced(self, collective: Any, bounds: Sequence[int]) -> np.ndarray:
        """This rank's slice of the sum over all ranks; the next step begins at zero."""
        if self.tree is not None:
            self._zeros_up_to(self.tree.stop)
            self._following = self.tree.start
            return collective.reduce_scatter_tree(self.tree.partials(), bounds, self.size)
        total, self._sum = self._sum, None
        return collective.reduce_scatter(np.zeros(self.size, np.float32) if total is None else total)


@dataclasses.dataclass
class _Bucket:
    """A range of the flat vector.

    Attributes:
        start, stop: where it lies. part: the parameters in this rank's slice of it, as places in the whole vector.
        total: of this rank's calls.
    """

    start: int
    stop: int
    part: slice
    total: _Total

    size = property(lambda self: self.stop - self.start)


@dataclasses.dataclass
class _Owned:
    """Parameters that are updated by one call: their places in the vector, their float32 values and slots."""

    places: list[slice]
    segment: np.ndarray
    update: Any  # None: there are none
    master: Any = None
    slots: tuple[Any, ...] = ()


class BucketDivision(Division):
    """Every rank has a slice of each bucket.

    Args:
        ranges: the buckets. params: P. world_size: ranks.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], params: int, world_size: int):
        self.params = params
        self._places = [[_part(r, rank, world_size, params) for r in ranges] for rank in range(world_size)]

    def own(self, rank: int, vector: np.ndarray) -> np.ndarray:
        return _taken(vector, self._places[rank])

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        whole = np.empty(self.params, np.float32)
        for places, part in zip(self._places, parts, strict=True):
            _put(part, whole, places)
        return whole


def by_buckets(ranges: Sequence[tuple[int, int]], layout: Any, settings: Settings) -> Division:
    """The division of a fit by these buckets."""
    return BucketDivision(ranges, layout.P, settings.world_size)


class BucketedStep(DistributedStep):
    """Arguments as of `DistributedStep`, of a program with buckets. Each rank owns a slice of each bucket.

    1. All stages of the gradient call are set going; each gives a bucket, the last layers' first.
    2. As soon as a bucket is there, while the next ones are computed: reduce-scatter, update of this rank's slice of it,
       all-gather into the next parameters, which the running call does not read.
    3. When the last bucket is gathered, the new parameters take the place of the old ones.

    An update that needs sums over the whole vector (gradient norms) waits for the last bucket, and so do the all-gathers; one
    that works on whole vectors ("replicated") gathers gradients, bucket by bucket. With several calls a step the last one
    overlaps.
    """

    def __init__(self, program: Any, *others: Any):
        self._ranges = program.buckets
        super().__init__(_ByBuckets(program), *others)
        self._buckets = [self._bucket(*r) for r in self._ranges]
        self._by_bucket = not self.replicated and (self.update is None or self.update.stages == 1)
        if self.replicated:
            places = [[slice(0, self.P)]]
        elif self._by_bucket:
            places = [[b.part] for b in self._buckets]
        else:
            places = [[b.part for b in self._buckets]]
        segments = self.program.layout.segments()
        self._owned = [self._owner(p, segments) for p in places]
        self._next, self._now = aligned_empty(self.V), aligned_empty(self.V)

    def _update_call(self) -> tuple[Any, bool]:
        call, replicated = super()._update_call()
        if not replicated and call is not None and call.stages > 1:
            world = len(self.bounds) - 1
            if not all(sum(_length(_part(r, rank, world, self.P)) for r in self._ranges) for rank in range(world)):
                return self.program.update(self.P), True
        return call, replicated

    def _bucket(self, start: int, stop: int) -> _Bucket:
        size, world = stop - start, len(self.bounds) - 1
        first, end = self.bounds[self.rank : self.rank + 2]
        tree = TreeSum(first, end, self.bounds[-1]) if self.deterministic else None
        return _Bucket(start, stop, _part((start, stop), self.rank, world, self.P), _Total(size, tree))

    def _owner(self, places: list[slice], segments: np.ndarray) -> _Owned:
        count = sum(map(_length, places))
        return _Owned(places, _taken(segments, places), self.program.update(count) if count else None)

    # --- state -------------------------------------------------------------------------------------------------------

    def load(
        self,
        collective: Any,
        params: np.ndarray,
        slots: Sequence[np.ndarray],
        state: np.ndarray,
        iteration: int,
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.collective = collective
        self.iteration = iteration
        self.replace(self._whole(params), state)
        if self.replicated:
            self._owned[0].slots = tuple(self._whole(slot) for slot in slots)
            return
        ends = np.cumsum([sum(map(_length, owned.places)) for owned in self._owned])
        for owned, end in zip(self._owned, ends, strict=True):
            cut = slice(end - sum(map(_length, owned.places)), end)
            owned.slots = tuple(np.array(slot[cut]) for slot in slots)

    def replace(self, params: np.ndarray, state: np.ndarray) -> None:
        self.params, self.state = np.array(params), np.array(state)
        for owned in self._owned:
            owned.master = _taken(self.params, owned.places)
        if not self.replicated:
            self.params = self._whole(self._own([owned.master for owned in self._owned]), exact=False)

    def slices(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        slots = zip(*(owned.slots for owned in self._owned), strict=True)
        return self._own([owned.master for owned in self._owned]), tuple(map(self._own, slots))

    def _own(self, parts: Sequence[Any]) -> np.ndarray:
        """This rank's slices of a vector of which `parts` are as `_owned`, in the order of buckets."""
        if self.replicated:
            return _taken(np.asarray(parts[0]), [b.part for b in self._buckets])
        return np.concatenate([np.asarray(p) for p in parts])

    def _whole(self, mine: np.ndarray, exact: bool = True) -> np.ndarray:
        """The vector of length P of which every rank has its slice of each bucket; not `exact`: as a step gathers it."""
        at = 0
        for b in self._buckets:
            send = np.zeros(_length(self.collective.owned(b.size)), np.float32)
            send[: _length(b.part)] = mine[at : at + _length(b.part)]
            at += _length(b.part)
            self.collective.exact_from = max(self.P - b.start, 0)
            self.collective.all_gather(send, b.size, out=self._next[b.start : b.stop], exact=exact)
        return self._next[: self.P].copy()

    # --- one step ----------------------------------------------------------------------------------------------------

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        jobs = [(call, self._arguments(call, step.rows, key)) for call in step.calls]
        started = self._start(jobs[0]) if jobs else []

        def finish(learning_rate: float, note: int | None = 0) -> tuple[np.ndarray, tuple[int, ...]]:
            outs = self._all_but_the_last(jobs, started)
            notes: tuple[int, ...] = ()
            sends = []
            for k, b in enumerate(self._buckets):
                if jobs:
                    b.total.add(jobs[-1][0].shard, np.asarray(outs[k]))
                self.watch.lap("compute")
                sends.append(self._reduced_bucket(b))
                if self._by_bucket:
                    self._update(self._owned[k], [(b, sends[k])], learning_rate)
                if self._by_bucket or self.replicated:
                    notes = self._gather(b, sends[k], note or 0)
            if self.replicated:
                (owned,) = self._owned
                self._stepped(owned, self._next[: self.P], learning_rate)
                self._next[: self.P] = owned.master
                self.watch.lap("update")
            elif not self._by_bucket:
                pairs = list(zip(self._buckets, sends, strict=True))
                self._update(self._owned[0], pairs, learning_rate)
                notes = [self._gather(b, send, note or 0) for b, send in pairs][-1]
            self.params, rest = self._next[: self.P], self._next[self.P :].copy()
            self.state, sums = rest[: self.S], rest[self.S :]
            self._next, self._now = self._now, self._next
            self.iteration += 1
            return sums[None], notes

        return finish

    def _start(self, job: tuple[Call, Arguments]) -> list[Any]:
        """Sets all stages of a call going; its buckets, which arrive one after another."""
        call, args = job
        made, carry = [], ()
        for k in range(len(self._buckets)):
            carry, out = self.calls[call.size].run(k, args, carry)
            made.append(out)
        return made

    def _all_but_the_last(self, jobs: Sequence[tuple[Call, Arguments]], started: list[Any]) -> list[Any]:
        """Adds up all calls but the last one, which is under way then; its buckets."""
        for job, following in itertools.pairwise(jobs):
            outs, started = started, self._start(following)
            for b, out in zip(self._buckets, outs, strict=True):
                b.total.add(job[0].shard, np.asarray(out))
        return started

    def _reduced_bucket(self, b: _Bucket) -> np.ndarray:
        """This rank's slice of the bucket's sum, to be written over and gathered."""
        self.collective.exact_from = max(self.P - b.start, 0)
        owned = b.total.reduced(self.collective, self.bounds)
        if not self._by_bucket or not owned.flags.writeable:  # else it is gathered next, and lies where that wants it
            owned = np.array(owned)
        self._charge_sync()
        return owned

    def _update(self, owned: _Owned, sums: Sequence[tuple[_Bucket, np.ndarray]], learning_rate: float) -> None:
        """New parameters in the place of their gradients."""
        if owned.update is not None:
            parts = [send[: _length(b.part)] for b, send in sums]
            self._stepped(owned, parts[0] if len(parts) == 1 else np.concatenate(parts), learning_rate)
            at = 0
            for part in parts:
                part[:] = owned.master[at : at + len(part)]
                at += len(part)
        self.watch.lap("update")

    def _stepped(self, owned: _Owned, gradient: np.ndarray, learning_rate: float) -> None:
        owned.master, owned.slots = self._updated(
            owned.update, owned.master, gradient, owned.slots, owned.segment, learning_rate, self.iteration
        )

    def _gather(self, b: _Bucket, send: np.ndarray, note: int) -> tuple[int, ...]:
        """Everybody's slices of a bucket into the next vector; everybody's notes."""
        self.collective.exact_from = max(self.P - b.start, 0)
        out = self._next[b.start : b.stop]
        notes = self.collective.all_gather(send, b.size, note=note, out=out, exact=self.replicated).notes
        self._charge_sync()
        return notes


class _ByBuckets:
    """A program whose gradient call comes by buckets, for `DistributedStep`."""

    def __init__(self, program: Any):
        self.layout, self.flags, self.slots = program.layout, program.flags, program.slots
        self.train = lambda rows: program.part("buckets", rows)
        self.test, self.update = program.test, program.update


def _part(span: tuple[int, int], rank: int, world_size: int, params: int) -> slice:
    """The parameters that a rank owns of a range of the flat vector, as places in the whole vector."""
    start, stop = span
    mine = slices(stop - start, world_size)[rank]
    return slice(min(start + mine.start, params), min(start + mine.stop, params))


def _length(cut: slice) -> int:
    return cut.stop - cut.start


def _taken(vector: np.ndarray, places: Sequence[slice]) -> np.ndarray:
    return np.concatenate([vector[p] for p in places])


def _put(values: np.ndarray, vector: np.ndarray, places: Sequence[slice]) -> None:
    at = 0
    for p in places:
        vector[p] = values[at : at + _length(p)]
        at += _length(p)
