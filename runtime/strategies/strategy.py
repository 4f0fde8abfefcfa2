"""What every way of training on a cluster offers."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from ..loop import Hooks, TrainJob, TrainResult

Workers = int | tuple[int, int | None] | None


def limits_of(workers: Workers) -> tuple[int, int | None]:
    """Fewest and most.

    >>> limits_of(None), limits_of(3), limits_of((2, 8)), limits_of((2, None))
    ((1, None), (3, 3), (2, 8), (2, None))
    """
    if workers is None:
        return 1, None
    return (workers, workers) if isinstance(workers, int) else workers


def check_workers(who: str, workers: Any) -> None:
    """Raises `ValueError` unless `workers` is what `Strategy` says."""
    whole = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1
    pair = (
        isinstance(workers, tuple)
        and len(workers) == 2
        and isinstance(workers[0], int)
        and workers[0] >= 1
        and (workers[1] is None or (isinstance(workers[1], int) and workers[1] >= workers[0]))
    )
    if not (workers is None or whole or pair):
        raise ValueError(
            f"{who}: workers needs a whole number of at least 1, two of them (fewest, most), or None, got {workers!r}"
        )


class Strategy(abc.ABC):
    """A way of training on a cluster: plain settings, checked when made, and `fit`.

    Attributes:
        workers: ranks: a number; (fewest, most), between which they follow the number of executors, most None without
            limit; None = one for each executor, however many there are.
        shards: logical shards that the data is cut into; None = its own partitions.
    """

    workers: Workers
    shards: int | None
    needs_barrier: ClassVar[bool] = True  # all ranks run at the same time

    @property
    def limits(self) -> tuple[int, int | None]:
        """Fewest and most processes that run at the same time; most None = one for each executor."""
        return limits_of(self.workers)

    @property
    def ranks_without_rows(self) -> int:
        """How many of the `ranks` have no shards."""
        return 0

    @abc.abstractmethod
    def fit(self, job: TrainJob, data: Any, validation: Any | None, hooks: Hooks) -> TrainResult:
        """Trains.

        Args:
            job: the fit without its data.
            data, validation: have `.rdd`, an RDD of `kerasoft.runtime.shards.Record`, and `.table`, its `ShardTable`.
            hooks: told of steps, epochs and events, on the calling thread.

        Raises:
            DistributedError: see `kerasoft.runtime.errors`.
        """

    def preflight(self, context: Any) -> Any:
        """Looks at the cluster before any data is touched; a `kerasoft.runtime.preflight.Report` of what holds.

        Args:
            context: the SparkContext.

        Raises:
            ClusterError: this strategy cannot run there; says what to change.
        """
        from ..spark_preflight import preflight

        report = preflight(context, self.limits, barrier=self.needs_barrier)
        report.require()
        return report

    def more_vectors(self, slots: int, workers: int) -> int:
        """Vectors of P floats that a worker holds besides weights, gradients and its slice of the optimizer's `slots`."""
        return 0

    def tables_by_rows(self, source: Any, batch_size: int) -> tuple[str, ...]:
        """Names of the tables that workers update by rows, whole on each of them."""
        return ()

    def check_memory(
        self,
        report: Any,
        params: int,
        vector: int,
        slots: int,
        data_bytes: int,
        step_bytes: int,
        tables: int = 0,
        touched: int = 0,
    ) -> None:
        """Adds to `report` what a worker will need in memory, by which rule, and whether it is there.

        Args:
            report: of `preflight`.
            params, vector, slots: P and V of the layout, and the optimizer's number of vectors.
            data_bytes: training and validation rows as arrays.
            step_bytes: temporaries of a step on one worker.
            tables, touched: elements of `tables_by_rows`, and of their rows that a step touches.

        Raises:
            ClusterError: an executor's limit is below the need.
        """
        from ..preflight import MemoryNeed, check_memory

        cap = getattr(self, "memory_cap_bytes", None)
        fewest, most = self.limits
        workers = fewest if fewest == most else max(len(report.hosts), fewest)
        more = self.more_vectors(slots, max(workers - self.ranks_without_rows, 1))
        need = MemoryNeed(params, vector, slots, data_bytes, step_bytes, cap, more, tables, touched)
        check_memory(report.conf, report.hosts, need, report, workers)
        report.require()
