"""SparkNet's way: local steps between averages."""

from __future__ import annotations

import dataclasses

from ..averaging import KEEP, PARAMETERS, Averaging
from ..loop import TrainJob
from ..shards import ShardTable
from .long_lived import LongLived


@dataclasses.dataclass
class LocalSGD(LongLived):
    """Each shard trains a model of its own for `tau` steps; then all become their mean.

    1. Every shard's replica begins as the common model. It keeps its own optimizer state, as SparkNet's solvers do.
    2. A step: each replica takes its shard's rows of the global batch, about ``batch_size / shards``, and makes one
       optimizer step with their mean loss. Nothing is sent.
    3. After `tau` steps, and at an epoch's end: the common model becomes the mean of the replicas, weighted by the rows
       that each has seen since the last time. Moving statistics of batch normalisation likewise.

    With ``tau=1`` and plain SGD this is synchronous SGD. Results depend on the shards, not on the workers: a worker with
    several shards trains several replicas. Losses and metrics of a step are those of the replicas, each on its own rows.

    Each worker sends ``2 (N - 1) / N * 4 P / tau`` bytes a step (P parameters, N workers), and once an epoch
    ``2 (N - 1) / N * 4 P`` for each vector of optimizer state. It holds ``4 (1 + optimizer vectors) P`` bytes a shard.

    A worker that dies ends the attempt; the next one goes on from the last checkpoint (made between rounds, with every
    shard's optimizer state) and gives the same weights, to the bit if `deterministic`.

    Args:
        tau: local steps between averages, at least 1.
        workers, shards, deterministic, checkpoint, wire_dtype, timeout_s, checkpoint_every_s, retries, memory_cap_bytes:
            as in `LongLived`.

    Source: P. Moritz et al., SparkNet: Training Deep Networks in Spark (2016), section 2. There a round ends the fit when
    a worker is lost, and rows are drawn from a random place of each partition; here every row comes once an epoch.
    """

    shard_by_shard = True
    tau: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tau, int) or self.tau < 1:
            raise ValueError(f"LocalSGD: tau needs a whole number of at least 1 step, got {self.tau!r}")

    def method(self, job: TrainJob, table: ShardTable, validation: ShardTable | None) -> Averaging:
        return Averaging(self.tau, KEEP, PARAMETERS)

    def more_vectors(self, slots: int, workers: int) -> int:
        """The common slots and a replica, with its own, for each shard."""
        return slots + (1 + slots) * -(-(self.shards or workers) // workers)
