"""Carries `ShuffleAllReduce`: the driver's loop, one Spark job a step; its tasks are in `shuffle_tasks.py`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from .checkpoint import Checkpoint, Checkpoints, LocalFolder, identity
from .collectives import slices
from .errors import RetriesExhausted, TrainingFailed, WorkerLost
from .loop import Decision, EpochEnd, Event, Hooks, StepReport, TrainJob, TrainResult, rate_to_begin_with
from .reports import Stopwatch, profile
from .shards import Plan, ladder
from .shuffle_tasks import GRADIENT, ROWS, WEIGHTS, Plans, joined, program_of, shard_task, tree_sum, updated
from .spark_watch import Watch


def partition_of(key: int) -> int:
    """Keys are partition numbers. One function object for all RDDs, so that Spark sees equal partitioners and unites
    their partitions one by one instead of listing them."""
    return key


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
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

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
        with contextlib.ExitStack() as stack:
            stack.callback(self._release)
            jobs = stack.enter_context(Watch(self.context, self.strategy.timeout_s))
            while True:
                reached = (at.epoch, at.step)
                try:
                    final = self._train(at)
                    break
                except (Py4JError, PySparkException) as error:
                    loss = WorkerLost(why) if (why := jobs.why()) else self._understood(error)
                    failures = failures + 1 if self._last == reached else 1
                    self.hooks.on_event(Event("worker_lost", str(loss)))
                    if failures > self.strategy.retries:
                        raise RetriesExhausted(
                            f"{failures} jobs in a row failed without progress; the last: {loss}"
                        ) from error
                    at = self.checkpoints.latest()[0] or self._start()
                    text = f"attempt {failures + 1}: going on from epoch {at.epoch + 1}, step {at.step + 1}"
                    self.hooks.on_event(Event("retrying", text, {"epoch": at.epoch, "step": at.step}))
        if not self.checkpoints.temporary:
            self.checkpoints.commit(dataclasses.replace(final, finished=True))
        wall_s = time.perf_counter() - started
        report = profile(wall_s, self.watch.take(), (), 0.0, self._steps_done, self._rows_done)
        report.workers = self.slices
        return TrainResult(final.params, final.state, final.slots, final.iteration, report)

    def _prepare(self) -> None:
        from pyspark import StorageLevel

        from .spark_preflight import executor_cores, slots_of

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
        threads = executor_cores(self.context)  # as deterministic AllReduce takes
        make = functools.partial(Plans, program.to_bytes(), batch_size=job.batch_size, seed=job.seed, threads=threads)
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

    def _cut_lineage(self, step: int) -> None:
        if step % self.strategy.cut_lineage_every_steps == 0:
            self._weights.localCheckpoint()

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
                self._rates[epoch] = rate_to_begin_with(self.hooks.on_epoch_begin(epoch), rate)
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
                else:
                    self._cut_lineage(step)
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
        shards = self.shards
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
            yield j, (WEIGHTS, j, updated(shipped.value, own, tree_sum(found, shards), rate, iteration))

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
