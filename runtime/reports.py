"""Where the time of a fit goes: a stopwatch whose laps add up to the wall time, and their sum over workers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from .loop import PHASES, Profile


class Stopwatch:
    """Charges every moment to exactly one phase, so that the phases add up to the wall time.

    >>> watch = Stopwatch()
    >>> watch.lap("input"); watch.lap("compute")
    >>> sorted(watch.take())
    ['compute', 'input']
    """

    def __init__(self) -> None:
        self.started = self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, phase: str, seconds: float | None = None) -> None:
        """Charges the time since the last lap to `phase`; of it, only `seconds` if given, the rest stays to be charged."""
        now = time.perf_counter()
        spent = now - self._last if seconds is None else min(seconds, now - self._last)
        self._seconds[phase] = self._seconds.get(phase, 0.0) + spent
        self._last += spent

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call of this method."""
        seconds, self._seconds = self._seconds, {}
        return seconds


def add(into: dict[str, float], seconds: Mapping[str, float]) -> None:
    """Adds `seconds` to `into`, phase by phase."""
    for phase, s in seconds.items():
        into[phase] = into.get(phase, 0.0) + s


def profile(
    wall_s: float,
    driver: Mapping[str, float],
    workers: Sequence[Mapping[str, float]],
    training_s: float,
    steps: int,
    rows: int,
) -> Profile:
    """The profile of a distributed fit.

    Args:
        wall_s: seconds of the whole fit.
        driver: seconds before and after the workers trained (ingest, scheduling, rendezvous, compile, ...).
        workers: seconds by phase of each rank while they trained.
        training_s: seconds that the driver saw the workers train.
        steps, rows: trained, repeated ones included.

    The mean over workers of each phase stands for the time while they trained; what they did not report of it is
    "other", and so is what the driver did not charge to anything.
    """
    seconds = dict(driver)
    mean: dict[str, float] = {}
    for worker in workers:
        add(mean, {phase: s / len(workers) for phase, s in worker.items()})
    scale = min(1.0, training_s / sum(mean.values())) if sum(mean.values()) > 0 else 1.0
    add(seconds, {phase: s * scale for phase, s in mean.items()})
    ordered = {p: seconds[p] for p in (*PHASES, *sorted(seconds)) if p in seconds}
    return Profile.of(wall_s, ordered, steps=steps, rows=rows, workers=max(len(workers), 1), by_worker=tuple(workers))
