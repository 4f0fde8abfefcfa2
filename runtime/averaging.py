"""Local steps and averages: each shard trains a replica of the model, every so many steps the replicas become one again."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .feed import Call, Feed, Step
from .reports import Stopwatch
from .step import Arguments, DistributedStep, Finish
from .worker import Method, Settings

KEEP, AVERAGE, RESET = "keep", "average", "reset"
PARAMETERS, GRADIENTS, BEST = "parameters", "gradients", "best"


@dataclasses.dataclass(frozen=True)
class Averaging(Method):
    """What the workers of `LocalSGD` and `ParameterAveraging` do.

    Attributes:
        every: local steps of a round.
        optimizer_state: after a round each replica keeps its own ("keep"), all go on from the mean ("average"), or begin
            anew ("reset").
        combine: "parameters": the mean of the replicas. "gradients": no local steps, one step with the mean gradient of
            the round. "best": the replica with the lowest validation loss.
    """

    every: int = 1
    optimizer_state: str = KEEP
    combine: str = PARAMETERS

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> AveragingStep:
        return AveragingStep(self, settings, rank, program, watch)

    def identity(self) -> dict[str, Any]:
        return {"averaging": [self.every, self.optimizer_state, self.combine]}


@dataclasses.dataclass
class Replica:
    """The model of one shard within a round.

    Attributes:
        params: float32[P]. slots: the optimizer's. state: float32[S].
        rows: that it has seen in this round. sums: float32[M] of each step of the round.
        gradient: float32[P], the sum over its rows ("gradients" only).
    """

    params: Any
    slots: tuple[Any, ...]
    state: Any
    sums: list[np.ndarray]
    rows: int = 0
    gradient: Any = None


class AveragingStep(DistributedStep):
    """The replicas of one worker's shards, and the rounds after which they become one model.

    1. At the beginning of a round every shard's replica is the common model.
    2. A step: each shard's rows of the global batch make one optimizer step of its replica, with the mean loss over these
       rows. A replica without rows in a step stands still.
    3. After `every` steps, and at an epoch's end: all-reduce of the replicas' changes in the round, weighted by the rows
       that each has seen; the common model moves by their mean. Moving statistics likewise; sums are added up.

    Whole vectors live on every worker: parameters and slots for each of its shards. See `DistributedStep` for arguments.
    """

    def __init__(self, method: Averaging, settings: Settings, rank: int, program: Any, watch: Stopwatch):
        super().__init__(
            program, rank, settings.bounds(), settings.train_sizes, settings.test_sizes, settings.deterministic, watch
        )
        self.method, self.shards = method, len(settings.owners)
        self._rows_of = settings.table.rows
        self._validation_shards = len(settings.validation_owners)
        self._replicas: dict[int, Replica] = {}
        self._own_slots: dict[int, tuple[Any, ...]] = {}  # of shards that keep theirs
        self._round: list[int] = []  # rows of the steps made in this round
        self._test_feed: Feed | None = None

    def _update_call(self) -> tuple[Any, bool]:
        return self.program.update(self.P), True

    def warm_up(self, feed: Feed | None, test_feed: Feed | None) -> None:
        super().warm_up(feed, test_feed)
        self._test_feed = test_feed

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
        super().load(collective, params, slots, state, iteration, kept)
        self._own_slots = {}
        start, stop = self.bounds[self.rank : self.rank + 2]
        for s in range(start, stop):
            names = [f"shard/{s}/slot/{i}" for i in range(len(self._slots))]
            if kept and names and names[0] in kept:
                self._own_slots[s] = tuple(kept[name] for name in names)

    def kept(self) -> dict[str, np.ndarray]:
        return {f"shard/{s}/slot/{i}": np.asarray(v) for s, own in self._own_slots.items() for i, v in enumerate(own)}

    def _replica(self, shard: int) -> Replica:
        if shard not in self._replicas:
            slots = self._slots
            if self.method.optimizer_state == KEEP:
                slots = self._own_slots.get(shard, slots)
            elif self.method.optimizer_state == RESET and self.method.combine != GRADIENTS:
                slots = tuple(np.full(self.P, s.fill, np.float32) for s in self.program.slots)
            self._replicas[shard] = Replica(self.params, slots, self.state, [])
        return self._replicas[shard]

    # --- local steps -------------------------------------------------------------------------------------------------

    def meets(self, step: int) -> bool:
        return (step + 1) % self.method.every == 0

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        jobs = [(call, self._local_arguments(call, key)) for call in step.calls]
        started = self.calls[jobs[0][0].size].run(0, jobs[0][1], (), None) if jobs else None

        def finish(learning_rate: float, note: int | None = 0) -> tuple[np.ndarray, tuple[int, ...] | None]:
            for call, out in self._local_results(jobs, started):
                self.watch.lap("compute")
                self._local_update(self._replica(call.shard), call.rows, out, learning_rate)
                self.watch.lap("update")
            self._round.append(step.rows)
            self.iteration += 1
            if note is None:
                return np.zeros((0, self.M), np.float32), None
            return self._meet(learning_rate, note)

        return finish

    def _local_arguments(self, call: Call, key: np.ndarray) -> Arguments:
        """As if the shard's rows were the whole batch."""
        replica = self._replica(call.shard)
        whole = super()._arguments(call, call.rows, key)
        return dataclasses.replace(whole, params=replica.params, state=replica.state)

    def _local_results(self, jobs: list, started: Any) -> Iterator[tuple[Call, np.ndarray]]:
        """Each call with its result; sums within a call are over its own rows."""
        for i, (call, args) in enumerate(jobs):
            carry, out = started
            run = self.calls[call.size]
            for k in range(1, run.stages):
                carry, out = run.run(k, args, carry, np.asarray(out))
            if i + 1 < len(jobs):
                following, more = jobs[i + 1]
                started = self.calls[following.size].run(0, more, (), None)
            yield call, np.asarray(out)

    def _local_update(self, replica: Replica, rows: int, out: np.ndarray, learning_rate: float) -> None:
        gradient, state, sums = self.program.layout.split(out)
        replica.rows += rows
        replica.state = np.array(state)
        while len(replica.sums) < len(self._round):  # steps in which this shard had no rows
            replica.sums.append(np.zeros(self.M, np.float32))
        replica.sums.append(np.array(sums))
        if self.method.combine == GRADIENTS:
            replica.gradient = gradient * np.float32(rows) + (0 if replica.gradient is None else replica.gradient)
        else:
            replica.params, replica.slots = self._alone(
                replica.params, gradient, replica.slots, learning_rate, self.iteration
            )

    def _alone(
        self, params: Any, gradient: Any, slots: tuple[Any, ...], learning_rate: float, iteration: int
    ) -> tuple[np.ndarray, tuple[Any, ...]]:
        """One optimizer step on whole vectors, without the other ranks."""
        args = Arguments(
            param=params,
            gradient=gradient,
            slots=slots,
            segment=self._segment,
            learning_rate=np.float32(learning_rate),
            iteration=np.int32(iteration),
        )
        carry, out = self.update.run(0, args, (), None)
        for k in range(1, self.update.stages):
            carry, out = self.update.run(k, args, carry, np.asarray(out))
        return np.asarray(out[0]), tuple(out[1:])

    # --- the end of a round ------------------------------------------------------------------------------------------

    def end_epoch(self, learning_rate: float) -> np.ndarray:
        sums = self._meet(learning_rate, 0)[0] if self._round else np.zeros((0, self.M), np.float32)
        if self.method.optimizer_state == KEEP and self._slots:
            self._mean_slots()
        return sums

    def _meet(self, learning_rate: float, note: int) -> tuple[np.ndarray, tuple[int, ...]]:
        """The replicas become one model; sums of the round's steps float32[k, M] and everybody's notes."""
        method, steps, total = self.method, len(self._round), sum(self._round)
        shares = {s: r.rows / total for s, r in self._replicas.items()}
        if method.combine == BEST:
            best = self._best()
            shares = {s: float(s == best) for s in shares}
        self.watch.lap("other")
        averaged = method.optimizer_state == AVERAGE and method.combine != GRADIENTS
        length = self.P * (1 + len(self._slots) * averaged) + self.S + steps * self.M
        changes = ((s, self._change(r, shares[s], total, steps, averaged)) for s, r in sorted(self._replicas.items()))
        vector, notes = self._sum(changes, length, note)
        at = self.P
        if method.combine == GRADIENTS:
            turn = (self.iteration - steps) // method.every
            self.params, self._slots = self._alone(self.params, vector[:at], self._slots, learning_rate, turn)
        else:
            self.params = self.params + vector[:at]
        if averaged:
            moved = []
            for slot in self._slots:
                moved.append(np.asarray(slot) + vector[at : at + self.P])
                at += self.P
            self._slots = tuple(moved)
        self._master = self.params
        self.state = self.state + vector[at : at + self.S]
        sums = np.array(vector[at + self.S :]).reshape(steps, self.M)
        if method.optimizer_state == KEEP:
            self._own_slots |= {s: r.slots for s, r in self._replicas.items()}
        self._replicas, self._round = {}, []
        self.watch.lap("update")
        return sums, notes

    def _change(self, replica: Replica, share: float, total: int, steps: int, averaged: bool) -> np.ndarray:
        """What a replica adds to the common model: its share of changes of parameters, slots, states; its sums."""
        share32 = np.float32(share)
        if self.method.combine == GRADIENTS:
            parts = [replica.gradient * np.float32(1 / total)]
        else:
            parts = [(replica.params - self.params) * share32]
        if averaged:
            pairs = zip(replica.slots, self._slots, strict=True)
            parts += [(np.asarray(new) - np.asarray(old)) * share32 for new, old in pairs]
        parts.append((replica.state - self.state) * share32)
        parts += [*replica.sums, np.zeros((steps - len(replica.sums)) * self.M, np.float32)]
        return np.concatenate(parts)

    def _sum(
        self, parts: Iterator[tuple[int, np.ndarray]], length: int, note: int = 0
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """The sum over all shards of all workers, along the fixed tree if deterministic; and everybody's notes."""
        if self.deterministic:
            partials = self._partials(((_Of(s), part) for s, part in parts), length)  # type: ignore[misc]
            owned = self.collective.reduce_scatter_tree(partials, self.bounds, length)
        else:
            mine = np.zeros(length, np.float32)
            for _, part in parts:
                mine += part
            owned = self.collective.reduce_scatter(mine)
        gathered = self.collective.all_gather(owned, length, note=note)
        self._charge_sync()
        return gathered.vector, gathered.notes

    def _mean_slots(self) -> None:
        """The common slots, as callbacks and the end of the fit see them: the mean over shards with rows."""
        live = sum(n > 0 for n in self._rows_of)
        start, stop = self.bounds[self.rank : self.rank + 2]
        for i, old in enumerate(self._slots):
            base = np.asarray(old)
            changes = (
                (s, (np.asarray(self._own_slots[s][i]) - base) * np.float32(1 / live))
                for s in range(start, stop)
                if s in self._own_slots
            )
            vector, _ = self._sum(changes, self.P)
            self._slots = (*self._slots[:i], base + vector, *self._slots[i + 1 :])

    # --- the best of the replicas --------------------------------------------------------------------------------------

    def _best(self) -> int:
        """The shard whose replica has the lowest loss on the validation data, the first of equals; the same on all ranks."""
        rows = np.zeros(self.shards, np.float64)
        for s, replica in self._replicas.items():
            rows[s] = replica.rows
        live = np.flatnonzero(self.collective.all_reduce_small(rows))
        common = self.params, self.state
        losses = []
        for s in live.tolist():
            vector = np.zeros(self.P + self.S, np.float32)
            if s in self._replicas:
                vector[: self.P], vector[self.P :] = self._replicas[s].params, self._replicas[s].state
            whole = np.array(self.collective.all_reduce(vector))
            self.params, self.state = whole[: self.P], whole[self.P :]
            losses.append(self._validation_loss())
        self.params, self.state = common
        self.watch.lap("validation")
        return int(live[int(np.argmin(losses))])

    def _validation_loss(self) -> float:
        assert self._test_feed is not None
        first = self.P + self.S
        places = {e.name: e.offset - first for e in self.program.layout.sums}
        found = np.zeros((2, self._validation_shards), np.float64)
        for batch in self._test_feed.epoch(0):
            for call, sums in self.test(batch):
                found[:, call.shard] += sums[[places["loss/total"], places["loss/count"]]]
        total, count = self.collective.all_reduce_small(found.reshape(-1)).reshape(2, -1)
        return float(np.add.accumulate(total)[-1] / max(np.add.accumulate(count)[-1], 1e-30))


class _Of(types.SimpleNamespace):
    """The shard that a vector is of, where a `Call` is asked for."""

    def __init__(self, shard: int):
        super().__init__(shard=shard)
