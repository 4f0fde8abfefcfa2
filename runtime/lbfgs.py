"""Limited-memory BFGS over all rows: one pass over the data is one evaluation of the loss and its gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .feed import Step
from .line_search import LineSearch
from .reports import Stopwatch
from .step import DistributedStep, Finish
from .worker import Method, Settings


@dataclasses.dataclass(frozen=True)
class FullBatch(Method):
    """What the workers of `LBFGS` do.

    Attributes:
        history: pairs of differences that are kept. tolerance: of the largest element of the gradient.
    """

    history: int
    tolerance: float

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> LBFGSStep:
        return LBFGSStep(self, settings, rank, program, watch)

    def identity(self) -> dict[str, Any]:
        return {"lbfgs": [self.history]}


class LBFGSStep(DistributedStep):
    """The evaluations and the quasi-Newton steps of one worker.

    Within an epoch the calls' gradients are added up (float64; by shard if deterministic), at its end:

    1. Reduce-scatter of the sum: this rank gets its slice of the gradient at the trial point; the loss by a small sum.
    2. The line search takes or refuses the trial point.
    3. Taken: differences of points and gradients enter the history (slices of it live on each rank); all scalar products
       of history and gradient by one small all-reduce; from them the new direction, by the two-loop recursion.
    4. All-gather of the next trial point. Callbacks, validation and the end of the fit see the last point taken.

    If deterministic, gradient and history are whole on every rank, as scalar products of slices would depend on the cut.
    """

    def __init__(self, method: FullBatch, settings: Settings, rank: int, program: Any, watch: Stopwatch):
        super().__init__(
            program, rank, settings.bounds(), settings.train_sizes, settings.test_sizes, settings.deterministic, watch
        )
        self.method = method
        steps = -(-settings.table.total // settings.batch_size)
        limit = steps if settings.steps_per_epoch is None else min(steps, settings.steps_per_epoch)
        self._rows = min(settings.table.total, limit * settings.batch_size)
        self._cut = slice(0, self.P) if self.deterministic else self.part
        self._passes: dict[int, np.ndarray] = {}  # of this pass: shard -> float64[V], -1 for all of the worker's
        self._sums: dict[int, list[np.ndarray]] = {}  # float32[M] of each step of this pass, by shard likewise
        self._made = 0  # steps of this pass
        self._search = LineSearch()
        self._shards = len(settings.owners)

    def _update_call(self) -> tuple[Any, bool]:
        return None, False

    # --- state -------------------------------------------------------------------------------------------------------

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
        self._trial = self.params
        here = {name.partition("/")[2]: array for name, array in (kept or {}).items()}
        size = self._cut.stop - self._cut.start
        self._gradient = here.get("gradient", np.zeros(size, np.float32))
        self._direction = here.get("direction", np.zeros(size, np.float32))
        self._points = list(here.get("points", np.zeros((0, size), np.float32)))
        self._gradients = list(here.get("gradients", np.zeros((0, size), np.float32)))
        self._search = LineSearch.from_vector(here["search"]) if "search" in here else LineSearch()
        if self._search.started:
            self._gather_trial()

    def kept(self) -> dict[str, np.ndarray]:
        kind = "all" if self.deterministic else "slice"
        size = self._cut.stop - self._cut.start
        found = {
            f"{kind}/gradient": self._gradient,
            f"{kind}/direction": self._direction,
            f"{kind}/points": np.array(self._points, np.float32).reshape(len(self._points), size),
            f"{kind}/gradients": np.array(self._gradients, np.float32).reshape(len(self._points), size),
            "all/search": self._search.to_vector(),
        }
        return {name: array for name, array in found.items() if self.rank == 0 or name.startswith("slice/")}

    def replace(self, params: np.ndarray, state: np.ndarray) -> None:
        super().replace(params, state)
        self._trial = self.params
        self._points, self._gradients, self._search = [], [], LineSearch()

    # --- a pass over the rows ----------------------------------------------------------------------------------------

    def meets(self, step: int) -> bool:
        return False

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        same = np.zeros(2, np.uint32)  # the same random masks in every pass: the loss is one function of the parameters
        jobs = [
            (call, dataclasses.replace(self._arguments(call, self._rows, same), params=self._trial))
            for call in step.calls
        ]
        started = self.calls[jobs[0][0].size].run(0, jobs[0][1], (), None) if jobs else None

        def finish(learning_rate: float, note: int | None = None) -> tuple[np.ndarray, None]:
            for call, out in self._results("train", self.calls, jobs, started):
                place = call.shard if self.deterministic else -1
                if place not in self._passes:
                    self._passes[place], self._sums[place] = np.zeros(self.V, np.float64), []
                self._passes[place] += out
                sums = self._sums[place]
                sums += [np.zeros(self.M, np.float32)] * (self._made + 1 - len(sums))
                sums[-1] = sums[-1] + out[self.P + self.S :]
            self._made += 1
            self.iteration += 1
            self.watch.lap("compute")
            return np.zeros((0, self.M), np.float32), None

        return finish

    def end_epoch(self, learning_rate: float) -> np.ndarray:
        if not self._made:
            return super().end_epoch(learning_rate)
        gradient, loss, sums = self._evaluated()
        self._charge_sync()
        self._passes, self._sums, self._made = {}, {}, 0
        self._move(gradient, loss)
        self.watch.lap("update")
        return sums

    def _evaluated(self) -> tuple[np.ndarray, float, np.ndarray]:
        """The gradient at the trial point (its `_cut`), the loss, sums of the steps; takes over the new states."""
        tail = self.P + self.S
        length = tail + self._made * self.M
        entries = {e.name: e.offset for e in self.program.layout.sums}
        losses = np.zeros((2, self._shards + 1), np.float64)
        for place, vector in self._passes.items():
            losses[:, place] = vector[[entries["loss/total"], entries["loss/count"]]]
        total, count = self.collective.all_reduce_small(losses.reshape(-1)).reshape(2, -1)
        loss = float(np.add.accumulate(total)[-1] / np.add.accumulate(count)[-1])
        if self.deterministic:
            parts = ((_Of(s), self._whole_pass(s)) for s in sorted(self._passes))
            owned = self.collective.reduce_scatter_tree(self._partials(parts, length), self.bounds, length)  # type: ignore[arg-type]
        else:
            mine = self._whole_pass(-1) if self._passes else np.zeros(length, np.float32)
            owned = self.collective.reduce_scatter(mine)
        whole = np.array(self.collective.all_gather(owned, length, exact=True).vector)
        self.state = whole[self.P : tail]
        return whole[self._cut], loss, whole[tail:].reshape(-1, self.M)

    def _whole_pass(self, place: int) -> np.ndarray:
        """float32: gradients, states and the sums of each step."""
        sums = self._sums[place]
        missing = np.zeros((self._made - len(sums)) * self.M, np.float32)
        return np.concatenate([self._passes[place][: self.P + self.S].astype(np.float32), *sums, missing])

    # --- from point to point -----------------------------------------------------------------------------------------

    def _move(self, gradient: np.ndarray, loss: float) -> None:
        search = self._search
        if not search.started:
            search.start(loss)
            self._take(gradient, None)
            return
        slope = self._products([gradient, self._direction])[0, 1]
        if search.judge(loss, float(slope)):
            step = self._trial[self._cut] - self.params[self._cut]
            self._take(gradient, step)
        elif search.failed:
            if self._points:  # perhaps the history misleads: once more, straight downhill
                self._points, self._gradients = [], []
                self._aim()
            else:
                self.converged = True
        self._gather_trial()

    def _take(self, gradient: np.ndarray, step: np.ndarray | None) -> None:
        """The trial point becomes the point."""
        if step is not None:
            change = gradient - self._gradient
            products = self._products([step, change])
            if products[0, 1] > 1e-12 * products[1, 1]:
                self._points = [*self._points, step][-self.method.history :]
                self._gradients = [*self._gradients, change][-self.method.history :]
        self._gradient = gradient
        self.params = self._trial
        self._master = np.array(self.params[self.part])
        largest = np.zeros(self.collective.world_size)
        largest[self.rank] = np.abs(gradient).max(initial=0)
        self.converged = bool(self.collective.all_reduce_small(largest).max() <= self.method.tolerance)
        self._aim()
        self._gather_trial()

    def _aim(self) -> None:
        """The direction from history and gradient: the two-loop recursion on coefficients of the vectors at hand."""
        basis = [*self._points, *self._gradients, self._gradient]
        count, products = len(self._points), self._products(basis)
        weights = np.zeros(len(basis))
        weights[-1] = -1.0
        alphas = np.zeros(count)
        for i in reversed(range(count)):
            alphas[i] = products[i] @ weights / products[i, count + i]
            weights[count + i] -= alphas[i]
        if count:
            weights *= products[count - 1, 2 * count - 1] / products[2 * count - 1, 2 * count - 1]
        for i in range(count):
            beta = products[count + i] @ weights / products[i, count + i]
            weights[i] += alphas[i] - beta
        direction = np.zeros(self._gradient.size, np.float64)
        for weight, vector in zip(weights, basis, strict=True):
            direction += weight * vector
        self._direction = direction.astype(np.float32)
        norm = float(np.sqrt(products[-1, -1]))
        self._search.aim(float(products[-1] @ weights), 1.0 if count else min(1.0, 1.0 / max(norm, 1e-30)))

    def _products(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """float64[k, k]: all scalar products, over all ranks."""
        wide = np.array(vectors, np.float64)
        mine = wide @ wide.T
        if self.deterministic:
            return mine
        return self.collective.all_reduce_small(mine.reshape(-1)).reshape(mine.shape)

    def _gather_trial(self) -> None:
        moved = (self.params[self._cut] + self._search.step * self._direction).astype(np.float32)
        if self.deterministic:
            self._trial = moved
            return
        self._send[: moved.size] = moved
        self._send[moved.size :] = 0
        self._trial = np.array(self.collective.all_gather(self._send, self.V, exact=True).vector[: self.P])


@dataclasses.dataclass
class _Of:
    """The shard that a vector is of, where a `Call` is asked for."""

    shard: int
