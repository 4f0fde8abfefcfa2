"""Steps that do not wait for the slowest worker: rows that it has not come to in time go to the epoch's end, or are left out."""

from __future__ import annotations

import collections
import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .feed import Call, Feed, Step
from .reports import Stopwatch
from .shards import apportion
from .step import DistributedStep, Finish
from .worker import Method, Settings

PIECES = 4
"""Calls that a worker's rows of a step are computed by; after each it looks at the clock."""
PATIENCE = 1.5
"""A worker is late when it takes longer than so many times the others' usual time."""
USUAL = 5
"""Steps whose times the usual one is the median of; none is dropped before."""


@dataclasses.dataclass(frozen=True)
class Dropping(Method):
    """What the workers of ``AllReduce(drop_percentage=...)`` do.

    Args:
        share: of a worker's rows in a step that may be dropped, above 0 and below 1.
        requeue: whether they are trained at the epoch's end.
        cut: whether a call's rows may be cut into pieces (rows do not influence one another).
    """

    share: float
    requeue: bool
    cut: bool

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> DroppingStep:
        return DroppingStep(
            self, settings, program, rank, settings.bounds(), self._pieces(settings), settings.test_sizes, False, watch
        )

    def sizes(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        if not self.cut or not rows:
            return rows
        piece = -(-rows[-1] // PIECES)
        return (piece, PIECES * piece)

    def _pieces(self, settings: Settings) -> tuple[int, ...]:
        return settings.train_sizes[:1] if self.cut else settings.train_sizes

    def identity(self) -> dict[str, Any]:
        return {"drop_percentage": self.share, "requeue": self.requeue}


class DroppingStep(DistributedStep):
    """Arguments: the method, the settings, and those of `DistributedStep`.

    1. A worker computes its rows of the step piece by piece. It stops when more than `PATIENCE` times the usual time has
       passed since its last step ended and no more than the method's share of its rows is left.
    2. One small sum tells everybody how many rows took part, each worker's time for all of its rows, and who has how many
       rows left. The usual time is the median over `USUAL` steps of the median over workers.
    3. Gradients and states, sums over rows divided by the rows that were planned, are multiplied by planned / took part: the
       mean is one over the rows that took part, with regularisation whole. Sums of losses and metrics count these rows.
    4. With `requeue`: after the plan's last step, further steps of at most a batch, from whoever has rows left, in proportion.
       Nothing is dropped there, so every row is trained exactly once an epoch.
    """

    def __init__(self, method: Dropping, settings: Settings, *args: Any):
        super().__init__(*args)
        self.method, self.batch_size = method, settings.batch_size
        self.offsets = np.array((*settings.table.offsets, settings.table.total), np.int64)
        self._most = settings.train_sizes[-1] if settings.train_sizes else 0  # rows of a call, for every worker
        self._usual: collections.deque[float] = collections.deque(maxlen=USUAL)
        self._queue = np.zeros(0, np.uint32)  # ids of own rows that are left
        self._late: dict[int, int] = {}  # rows of each shard that were late in this epoch
        self._left = np.zeros(len(self.bounds) - 1, np.int64)  # rows in each worker's queue
        self._ended_s: float | None = None  # when the last step of the epoch ended

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
        kept = kept or {}
        ids = [array for name, array in sorted(kept.items()) if name.endswith("/left")]
        self._queue = np.concatenate([np.zeros(0, np.uint32), *ids]).astype(np.uint32)
        self._late = {int(n.split("/")[1]): int(a[0]) for n, a in kept.items() if n.endswith("/late")}
        self._left = self._told({"left": len(self._queue)})["left"].astype(np.int64)

    def kept(self) -> dict[str, np.ndarray]:
        shards = np.searchsorted(self.offsets, self._queue, side="right") - 1
        found = {f"shard/{s}/left": self._queue[shards == s] for s in np.unique(shards).tolist()}
        return found | {f"shard/{s}/late": np.array([n], np.int64) for s, n in self._late.items()}

    def counts(self) -> dict[str, float]:
        late, self._late = sum(self._late.values()), {}
        return {"requeued_rows" if self.method.requeue else "dropped_rows": float(late)}

    # --- steps -------------------------------------------------------------------------------------------------------

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        began_s = self._ended_s or time.monotonic()
        pieces = [piece for call in step.calls for piece in self._pieces_of(call)]
        jobs = [(call, self._arguments(call, step.rows, key)) for call in pieces]
        started = self.calls[pieces[0].size].run(0, jobs[0][1], (), None)[1] if jobs else None
        own = sum(call.rows for call in pieces)

        def finish(learning_rate: float, note: int | None = 0) -> tuple[np.ndarray, tuple[int, ...]]:
            total, done = np.zeros(self.V, np.float32), 0
            for i, (call, args) in enumerate(jobs):
                if i and self._is_late(began_s, done, own, step):
                    self._leave([c for c, _ in jobs[i:]])
                    break
                total += np.asarray(started if i == 0 else self.calls[call.size].run(0, args, (), None)[1])
                done += call.rows
            spent_s = (time.monotonic() - began_s) * own / max(done, 1)
            self.watch.lap("compute")
            told = self._told({"rows": done, "seconds": spent_s, "left": len(self._queue)})
            took_part = int(told["rows"].sum())
            self._left = told["left"].astype(np.int64)
            self._learn(told["seconds"], step)
            factor = step.rows / took_part
            step.rows = took_part
            self._charge_sync()
            owned = np.array(self.collective.reduce_scatter(total))
            owned[: max(self.P + self.S - self.owned.start, 0)] *= np.float32(factor)
            self._charge_sync()
            sums, notes = self._update_and_gather(owned, learning_rate, note or 0, self.iteration)
            self.iteration += 1
            self._ended_s = time.monotonic()
            return sums[None], notes

        return finish

    def more(self, feed: Feed, done: int) -> Step | None:
        self._ended_s = None
        if not self.method.requeue or not self._left.any():
            return None
        able = np.minimum(self._left, self._most)
        counts = apportion(able, min(self.batch_size, int(able.sum())))
        mine = int(counts[self.rank])
        ids, self._queue = self._queue[:mine], self._queue[mine:]
        return Step(done, int(counts.sum()), list(feed.calls_of(ids)), extra=True)

    def end_epoch(self, learning_rate: float) -> np.ndarray:
        self._ended_s = None
        return super().end_epoch(learning_rate)

    def _pieces_of(self, call: Call) -> Iterator[Call]:
        if not self.method.cut:
            yield call
            return
        (size,) = self.calls
        for a in range(0, call.rows, size):
            part = slice(a, a + size)
            batch = {name: array[part] for name, array in call.batch.items()}
            rows = min(size, call.rows - a)
            yield Call(call.shard, rows, size, batch, call.valid[part], call.row_id[part])

    def _is_late(self, began_s: float, done: int, own: int, step: Step) -> bool:
        if step.extra or len(self._usual) < USUAL or done < (1 - self.method.share) * own:
            return False
        return time.monotonic() - began_s > PATIENCE * statistics.median(self._usual)

    def _leave(self, calls: Sequence[Call]) -> None:
        ids = np.concatenate([call.row_id[: call.rows] for call in calls])
        for shard in np.searchsorted(self.offsets, ids, side="right") - 1:
            self._late[int(shard)] = self._late.get(int(shard), 0) + 1
        if self.method.requeue:
            self._queue = np.concatenate([self._queue, ids])

    def _learn(self, seconds: np.ndarray, step: Step) -> None:
        worked = seconds[seconds > 0]
        if worked.size and not step.extra:
            self._usual.append(float(np.median(worked)))

    def _told(self, mine: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Every worker's numbers by name, float64[workers] each."""
        world = len(self.bounds) - 1
        table = np.zeros((len(mine), world), np.float64)
        table[:, self.rank] = list(mine.values())
        total = self.collective.all_reduce_small(table.reshape(-1)).reshape(len(mine), world)
        return dict(zip(mine, total, strict=True))
