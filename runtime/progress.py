"""What the hooks have heard of a fit and what they decided, over all its attempts: each thing once, however often it is
repeated."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping

import numpy as np

from .loop import Decision, EpochEnd, Hooks, StepReport, TrainJob, rate_to_begin_with
from .reports import add
from .wire import Message
from .worker import Settings

Pull = Callable[[], tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]]


class Progress:
    """The driver's memory of a fit.

    Attributes:
        rate: the learning rate now.
        reported: last (epoch, step) that the hooks heard of.
        stop_asked: whether they want to stop within the epoch.
        committed: checkpoints made.
        asked, saved: `time.perf_counter` when slices were asked for, and of the last commit. save_cost_s: of it.
        steps, rows: made by the workers, repeated ones too.
        worker_seconds: by phase, for each rank. training_s: workers trained.
        epoch_started, told_at: `time.perf_counter` when the epoch began, and when workers last told what they had done.
    """

    def __init__(self, job: TrainJob, hooks: Hooks):
        self.job, self.hooks = job, hooks
        self.rate = job.learning_rate
        self.reported = (-1, -1)
        self.stop_asked = False
        self.committed = 0
        self.asked = self.saved = -1e9
        self.save_cost_s = 0.0
        self.steps = self.rows = 0
        self.worker_seconds: list[dict[str, float]] = []
        self.training_s = self.epoch_started = self.told_at = 0.0
        self._rates: dict[int, float] = {}  # epoch -> learning rate it began with
        self._decisions: dict[int, Decision] = {}  # epoch -> what the hooks said at its end

    def begin_epoch(self, epoch: int, rate: float) -> float:
        """Tells the hooks of a new epoch, once however often it is repeated; the learning rate to begin it with."""
        if epoch not in self._rates:
            self._rates[epoch] = rate_to_begin_with(self.hooks.on_epoch_begin(epoch), rate)
        return self._rates[epoch]

    def worked(self, rank: int, times: Mapping[str, float]) -> None:
        """Adds what a worker tells of its seconds by phase."""
        while len(self.worker_seconds) <= rank:
            self.worker_seconds.append({})
        add(self.worker_seconds[rank], times)

    def on_steps(self, message: Message) -> Decision | None:
        """What the hooks say to steps they had not heard of; None if there is nothing to tell the workers."""
        f, sums = message.fields, message.arrays["sums"]
        number = len(f["steps"])
        times = {phase: s / number for phase, s in f["times"].items()}
        reports = []
        for i, (step, rows) in enumerate(zip(f["steps"], f["rows"], strict=True)):
            iteration = f["iteration"] - (number - 1 - i)
            if (f["epoch"], step) > self.reported:
                reports.append(StepReport(f["epoch"], step, rows, sums[i], times, iteration))
        self.steps += number
        self.rows += sum(f["rows"])
        if not reports:
            return None
        self.reported = (reports[-1].epoch, reports[-1].step)
        decision = self.hooks.on_steps(reports)
        if decision is None or not (decision.stop or decision.learning_rate is not None):
            return None
        if decision.learning_rate is not None:
            self.rate = decision.learning_rate
        self.stop_asked |= decision.stop
        return decision

    def on_epoch_end(self, ends: dict[int, Message], settings: Settings, pull: Pull) -> Decision:
        """What the hooks say at an epoch's end, asked once.

        Args:
            ends: every rank's message.
            settings: of the workers.
            pull: asks them for parameters, states and slots, which wait.
        """
        epoch = ends[0].fields["epoch"]
        for rank, message in ends.items():
            self.worked(rank, message.fields["times"])
        self.told_at = time.perf_counter()
        if epoch not in self._decisions:
            self._decisions[epoch] = self._ask_hooks(ends, settings, functools.cache(pull))
        decision = self._decisions[epoch]
        if decision.learning_rate is not None:
            self.rate = decision.learning_rate
        return decision

    def _ask_hooks(self, ends: dict[int, Message], settings: Settings, pull: Pull) -> Decision:
        first = ends[0]
        times: dict[str, float] = {}
        for message in ends.values():
            add(times, {p: s / len(ends) for p, s in message.fields["times"].items()})
        wall_s = time.perf_counter() - self.epoch_started
        times["other"] = times.get("other", 0.0) + wall_s - sum(times.values())
        validation = _validation_sums(ends, self.job.source.layout.M)
        counts: dict[str, float] = {}
        for message in ends.values():
            add(counts, message.fields.get("counts", {}))
        dropped = round(counts.get("dropped_rows", 0))
        return self.hooks.on_epoch_end(
            EpochEnd(
                epoch=first.fields["epoch"],
                steps=first.fields["step"],
                rows=min(first.fields["step"] * settings.batch_size, settings.table.total) - dropped,
                sums=first.arrays["sums"],
                validation_sums=validation,
                times=times,
                wall_s=wall_s,
                iteration=first.fields["iteration"],
                learning_rate=self.rate,
                weights=lambda: pull()[:2],
                slots=lambda: pull()[2],
                validation_rows=settings.validation.total if validation is not None and settings.validation else 0,
                counts=counts,
            )
        )

    def checkpoint_pays(self) -> bool:
        """At an epoch's end: unless the last one is so fresh that checkpoints would take over 5 % of the time."""
        return time.perf_counter() - self.saved >= 20 * self.save_cost_s


def _validation_sums(ends: dict[int, Message], sums: int) -> np.ndarray | None:
    """float64[M] over all validation rows, added in the order of shards; None when nothing was validated."""
    parts: dict[int, np.ndarray] = {}
    for message in ends.values():
        if "validation" in message.arrays:
            parts |= dict(zip(message.arrays["shards"].tolist(), message.arrays["validation"], strict=True))
    if not any("validation" in m.arrays for m in ends.values()):
        return None
    total = np.zeros(sums, np.float64)
    for shard in sorted(parts):
        total += parts[shard]
    return total
