"""A step of a rank that keeps a slice of every layer's parameters and computes all layers on rows of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..collectives import Collective
from ..collectives.tree import TreeSum
from ..feed import Call, Feed, Step
from ..reports import Stopwatch
from ..shards import Plan
from ..worker import Settings
from .calls import Job
from .links import Links, MicrobatchLinks, in_pieces
from .method import Cut
from .step import PartStep


class SlicesStep(PartStep):
    """The steps of one rank with ``zero=3``.

    A call gives this rank's slices of the gradients, already summed over ranks; states and sums are added up at the step's
    end. As ranks gather parameters in the middle of calls, all of them make the same number of calls a step, of padding where
    they have no more rows: one, or the most shards with rows that a rank has, where each shard is computed by itself
    (``deterministic``, layers with statistics of a batch).

    ``deterministic``: gradients are added along the fixed tree over shards (`OrderedLinks`), states and sums too.
    """

    def __init__(self, method: Cut, settings: Settings, rank: int, program: Any, watch: Stopwatch):
        self._one_by_one = settings.one_by_one
        self._plans = {"train": Plan(settings.table.rows, settings.batch_size, settings.steps_per_epoch)}
        self._owned = {"train": settings.bounds()}
        if settings.validation is not None:
            self._plans["test"] = Plan(settings.validation.rows, settings.validation_batch_size)
            self._owned["test"] = settings.test_bounds()
        super().__init__(method, settings, rank, program, watch)

    def _update_call(self) -> tuple[Any, bool]:
        return (self.program.update(self.P) if self.P else None), False  # each rank has slices of all groups

    def load(self, collective: Any, *state: Any, **more: Any) -> None:
        super().load(collective, *state, **more)
        if self.deterministic:
            self._links = OrderedLinks(collective, self.watch, self._charge_sync, self._owned["train"], self.place)
        else:
            self._links = SlicesLinks(collective, self.watch, self._charge_sync)

    # --- calls -------------------------------------------------------------------------------------------------------

    def _calls(self, kind: str, step: Step) -> Sequence[Call]:
        rounds = self._rounds(kind, step.step)
        if kind == "train" and isinstance(self._links, OrderedLinks):
            self._links.rounds = rounds
        missing = rounds - len(step.calls)
        feed: Feed | None = self._feeds[kind]
        assert missing >= 0 and feed is not None
        return [*step.calls, *(feed.empty(self._sizes[kind][0]) for _ in range(missing))]

    def _rounds(self, kind: str, step: int) -> int:
        """The calls that each rank makes in a step."""
        if not self._one_by_one:
            return 1
        plan = self._plans[kind]
        there = plan.counts(step + 1) > plan.counts(step)
        before = np.concatenate([[0], np.cumsum(there)])
        return max(1, int(np.diff(before[list(self._owned[kind])]).max()))

    def test(self, step: Step) -> list[tuple[Call, np.ndarray]]:
        return [(call, np.array(v)) for call, v in self._called("test", step, None) if call.rows]

    # --- sums --------------------------------------------------------------------------------------------------------

    def _reduced(self, results: Iterable[tuple[Call, np.ndarray]]) -> np.ndarray:
        """Own slices of the gradients; states and sums of this rank's rows, or of all if deterministic."""
        total = np.zeros(self.V, np.float32)
        rest: list[tuple[Call, np.ndarray]] = []
        for call, vector in results:
            total[: self.P] += vector[: self.P]
            if call.rows:
                rest.append((call, vector[self.P :]))
        if self.deterministic:
            total[self.P :] = self._sum_small(rest, self.S + self.M)
        else:
            for _, vector in rest:
                total[self.P :] += vector
        self.watch.lap("compute")
        return total

    @property
    def _adds(self) -> bool:
        return self.method.grid.parts > 1 and not self.deterministic

    def _sum_small(self, outs: Iterable[tuple[Call, np.ndarray]], length: int, kind: str = "train") -> np.ndarray:
        self.watch.lap("compute")
        there = [(call, out) for call, out in outs if call.rows]
        group = self.groups.model
        if self.deterministic:
            total = group.all_reduce_small_tree(self._partials(there, length, kind), self._owned[kind], length)
        else:
            total = group.all_reduce_small(sum((out for _, out in there), np.zeros(length, np.float32)))
        self._charge_sync()
        return total

    def _bounds_of(self, kind: str) -> tuple[int, Sequence[int]]:
        return self.place, self._owned[kind]


class SlicesLinks(Links):
    """All ranks are one group. Of calls of padding, gradients count as zeros."""

    def group(self, axis: str) -> Collective:
        return self.groups.model

    def of(self, microbatch: int, job: Any = None) -> MicrobatchLinks:
        return _Counting(self, microbatch, job)


class _Counting(MicrobatchLinks):
    def __init__(self, links: Links, microbatch: int, job: Job):
        super().__init__(links, microbatch)
        self._job = job

    def scatter(self, axis: str, vector: Any, name: str) -> np.ndarray:
        return super().scatter(axis, vector if self._job.rows else np.zeros_like(vector), name)


class OrderedLinks(SlicesLinks):
    """Gradients are added along one fixed tree over shards, so that bits do not depend on the number of ranks.

    A rank keeps the partial sums of its shards, whole, until the step's last call; in that they are reduced to slices.
    With one shard for each rank nothing is kept.

    Args:
        bounds: rank r owns the shards ``bounds[r] .. bounds[r + 1] - 1``. rank: this one's number among them.

    Attributes:
        rounds: calls of the step.
    """

    def __init__(self, groups: Any, watch: Stopwatch, charge: Any, bounds: Sequence[int], rank: int):
        super().__init__(groups, watch, charge)
        self.bounds, self.rank, self.rounds = tuple(bounds), rank, 1
        self._trees: dict[str, tuple[TreeSum, list[int]]] = {}

    def of(self, microbatch: int, job: Any = None) -> MicrobatchLinks:
        return _Ordered(self, microbatch, job)

    def add(self, name: str, vector: np.ndarray, shard: int | None) -> None:
        """A shard's vector; those before it are zeros if they did not come. None: no more shards come."""
        start, stop = self.bounds[self.rank : self.rank + 2]
        if name not in self._trees:
            self._trees[name] = (TreeSum(start, stop, self.bounds[-1]), [start])
        tree, following = self._trees[name]
        for _ in range(following[0], stop if shard is None else shard):
            tree.add(np.zeros_like(vector))
        following[0] = start
        if shard is not None:
            tree.add(vector)
            following[0] = shard + 1

    def partials(self, name: str) -> Mapping[tuple[int, int], np.ndarray]:
        return self._trees[name][0].partials()


class _Ordered(MicrobatchLinks):
    def __init__(self, links: OrderedLinks, microbatch: int, job: Job):
        super().__init__(links, microbatch)
        self._ordered, self._job, self._is_last = links, job, microbatch + 1 == links.rounds

    def scatter(self, axis: str, vector: Any, name: str) -> np.ndarray:
        links, mine = self._ordered, np.ascontiguousarray(vector, np.float32)
        if self._job.rows:
            links.add(name, mine, self._job.call.shard)
        group = links.group(axis)
        if not self._is_last:
            return np.zeros(mine.size // group.world_size, np.float32)
        links.watch.lap("compute")
        links.add(name, mine, None)
        partials = links.partials(name)

        def reduced(cut: Any, elements: int) -> np.ndarray:
            return group.reduce_scatter_tree({n: cut(v) for n, v in partials.items()}, links.bounds, elements)

        own = in_pieces(mine.size, group.world_size, reduced)
        links.charge()
        return own
