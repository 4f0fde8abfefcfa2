"""Ends Spark jobs in which nothing moves: a frozen Python worker keeps its task for ever, and Spark sees nothing wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any


class Watch:
    """Watches the jobs that are started in its context, by the thread that entered it.

    A job of which no task has ended for `timeout_s` is cancelled; `why` then says so. Spark kills the Python
    worker of a cancelled task, and the next attempt gets another one.

    Args:
        context: the SparkContext.
        timeout_s: seconds without the end of any task.
        progress: anything else whose change counts as progress.
    """

    def __init__(self, context: Any, timeout_s: float, progress: Callable[[], Any] = lambda: None):
        self._context, self._timeout_s, self._progress = context, timeout_s, progress
        self._tag = f"kerasoft-watch-{os.urandom(6).hex()}"
        self._ended = threading.Event()
        self._stuck = ""

    def __enter__(self) -> Watch:
        self._context.addJobTag(self._tag)
        self._thread = threading.Thread(target=self._run, name="kerasoft-jobs", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._context.removeJobTag(self._tag)

    def why(self) -> str:
        """Why a job was cancelled here since the last question; "" if none was."""
        text, self._stuck = self._stuck, ""
        return text

    def _run(self) -> None:
        last: Any = None
        since = time.monotonic()
        while not self._ended.wait(min(1.0, self._timeout_s / 5)):
            seen = self._seen()
            if seen != last or not seen[0]:
                last, since = seen, time.monotonic()
            elif time.monotonic() - since > self._timeout_s:
                self._stuck = (
                    f"a Spark job was cancelled: none of its tasks ended for {self._timeout_s:g} s ({self._where(seen[0])}): "
                    "a worker hangs or is stopped. If a task may take that long, raise timeout_s."
                )
                self._context.cancelJobsWithTag(self._tag)
                since = time.monotonic()

    def _seen(self) -> tuple[tuple[int, ...], Any, Any]:
        """Our jobs that run, the ended tasks of their stages, and the progress that was given."""
        tracker = self._context.statusTracker()
        running = set(tracker.getActiveJobsIds())
        ours = sorted(running & set(self._context._jsc.sc().statusTracker().getJobIdsForTag(self._tag)))
        done = []
        for job in ours:
            for stage in getattr(tracker.getJobInfo(job), "stageIds", ()):
                done.append(getattr(tracker.getStageInfo(stage), "numCompletedTasks", 0))
        return tuple(ours), done, self._progress()

    def _where(self, jobs: tuple[int, ...]) -> str:
        """Stages with tasks that run, in words."""
        tracker, found = self._context.statusTracker(), []
        for job in jobs:
            for stage in getattr(tracker.getJobInfo(job), "stageIds", ()):
                info = tracker.getStageInfo(stage)
                if info is not None and info.numActiveTasks:
                    found.append(f"stage {stage}: {info.numActiveTasks} of {info.numTasks} tasks run")
        return ", ".join(found) or "no task runs"
