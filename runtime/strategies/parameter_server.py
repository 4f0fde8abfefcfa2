"""Servers that keep and update the model, workers that only compute gradients: apart, in any numbers, by four ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..faults import Script
from ..loop import Hooks, TrainJob, TrainResult
from ..servers.method import Served
from ..shards import ShardTable
from ..worker import Settings
from .long_lived import LongLived
from .stale_synchronous import check_by_clock

STORES = ("coprocessor", "http", "file", "broadcast")


@dataclasses.dataclass
class ParameterServer(LongLived):
    """`servers` processes each keep a slice of the parameters and of the optimiser's state, and update it where it lives; the
    other `workers` processes have the rows and no state. A worker, in clock c (a step of the plan):

    1. Fetches parameters that hold all updates of clocks before ``c - staleness`` from all servers.
    2. Computes the gradient of its rows of the global batch.
    3. Pushes each server's slice of it to that server.

    A server makes the update of a clock when all workers have pushed it. Weights do not depend on `servers`, `workers` or
    `store`; with ``staleness=0`` they are those of `AllReduce`, to the bit if `deterministic`.

    `store` says where the model lives (the four architectures of Adatao's talk):

    - "coprocessor": in the servers' memory, reached by authenticated sockets.
    - "http": in the servers' memory, reached by signed HTTP requests.
    - "file": in the servers' memory, reached by signed files in `folder`, which all executors see.
    - "broadcast": in the driver, which broadcasts it in one Spark job a step and makes the updates: `DriverReduce`.

    Each worker sends ``4 P`` bytes a step and receives as many; each server ``4 P W / U`` (P parameters, U servers, W workers).

    A worker that dies is replaced while all others go on: Spark runs its task again (``spark.task.maxFailures``), the new
    process asks the servers how far the old one had come, and goes on from there; what one server has already and another not
    is pushed to both, and counts once. It must come within `timeout_s`. A server that dies, a frozen worker or a lost executor
    end the attempt: the next one goes on from the last checkpoint.

    Args:
        servers: U. Needs ``servers + workers`` task slots.
        store: see above.
        staleness: clocks that a worker may be ahead of the slowest.
        folder: of the store "file".
        workers: W, as in `LongLived`; None = the executors that are left.
        shards, deterministic, checkpoint, timeout_s, checkpoint_every_s, retries, memory_cap_bytes: as in `LongLived`.

    Source: M. Li et al., Scaling Distributed Machine Learning with the Parameter Server (2014); the replaceable workers and the
    co-processor are those of Adatao's distributed deep learning on Spark and Tachyon (2015).
    """

    servers: int = 1
    store: str = "coprocessor"
    staleness: int = dataclasses.field(default=0, kw_only=True)
    folder: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.servers, int) or self.servers < 1:
            raise ValueError(f"ParameterServer: servers needs a whole number of at least 1, got {self.servers!r}")
        if self.store not in STORES:
            raise ValueError(f"ParameterServer: store needs one of {', '.join(map(repr, STORES))}, got {self.store!r}")
        if not isinstance(self.staleness, int) or self.staleness < 0:
            raise ValueError(
                f"ParameterServer: staleness needs a whole number of clocks of at least 0, got {self.staleness!r}"
            )
        if (self.store == "file") != (self.folder is not None):
            raise ValueError(
                f"ParameterServer: folder (a folder that all executors see) belongs to store='file', got "
                f"store={self.store!r} and folder={self.folder!r}"
            )
        if self.store == "broadcast" and (self.staleness or self.deterministic):
            raise ValueError(
                "ParameterServer: store='broadcast' knows no staleness and adds in Spark's order, not a fixed one"
            )

    @property
    def limits(self) -> tuple[int, int | None]:
        fewest, most = super().limits
        return self.servers + fewest, None if most is None else self.servers + most

    @property
    def ranks_without_rows(self) -> int:
        return self.servers

    def method(self, job: Any, table: Any, validation: Any | None) -> Served:
        return Served(
            servers=self.servers,
            apart=True,
            whole=check_by_clock(self, job.source),
            by_clock=True,
            staleness=self.staleness,
            store=self.store,
            folder=self.folder,
        )

    def settings(
        self,
        job: TrainJob,
        table: ShardTable,
        validation: ShardTable | None,
        world_size: int,
        faults: Script | None = None,
        speeds: Sequence[float] | None = None,
    ) -> Settings:
        """The workers' plan, behind the servers' ranks."""
        if world_size <= self.servers:
            raise ValueError(
                f"ParameterServer: {self.servers} servers leave no worker among {world_size} processes; add executors, or ask "
                "for fewer servers or for workers="
            )
        plain = super().settings(job, table, validation, world_size - self.servers, faults, speeds)
        return dataclasses.replace(
            plain,
            world_size=world_size,
            owners=tuple(r + self.servers for r in plain.owners),
            validation_owners=tuple(r + self.servers for r in plain.validation_owners),
        )

    def fit(self, job: TrainJob, data: Any, validation: Any | None, hooks: Hooks) -> TrainResult:
        if self.store != "broadcast":
            return super().fit(job, data, validation, hooks)
        from .driver_reduce import DriverReduce

        strategy = DriverReduce(shards=self.shards, checkpoint=self.checkpoint, retries=self.retries)
        return strategy.fit(job, data, validation, hooks)
