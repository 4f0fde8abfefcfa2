"""A line search that sees one evaluation at a time."""

from __future__ import annotations

import dataclasses

import numpy as np

SUFFICIENT, CURVATURE = 1e-4, 0.9
NOISE = 1e-6
"""Losses that differ by less than this share count as equal: they are sums of float32 numbers."""
MOST_TRIALS = 20


@dataclasses.dataclass
class LineSearch:
    """Looks for a step that satisfies the Wolfe conditions, by bracketing.

    Near a minimum, where losses differ by rounding only, the approximate conditions of Hager and Zhang decide: slopes.

    Attributes:
        loss, slope: at the point, along the direction. step: to try next. trials: made from this point.
        low, high: the bracket (high is inf before it is known), low_slope, high_slope: there (nan: unknown).
        started: a first point has been taken.

    Source: A. S. Lewis and M. L. Overton, Nonsmooth optimization via quasi-Newton methods (2013), algorithm 2.6; W. Hager
    and H. Zhang, A new conjugate gradient method with guaranteed descent (2005), section 4.
    """

    loss: float = 0.0
    slope: float = 0.0
    step: float = 0.0
    low: float = 0.0
    high: float = np.inf
    low_slope: float = 0.0
    high_slope: float = np.nan
    trials: int = 0
    started: bool = False

    @property
    def failed(self) -> bool:
        """No step was found."""
        return self.trials >= MOST_TRIALS or not self.slope < 0

    def start(self, loss: float) -> None:
        """The first point."""
        self.loss, self.started = loss, True

    def aim(self, slope: float, step: float) -> None:
        """A new direction of this slope, and the step to try first."""
        self.slope = self.low_slope = slope
        self.step, self.low, self.high, self.high_slope, self.trials = step, 0.0, np.inf, np.nan, 0

    def judge(self, loss: float, slope: float) -> bool:
        """Whether the trial point is taken; else `step` is the next to try.

        Args:
            loss, slope: at the trial point, along the direction.
        """
        self.trials += 1
        armijo = loss <= self.loss + SUFFICIENT * self.step * self.slope
        close = loss <= self.loss + NOISE * abs(self.loss) and slope <= (2 * SUFFICIENT - 1) * self.slope
        if not (armijo or close) or not np.isfinite(loss):
            self.high, self.high_slope = self.step, slope if slope > 0 and np.isfinite(slope) else np.nan
        elif slope < CURVATURE * self.slope:
            self.low, self.low_slope = self.step, slope
        else:
            self.loss = loss
            return True
        self.step = self._between() if np.isfinite(self.high) else 2 * self.step
        return False

    def _between(self) -> float:
        """Where the slope would vanish if it were linear, kept away from the ends; the middle if slopes do not say."""
        width = self.high - self.low
        part = 0.5
        if self.high_slope > 0:
            part = min(max(-self.low_slope / (self.high_slope - self.low_slope), 0.1), 0.9)
        return self.low + part * width

    def to_vector(self) -> np.ndarray:
        """All of it as float64, for a checkpoint."""
        return np.array(dataclasses.astuple(self), np.float64)

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> LineSearch:
        names = [f.name for f in dataclasses.fields(cls)]
        values = dict(zip(names, vector.tolist(), strict=True))
        return cls(**(values | {"trials": int(values["trials"]), "started": bool(values["started"])}))
