"""Carries a fit to Spark's executors: places the shards, submits one barrier job for the whole fit, and again if lost."""

from __future__ import annotations

import functools
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .checkpoint import Checkpoints, LocalFolder, identity
from .driver import Driver
from .errors import ClusterError
from .faults import Script
from .loop import Event, Hooks, TrainJob, TrainResult
from .preflight import Report, check_configuration
from .rank import TRAINING, VALIDATION, Task, run_rank
from .rendezvous import ControlServer
from .reports import Stopwatch
from .shards import Record
from .spark_files import HadoopFolder
from .spark_preflight import configuration, executor_cores, executor_count
from .wire import new_secret

RECOVERY_TIMEOUT_S = 180.0


def run(job: TrainJob, data: Any, validation: Any | None, strategy: Any, hooks: Hooks) -> TrainResult:
    """Trains on a cluster as `strategy` says. `data` and `validation` have `.rdd` (of records) and `.table`."""
    return strategy.fit(job, data, validation, hooks)


def train(
    job: TrainJob, data: Any, validation: Any | None, strategy: Any, hooks: Hooks, faults: Script | None = None
) -> TrainResult:
    """A fit with a strategy whose workers live as long as the fit (`kerasoft.runtime.strategies.long_lived`).

    Args:
        faults: failures on purpose, for tests.

    Raises:
        ClusterError: too few slots, or dynamic allocation.
        TrainingFailed, DataChanged, RetriesExhausted, CheckpointError: see `kerasoft.runtime.errors`.
    """
    watch = Stopwatch()
    context = data.rdd.context
    layout = Layout(context, strategy.ranks, sum(n > 0 for n in data.table.rows) + strategy.ranks_without_rows)
    table = None if validation is None else validation.table
    settings = strategy.settings(job, data.table, table, layout.world_size, faults)
    watch.lap("scheduling")
    prepared = strategy.prepare(job, settings, lengths_of(job.source.inputs, data))
    watch.lap("compile")
    sharers = settings.method.sharers
    placed = place(data, validation, settings.owners, settings.validation_owners, layout.world_size, sharers)
    bind, advertised = addresses(context)
    with (
        tempfile.TemporaryDirectory(prefix="kerasoft-fit-") as scratch,
        ControlServer(new_secret(), bind, frozen_s=strategy.timeout_s) as server,
    ):
        fit = identity(job.source, data.table.rows, data.table.fingerprints, job, settings.method.identity())
        if strategy.checkpoint is None:
            checkpoints = Checkpoints(LocalFolder(scratch), fit, temporary=True)
        else:
            checkpoints = Checkpoints(HadoopFolder(context, strategy.checkpoint), fit)
        barrier = not settings.method.replaceable(layout.world_size)
        launcher = SparkLauncher(context, placed, prepared.programs, layout, barrier)
        if layout.warning:
            hooks.on_event(Event("warning", layout.warning))
        for text in prepared.remarks:
            hooks.on_event(Event("strategy", text))
        try:
            driver = Driver(
                job,
                settings,
                server,
                launcher,
                checkpoints,
                hooks,
                retries=strategy.retries,
                watch=watch,
                address=(advertised, server.address[1]),
                threads=layout.cores if strategy.deterministic else layout.cpus,
                cache=True,
                division=prepared.division,
            )
            return driver.run()
        finally:
            launcher.close()


class Layout:
    """How ranks lie on executors.

    One rank on each executor with all its cores; more ranks than executors share their cores.

    Attributes:
        world_size: ranks.
        cpus: cores of each rank. cores: of an executor.
        slots: ranks that could run at once.
        warning: what the user should know, or "".

    Raises:
        ClusterError: too few slots, or dynamic allocation; says what to change.
    """

    def __init__(self, context: Any, workers: int | None, shards: int):
        executors, cores = max(executor_count(context), 1), executor_cores(context)
        conf = configuration(context)
        self.cores = cores
        self.is_local = str(context.master).startswith("local") and not str(context.master).startswith("local-cluster")
        if self.is_local:
            self.cpus, self.slots = 1, cores
        else:
            ranks_each = -(-(workers or executors) // executors)
            self.cpus = max(int(conf.get("spark.task.cpus", "1")), cores // ranks_each, 1)
            self.slots = executors * max(cores // self.cpus, 1)
        report = Report()
        check_configuration(conf, self.slots, workers, report)
        report.require()
        self.world_size = workers or max(1, min(self.slots, shards))
        self.warning = ""
        if workers is not None and workers > shards:
            self.warning = (
                f"{workers} workers share {shards} shards with rows: {workers - shards} of them have none. "
                + ("Give AllReduce(shards=...) a larger number, or repartition the data.")
            )
        self._needs_profile = not self.is_local and self.cpus != int(conf.get("spark.task.cpus", "1"))

    def profile(self) -> Any | None:
        """The resource profile of a rank; None when Spark's default is right."""
        if not self._needs_profile:
            return None
        from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

        return ResourceProfileBuilder().require(TaskResourceRequests().cpus(self.cpus)).build


def addresses(context: Any) -> tuple[str, str]:
    """The driver's address to listen at, and the one that executors use (they differ behind a NAT)."""
    conf = context.getConf()
    advertised = conf.get("spark.driver.host", "") or socket.gethostname()
    bind = conf.get("spark.driver.bindAddress", "") or advertised
    if bind in ("0.0.0.0", "::"):
        bind = advertised
    return bind, advertised


def lengths_of(inputs: Sequence[Any], data: Any) -> dict[str, int]:
    """A number for each variable size of the inputs, read off one block (by a short job, if there is any)."""
    wanted = {i.name: i.shape for i in inputs if not all(isinstance(d, int) for d in i.shape)}
    if not wanted:
        return {}
    shapes = data.rdd.filter(_has_rows).map(_row_shapes).first()
    return {
        str(dim): size
        for name, shape in wanted.items()
        for dim, size in zip(shape, shapes[name], strict=True)
        if not isinstance(dim, int) and dim is not None
    }


def _has_rows(record: Record) -> bool:
    return len(next(iter(record[2].values()))) > 0


def _row_shapes(record: Record) -> dict[str, tuple[int, ...]]:
    return {name: a.shape[1:] for name, a in record[2].items()}


# --- placing -----------------------------------------------------------------------------------------------------------


def place(
    data: Any,
    validation: Any | None,
    owners: Sequence[int],
    validation_owners: Sequence[int],
    world_size: int,
    sharers: int = 1,
) -> Any:
    """An RDD of `world_size` partitions; partition r holds ``(r, (data set, shard, sequence, block))`` of rank r.

    One shuffle. A repeated attempt reads its files again; those of a lost executor are computed anew from `data`.

    Args:
        owners, validation_owners: by shard the rank, or the group of `sharers` ranks, which all get it.
    """
    rdd = data.rdd.flatMap(functools.partial(_tagged, TRAINING, tuple(owners), sharers))
    if validation is not None:
        tagged = functools.partial(_tagged, VALIDATION, tuple(validation_owners), sharers)
        rdd = rdd.union(validation.rdd.flatMap(tagged))
    return rdd.partitionBy(world_size, _itself)


def _tagged(which: int, owners: Sequence[int], sharers: int, record: Record) -> list[tuple[int, tuple]]:
    first = owners[record[0]] * sharers
    return [(first + i, (which, *record)) for i in range(sharers)]


def _itself(rank: int) -> int:
    return rank


# --- on an executor ------------------------------------------------------------------------------------------------------


def run_partition(task: Task, programs: Any, records: Iterable[tuple[int, tuple]]) -> Iterator[None]:
    """The task of one rank; nothing comes back through Spark."""
    from pyspark import TaskContext

    rank = TaskContext.get().partitionId()  # type: ignore[union-attr]
    run_rank(task, rank, lambda: task.settings.method.program(rank, programs.value), (r for _, r in records))
    return iter(())


# --- on the driver -------------------------------------------------------------------------------------------------------


class SparkLauncher:
    """Starts the ranks of an attempt as one job: a barrier stage, or one whose tasks Spark runs again by themselves."""

    def __init__(self, context: Any, placed: Any, programs: Sequence[bytes], layout: Layout, barrier: bool = True):
        self.context, self.layout, self._barrier = context, layout, barrier
        self._placed, self._profile = placed, layout.profile()
        self._programs = context.broadcast(tuple(programs))

    def launch(self, task: Task) -> SparkAttempt:
        ranks = self._placed.barrier() if self._barrier else self._placed
        job = ranks.mapPartitions(functools.partial(run_partition, task, self._programs))
        if self._profile is not None:
            job = job.withResources(self._profile)
        return SparkAttempt(self.context, job, f"kerasoft-{task.secret.hex()[:12]}-{task.generation}")

    def slots(self) -> int:
        """Ranks that could start now."""
        scala = self.context._jsc.sc()
        if self._profile is None:
            profile = scala.resourceProfileManager().defaultResourceProfile()
        else:
            profile = self._profile._java_resource_profile
        return int(scala.maxNumConcurrentTasks(profile))

    def recover(self, world_size: int) -> None:
        """Waits for executors that replace the lost ones.

        Raises:
            ClusterError: they do not come.
        """
        deadline = time.monotonic() + RECOVERY_TIMEOUT_S
        while (slots := self.slots()) < world_size:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{world_size} workers need {world_size} task slots, but {RECOVERY_TIMEOUT_S:g} s after the loss of a "
                    f"worker there are {slots}. Free or add executors and call fit again (with the same checkpoint folder "
                    "it goes on where it stopped), or ask for fewer workers."
                )
            time.sleep(0.1)

    def close(self) -> None:
        self._programs.unpersist()


class SparkAttempt:
    """A barrier job that runs in a thread of its own."""

    def __init__(self, context: Any, job: Any, tag: str):
        from pyspark import InheritableThread

        self._context, self._job, self._tag = context, job, tag
        self._error: tuple[str, bool] | None = None
        self._ended = threading.Event()
        self._thread = InheritableThread(target=self._run, name=tag, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._context.addJobTag(self._tag)
            self._job.collect()
        except Exception as error:
            self._error = _explained(error)
        finally:
            self._ended.set()

    def done(self) -> bool:
        return self._ended.is_set()

    def error(self) -> tuple[str, bool] | None:
        return self._error

    def end(self) -> None:
        if not self._ended.is_set():
            self._context.cancelJobsWithTag(self._tag)
        self._ended.wait(60)


def _explained(error: Exception) -> tuple[str, bool]:
    """What Spark says without the Java traces around it, and whether Python code of the job raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = "Traceback (most recent call last):" in lines and "worker exited unexpectedly" not in str(error)
    if own:
        start = lines.index("Traceback (most recent call last):")
        end = next((i for i, line in enumerate(lines) if i > start and line.startswith("at ")), len(lines))
        return "\n".join(lines[start:end])[-3000:], True
    for line in lines:
        if "Job aborted" in line or "SPARK-" in line or "cancelled" in line:
            return line[:500], False
    return (lines[0][:500] if lines else type(error).__name__), False
