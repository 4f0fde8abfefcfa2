"""One synchronous step on one worker: gradient of its rows, sum over workers, update of its slice, all slices to all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .collectives import aligned_empty, slices
from .collectives.tree import TreeSum
from .feed import Call, Feed, Step
from .reports import Stopwatch


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a gradient, evaluation or update call of a program reads; `kerasoft.compiler.program.StepArgs` by duck."""

    params: Any = None
    state: Any = None
    batch: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    valid: Any = None
    row_id: Any = None
    key: Any = None
    rows: Any = None
    share: Any = None
    iteration: Any = None
    param: Any = None
    gradient: Any = None
    slots: tuple[Any, ...] = ()
    segment: Any = None
    learning_rate: Any = None
    counted: Any = None


Finish = Callable[[float, "int | None"], tuple[np.ndarray, "tuple[int, ...] | None"]]


class DistributedStep:
    """The model's state on one worker and the steps that change it.

    1. The gradient call of each group of rows gives float32[V]: gradients, states times share, sums.
    2. Reduce-scatter of their sum: this rank gets its slice.
    3. The optimiser updates the slice of the parameters, whose slots and float32 master copy live only here.
    4. All-gather: everybody has the new parameters, the states and the step's sums.

    A model whose update needs whole vectors ("replicated") gathers the gradients instead and updates everywhere alike.

    Args:
        program: a `StepProgram` or something that behaves like one.
        rank: this worker's.
        bounds: rank r owns the shards ``bounds[r] .. bounds[r + 1] - 1``.
        sizes: row numbers of gradient calls. test_sizes: of evaluation calls.
        deterministic: sums over shards run along one fixed tree, so that bits do not depend on the workers.
        watch: charged with "compute", "sync", "wait", "update".
    """

    def __init__(
        self,
        program: Any,
        rank: int,
        bounds: Sequence[int],
        sizes: Sequence[int],
        test_sizes: Sequence[int] = (),
        deterministic: bool = False,
        watch: Stopwatch | None = None,
    ):
        self.program, self.rank, self.bounds, self.deterministic = program, rank, tuple(bounds), deterministic
        self.collective: Any = None  # given to `load`, when nothing is left to compile
        self.watch = watch or Stopwatch()
        layout = program.layout
        self.P, self.S, self.M, self.V = layout.P, layout.S, layout.M, layout.V
        own = slices(self.V, len(self.bounds) - 1)
        self._parts = [slice(min(s.start, self.P), min(s.stop, self.P)) for s in own]
        self.owned, self.part = own[rank], self._parts[rank]
        self.calls = {n: program.train(n) for n in sizes}
        self.test_calls = {n: program.test(n) for n in test_sizes}
        self.update, self.replicated = self._update_call()
        segments, counted = self._variables()
        kept = slice(None) if self.replicated else self.part
        self._segment = np.ascontiguousarray(segments[kept])
        self._counted = None if counted is None else np.ascontiguousarray(counted[kept])
        self._trees: dict[tuple[str, int], TreeSum] = {}
        self.test_bounds: tuple[int, ...] = ()  # as `bounds`, of the validation data; `Trainer` says
        self._waited_s = 0.0
        self._lengths: dict[str, list[int]] = {}
        self._send = aligned_empty(self.owned.stop - self.owned.start)
        self.params = np.zeros(self.P, np.float32)
        self.state = np.zeros(self.S, np.float32)
        self._master: Any = None
        self._slots: tuple[Any, ...] = ()
        self.iteration = 0

    def _variables(self) -> tuple[np.ndarray, np.ndarray | None]:
        """int32[P], the variable of each parameter; float32[P], whether it counts in norms, None: each does."""
        return self.program.layout.segments(), None

    def _update_call(self) -> tuple[Any, bool]:
        """The update call, and whether it works on whole vectors. The same on all ranks."""
        if self.program.flags.update_mode == "replicated":
            return self.program.update(self.P), True
        sizes = [p.stop - p.start for p in self._parts]
        mine = sizes[self.rank]
        call = self.program.update(mine) if mine else None
        if not self.P:  # a part of a model without weights of its own
            return None, False
        if not all(sizes) or self.deterministic:
            # A rank without a slice could not take part in sums inside the update, and such sums would be added in
            # an order that depends on the workers.
            whole = self.program.update(self.P) if call is None else call
            if whole.stages > 1:
                return self.program.update(self.P), True
        return call, False

    def warm_up(self, feed: Feed | None, test_feed: Feed | None) -> None:
        """Runs every call once on padding: nothing is left to compile, and the lengths of sums inside calls are known."""
        for kind, calls, of in (("train", self.calls, feed), ("test", self.test_calls, test_feed)):
            for size, call in calls.items():
                assert of is not None
                empty = of.empty(size)
                self._prepare_padding(kind, empty)
                args = self._arguments(empty, 1, np.zeros(2, np.uint32))
                carry, out = call.run(0, args, (), None)
                lengths = []
                for k in range(1, call.stages):
                    lengths.append(int(out.shape[0]))
                    carry, out = call.run(k, args, carry, np.asarray(out))
                self._lengths[kind] = lengths

    def _prepare_padding(self, kind: str, call: Call) -> None:
        """Called before a call ("train" or "test") is run on padding."""

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
        """Starts from this rank's slices of the parameters and slots; the other slices come from the other ranks.

        Parameters are gathered as after a step: where the wire rounds them (bfloat16), an attempt that goes on from a
        checkpoint computes with the same rounded ones as an undisturbed run.

        Args:
            kept: what `kept` gave for the checkpoint that is gone on from, {} at the start of a fit.
        """
        self.collective = collective
        self.state, self.iteration = np.array(state), iteration
        self.params = self._whole(params, exact=self.replicated)
        if self.replicated:
            self._master = self.params
            self._slots = tuple(self._whole(s) for s in slots)
        else:
            self._master, self._slots = np.array(params), tuple(np.array(s) for s in slots)

    def replace(self, params: np.ndarray, state: np.ndarray) -> None:
        """Goes on from other parameters and states (whole vectors, the same on all ranks); slots stay. All ranks together."""
        self.state = np.array(state)
        if self.replicated:
            self.params = self._master = np.array(params)
        else:
            self._master = np.array(params[self.part])
            self.params = self._whole(self._master, exact=False)

    def _whole(self, mine: np.ndarray, exact: bool = True) -> np.ndarray:
        """A copy of the vector of length P of which every rank has its slice; not `exact`: as a step gathers it."""
        self._send[: len(mine)] = mine
        self._send[len(mine) :] = 0
        return np.array(self.collective.all_gather(self._send, self.V, exact=exact).vector[: self.P])

    def slices(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """This rank's slices of the float32 parameters and of the slots."""
        cut = self.part if self.replicated else slice(None)
        return np.asarray(self._master)[cut], tuple(np.asarray(s)[cut] for s in self._slots)

    # --- what other methods do differently -----------------------------------------------------------------------------

    converged = False
    """Whether further epochs would change nothing."""

    def kept(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold besides parameters, slots and states. All ranks call it together.

        ``shard/<s>/<name>`` comes back to the rank that then owns shard s, ``slice/<name>`` is this rank's slice of a
        vector of P or V elements, ``all/<name>`` is the same everywhere.
        """
        return {}

    def remarks(self) -> list[str]:
        """Sentences for the user, after `load`; told of once if only rank 0 has any."""
        remark: str = getattr(self.collective, "remark", "")
        return [remark] if self.rank == 0 and remark else []

    def meets(self, step: int) -> bool:
        """Whether the ranks exchange something, and so notes, in the epoch's step `step`."""
        return True

    def more(self, feed: Feed, done: int) -> Step | None:
        """A further step, the epoch's `done`-th, when those of the plan are through; None at the epoch's end."""
        return None

    def counts(self) -> dict[str, float]:
        """This worker's share of what the epoch's logs count besides, from its last call on."""
        return {}

    def end_epoch(self, learning_rate: float) -> np.ndarray:
        """Finishes what the epoch's steps left open; the sums float32[k, M] of those not given yet."""
        return np.zeros((0, self.M), np.float32)

    # --- one step ----------------------------------------------------------------------------------------------------

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        """Sets the first gradient call going and returns what finishes the step: ``finish(learning_rate, note)``.

        Between the two there is time to prepare the next batch. `finish` returns the sums float32[k, M] over all
        workers of the k steps that are now complete, and the notes of all ranks (None, as `note`, if they do not meet).
        """
        jobs = [(call, self._arguments(call, step.rows, key)) for call in step.calls]
        started = self.calls[jobs[0][0].size].run(0, jobs[0][1], (), None) if jobs else None

        def finish(learning_rate: float, note: int | None = 0) -> tuple[np.ndarray, tuple[int, ...]]:
            results = self._results("train", self.calls, jobs, started)
            sums, notes = self._reduce_and_update(results, learning_rate, note or 0)
            return sums[None], notes

        return finish

    def test(self, step: Step) -> list[tuple[Call, np.ndarray]]:
        """The sums float32[M] of each of this rank's evaluation calls of one step."""
        jobs = [(call, self._arguments(call, step.rows, None)) for call in step.calls]
        started = self.test_calls[jobs[0][0].size].run(0, jobs[0][1], (), None) if jobs else None
        return [(call, np.array(out)) for call, out in self._results("test", self.test_calls, jobs, started)]

    def _arguments(self, call: Call, rows: int, key: np.ndarray | None) -> Arguments:
        return Arguments(
            params=self.params,
            state=self.state,
            batch=call.batch,
            valid=call.valid,
            row_id=call.row_id,
            key=key,
            rows=np.float32(rows),
            share=np.float32(call.rows / rows),
            iteration=np.int32(self.iteration),
        )

    def _results(
        self, kind: str, calls: Mapping[int, Any], jobs: list, started: Any
    ) -> Iterable[tuple[Call, np.ndarray]]:
        """Each call of `jobs` with its result, all stages done; one after another if there is one stage, to hold few.

        Ranks without rows take part in the sums between stages with zeros.
        """
        lengths = self._lengths.get(kind, ())
        if not lengths:
            return self._one_stage(calls, jobs, started)
        running = []
        for i, (call, args) in enumerate(jobs):
            running.append((call, args, started if i == 0 else calls[call.size].run(0, args, (), None)))
        for k, length in enumerate(lengths, 1):
            reduced = self._sum_small([(call, np.asarray(out)) for call, _, (_, out) in running], length, kind)
            running = [
                (call, args, calls[call.size].run(k, args, carry, reduced)) for call, args, (carry, _) in running
            ]
        return [(call, np.asarray(out)) for call, _, (_, out) in running]

    def _one_stage(self, calls: Mapping[int, Any], jobs: list, started: Any) -> Iterator[tuple[Call, np.ndarray]]:
        for i, (call, _) in enumerate(jobs):
            out = started[1]
            if i + 1 < len(jobs):
                following, args = jobs[i + 1]
                started = calls[following.size].run(0, args, (), None)
            yield call, np.asarray(out)

    def _sum_small(self, outs: Iterable[tuple[Call, np.ndarray]], length: int, kind: str = "train") -> np.ndarray:
        """The sum of short vectors over all calls of all ranks."""
        self.watch.lap("compute")
        if self.deterministic:
            partials = self._partials(outs, length, kind)
            total = self.collective.all_reduce_small_tree(partials, self._bounds_of(kind)[1], length)
        else:
            mine = np.zeros(length, np.float32)
            for _, out in outs:
                mine += out
            total = self.collective.all_reduce_small(mine)
        self._charge_sync()
        return total

    def _partials(
        self, outs: Iterable[tuple[Call, np.ndarray]], length: int, kind: str = "train"
    ) -> dict[tuple[int, int], np.ndarray]:
        """Sums of the nodes of the fixed tree that this rank's shards make up; shards without rows count as zeros."""
        number, bounds = self._bounds_of(kind)
        start, stop = bounds[number : number + 2]
        if (kind, length) not in self._trees:
            self._trees[kind, length] = TreeSum(start, stop, bounds[-1])
        tree, following = self._trees[kind, length], start
        zeros = np.zeros(length, np.float32)
        for call, out in outs:
            for _ in range(following, call.shard):
                tree.add(zeros)
            tree.add(out)
            following = call.shard + 1
        for _ in range(following, stop):
            tree.add(zeros)
        return tree.partials()

    def _bounds_of(self, kind: str) -> tuple[int, Sequence[int]]:
        """This rank's number among those with rows of their own, and which shards each of them has."""
        return self.rank, self.bounds if kind == "train" else self.test_bounds

    def _charge_sync(self) -> None:
        counters = self.collective.counters
        waited_s, self._waited_s = counters.wait_s - self._waited_s, counters.wait_s
        self.watch.lap("wait", max(waited_s, 0.0))
        self.watch.lap("sync")

    def _reduce_and_update(
        self, results: Iterable[tuple[Call, np.ndarray]], learning_rate: float, note: int
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        owned = self._reduced(results)
        self._charge_sync()
        sums, notes = self._update_and_gather(owned, learning_rate, note, self.iteration)
        self.iteration += 1
        return sums, notes

    def _update_and_gather(
        self, owned: np.ndarray, learning_rate: float, note: int, iteration: int, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """The optimiser's step `iteration` with this rank's slice of the sum, and all slices to all (into `out`)."""
        self._send[:] = owned
        if self.replicated:
            gathered = self.collective.all_gather(self._send, self.V, note=note, exact=True)
            self._charge_sync()
            self._apply(gathered.vector[: self.P], learning_rate, iteration)
            self.params = np.asarray(self._master)
            self.watch.lap("update")
        else:
            size = self.part.stop - self.part.start
            if size:
                self._apply(owned[:size], learning_rate, iteration)
                self._send[:size] = self._master
            self.watch.lap("update")
            gathered = self.collective.all_gather(self._send, self.V, note=note, out=out)
            self.params = gathered.vector[: self.P]
        rest = np.array(gathered.vector[self.P :])
        self.state, sums = rest[: self.S], rest[self.S :]
        self._charge_sync()
        return sums, gathered.notes

    def _reduced(self, results: Iterable[tuple[Call, np.ndarray]]) -> np.ndarray:
        """This rank's slice of the sum over all calls of all ranks."""
        if self.deterministic:
            partials = self._partials(results, self.V)
            self.watch.lap("compute")
            return self.collective.reduce_scatter_tree(partials, self.bounds, self.V)
        total = None
        for _, vector in results:
            if total is None:
                total = vector
            else:
                total = total + vector if not total.flags.writeable else np.add(total, vector, out=total)
        self.watch.lap("compute")
        return self.collective.reduce_scatter(np.zeros(self.V, np.float32) if total is None else total)

    def _apply(self, gradient: np.ndarray, learning_rate: float, iteration: int) -> None:
        """The optimiser on this rank's slice (or on the whole vectors)."""
        self._master, self._slots = self._updated(
            self.update, self._master, gradient, self._slots, self._segment, learning_rate, iteration
        )

    def _updated(
        self,
        update: Any,
        master: Any,
        gradient: np.ndarray,
        slots: tuple[Any, ...],
        segment: np.ndarray | None,
        learning_rate: float,
        iteration: int,
    ) -> tuple[np.ndarray, tuple[Any, ...]]:
        """Parameters and slots after the update call, of n elements each."""
        args = Arguments(
            param=master,
            gradient=gradient,
            slots=slots,
            segment=segment,
            counted=self._counted,
            learning_rate=np.float32(learning_rate),
            iteration=np.int32(iteration),
        )
        carry, out = update.run(0, args, (), None)
        for k in range(1, update.stages):
            carry, out = update.run(k, args, carry, self._over_slices(np.asarray(out)))
        return np.asarray(out[0]), tuple(out[1:])

    def _over_slices(self, vector: np.ndarray) -> np.ndarray:
        """The sum of a few numbers over all that hold a part of the parameters."""
        return vector if self.replicated else self.collective.all_reduce_small(vector)
