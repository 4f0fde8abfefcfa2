"""What the strategies that run a Spark job a step have in common."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .strategy import Strategy


@dataclasses.dataclass
class StepJobs(Strategy):
    """Base of strategies whose tasks are stateless: Spark runs a lost task again, a failed job begins at the last checkpoint.

    Args:
        workers, shards, checkpoint, checkpoint_every_steps, retries, timeout_s: as `ShuffleAllReduce` says.

    Raises:
        ValueError: an argument out of range; says which one.
    """

    needs_barrier: ClassVar[bool] = False
    counts_of_steps: ClassVar[tuple[str, ...]] = ("checkpoint_every_steps",)
    workers: int | None = None
    shards: int | None = None
    checkpoint: str | None = None
    checkpoint_every_steps: int = dataclasses.field(default=50, kw_only=True)
    retries: int = dataclasses.field(default=4, kw_only=True)
    timeout_s: float = dataclasses.field(default=600, kw_only=True)

    def __post_init__(self) -> None:
        me = type(self).__name__
        for name in ("workers", "shards"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{me}: {name} needs a whole number of at least 1 or None, got {value!r}")
        for name in self.counts_of_steps:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{me}: {name} needs at least 1 step, got {getattr(self, name)!r}")
        if not self.timeout_s > 0:
            raise ValueError(f"{me}: timeout_s needs seconds above 0, got {self.timeout_s!r}")
