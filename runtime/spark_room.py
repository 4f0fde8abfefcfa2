"""How many tasks a cluster can run at once, now; and asking for more where executors come on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

REPLACEMENT_S = 15.0
"""For executors that take the place of lost ones, before a group starts with fewer workers."""

_number = 0


def allocates(context: Any) -> bool:
    """Whether Spark adds and removes executors by itself."""
    return str(context.getConf().get("spark.dynamicAllocation.enabled", "false")).lower() == "true"


def room(context: Any, profile: Any | None = None) -> int:
    """Task slots of all executors, busy or not, but for those that are being decommissioned.

    Args:
        profile: a `pyspark.resource.ResourceProfile`; None = the default one.
    """
    scala = context._jsc.sc()
    if profile is None:
        java = scala.resourceProfileManager().defaultResourceProfile()
    else:
        java = profile._java_resource_profile
    return int(scala.maxNumConcurrentTasks(java))


class Demand:
    """Tasks that wait for their end, as tasks that wait for a slot are what makes Spark start executors.

    One that has found a slot keeps it, so that no idle executor goes away before a group of workers takes it.
    """

    def __init__(self, context: Any):
        self._context = context
        self._tasks = 0
        self._tag = ""
        self._thread: threading.Thread | None = None

    def ask(self, tasks: int) -> None:
        """Has `tasks` tasks wait, in place of those that did."""
        if tasks == self._tasks:
            return
        self.end()
        if tasks < 1:
            return
        from pyspark import InheritableThread

        global _number
        _number += 1
        self._tasks, self._tag = tasks, f"kerasoft-demand-{_number}"
        self._thread = InheritableThread(target=self._run, args=(tasks, self._tag), name=self._tag, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends them and waits until their slots are free."""
        thread, self._thread, self._tasks = self._thread, None, 0
        while thread is not None and thread.is_alive():
            self._context.cancelJobsWithTag(self._tag)  # again: the job may not have been there yet
            thread.join(0.2)

    def _run(self, tasks: int, tag: str) -> None:
        context = self._context
        context.addJobTag(tag)
        context.setInterruptOnCancel(True)
        try:
            context.parallelize(range(tasks), tasks).mapPartitions(_wait).count()
        except Exception:  # that it was cancelled; whatever else is wrong, the workers' job will say
            pass


def _wait(records: Iterator[int]) -> Iterator[int]:
    while True:
        time.sleep(1)
    yield from records
