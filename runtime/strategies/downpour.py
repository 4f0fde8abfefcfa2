"""Asynchronous training: workers fetch and push when they like, servers apply every push at once."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..servers.method import Served, sums_in
from .long_lived import LongLived


@dataclasses.dataclass
class Downpour(LongLived):
    """Every rank works, and serves one slice of the parameters and of the optimiser's state. A worker, in step t:

    1. If t mod `n_fetch` = 0: fetches the parameters (its next minibatch is gathered meanwhile).
    2. Computes the gradient of its minibatch: its rows of the plan's step t, about ``batch_size / N``. The mean is taken
       over these rows.
    3. Adds it to what it has accrued, and steps locally: parameters − α gradient.
    4. If t mod `n_push` = 0: sends what is accrued to the servers, waits for nothing, and begins to accrue anew.

    A server makes an optimiser step of every push, at once. A push that missed more than `max_staleness` updates by others
    since its parameters were fetched is dropped; the epoch's logs count them (``stale_pushes``) and tell the mean number
    of missed updates of the others (``staleness``).

    Each process sends ``4 P (N - 1) / N (1 / n_push + 1 / n_fetch)`` bytes a step: gradients as a worker, parameters as a server
    (P parameters, N workers). Per epoch the optimiser makes ``N / n_push`` steps for each step of the plan, so the learning rate is that
    of the small minibatch, not of the global batch.

    All workers pause where checkpoints are made and at epochs' ends, with everything pushed. A worker that dies ends the
    attempt: the next one goes on from the last checkpoint. What others had pushed in between is done again, on the same rows;
    every row counts once an epoch.

    Args:
        n_fetch, n_push: steps between fetches and between pushes.
        max_staleness: updates by others that a push may have missed; None: any number.
        local_rate: α of the local steps; None: the optimiser's learning rate (with a schedule that the update graph holds:
            that of the job, 0.001).
        workers, shards, checkpoint, timeout_s, checkpoint_every_s, retries, memory_cap_bytes: as in `LongLived`.

    Source: J. Dean et al., Large Scale Distributed Deep Networks (2012), section 4.1 and Algorithm 1.1 of its supplement.
    """

    n_fetch: int = 1
    n_push: int = 1
    max_staleness: int | None = 64
    local_rate: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_fetch", "n_push"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(
                    f"Downpour: {name} needs a whole number of steps of at least 1, got {getattr(self, name)!r}"
                )
        if self.max_staleness is not None and self.max_staleness < 0:
            raise ValueError(f"Downpour: max_staleness needs at least 0 or None, got {self.max_staleness!r}")
        if self.deterministic:
            raise ValueError(
                "Downpour: deterministic=True cannot be had where workers do not wait for one another; use AllReduce or "
                "StaleSynchronous(0)"
            )

    def method(self, job: Any, table: Any, validation: Any | None) -> Served:
        source = job.source
        return Served(
            whole=source.flags.update_mode == "replicated" or sums_in(source.update),
            n_fetch=self.n_fetch,
            n_push=self.n_push,
            max_staleness=self.max_staleness,
            local_rate=self.local_rate,
        )
