"""MLlib's way, the baseline: gradients to the driver along a tree, weights back by broadcast."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..loop import Hooks, TrainJob, TrainResult
from .step_jobs import StepJobs


@dataclasses.dataclass
class DriverReduce(StepJobs):
    """Synchronous training with the driver on the data path: simple, and slow for large models. A baseline to compare with.

    Every step is one Spark job:

    1. The driver broadcasts the weights: every executor fetches all of them.
    2. Each shard computes the gradient of its rows of the batch.
    3. ``treeReduce`` adds them up, the last ones on the driver (depth 2: about the square root of S arrive there).
    4. The driver makes the optimizer's step.

    An executor sends about ``4 P`` bytes a step for each of its shards, the driver sends ``4 P`` bytes for each executor and
    receives ``4 P sqrt(S)`` (P parameters, S shards), by pickle within Spark's own job. The driver holds weights and optimizer
    state. Costs a Spark job a step, tenths of a second at best.

    A task that dies is run again by Spark; when its job fails, training goes on from the last checkpoint. Executors may come
    and go. Results agree with `AllReduce` to rounding (Spark adds in the order in which results arrive).

    Args:
        shards: logical shards of the data; None = its own partitions.
        checkpoint: folder on any file system that Spark reaches; None: a temporary folder on the driver.
        checkpoint_every_steps: within an epoch.
        retries: failed jobs in a row, without progress, after which training ends.
        timeout_s: seconds without the end of any task after which a job counts as stuck and is run again: longer than the
            slowest task, the first ones read the data.

    Source: MLlib's GradientDescent (treeAggregate and broadcast), X. Meng et al., MLlib (2016).
    """

    def fit(self, job: TrainJob, data: Any, validation: Any | None, hooks: Hooks) -> TrainResult:
        from ..spark_driver_reduce import DriverFit

        return DriverFit(job, data, validation, self, hooks).run()
