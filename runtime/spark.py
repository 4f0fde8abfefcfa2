"""Carries a fit to Spark's executors: places the shards, submits one barrier job for the whole fit, and again if lost."""

from __future__ import annotations

import functools
import math
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .checkpoint import Checkpoints, LocalFolder, identity
from .driver import Driver
from .elastic import Crew
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
from .spark_room import REPLACEMENT_S, Demand, allocates, room
from .wire import new_secret
from .worker import Settings

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
        ClusterError: too few slots.
        TrainingFailed, DataChanged, RetriesExhausted, CheckpointError: see `kerasoft.runtime.errors`.
    """
    watch = Stopwatch()
    context = data.rdd.context
    layout = Layout(context, strategy.limits, sum(n > 0 for n in data.table.rows) + strategy.ranks_without_rows)
    table = None if validation is None else validation.table

    def plan(workers: int, **more: Any) -> Settings:
        return strategy.settings(job, data.table, table, workers, faults, **more)

    launcher = SparkLauncher(context, layout, Shipping(strategy, job, data, validation))
    if layout.on_demand:
        layout.world_size = launcher.gather(layout.crew, layout.world_size)
    settings = plan(layout.world_size)
    watch.lap("scheduling")
    prepared = launcher.shipping.prepared(settings)
    watch.lap("compile")
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
                crew=layout.crew,
                plan=plan,
                division=lambda settings: launcher.shipping.prepared(settings).division(settings),
            )
            return driver.run()
        finally:
            launcher.close()


class Layout:
    """How ranks lie on executors.

    One rank on each executor with all its cores; more ranks than executors share their cores. Where executors come on demand
    (dynamic allocation) a rank is a task slot.

    Args:
        limits: fewest and most ranks; most None: one for each executor, however many there are.
        shards: ranks that find work.

    Attributes:
        crew: the limits as numbers.
        world_size: ranks to begin with.
        on_demand: whether Spark allocates executors as tasks wait for them; it then refuses barrier stages.
        cpus: cores of each rank. cores: of an executor.
        slots: ranks that could run at once.
        warning: what the user should know, or "".

    Raises:
        ClusterError: too few slots; says what to change.
    """

    def __init__(self, context: Any, limits: tuple[int, int | None], shards: int):
        fewest, most = limits
        self.on_demand = allocates(context)
        executors, cores = max(executor_count(context), 1), executor_cores(context)
        conf = configuration(context)
        self.cores = cores
        self.is_local = str(context.master).startswith("local") and not str(context.master).startswith("local-cluster")
        if self.is_local:
            self.cpus, self.slots = 1, cores
        else:
            ranks_each = -(-fewest // executors)
            taken = int(conf.get("spark.task.cpus", "1"))
            self.cpus = taken if self.on_demand else max(taken, cores // ranks_each, 1)
            self.slots = executors * max(cores // self.cpus, 1)
        report = Report()
        check_configuration(conf, self.slots, fewest, report)
        report.require()
        self.crew = Crew(fewest, max(fewest, min(shards, math.inf if most is None else most)))  # type: ignore[arg-type]
        self.world_size = self.crew.size(self.slots)
        self.warning = ""
        if fewest > shards:
            self.warning = (
                f"{fewest} workers share {shards} shards with rows: {fewest - shards} of them have none. "
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


class Shipping:
    """What the workers of a group need besides their task: the programs, broadcast, and an RDD with each rank's rows.

    Kept for each plan that has occurred, as groups of the same size come again.
    """

    def __init__(self, strategy: Any, job: TrainJob, data: Any, validation: Any | None):
        self._strategy, self._job, self._data, self._validation = strategy, job, data, validation
        self._prepared: dict[tuple, Any] = {}
        self._programs: dict[tuple, Any] = {}
        self._placed: dict[tuple, Any] = {}
        self._lengths: dict[str, int] | None = None

    def prepared(self, settings: Settings) -> Any:
        """What the strategy has its workers run (`kerasoft.runtime.strategies.long_lived.Prepared`)."""
        key = (settings.train_sizes, settings.test_sizes)
        if key not in self._prepared:
            if self._lengths is None:
                self._lengths = lengths_of(self._job.source.inputs, self._data)
            self._prepared[key] = self._strategy.prepare(self._job, settings, self._lengths)
        return self._prepared[key]

    def programs(self, settings: Settings) -> Any:
        """Its programs, broadcast."""
        key = (settings.train_sizes, settings.test_sizes)
        if key not in self._programs:
            self._programs[key] = self._data.rdd.context.broadcast(self.prepared(settings).programs)
        return self._programs[key]

    def placed(self, settings: Settings) -> Any:
        """As `place` gives it."""
        key = (settings.owners, settings.validation_owners, settings.world_size, settings.method.sharers)
        if key not in self._placed:
            self._placed[key] = place(self._data, self._validation, *key)
        return self._placed[key]

    def close(self) -> None:
        for programs in self._programs.values():
            programs.unpersist()


class SparkLauncher:
    """Starts the ranks of an attempt as one job: a barrier stage, or one whose tasks Spark runs again by themselves, where
    ranks are replaceable or executors come on demand."""

    def __init__(self, context: Any, layout: Layout, shipping: Shipping):
        self.context, self.layout, self.shipping = context, layout, shipping
        self._profile = layout.profile()
        self._demand = Demand(context)

    def launch(self, task: Task) -> SparkAttempt:
        self._demand.end()
        settings = task.settings
        ranks, programs = self.shipping.placed(settings), self.shipping.programs(settings)
        if not self.layout.on_demand and not settings.method.replaceable(settings.world_size):
            ranks = ranks.barrier()
        job = ranks.mapPartitions(functools.partial(run_partition, task, programs))
        if self._profile is not None:
            job = job.withResources(self._profile)
        self._running = settings.world_size
        return SparkAttempt(self.context, job, f"kerasoft-{task.secret.hex()[:12]}-{task.generation}")

    def room(self) -> int:
        if self.layout.on_demand:
            self._demand.ask(self.layout.crew.most - self._running)
        return room(self.context, self._profile)

    def gather(self, crew: Crew, wanted: int) -> int:
        if self.layout.on_demand:
            self._demand.ask(crew.most)
        began = time.monotonic()
        try:
            while True:
                there = room(self.context, self._profile)
                waited_s = time.monotonic() - began
                if there >= wanted or (there >= crew.fewest and waited_s > REPLACEMENT_S):
                    return crew.size(there)
                if waited_s > RECOVERY_TIMEOUT_S:
                    raise ClusterError(
                        f"{crew.fewest} workers need {crew.fewest} task slots, but after {RECOVERY_TIMEOUT_S:g} s there "
                        f"are {there}. Free or add executors and call fit again (with the same checkpoint folder it goes "
                        "on where it stopped), or ask for fewer workers."
                    )
                time.sleep(0.1)
        finally:
            self._demand.end()

    def close(self) -> None:
        self._demand.end()
        self.shipping.close()


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
            self._error = explained(error)
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


def explained(error: Exception) -> tuple[str, bool]:
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
