"""Steps whose sums travel while the next gradient is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .collectives import aligned_empty
from .feed import Step
from .reports import Stopwatch
from .step import DistributedStep, Finish
from .worker import Method, Settings

_PENDING = "slice/pending"


@dataclasses.dataclass(frozen=True)
class DoubleBuffering(Method):
    """What the workers of ``AllReduce(double_buffering=True)`` do."""

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> DoubleBufferedStep:
        return DoubleBufferedStep(
            program, rank, settings.bounds(), settings.train_sizes, settings.test_sizes, settings.deterministic, watch
        )

    def identity(self) -> dict[str, Any]:
        return {"double_buffering": True}


class DoubleBufferedStep(DistributedStep):
    """Two steps under way at a time; arguments as of `DistributedStep`.

    1. Step t's first gradient call is started, with the parameters that the sums up to step t - 2 have made.
    2. While it computes: reduce-scatter of step t - 1's gradients, update of the slice, all-gather.
    3. Step t's gradients are kept until step t + 1; an epoch's last ones are applied at its end, nothing is left over.

    Parameters are gathered into two vectors in turns: the running call reads the other one. A checkpoint holds the sum
    of the gradients that wait, which is what the next step would begin with anyway.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._vectors = [aligned_empty(self.V), aligned_empty(self.V)]
        self._waiting: Any = None  # gradients of the last step: a vector, or partial sums by node
        self._sum: np.ndarray | None = None  # or already this rank's slice of their sum

    def load(
        self,
        collective: Any,
        params: np.ndarray,
        slots: Sequence[np.ndarray],
        state: np.ndarray,
        iteration: int,
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().load(collective, params, slots, state, iteration, kept)
        self._waiting = None
        self._sum = np.array(kept[_PENDING]) if kept and _PENDING in kept else None

    def meets(self, step: int) -> bool:
        return self._waiting is not None or self._sum is not None

    def kept(self) -> dict[str, np.ndarray]:
        if self._waiting is not None:
            self._sum, self._waiting = np.array(self._add_up()), None
            self._charge_sync()
        return {} if self._sum is None else {_PENDING: self._sum}

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        jobs = [(call, self._arguments(call, step.rows, key)) for call in step.calls]
        started = self.calls[jobs[0][0].size].run(0, jobs[0][1], (), None) if jobs else None

        def finish(learning_rate: float, note: int | None = 0) -> tuple[np.ndarray, tuple[int, ...] | None]:
            sums, notes = np.zeros((0, self.M), np.float32), None
            if note is not None:
                sums, notes = self._apply_waiting(learning_rate, note)
            results = self._results("train", self.calls, jobs, started)
            if self.deterministic:
                self._waiting = self._partials(results, self.V)
            else:
                total = None
                for _, vector in results:
                    total = vector if total is None else total + vector
                self._waiting = np.zeros(self.V, np.float32) if total is None else total
            self.watch.lap("compute")
            self.iteration += 1
            return sums, notes

        return finish

    def end_epoch(self, learning_rate: float) -> np.ndarray:
        if not self.meets(-1):
            return super().end_epoch(learning_rate)
        return self._apply_waiting(learning_rate, 0)[0]

    def _add_up(self) -> np.ndarray:
        if self.deterministic:
            return self.collective.reduce_scatter_tree(self._waiting, self.bounds, self.V)
        return self.collective.reduce_scatter(self._waiting)

    def _apply_waiting(self, learning_rate: float, note: int) -> tuple[np.ndarray, tuple[int, ...]]:
        owned = self._add_up() if self._sum is None else self._sum
        self._charge_sync()
        self._waiting = self._sum = None
        self._vectors.reverse()
        sums, notes = self._update_and_gather(owned, learning_rate, note, self.iteration - 1, self._vectors[0])
        return sums[None], notes
