"""What ranks do in a fit with parameter servers, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..collectives import slices
from ..worker import Method
from .clients import Client, descend, downpour, stale_synchronous
from .machine import NEVER


@dataclasses.dataclass(frozen=True)
class Served(Method):
    """Ranks ``0 .. servers - 1`` each keep a slice of the parameters; rank 0 also the states and the steps' sums.

    Attributes:
        servers: their number; None: every rank.
        apart: servers have no rows: the workers are the ranks above them. Else all ranks work.
        whole: the update needs whole vectors: one server keeps them all.
        by_clock: see `SliceServer`. max_staleness: see there.
        staleness: of a fetch, by clock. n_fetch, n_push: of Downpour.
        local_rate: of Downpour's local steps; None: the learning rate.
        store: how workers reach servers: "coprocessor" (sockets), "http" or "file". folder: of the last.
    """

    servers: int | None = None
    apart: bool = False
    whole: bool = False
    by_clock: bool = False
    max_staleness: int | None = None
    staleness: int = 0
    n_fetch: int = 1
    n_push: int = 1
    local_rate: float | None = None
    store: str = "coprocessor"
    folder: str | None = None

    def servers_of(self, world_size: int) -> tuple[int, ...]:
        """The ranks that serve, in the order of their slices."""
        number = self.servers or world_size
        return tuple(range(1 if self.whole and not self.apart else number))

    def workers_of(self, world_size: int) -> tuple[int, ...]:
        """The ranks that have rows."""
        return tuple(range((self.servers or 0) if self.apart else 0, world_size))

    def parts(self, params: int, vector: int, world_size: int) -> list[slice]:
        number = len(self.servers_of(world_size))
        cuts = [slice(0, params)] + [slice(params, params)] * (number - 1) if self.whole else slices(params, number)
        return [*cuts, *[slice(params, params)] * (world_size - number)]

    def client(
        self, first: int, steps: int, local_step: Callable[..., Any] = descend, stop_at: int | None = None
    ) -> Client:
        """A worker's program for the steps ``first .. steps - 1`` of an epoch, which begins by a pause."""
        stop_at = first if stop_at is None else stop_at
        if self.by_clock:
            return stale_synchronous(first, steps, self.staleness, stop_at)
        return downpour(first, steps, self.n_fetch, self.n_push, stop_at, local_step)

    def trainer(self, *args: Any) -> Any:
        from .trainer import ServedTrainer

        return ServedTrainer(*args)

    def step(self, settings: Any, rank: int, program: Any, watch: Any) -> Any:
        from .steps import WorkerStep

        return WorkerStep(
            program, rank, settings.bounds(), settings.train_sizes, settings.test_sizes, settings.deterministic, watch
        )

    def listen(self, host: str) -> Any:
        from .links import listen

        return listen(self.store, host, self.folder)

    def connect(
        self, settings: Any, table: Any, rank: int, secret: bytes, generation: int, listener: Any, params: int
    ) -> Any:
        from .links import meet

        servers, workers = self.servers_of(settings.world_size), self.workers_of(settings.world_size)
        return meet(
            table, rank, secret, generation, servers, workers, listener, self.store, settings.transports, settings.timeout_s
        )  # fmt: skip

    @property
    def leaves_within_epoch(self) -> bool:
        return False

    def replaceable(self, world_size: int) -> tuple[int, ...]:
        """The ranks that another process may take the place of while the others go on."""
        return self.workers_of(world_size) if self.apart else ()

    def identity(self) -> dict[str, Any]:
        return {"by_clock": self.by_clock, "staleness": self.staleness} | (
            {} if self.by_clock else {"n_fetch": self.n_fetch, "n_push": self.n_push}
        )


def sums_in(graph: Any) -> bool:
    """Whether a graph needs sums over workers in its middle."""
    return graph is not None and any(node.op.name == "all_reduce" for node in graph.nodes)


__all__ = ["NEVER", "Served", "sums_in"]
