"""What every way of training on a cluster offers."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from ..loop import Hooks, TrainJob, TrainResult


class Strategy(abc.ABC):
    """A way of training on a cluster: plain settings, checked when made, and `fit`.

    Attributes:
        workers: ranks; None = one for each executor.
        shards: logical shards that the data is cut into; None = its own partitions.
    """

    workers: int | None
    shards: int | None
    needs_barrier: ClassVar[bool] = True  # all ranks run at the same time

    @property
    def ranks(self) -> int | None:
        """Processes that run at the same time; None = one for each executor."""
        return self.workers

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

        report = preflight(context, self.ranks, barrier=self.needs_barrier)
        report.require()
        return report

    def more_vectors(self, slots: int, workers: int) -> int:
        """Vectors of P floats that a worker holds besides weights, gradients and its slice of the optimizer's `slots`."""
        return 0

    def check_memory(self, report: Any, params: int, vector: int, slots: int, data_bytes: int, step_bytes: int) -> None:
        """Adds to `report` what a worker will need in memory, by which rule, and whether it is there.

        Args:
            report: of `preflight`.
            params, vector, slots: P and V of the layout, and the optimizer's number of vectors.
            data_bytes: training and validation rows as arrays.
            step_bytes: temporaries of a step on one worker.

        Raises:
            ClusterError: an executor's limit is below the need.
        """
        from ..preflight import MemoryNeed, check_memory

        cap = getattr(self, "memory_cap_bytes", None)
        more = self.more_vectors(slots, self.workers or max(len(report.hosts), 1))
        need = MemoryNeed(params, vector, slots, data_bytes, step_bytes, cap, more)
        check_memory(report.conf, report.hosts, need, report)
        report.require()
