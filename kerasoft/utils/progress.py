"""Progbar, and whether messages go to the screen or to the log."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from typing import Any

from ..config import (
    disable_interactive_logging,
    enable_interactive_logging,
    is_interactive_logging_enabled,
)


def print_msg(message: Any, line_break: bool = True) -> None:
    """Writes to standard output, or to the log when interactive logging is off."""
    message = str(message)
    if not is_interactive_logging_enabled():
        logging.getLogger("kerasoft").info(message)
        return
    message = message + "\n" if line_break else message
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        message.encode(encoding)
    except UnicodeEncodeError:
        message = message.replace("━", "=").encode(encoding, errors="replace").decode(encoding)
    sys.stdout.write(message)
    sys.stdout.flush()


class Progbar:
    """A line that shows how far something is and the means of its metrics.

    Args:
        target: steps in all; None if unknown.
        width: of the bar, in characters.
        verbose: 0 nothing, 1 a bar, 2 one line in the end.
        interval: seconds between two drawings at least.
        stateful_metrics: names shown as given; others are averaged over steps.
        stateless_metrics: names that are averaged; others are shown as given. Only one of the two may be given.
        unit_name: what a step is called.
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Any = None,
        stateless_metrics: Any = None,
        unit_name: str = "step",
    ):
        if stateful_metrics is not None and stateless_metrics is not None:
            raise ValueError("Only one of `stateful_metrics` or `stateless_metrics` can be provided.")
        self.target, self.width, self.verbose = target, width, verbose
        self.interval, self.unit_name = interval, unit_name
        self.stateless_metrics = None if stateless_metrics is None else set(stateless_metrics)
        self.stateful_metrics = None if stateless_metrics is not None else set(stateful_metrics or ())
        self._redraws = (hasattr(sys.stdout, "isatty") and sys.stdout.isatty()) or "PYCHARM_HOSTED" in os.environ
        self._redraws = self._redraws or "ipykernel" in sys.modules
        self._seen_so_far = 0
        self._values: dict[str, list] = {}  # name -> [sum, count]
        self._start = time.time()
        self._after_first_step: float | None = None
        self._last_update = 0.0
        self._drawn_width = 0

    def update(self, current: int, values: Any = None, finalize: bool | None = None) -> None:
        """Shows step `current` with `values`, a list of (name, value of the last step)."""
        if finalize is None:
            finalize = self.target is not None and current >= self.target
        for name, value in values or []:
            self._note(name, value, current, finalize)
        self._seen_so_far = current
        now = time.time()
        per_step = self._seconds_per_step(current, now)
        if self.verbose == 1 and (finalize or now - self._last_update >= self.interval):
            self._draw(current, now, per_step, finalize)
        elif self.verbose == 2 and finalize and self.target:
            count = f"{current:{len(str(self.target))}d}/{self.target}"
            text = f"{count} - {now - self._start:.0f}s -{self._duration(per_step)}{self._metrics()}"
            print_msg(text)
        elif self.verbose == 1:
            return
        self._last_update = now

    def add(self, n: int, values: Any = None) -> None:
        """Shows that `n` steps more are done."""
        self.update(self._seen_so_far + n, values)

    def _note(self, name: str, value: Any, current: int, finalize: bool) -> None:
        averaged = (
            name not in self.stateful_metrics if self.stateful_metrics is not None else name in self.stateless_metrics
        )
        if not averaged or finalize:
            self._values[name] = [value, 1]
            return
        steps = max(current - self._seen_so_far, 1)
        total, count = self._values.get(name, [0, 0])
        self._values[name] = [total + value * steps, count + steps]

    def _draw(self, current: int, now: float, per_step: float, finalize: bool) -> None:
        if self.target:
            filled = int(self.width * current / self.target)
            count = f"{current:{len(str(self.target))}d}/{self.target}"
            bar = f"\x1b[1m{count}\x1b[0m "
            bar += (
                f"\33[32m{'━' * filled}\x1b[0m" if filled > 0 else ""
            ) + f"\33[37m{'━' * (self.width - filled)}\x1b[0m"
            drawn = len(count) + 1 + max(filled, 0) + max(self.width - filled, 0)
        else:
            bar = f"{current:7d}/Unknown"
            drawn = len(bar)
        left = per_step * (self.target - current) if self.target and not finalize else None
        clock = f"{now - self._start:.0f}s" if left is None else _clock(left)
        rest = self._duration(per_step) + self._metrics()
        drawn += 1 + len(clock) + len(rest)
        start = "\b" * self._drawn_width + "\r" if self._redraws else "\n"
        fill = " " * max(self._drawn_width - drawn, 0)
        print_msg(f"{start}{bar} \x1b[1m{clock}\x1b[0m{rest}{fill}" + ("\n" if finalize else ""), line_break=False)
        self._drawn_width = drawn

    def _metrics(self) -> str:
        import numpy as np

        text = ""
        for name, (total, count) in self._values.items():
            mean = float(np.mean(total)) / max(1, count)
            text += f" - {name}: " + (f"{mean:.4f}" if abs(mean) > 1e-3 else f"{mean:.4e}")
        return text

    def _duration(self, seconds: float) -> str:
        if seconds >= 1 or seconds == 0:
            return f" {seconds:.0f}s/{self.unit_name}"
        if seconds >= 1e-3:
            return f" {seconds * 1e3:.0f}ms/{self.unit_name}"
        return f" {seconds * 1e6:.0f}us/{self.unit_name}"

    def _seconds_per_step(self, current: int, now: float) -> float:
        """Without the first step, which compiles."""
        if not current:
            return 0.0
        if self._after_first_step is not None and current > 1:
            return (now - self._after_first_step) / (current - 1)
        if current == 1:
            self._after_first_step = now
        return (now - self._start) / current


def _clock(seconds: float) -> str:
    seconds = math.floor(seconds)
    if seconds > 3600:
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
    return f"{seconds // 60}:{seconds % 60:02d}" if seconds > 60 else f"{seconds}s"


__all__ = [
    "Progbar",
    "disable_interactive_logging",
    "enable_interactive_logging",
    "is_interactive_logging_enabled",
    "print_msg",
]
