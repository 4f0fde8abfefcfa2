"""BigDL's Algorithm 1 on stock PySpark: gradients and weights travel through Spark's own shuffle, tasks are stateless."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ..loop import Hooks, TrainJob, TrainResult
from .step_jobs import StepJobs


@dataclasses.dataclass
class ShuffleAllReduce(StepJobs):
    """Synchronous training by Spark's shuffle: slower, but nothing has to run at the same time as anything else.

    Every step is one Spark job of three stages (BigDL's two jobs, the second split by its shuffle):

    1. Each of N slices of weights is sent to every shard (shuffle).
    2. Each shard computes the gradient of its rows of the batch and sends slice j of it to slice j's owner (shuffle).
    3. The owner adds the S gradients along one fixed tree and updates its slice of weights and optimiser state, which
       stay on the executors as a persisted RDD.

    Sends ``8 S P`` bytes a step in all (S shards, P parameters). Costs a Spark job a step, tenths of a second at best: for
    clusters with dynamic allocation, or whose executors cannot reach one another. Gives the same bits as
    ``AllReduce(deterministic=True)`` on the same shards, whatever the number of executors.

    A task that dies is run again by Spark, and what an executor held is computed again from lineage; when that fails,
    training goes on from the last checkpoint. Executors may come and go at any time.

    Args:
        workers: slices of the weights; None = executors at the start.
        shards: logical shards of the data; None = its own partitions.
        checkpoint: folder on any file system that Spark reaches; None: a temporary folder on the driver.
        checkpoint_every_steps: within an epoch; the driver then sees the weights once, which also cuts the lineage.
        cut_lineage_every_steps: between checkpoints, where the weights stay on the executors.
        retries: failed jobs in a row, without progress, after which training ends.
        timeout_s: seconds without the end of any task after which a job counts as stuck and is run again: longer than the
            slowest task, the first ones read the data.

    Source: J. Dai et al., BigDL: A Distributed Deep Learning Framework for Big Data (2019), Algorithms 1 and 2.
    """

    counts_of_steps: ClassVar[tuple[str, ...]] = ("checkpoint_every_steps", "cut_lineage_every_steps")
    cut_lineage_every_steps: int = dataclasses.field(default=10, kw_only=True)

    def fit(self, job: TrainJob, data: Any, validation: Any | None, hooks: Hooks) -> TrainResult:
        from ..spark_shuffle import ShuffleFit

        return ShuffleFit(job, data, validation, self, hooks).run()
