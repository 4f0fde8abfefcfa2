"""A step of a rank that holds a part of the model: gradient calls that talk to the other parts, then as always."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..collectives import ALIGNMENT
from ..feed import Call, Feed, Step
from ..reports import Stopwatch
from ..step import DistributedStep, Finish
from ..worker import Settings
from .calls import Job, give, jobs, run, shares, sums_over_replicas, tasks
from .groups import Groups
from .links import Links
from .method import Cut


class PartStep(DistributedStep):
    """The steps of one rank: part i of the model in replica j.

    1. Each call's rows are cut into microbatches, which run through the parts in the order of the schedule.
    2. The gradients of the part's own parameters are summed over the replicas, updated by slices and gathered, among the
       ranks with the same part (`DistributedStep`).
    3. Among the parts rank 0's note is told; in pipelines states and sums, to which each part gave what it computes, are
       added up with it.
    """

    def __init__(self, method: Cut, settings: Settings, rank: int, program: Any, watch: Stopwatch):
        self.method = method
        self.replica, self.place = method.grid.place(rank)
        k, bounds = method.microbatches, settings.bounds()
        super().__init__(
            program,
            self.replica,
            bounds if method.kind != "zero" else (0, bounds[-1]),  # there each rank is alone with its part
            [n // k for n in settings.train_sizes],
            [n // k for n in settings.test_sizes],
            settings.deterministic,
            watch,
        )
        self._sizes = {"train": settings.train_sizes, "test": settings.test_sizes}
        self._feeds: dict[str, Feed | None] = {}
        self._compiled = {"train": self.calls, "test": self.test_calls}
        self._meet = {
            kind: any(sums_over_replicas(c) for c in calls.values()) for kind, calls in self._compiled.items()
        }
        self.groups: Groups

    def warm_up(self, feed: Feed | None, test_feed: Feed | None) -> None:
        """Nothing is left to compile; what a call says to other parts can be run only with them."""
        self._feeds = {"train": feed, "test": test_feed}

    def load(
        self,
        collective: Any,
        params: np.ndarray,
        slots: Sequence[np.ndarray],
        state: np.ndarray,
        iteration: int,
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.groups = collective
        self._links = Links(collective, self.watch, self._charge_sync)
        super().load(collective.data, params, slots, state, iteration, kept)

    def remarks(self) -> list[str]:
        first = self.replica == self.place == 0
        return [self.groups.remark] if first and self.groups.remark else []

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        def finish(learning_rate: float, note: int | None = 0) -> tuple[np.ndarray, tuple[int, ...]]:
            results = self._called("train", step, key)
            sums, notes = self._reduce_and_update(results, learning_rate, note or 0)
            sums, noted = self._tell(sums, notes[0])
            return sums[None], (noted,)

        return finish

    def test(self, step: Step) -> list[tuple[Call, np.ndarray]]:
        found = [(call, np.array(v)) for call, v in self._called("test", step, None)]
        if self._adds and found:
            total = self._over_parts(np.concatenate([v for _, v in found]))
            found = list(zip((call for call, _ in found), np.split(total, len(found)), strict=True))
        return found if self.place == 0 else []

    def _called(self, kind: str, step: Step, key: np.ndarray | None) -> Iterator[tuple[Call, np.ndarray]]:
        """Each call with its result: the sum over its microbatches, in their order."""
        calls = self._calls(kind, step)
        common = {"params": self.params, "state": self.state, "key": key, "iteration": np.int32(self.iteration)}
        made = jobs(calls, self.method.microbatches, step.rows, common)
        self._sum_before(kind, made)
        order = tasks(kind, self.method.kind, self.method.schedule, self.place, self.method.grid.parts, len(made))
        total: np.ndarray | None = None
        for job in run(kind, self._compiled[kind].__getitem__, made, order, self._links):
            vector = np.asarray(job.environment["vector"])
            total = vector if total is None else total + vector
            if job.last:
                yield job.call, total
                total = None

    def _calls(self, kind: str, step: Step) -> Sequence[Call]:
        """What this rank computes in a step."""
        if step.calls or not self._meet[kind]:
            return step.calls
        feed = self._feeds[kind]  # replicas meet inside a call: one of padding where there are no rows
        assert feed is not None
        return [feed.empty(self._sizes[kind][0])]

    def _sum_before(self, kind: str, made: Sequence[Job]) -> None:
        """What calls divide by that depends on all rows of the step, such as the steps that masks leave."""
        compiled = self._compiled[kind]
        totals = next(iter(compiled.values())).totals if compiled else ()
        if totals:
            length = sum(math.prod(shape) for _, shape in totals)
            give(totals, self._sum_small(shares(compiled.__getitem__, made), length, kind), made)

    # --- the update --------------------------------------------------------------------------------------------------

    def _variables(self) -> tuple[np.ndarray, np.ndarray | None]:
        if self.program.flags.update_mode == "replicated":  # its step knows the part's own variables
            return super()._variables()
        return self.program.segments(), self.program.counted() if self.method.kind == "model" else None

    def _update_call(self) -> tuple[Any, bool]:
        call, replicated = super()._update_call()
        if not self.P:  # without weights, but the others wait for this part in sums over all weights
            norms = self.program.update(ALIGNMENT)
            self._norms = norms if norms.stages > 1 else None
        return call, replicated

    def _update_and_gather(
        self, owned: np.ndarray, learning_rate: float, note: int, iteration: int, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        if not self.P and self._norms is not None:
            zeros = np.zeros(ALIGNMENT, np.float32)
            self._counted = zeros
            slots = (zeros,) * len(self.program.slots)
            self._updated(self._norms, zeros, zeros, slots, zeros.astype(np.int32), learning_rate, iteration)
        return super()._update_and_gather(owned, learning_rate, note, iteration, out)

    def _over_slices(self, vector: np.ndarray) -> np.ndarray:
        """First over the replicas, then over the parts."""
        total = super()._over_slices(vector)
        return total if self.method.grid.parts == 1 else self._over_parts(total)

    # --- among the parts ---------------------------------------------------------------------------------------------

    @property
    def _adds(self) -> bool:
        """Whether each part gives its share of states and sums."""
        return self.method.kind == "pipeline" and self.method.grid.parts > 1

    def _tell(self, sums: np.ndarray, note: int) -> tuple[np.ndarray, int]:
        """The sums of all parts, and the first part's note; makes the states whole."""
        if self.method.grid.parts == 1:
            return sums, note
        words = np.zeros(4, np.float32)  # 16 bits each, which float32 holds
        if self.place == 0:
            words[:] = np.frombuffer(np.int64(note).tobytes(), np.uint16)
        mine = [self.state, sums, words] if self._adds else [words]
        total = self._over_parts(np.concatenate(mine))
        if self._adds:
            self.state, sums = total[: self.S], total[self.S : self.S + self.M]
        return sums, int(np.frombuffer(total[-4:].astype(np.uint16).tobytes(), np.int64)[0])

    def _over_parts(self, vector: np.ndarray) -> np.ndarray:
        group = self.groups.channels or self.groups.model
        total = group.all_reduce_small(vector)
        self._charge_sync()
        return total

    def _charge_sync(self) -> None:
        waited_s, self._waited_s = self.groups.wait_s - self._waited_s, self.groups.wait_s
        self.watch.lap("wait", max(waited_s, 0.0))
        self.watch.lap("sync")
