"""Progress: one line that says how far a loop is, for terminals, notebooks and log files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

BAR_WIDTH = 20
REDRAW_S = 0.1
FIRST_LINE_S, MOST_LINE_S = 5.0, 60.0


class Progress:
    """Shows a loop's steps, logs, rows per second and the time left.

    Args:
        target: steps to make; None when unknown.
        verbose: 0 shows nothing, 1 a live line, 2 one line at the end.
        stream: where to; standard output by default.
        clock: seconds, for tests.

    On a terminal or in a notebook the line is redrawn at most every 0.1 s. Elsewhere a plain line appears after 5 s,
    then at intervals that double up to a minute, and at the end.
    """

    def __init__(
        self,
        target: int | None,
        verbose: int = 1,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.target = target
        self.verbose = verbose
        self.stream = stream if stream is not None else sys.stdout
        self.done = 0
        self._clock = clock
        self._live = is_live(self.stream)
        self._begin = clock()
        self._after_first: tuple[float, int, int] | None = None
        self._interval = REDRAW_S if self._live else FIRST_LINE_S
        self._next = self._begin + (0.0 if self._live else FIRST_LINE_S)
        self._shown = 0

    def update(self, done: int, rows: int, logs: Mapping[str, Any]) -> None:
        """`done` steps with `rows` rows are made; cheap unless it is time to draw."""
        self.done = done
        if self.verbose != 1:
            return
        now = self._clock()
        if self._after_first is None and done:
            self._after_first = (now, done, rows)
        if now < self._next:
            return
        if not self._live:
            self._interval = min(2 * self._interval, MOST_LINE_S)
        self._next = now + self._interval
        self._draw(self.line(now, rows, logs, finished=False), end=False)

    def finish(self, rows: int, logs: Mapping[str, Any]) -> None:
        """The last line."""
        if self.verbose:
            self._draw(self.line(self._clock(), rows, logs, finished=True), end=True)

    def note(self, text: str) -> None:
        """A sentence on a line of its own; the progress goes on below it."""
        if self._live and self._shown:
            text = "\r" + text.ljust(self._shown)
        self._shown = 0
        self._write(text + "\n")

    def line(self, now: float, rows: int, logs: Mapping[str, Any], finished: bool) -> str:
        """The line's text: ``12/100 ━━─── 3s 21ms/step 1,520 rows/s - loss: 0.2331``; the time is what is left, or what
        it took."""
        elapsed = now - self._begin
        each, rate = self._speed(now, rows, elapsed, finished)
        if self.target:
            width = len(str(self.target))
            filled = BAR_WIDTH if finished else min(BAR_WIDTH * self.done // self.target, BAR_WIDTH)
            parts = [f"{self.done:>{width}}/{self.target}", "━" * filled + "─" * (BAR_WIDTH - filled)]
            parts.append(duration(elapsed if finished else each * (self.target - self.done)))
        else:
            parts = [f"{self.done}/unknown" if not finished else f"{self.done}/{self.done}", duration(elapsed)]
        parts.append(f"{per_step(each)}/step")
        if rate:
            parts.append(f"{rate:,.0f} rows/s")
        return " ".join(parts) + "".join(f" - {name}: {number(value)}" for name, value in logs.items())

    def _speed(self, now: float, rows: int, elapsed: float, finished: bool) -> tuple[float, float]:
        """Seconds per step and rows per second, without the first step (it compiles) where there are others."""
        if not finished and self._after_first is not None and self.done > self._after_first[1]:
            begin, steps, before = self._after_first
            each = (now - begin) / (self.done - steps)
            return each, (rows - before) / max(now - begin, 1e-9)
        return elapsed / max(self.done, 1), rows / max(elapsed, 1e-9)

    def _draw(self, line: str, end: bool) -> None:
        if self._live:
            self._write("\r" + line.ljust(self._shown) + ("\n" if end else ""))
            self._shown = 0 if end else len(line)
        else:
            self._write(line + "\n")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            self.stream.write(text.replace("━", "=").replace("─", "-").encode("ascii", "replace").decode())
        self.stream.flush()


def is_live(stream: Any) -> bool:
    """Whether a line can be rewritten: a terminal or a notebook."""
    return bool(getattr(stream, "isatty", bool)()) or type(stream).__module__.startswith("ipykernel")


def duration(seconds: float) -> str:
    """
    >>> duration(7.4), duration(75), duration(3700)
    ('7s', '1:15', '1:01:40')
    """
    s = int(seconds)
    if s >= 3600:
        return f"{s // 3600}:{s % 3600 // 60:02d}:{s % 60:02d}"
    return f"{s // 60}:{s % 60:02d}" if s >= 60 else f"{s}s"


def per_step(seconds: float) -> str:
    """
    >>> per_step(2.5), per_step(0.021), per_step(0.00005)
    ('2s', '21ms', '50us')
    """
    if seconds >= 1:
        return f"{seconds:.0f}s"
    return f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"


def number(value: Any) -> str:
    """
    >>> number(0.5), number(0.0002), number([0.1, 0.2])
    ('0.5000', '2.0000e-04', '0.1500')
    """
    try:
        value = float(value) if not hasattr(value, "__len__") else float(sum(map(float, value)) / max(len(value), 1))
    except (TypeError, ValueError):
        return str(value)
    return f"{value:.4f}" if abs(value) > 1e-3 else f"{value:.4e}"
