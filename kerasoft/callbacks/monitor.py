"""MonitorCallback: whether a logged quantity got better."""

from __future__ import annotations

import warnings

from .base import Callback


class MonitorCallback(Callback):
    """Base of callbacks that follow one quantity.

    Args:
        monitor: key in the logs.
        mode: "min", "max", or "auto": the direction of the compiled metric of that name; a loss goes down.
        baseline: first best value; None = the first value seen.
        min_delta: a smaller change is no improvement.
    """

    def __init__(self, monitor="val_loss", mode="auto", baseline=None, min_delta=0):
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warnings.warn(f"{type(self).__name__} mode '{mode}' is unknown, fallback to auto mode.", stacklevel=3)
            mode = "auto"
        self.monitor = monitor
        self.mode = mode
        self.best = baseline
        self.min_delta = abs(min_delta)
        self._direction: str | None = None

    def _set_direction(self) -> None:
        """Settles "auto".

        Raises:
            ValueError: neither `mode` nor the metric says which way is better.
        """
        self._direction = self.mode if self.mode != "auto" else self._direction_of(self.monitor.removeprefix("val_"))
        if self._direction is None:
            raise ValueError(
                f"{type(self).__name__} callback received monitor={self.monitor}, but Keras isn't able to automatically "
                "determine whether that metric should be maximized or minimized. Pass `mode='max'` in order to monitor "
                "based on the highest metric value, or pass `mode='min'` in order to use the lowest value."
            )

    def _direction_of(self, name: str) -> str | None:
        if name == "loss":
            return "min"
        directions = getattr(self._model, "_metric_directions", None)
        return directions().get(name) if directions is not None else None

    def _is_improvement(self, value, reference) -> bool:
        if self._direction is None:
            self._set_direction()
        if reference is None:
            return True
        if self._direction == "max":
            return value - self.min_delta > reference
        return value + self.min_delta < reference
