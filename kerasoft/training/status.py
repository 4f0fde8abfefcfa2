"""Status: how far a loop is, for callbacks and the progress line."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Status:
    """What callbacks may read of the loop under way, beyond their logs.

    Attributes:
        epoch: 0-based; step: steps done in this epoch; rows: rows done in it.
        seed: of the row order and all masks.
        sums: float64[M], the epoch's sums so far.
        report: the step whose batch hook is being called (a `StepReport`).
        end: the last finished epoch (an `EpochEnd`).
        source: the model's `StepSource`; None where nothing is trained.
    """

    epoch: int = 0
    step: int = 0
    rows: int = 0
    seed: int = 0
    sums: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    report: Any = None
    end: Any = None
    source: Any = None

    @property
    def graph(self) -> Any:
        """The training graph (`compiler.ir.Graph`), or None."""
        return None if self.source is None else self.source.train
