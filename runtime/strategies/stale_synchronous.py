"""Synchronous steps whose workers need not wait for the slowest one: up to s steps ahead of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..servers.method import Served, sums_in
from .long_lived import LongLived


@dataclasses.dataclass
class StaleSynchronous(LongLived):
    """Every rank works, and serves one slice of the parameters and of the optimiser's state. A worker, in clock c (a step of
    the plan):

    1. Fetches parameters that hold all updates of clocks before ``c - staleness``, and newer ones that are there.
    2. Computes the gradient of its rows of the global batch, and pushes it.

    A server makes the update of a clock when all workers have pushed it: one optimiser step for each global batch, as
    `AllReduce`, from gradients at parameters that are up to `staleness` clocks old. So nobody is ever more than `staleness`
    clocks ahead of the slowest, and with 0 it is `AllReduce`, to the bit if `deterministic`. It pays where it is now this
    worker and now that one that is slow; one that is always slow sets the pace of an epoch, until `balance` moves rows to others.

    Each process sends ``8 P (N - 1) / N`` bytes a step: half as a worker, gradients, and half as a server, parameters (P
    parameters, N workers).

    A worker that dies ends the attempt: the next one goes on from the last checkpoint. All workers pause where checkpoints
    are made, and at epochs' ends.

    Differs from Petuum's Bösen: updates become visible by whole clocks, a worker's own ones too.

    Args:
        staleness: s, clocks.
        workers, shards, deterministic, checkpoint, timeout_s, checkpoint_every_s, retries, memory_cap_bytes: as in
            `LongLived`.
        balance: as in `AllReduce`.

    Source: Q. Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server (2013).
    """

    staleness: int = 0
    balance: bool = dataclasses.field(default=False, kw_only=True)  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.staleness, int) or self.staleness < 0:
            raise ValueError(
                f"StaleSynchronous: staleness needs a whole number of clocks of at least 0, got {self.staleness!r}"
            )

    def method(self, job: Any, table: Any, validation: Any | None) -> Served:
        return Served(by_clock=True, staleness=self.staleness, whole=check_by_clock(self, job.source))


def check_by_clock(strategy: Any, source: Any) -> bool:
    """Whether the update needs whole vectors.

    Raises:
        ValueError: the gradient itself needs sums over workers, which have no common step here.
    """
    if sums_in(source.train):
        raise ValueError(
            f"{type(strategy).__name__}: this model's loss needs sums over all workers within a step (masks, weights that are "
            "averaged over, or synchronized batch normalisation), and workers do not meet within a step here; use "
            "AllReduce, or Downpour, whose workers each take their own rows for the whole batch"
        )
    return source.flags.update_mode == "replicated" or sums_in(source.update)
