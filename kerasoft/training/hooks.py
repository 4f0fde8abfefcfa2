"""Hooks: what a training loop tells becomes callbacks, history, progress; what these decide goes back to the loop."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..callbacks.base import CallbackList, batch_callbacks, plain_logs
from ..callbacks.history import History
from ..callbacks.learning_rate import rate_of
from ..optimizers.schedules import LearningRateSchedule
from ..runtime.loop import Decision, EpochEnd, Event, StepReport
from .status import Status
from .weights import WeightStore

LATEST_S = 0.1  # batch hooks of callbacks with `batch_calls = "latest"` are called at least so far apart


class FitHooks:
    """Drives the callbacks of one `fit`; implements `kerasoft.runtime.loop.Hooks`.

    Args:
        model: in training.
        callbacks: all of them, history and progress among them.
        targets, layout: how logs are computed from sums.
        store: the model's variables.
        status: what callbacks read; filled here.
        in_process: whether the loop runs here, so that the weights are at hand and batch hooks may hold it up.

    Attributes:
        logs: of the last epoch, for `on_train_end`.
        events: what `on_event` heard.
    """

    def __init__(
        self,
        model: Any,
        callbacks: CallbackList,
        targets: Any,
        layout: Any,
        store: WeightStore,
        status: Status,
        in_process: bool = True,
    ):
        self.model, self.callbacks, self.targets, self.layout = model, callbacks, targets, layout
        self.store, self.status, self.in_process = store, status, in_process
        self.logs: dict[str, Any] = {}
        self.events: list[Event] = []
        self._each, self._late, self._latest = (
            [c for c in batch_callbacks(callbacks.callbacks, "train") if c.batch_calls == kind]
            for kind in ("each", "late", "latest")
        )
        self.each_step = in_process and bool(self._each)
        self._pull: Callable[[], tuple] | None = None
        self._stale = False  # the loop has newer weights than the variables
        self._push = False  # the variables have newer weights than the loop
        self._carried = np.zeros(layout.M, np.float64)  # sums and rows of the epoch's steps before a restored backup
        self._carried_rows = 0
        self._next_latest = 0.0
        self._rate: float | None = None
        self._inner_rates = _inner_rates(model.optimizer)

    # --- the loop's calls ---

    def on_start(self, loop: Any) -> None:
        """Only in process: `loop.snapshot()` gives the weights at any time."""
        self._pull = loop.snapshot

    def carry(self, sums: Any, rows: int) -> None:
        """The first epoch goes on after steps with these sums and rows."""
        self._carried, self._carried_rows = np.asarray(sums, np.float64), rows

    def on_epoch_begin(self, epoch: int) -> float | Decision | None:
        status = self.status
        status.epoch, status.step, status.rows, status.report = epoch, 0, self._carried_rows, None
        status.sums = self._carried
        self.callbacks.on_epoch_begin(epoch)
        return self._decision() if self.in_process else self._new_rate()

    def on_step_begin(self, epoch: int, step: int) -> Decision | None:
        """Only in process with `each_step`: before a step."""
        for callback in self._each:
            callback.on_train_batch_begin(step, {})
        return self._decision()

    def on_steps(self, reports: list[StepReport]) -> Decision | None:
        self._stale = True
        status = self.status
        if self._each or self._late:
            for report in reports:
                self._one_step(report)
        else:
            status.sums = status.sums + np.sum([r.sums for r in reports], axis=0, dtype=np.float64)
            status.rows += sum(r.rows for r in reports)
        last = reports[-1]
        status.step, status.report = last.step + 1, last
        now = time.monotonic()
        if self._latest and now >= self._next_latest:
            logs = self._logs(status.sums)
            for callback in self._latest:
                callback.on_train_batch_end(last.step, logs)
            self._next_latest = time.monotonic() + LATEST_S
        return self._decision() if self._each or self._late or self.model.stop_training else None

    def on_epoch_end(self, end: EpochEnd) -> Decision:
        model, status = self.model, self.status
        status.end, status.sums, status.rows = end, end.sums + self._carried, end.rows + self._carried_rows
        self._carried, self._carried_rows = np.zeros(self.layout.M, np.float64), 0
        model.optimizer._iterations.assign(np.int32(end.iteration))
        self._stale = True
        reads = any(map(_reads_weights, self.callbacks.callbacks))
        if not self.in_process:
            self._pull = lambda: (*end.weights(), end.slots(), end.iteration)
        if reads:
            self.synchronise()
        logs = self._logs(status.sums)
        if end.validation_sums is not None:
            validation = plain_logs(self.targets.logs(self.layout, end.validation_sums))
            if not self.in_process:
                self.callbacks.on_test_begin()
                self.callbacks.on_test_end(dict(validation))
            logs |= {f"val_{name}": value for name, value in validation.items()}
        logs |= end.counts
        self.logs = logs
        last = status.sums if end.validation_sums is None else end.validation_sums
        model._trainer.compile.assign(self.layout, last)
        self.callbacks.on_epoch_end(end.epoch, dict(logs))
        decision = self._decision()
        if not self.in_process:
            self._pull = None
        return decision if decision is not None else Decision()

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        for callback in self.callbacks.callbacks:
            note = getattr(callback, "note", None)
            if note is not None and event.kind not in ("checkpoint", "memory"):
                note(event.text)

    # --- a driver that dies and comes back ---

    def save_state(self) -> dict[str, Any]:
        """The history, the status and every plain value that callbacks keep."""
        history = next((c for c in self.callbacks.callbacks if isinstance(c, History)), None)
        return {
            "history": history.history if history else {},
            "epochs": history.epoch if history else [],
            "learning_rate": self._rate,
            "callbacks": [[type(c).__name__, _plain_attributes(c)] for c in self.callbacks.callbacks],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for callback, (name, values) in zip(self.callbacks.callbacks, state.get("callbacks", []), strict=False):
            if type(callback).__name__ == name:
                for key, value in values.items():
                    setattr(callback, key, value)
        history = next((c for c in self.callbacks.callbacks if isinstance(c, History)), None)
        if history is not None:
            history.history, history.epoch = dict(state.get("history", {})), list(state.get("epochs", []))
        if state.get("learning_rate") is not None:
            self._set_rate(state["learning_rate"])

    # --- weights ---

    def synchronise(self) -> None:
        """Brings the model's variables and the optimizer's up to the loop's present state."""
        if not self._stale or self._pull is None:
            return
        self._stale = False
        params, state, slots, iteration = self._pull()
        names = self.store.changed()
        if names:  # set by a callback while the loop had newer values of the others
            params, state = self.store.merged(params, state, names)
            self._push = True
        self.store.write(params, state)
        self.model.optimizer.slots_to_variables(self.layout, slots, iteration)

    def finish(self, result: Any) -> None:
        """The variables get what a loop has ended with, a `TrainResult`, unless they have it already."""
        self._pull = lambda: (result.params, result.state, result.slots, result.iteration)
        self.synchronise()
        self._pull = None
        if self.status.end is not None:  # it holds the loop and its arrays, which hold these hooks
            self.status.end = dataclasses.replace(self.status.end, weights=None, slots=None)

    def rescue(self) -> None:
        """After an exception in the loop: keeps what the steps so far have learnt, unless the failed step has taken it."""
        self._stale = True
        try:
            self.synchronise()
        except RuntimeError:
            pass  # the weights were given to a step that failed; the variables hold those of the last epoch

    def _changed_weights(self) -> tuple[np.ndarray, np.ndarray] | None:
        """params and state for the loop to go on with when a callback has set weights, else None."""
        names = self.store.changed()
        if self._stale and names:
            if self._pull is None:
                return None  # several processes within an epoch: at its end
            params, state = self.store.merged(*self._pull()[:2], names)
            self.store.write(params, state)
            return params, state
        if not names and not self._push:
            return None
        self._push = False
        return self.store.read()

    # --- callbacks ---

    def _one_step(self, report: StepReport) -> None:
        status = self.status
        status.sums = status.sums + report.sums
        status.rows += report.rows
        status.step, status.report = report.step + 1, report
        model = self.model
        model.optimizer._iterations.assign(np.int32(report.iteration))
        logs = self._logs(status.sums)
        for callback in self._each:
            if not self.each_step:
                callback.on_train_batch_begin(report.step, {})
            callback.on_train_batch_end(report.step, logs)
        for callback in self._late:
            callback.on_train_batch_begin(report.step, {})
            callback.on_train_batch_end(report.step, logs)

    def _logs(self, sums: np.ndarray) -> dict[str, Any]:
        return plain_logs(self.targets.logs(self.layout, sums))

    def _decision(self) -> Decision | None:
        rate = self._new_rate()
        weights = self._changed_weights()
        stop = bool(self.model.stop_training)
        if rate is None and weights is None and not stop:
            return None
        return Decision(stop=stop, learning_rate=rate, weights=weights)

    def _new_rate(self) -> float | None:
        """The learning rate if a callback has changed it; a schedule is part of the update graph."""
        if isinstance(self.model.optimizer._learning_rate, LearningRateSchedule):
            return None
        if self._inner_rates != (rates := _inner_rates(self.model.optimizer)):
            raise ValueError(
                f"learning rates of the optimizers in '{self.model.optimizer.name}' were {self._inner_rates} and are now "
                f"{rates}: those of a MultiOptimizer cannot be changed within `fit`. Give its optimizers schedules, or "
                "call `fit` for each part of the training."
            )
        rate = rate_of(self.model.optimizer)
        if rate == self._rate:
            return None
        self._rate = rate
        return rate

    def _set_rate(self, rate: float) -> None:
        try:
            self.model.optimizer.learning_rate = rate
        except (TypeError, AttributeError):
            pass  # a schedule: it follows from the iteration; several optimizers: none of one
        self._rate = rate


def _reads_weights(callback: Any) -> bool:
    """Whether epoch hooks of a callback may look at weights; a user's subclass of one of ours may, if it says nothing."""
    ours = type(callback).__module__.startswith("kerasoft.") or "reads_weights" in vars(type(callback))
    return callback.reads_weights or not ours


def _inner_rates(optimizer: Any) -> list[float]:
    """The rates that can be set of the optimizers in a `MultiOptimizer`; none of another optimizer."""
    variables = (getattr(inner, "_learning_rate_variable", None) for inner in getattr(optimizer, "optimizers", ()))
    return [float(variable.numpy()) for variable in variables if variable is not None]


def _plain_attributes(callback: Any) -> dict[str, Any]:
    """Attributes of a callback that JSON can hold, but for its settings from outside."""
    kept = {}
    for key, value in vars(callback).items():
        if key in ("params", "_model", "history", "epoch"):
            continue
        if isinstance(value, np.generic):
            value = value.item()
        try:
            if json.loads(json.dumps(value)) == value:
                kept[key] = value
        except (TypeError, ValueError):
            continue
    return kept
