"""DistBelief's Sandblaster: limited-memory BFGS with the gradient of all rows."""

from __future__ import annotations

import dataclasses

from ..lbfgs import FullBatch
from ..loop import TrainJob
from ..shards import ShardTable
from .long_lived import LongLived


@dataclasses.dataclass
class LBFGS(LongLived):
    """Quasi-Newton steps with the loss of all rows; for smooth, above all convex problems of moderate size.

    One epoch is one pass over all rows, at a trial point:

    1. Each worker adds up the gradients of its rows, `batch_size` rows of all workers in a call (which changes nothing but
       memory). Reduce-scatter of the sum.
    2. A line search (Wolfe conditions; about one pass in most steps) takes the trial point or tries another step length.
    3. Taken: the differences of points and gradients enter a history of `history` pairs, of which every worker holds its
       slice; scalar products of all of them by one small all-reduce; the two-loop recursion gives the next direction.
    4. All-gather of the next trial point.

    Logs of an epoch are those at its trial point; weights (callbacks, validation, the end) those of the last point taken.
    Ends early when no element of the gradient exceeds `tolerance`, or no step lowers the loss any more. The compiled
    optimizer, its learning rate and state play no part. Random layers draw the same masks in every pass.

    Gradients are float32, as everywhere; sums over rows and scalar products are float64. The loss at the result is within
    1e-8 of the optimum on well-conditioned problems (where a parameter is off by 1e-5, the loss is off by 1e-10).

    Each worker sends ``3 (N - 1) / N * 4 P`` bytes a pass (P parameters, N workers; gradient there and back, trial point; a
    third less if `deterministic`) and holds ``8 history P / N`` bytes of history (``8 history P`` if `deterministic`).

    A loss whose divisor is counted rather than known (masks, means over sample weights) is divided batch by batch: give such
    a fit a `batch_size` of all rows.

    A worker that dies ends the attempt; the next one goes on from the last checkpoint, made between passes with history
    and line search in it, and gives the same weights, to the bit if `deterministic`.

    Args:
        history: pairs kept, at least 1.
        tolerance: of the largest element of the gradient.
        workers, shards, deterministic, checkpoint, timeout_s, checkpoint_every_s, retries, memory_cap_bytes: as in
            `LongLived`; wire_dtype plays no part.

    Source: J. Dean et al., Large Scale Distributed Deep Networks (2012), Sandblaster L-BFGS; D. C. Liu and J. Nocedal, On
    the limited memory BFGS method (1989); W. Chen et al., Large-scale L-BFGS using MapReduce (2014) for the recursion on
    scalar products.
    """

    history: int = 10
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.history, int) or self.history < 1:
            raise ValueError(f"LBFGS: history needs a whole number of at least 1 pair, got {self.history!r}")
        if not self.tolerance >= 0:
            raise ValueError(f"LBFGS: tolerance needs a number of at least 0, got {self.tolerance!r}")

    def method(self, job: TrainJob, table: ShardTable, validation: ShardTable | None) -> FullBatch:
        return FullBatch(self.history, float(self.tolerance))

    def more_vectors(self, slots: int, workers: int) -> int:
        """The sum of gradients in float64, the trial point, the history."""
        return 3 + -(-2 * self.history // (1 if self.deterministic else workers))
