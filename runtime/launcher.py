"""What carries workers: a Spark job, or threads in tests. The driver knows no more of it than this."""

from __future__ import annotations

from typing import Protocol

from .elastic import Crew
from .rank import Task


class Attempt(Protocol):
    """Workers that were started."""

    def done(self) -> bool:
        """Whether all of them have ended."""

    def error(self) -> tuple[str, bool] | None:
        """What the carrier says of the first that failed, and whether it is the user's own error (another attempt would
        end the same way); None while they run or when all went well."""

    def end(self) -> None:
        """Stops those that still run and waits for their end."""


class Launcher(Protocol):
    """Carries tasks to workers."""

    def launch(self, task: Task) -> Attempt:
        """Starts all ranks."""

    def room(self) -> int:
        """Ranks that could run at once, those that do included. Asked only where their number may change."""

    def gather(self, crew: Crew, wanted: int) -> int:
        """Waits until `wanted` ranks can be started, and if they do not come soon until `crew.fewest` can; how many to
        start.

        Raises:
            ClusterError: not even those come.
        """
