"""Carries `ShuffleAllReduce`: the driver's loop, and what its three stages do in a task."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .checkpoint import Checkpoint, Checkpoints, LocalFolder, identity
from .collectives import slices
from .collectives.tree import finish, height
from .errors import DistributedError, RetriesExhausted, TrainingFailed, WorkerLost
from .feed import Feed
from .loop import Decision, EpochEnd, Event, Hooks, StepReport, TrainJob, TrainResult, step_keys
from .reports import Stopwatch, profile
from .shards import Plan, ShardTable, ladder
from .step import Arguments
from .store import ShardStore
from .worker import fixed_shape

WEIGHTS, GRADIENT, ROWS = "weights", "gradient", "rows"


def partition_of(key: int) -> int:
    """Keys are partition numbers. One function object for all RDDs, so that Spark sees equal partitioners and unites
    their partitions one by one instead of listing them."""
    return key


@dataclasses.dataclass(frozen=True)
class Plans:
    """What a task must know of the fit: plain values and the program's bytes.

    Attributes:
        program: bytes of the `StepProgram`. fingerprint: of the program and the data, for caches.
        table: of the data. batch_size, steps, seed, shuffle: as in `TrainJob`.
        sizes: row numbers of calls.
        validation: whether the rows are the validation data (evaluation calls, in order).
    """

    program: bytes
    fingerprint: str
    table: ShardTable
    batch_size: int
    steps: int | None
    seed: int
    shuffle: bool
    sizes: tuple[int, ...]
    validation: bool = False


# --- in a task -------------------------------------------------------------------------------------------------------

_kept: dict[Any, Any] = {}  # of this Python worker: programs, rows and feeds; best effort, rebuilt when not there


def _keep(key: Any, make: Callable[[], Any]) -> Any:
    if key not in _kept:
        if len(_kept) > 64:
            _kept.clear()
        _kept[key] = make()
    return _kept[key]


def program_of(plans: Plans) -> Any:
    """The program, read once in this process."""

    def read():
        from kerasoft.compiler.program import StepProgram

        return StepProgram.from_bytes(plans.program)

    return _keep(("program", plans.fingerprint), read)


class ShardTask:
    """The rows of one shard and the calls on them, in one Python worker."""

    def __init__(self, plans: Plans, shard: int, records: Iterator[tuple]):
        self.plans, self.shard = plans, shard
        self.program = program_of(plans)
        where = f"partition {shard} of the {'validation' if plans.validation else 'training'} data"
        self.store = ShardStore(plans.table, [shard] if plans.table.rows[shard] else [], where)
        for record in records:
            self.store.add(*record)
        self.store.finish()
        specs = tuple((i.name, fixed_shape(i, self.program.lengths), np.dtype(i.dtype)) for i in self.program.inputs)
        plan = Plan(plans.table.rows, plans.batch_size, plans.steps)
        self.feed = Feed(self.store, plan, plans.sizes, True, specs, plans.seed, plans.shuffle)
        self._position: tuple[int, int] | None = None
        self._steps: Iterator[Any] = iter(())

    def step(self, epoch: int, step: int) -> Any:
        """The batch of a step; going on from the one before costs nothing."""
        if self._position != (epoch, step):
            self._steps = self.feed.epoch(epoch, step)
        self._position = (epoch, step + 1)
        return next(self._steps)

    def gradient(
        self, at: tuple[int, int, int], vector: np.ndarray, reduced: Sequence[np.ndarray]
    ) -> tuple[int, np.ndarray | None]:
        """The result of stage ``len(reduced)`` of the gradient call of one step, and how many stages there are.

        Args:
            at: epoch, step, iteration. vector: float32[V], weights and states first.
            reduced: sums over all shards that the earlier stages asked for.
        """
        epoch, step, iteration = at
        batch = self.step(epoch, step)
        stages = self.program.train(self.plans.sizes[0]).stages
        if not batch.calls:
            return stages, None
        key = step_keys(self.plans.seed, iteration, 1)[0]
        return stages, run_stages(
            self.program.train, batch.calls[0], batch.rows, self.program.layout, vector, reduced, key, iteration
        )

    def sums(self, vector: np.ndarray) -> np.ndarray:
        """float64[M]: the sums of the evaluation call over all rows of the shard."""
        total = np.zeros(self.program.layout.M, np.float64)
        for step in self.feed.epoch(0):
            for call in step.calls:
                out = None
                reduced: list[np.ndarray] = []
                for _ in range(self.program.test(call.size).stages):
                    out = run_stages(self.program.test, call, call.rows, self.program.layout, vector, reduced, None, 0)
                    reduced.append(out)
                total += out
        return total


def run_stages(
    calls: Any, call: Any, rows: int, layout: Any, vector: np.ndarray, reduced, key, iteration: int
) -> np.ndarray:
    """What stage ``len(reduced)`` of a call gives; earlier stages are computed again, for tasks keep nothing."""
    run = calls(call.size)
    args = Arguments(
        params=vector[: layout.P],
        state=np.ascontiguousarray(vector[layout.P : layout.P + layout.S]),
        batch=call.batch,
        valid=call.valid,
        row_id=call.row_id,
        key=key,
        rows=np.float32(rows),
        share=np.float32(call.rows / rows),
        iteration=np.int32(iteration),
    )
    carry, out = run.run(0, args, (), None)
    for k, total in enumerate(reduced, 1):
        carry, out = run.run(k, args, carry, total)
    return np.asarray(out)


def shard_task(plans: Plans, shard: int, records: Iterator[tuple]) -> ShardTask:
    """The kept task of a shard, or a new one from its rows.

    `records` is read to its end in any case: Spark throws away a Python worker that leaves input behind, and with it
    all that is kept and compiled.
    """
    task = _keep((plans.fingerprint, plans.validation, shard), lambda: ShardTask(plans, shard, records))
    collections.deque(records, maxlen=0)
    return task


def joined(number: int, part: Iterator[tuple[int, tuple]]) -> tuple[np.ndarray, Iterator[tuple]]:
    """The whole vector from its `number` slices, which come first, and an iterator over the rows behind them."""
    pieces: dict[int, np.ndarray] = {}
    rest: Iterator[tuple] = iter(())
    for _, value in part:
        if value[0] == WEIGHTS:
            pieces[value[1]] = value[2]
            if len(pieces) == number:
                break
        else:  # rows before weights: keep what was read
            rest = itertools.chain(rest, (value[1],))
    vector = np.concatenate([pieces[j] for j in range(number)])
    return vector, itertools.chain(rest, (v[1] for _, v in part if v[0] == ROWS))


def tree_sum(vectors: dict[int, np.ndarray], shards: int) -> np.ndarray:
    """The sum over shards along the fixed tree of `kerasoft.runtime.collectives.tree`; absent shards are zeros."""
    some = next(iter(vectors.values()))
    zeros = np.zeros_like(some)
    nodes = {(0, s): np.array(vectors.get(s, zeros)) for s in range(shards)}
    return finish(nodes, shards, lambda a, b: np.add(a, b, out=a)) if height(shards) else nodes[0, 0]


def updated(
    plans: Plans, own: dict[str, Any], gradients: dict[int, np.ndarray], rate: float, iteration: int
) -> dict[str, Any]:
    """A slice of weights and optimiser state after a step.

    Args:
        own: ``vector`` float32[slice] (weights, then states), ``slots``, ``start`` of the slice in the whole vector.
        gradients: of each shard, the same slice of its float32[V].
    """
    program = program_of(plans)
    total = tree_sum(gradients, len(plans.table.rows))
    size = len(own["slots"][0]) if own["slots"] else max(min(program.layout.P - own["start"], len(total)), 0)
    if size:
        call = program.update(size)
        segment = program.layout.segments()[own["start"] : own["start"] + size]
        args = Arguments(
            param=np.ascontiguousarray(own["vector"][:size]),
            gradient=np.ascontiguousarray(total[:size]),
            slots=tuple(own["slots"]),
            segment=np.ascontiguousarray(segment),
            learning_rate=np.float32(rate),
            iteration=np.int32(iteration),
        )
        param, *slots = call.whole(args)
        total[:size] = np.asarray(param)
        own = {**own, "slots": [np.asarray(s) for s in slots]}
    return {**own, "vector": total}


# --- on the driver ---------------------------------------------------------------------------------------------------


class ShuffleFit:
    """One fit by `ShuffleAllReduce`: the loop over epochs and steps, one Spark job a step."""

    def __init__(self, job: TrainJob, data: Any, validation: Any | None, strategy: Any, hooks: Hooks):
        self.job, self.data, self.validation, self.strategy, self.hooks = job, data, validation, strategy, hooks
        self.context = data.rdd.context
        self.layout = job.source.layout
        self.watch = Stopwatch()
        self.plan = Plan(data.table.rows, job.batch_size, job.steps_per_epoch)
        self.shards = len(data.table.rows)
        self._weights: Any = None
        self._steps_done = self._rows_done = 0

    def run(self) -> TrainResult:
        """Trains to the end.

        Raises:
            TrainingFailed: a task failed for a reason of the user's; not retried.
            RetriesExhausted: jobs kept failing without progress.
        """
        started = time.perf_counter()
        self._prepare()
        found, damaged = self.checkpoints.latest()
        for text in damaged:
            self.hooks.on_event(Event("warning", text))
        if found is not None:
            self.hooks.load_state(found.hooks)
            text = f"resuming from {self.checkpoints.folder.where}: epoch {found.epoch + 1}, step {found.step + 1}"
            self.hooks.on_event(Event("resumed", text, {"epoch": found.epoch, "step": found.step}))
        at = found or self._start()
        self._rates: dict[int, float] = {at.epoch: at.learning_rate} if found is not None and at.step else {}
        self._decisions: dict[int, Decision] = {}
        self._reported = (at.epoch, at.step - 1)
        self._seed = at.seed
        failures = 0
        try:
            while True:
                reached = (at.epoch, at.step)
                try:
                    final = self._train(at)
                    break
                except DistributedError:
                    raise
                except Exception as error:
                    loss = self._understood(error)
                    failures = failures + 1 if self._last == reached else 1
                    self.hooks.on_event(Event("worker_lost", str(loss)))
                    if failures > self.strategy.retries:
                        raise RetriesExhausted(
                            f"{failures} jobs in a row failed without progress; the last: {loss}"
                        ) from error
                    at = self.checkpoints.latest()[0] or self._start()
                    text = f"attempt {failures + 1}: going on from epoch {at.epoch + 1}, step {at.step + 1}"
                    self.hooks.on_event(Event("retrying", text, {"epoch": at.epoch, "step": at.step}))
        finally:
            self._release()
        if not self.checkpoints.temporary:
            self.checkpoints.commit(dataclasses.replace(final, finished=True))
        wall_s = time.perf_counter() - started
        report = profile(wall_s, self.watch.take(), (), 0.0, self._steps_done, self._rows_done)
        report.workers = self.slices
        return TrainResult(final.params, final.state, final.slots, final.iteration, report)

    def _prepare(self) -> None:
        from pyspark import StorageLevel

        from .spark_preflight import slots_of

        job, flags = self.job, self.job.source.flags
        sizes = ladder(self.plan.row_counts(), flags.exact_rows)
        test_sizes: tuple[int, ...] = ()
        if self.validation is not None:
            test_sizes = ladder(Plan(self.validation.table.rows, job.batch_size).row_counts(), flags.exact_rows)
        program = job.source.export(sizes, test_sizes, lengths=getattr(job, "lengths", None))
        whole = flags.update_mode == "replicated" or program.update(self.layout.P).stages > 1
        self.slices = 1 if whole else max(1, self.strategy.workers or slots_of(self.context))
        self.cuts = slices(self.layout.V, self.slices)
        self.watch.lap("compile")
        make = functools.partial(Plans, program.to_bytes(), batch_size=job.batch_size, seed=job.seed)
        table = self.data.table
        print_of = program.fingerprint + "".join(table.fingerprints)
        self.shipped = self.context.broadcast(
            make(fingerprint=print_of, table=table, steps=job.steps_per_epoch, shuffle=job.shuffle, sizes=sizes)
        )
        self.rows = self._placed(self.data, StorageLevel.MEMORY_AND_DISK)
        self.test_rows: Any = None
        if self.validation is not None:
            tested = self.validation.table
            print_of = program.fingerprint + "".join(tested.fingerprints)
            self.test_shipped = self.context.broadcast(
                make(fingerprint=print_of, table=tested, steps=None, shuffle=False, sizes=test_sizes, validation=True)
            )
            self.test_rows = self._placed(self.validation, StorageLevel.MEMORY_AND_DISK)
        fit = identity(job.source, table.rows, table.fingerprints, job)
        self.checkpoints = self._checkpoints(fit)
        self.watch.lap("ingest")

    def _checkpoints(self, fit: dict[str, Any]) -> Checkpoints:
        if self.strategy.checkpoint is None:
            return Checkpoints(LocalFolder(tempfile.mkdtemp(prefix="kerasoft-fit-")), fit, temporary=True)
        from pyspark.sql import SparkSession

        from .spark_files import HadoopFolder

        return Checkpoints(HadoopFolder(SparkSession.builder.getOrCreate(), self.strategy.checkpoint), fit)

    def _placed(self, data: Any, level: Any) -> Any:
        """Each shard in the partition of its number, by the partitioner that the weights use too."""
        keyed = data.rdd.map(lambda record: (record[0], (ROWS, record)))
        return keyed.partitionBy(len(data.table.rows), partition_of).persist(level)

    def _start(self) -> Checkpoint:
        job = self.job
        slots = tuple(job.slots) or job.source.slot_vectors()
        return Checkpoint(
            job.initial_epoch, job.initial_step, job.iteration, job.learning_rate, np.asarray(job.params, np.float32),
            np.asarray(job.state, np.float32), slots, np.zeros(self.layout.M), job.seed, self.checkpoints.fit,
        )  # fmt: skip

    def _release(self) -> None:
        for rdd in (self._weights, getattr(self, "rows", None), getattr(self, "test_rows", None)):
            if rdd is not None:
                rdd.unpersist()
        if self.checkpoints.temporary:
            shutil.rmtree(self.checkpoints.folder.where, ignore_errors=True)

    def _understood(self, error: Exception) -> WorkerLost:
        """What made a job fail.

        Raises:
            TrainingFailed: an error of a task's own, which would come again.
        """
        text = str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if "Traceback (most recent call last)" in text:
            raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Changed|Failed): ", line)]
            named = next((line for line in raised if "PythonException" not in line), "")
            if named and not re.match(r"[\w.]*(MemoryError|Connection\w*Error|OSError|EOFError|TimeoutError): ", named):
                raise TrainingFailed(f"a task failed: {named}") from error
        return WorkerLost(
            f"a Spark job failed: {next((x for x in lines if 'ost' in x), lines[0] if lines else repr(error))}"
        )

    # --- weights on the executors ------------------------------------------------------------------------------------

    def _spread(self, at: Checkpoint) -> None:
        """Puts the weights onto the executors, one slice a partition."""
        whole = np.concatenate([at.params, at.state, np.zeros(self.layout.M, np.float32)]).astype(np.float32)
        records = []
        for j, cut in enumerate(self.cuts):
            part = slice(min(cut.start, self.layout.P), min(cut.stop, self.layout.P))
            own = {"vector": whole[cut], "slots": [s[part] for s in at.slots], "start": cut.start}
            records.append((j, (WEIGHTS, j, own)))
        placed = self.context.parallelize(records, self.slices).partitionBy(self.slices, partition_of)
        self._replace(placed)

    def _replace(self, weights: Any) -> None:
        from pyspark import StorageLevel

        old, self._weights = self._weights, weights.persist(StorageLevel.MEMORY_AND_DISK)
        self._old = old

    def _forget_old(self) -> None:
        if self._old is not None:
            self._old.unpersist()
            self._old = None

    def _collect(self, epoch: int, step: int, iteration: int, rate: float, sums: np.ndarray) -> Checkpoint:
        owns = [own for _, (_, _, own) in sorted(self._weights.collect(), key=lambda record: record[0])]
        vector = np.concatenate([own["vector"] for own in owns])
        params, state, _ = self.layout.split(vector)
        slots = tuple(np.concatenate([own["slots"][i] for own in owns]) for i in range(len(self.job.source.slots)))
        return Checkpoint(
            epoch, step, iteration, rate, np.array(params), np.array(state), slots, sums.copy(), self._seed, self.checkpoints.fit
        )  # fmt: skip

    def _to_shards(self, shards: int) -> Any:
        """Every slice of weights at every shard."""
        return self._weights.flatMap(
            lambda record: [(s, (WEIGHTS, record[0], record[1][2]["vector"])) for s in range(shards)]
        ).partitionBy(shards, partition_of)

    # --- epochs and steps --------------------------------------------------------------------------------------------

    def _train(self, at: Checkpoint) -> Checkpoint:
        self._last = (at.epoch, at.step)
        self._spread(at)
        sums, iteration, rate, step = at.sums.copy(), at.iteration, at.learning_rate, at.step
        epoch, stop = at.epoch, False
        while epoch < self.job.epochs and not stop:
            if epoch not in self._rates:
                wanted = self.hooks.on_epoch_begin(epoch)
                self._rates[epoch] = rate if wanted is None else wanted
            rate = self._rates[epoch] if step == 0 else rate
            self.watch.lap("callbacks")
            began = time.perf_counter()
            while step < self.plan.steps and not stop:
                step_sums = self._step(epoch, step, iteration, rate)
                self._forget_old()
                self.watch.lap("compute")
                sums += step_sums
                iteration, step = iteration + 1, step + 1
                self._steps_done += 1
                self._rows_done += self.plan.rows_in(step - 1)
                if (epoch, step - 1) > self._reported:
                    self._reported = (epoch, step - 1)
                    report = StepReport(epoch, step - 1, self.plan.rows_in(step - 1), step_sums, {}, iteration)
                    decision = self.hooks.on_steps([report])
                    if decision is not None:
                        stop = stop or decision.stop
                        rate = rate if decision.learning_rate is None else decision.learning_rate
                self.watch.lap("callbacks")
                if step < self.plan.steps and not stop and step % self.strategy.checkpoint_every_steps == 0:
                    self._commit(self._collect(epoch, step, iteration, rate, sums), respread=True)
                elif step % self.strategy.cut_lineage_every_steps == 0:
                    self._weights.localCheckpoint()
            decision = self._epoch_end(epoch, step, iteration, rate, sums, began)
            stop = stop or decision.stop
            rate = rate if decision.learning_rate is None else decision.learning_rate
            epoch, step = epoch + 1, 0
            sums = np.zeros_like(sums)
            state = self._collect(epoch, 0, iteration, rate, sums)
            if decision.weights is not None:
                state.params, state.state = (np.asarray(w, np.float32) for w in decision.weights)
            if epoch < self.job.epochs and not stop:
                self._commit(state, respread=True)
        return state if epoch > at.epoch else at

    def _step(self, epoch: int, step: int, iteration: int, rate: float) -> np.ndarray:
        """One step; float32[M], its sums."""
        shipped, at, number, cuts = self.shipped, (epoch, step, iteration), self.slices, self.cuts
        together = self._to_shards(self.shards).union(self.rows)
        reduced: list[np.ndarray] = []

        def compute(shard: int, part: Iterator[tuple]) -> tuple[int, np.ndarray | None]:
            vector, records = joined(number, part)
            return shard_task(shipped.value, shard, records).gradient(at, vector, reduced)

        def stage(shard: int, part: Iterator[tuple]) -> Iterator[tuple]:
            stages, out = compute(shard, part)
            yield shard, stages, out

        if self._stages() > 1:  # sums that the gradient itself needs: a few numbers, through the driver
            for _ in range(self._stages() - 1):
                outs = {s: out for s, _, out in together.mapPartitionsWithIndex(stage).collect() if out is not None}
                reduced.append(tree_sum(outs, self.shards))

        def gradients(shard: int, part: Iterator[tuple]) -> Iterator[tuple]:
            _, out = compute(shard, part)
            if out is not None:
                for j, cut in enumerate(cuts):
                    yield j, (GRADIENT, shard, out[cut])

        def update(j: int, part: Iterator[tuple]) -> Iterator[tuple]:
            own: dict[str, Any] = {}
            found: dict[int, np.ndarray] = {}
            for _, value in part:
                if value[0] == WEIGHTS:
                    own = value[2]
                else:
                    found[value[1]] = value[2]
            yield j, (WEIGHTS, j, updated(shipped.value, own, found, rate, iteration))

        toward = together.mapPartitionsWithIndex(gradients).partitionBy(number, partition_of)
        self._replace(self._weights.union(toward).mapPartitionsWithIndex(update, preservesPartitioning=True))
        first = self.layout.P + self.layout.S
        tails = self._weights.map(lambda r: (r[0], r[1][2]["vector"][max(first - r[1][2]["start"], 0) :])).collect()
        return np.concatenate([tail for _, tail in sorted(tails, key=lambda t: t[0])])

    @functools.cache  # noqa: B019 (one fit, one object)
    def _stages(self) -> int:
        program = program_of(self.shipped.value)
        return program.train(self.shipped.value.sizes[0]).stages

    def _commit(self, state: Checkpoint, respread: bool) -> None:
        state.hooks = self.hooks.save_state()
        name = self.checkpoints.commit(state)
        self._last = (state.epoch, state.step)
        text = (
            f"{self.checkpoints.folder.where}/{name} holds everything up to epoch {state.epoch + 1}, step {state.step}"
        )
        self.hooks.on_event(Event("checkpoint", text, {"epoch": state.epoch, "step": state.step}))
        if respread:
            self._spread(state)
        self.watch.lap("checkpoint")

    def _epoch_end(
        self, epoch: int, steps: int, iteration: int, rate: float, sums: np.ndarray, began: float
    ) -> Decision:
        if epoch in self._decisions:
            return self._decisions[epoch]
        validation, rows = None, 0
        if self.test_rows is not None and self.job.validates_after(epoch):
            validation, rows = self._validate(), self.validation.table.total  # type: ignore[union-attr]
        self.watch.lap("validation")

        @functools.cache
        def state() -> Checkpoint:
            return self._collect(epoch, steps, iteration, rate, sums)

        end = EpochEnd(
            epoch=epoch,
            steps=steps,
            rows=min(steps * self.job.batch_size, self.plan.total),
            sums=sums.copy(),
            validation_sums=validation,
            times={},
            wall_s=time.perf_counter() - began,
            iteration=iteration,
            learning_rate=rate,
            weights=lambda: (state().params, state().state),
            slots=lambda: state().slots,
            validation_rows=rows,
        )
        self._decisions[epoch] = decision = self.hooks.on_epoch_end(end)
        self.watch.lap("callbacks")
        return decision

    def _validate(self) -> np.ndarray:
        shipped, number = self.test_shipped, self.slices

        def test(shard: int, part: Iterator[tuple]) -> Iterator[tuple]:
            vector, records = joined(number, part)
            yield shard, shard_task(shipped.value, shard, records).sums(vector)

        shards = len(self.validation.table.rows)  # type: ignore[union-attr]
        found = self._to_shards(shards).union(self.test_rows).mapPartitionsWithIndex(test).collect()
        return np.sum([sums for _, sums in sorted(found, key=lambda f: f[0])], axis=0)
