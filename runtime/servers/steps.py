"""What a rank computes: the gradient of its rows, and the optimiser on the slice that it serves."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..collectives import Solo
from ..feed import Step
from ..step import Arguments, DistributedStep
from .effects import WHOLE, Node
from .machine import Update


class WorkerStep(DistributedStep):
    """Gradients and evaluations of one worker at parameters that come from elsewhere; nothing is updated here."""

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.collective = Solo()

    def _update_call(self) -> tuple[Any, bool]:
        return None, False

    def gradient(self, batch: Step, key: np.ndarray, rows: int) -> dict[Node, np.ndarray]:
        """float32[V] of this worker's rows: one vector, or the nodes of the fixed tree over shards.

        Args:
            rows: that means are taken over: of the global batch, or of this worker's.
        """
        jobs = [(call, self._arguments(call, rows, key)) for call in batch.calls]
        started = self.calls[jobs[0][0].size].run(0, jobs[0][1], (), None) if jobs else None
        results = self._results("train", self.calls, jobs, started)
        if self.deterministic:
            return dict(self._partials(results, self.V))
        total = None
        for _, vector in results:
            total = vector if total is None else total + vector
        return {WHOLE: np.zeros(self.V, np.float32) if total is None else total}


def updater(program: Any, part: slice) -> Update:
    """The program's optimiser on the slice `part` of the parameters, compiled.

    An update that needs sums over the whole vector (norms of gradients, say) takes the slice for the whole.
    """
    size = part.stop - part.start
    if not size:
        return lambda params, slots, gradient, iteration, rate: (params, slots)
    call = program.update(size)
    segment = np.ascontiguousarray(program.layout.segments()[part])

    def update(params: Any, slots: Any, gradient: Any, iteration: int, rate: float) -> tuple[np.ndarray, tuple]:
        args = Arguments(
            param=params,
            gradient=gradient,
            slots=tuple(slots),
            segment=segment,
            learning_rate=np.float32(rate),
            iteration=np.int32(iteration),
        )
        out = call.whole(args)
        return np.asarray(out[0]), tuple(np.asarray(s) for s in out[1:])

    zeros = np.zeros(size, np.float32)
    update(zeros, [zeros] * len(program.slots), zeros, 0, 0.0)
    return update
