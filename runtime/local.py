"""Training in one process: the loop over a `LocalStep`, with the weights and the optimiser's slots on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from .loop import Decision, EpochEnd, Hooks, Profile, StepReport, TrainJob, TrainResult, step_keys

REPORT_S = 0.1  # steps are reported at least this often
MOST_STEPS = 256  # and after so many steps
KEYS = 1024  # random keys are made so many at a time


class Batch(NamedTuple):
    """One step's rows.

    Attributes:
        arrays: {name: [size, ...]}, C-contiguous; rows after the real ones are copies of real rows.
        valid: float32[size], 1 for real rows; None where the step does not read it. Likewise row_id: uint32[size].
        rows: real rows.
    """

    arrays: Mapping[str, np.ndarray]
    valid: Any
    row_id: Any
    rows: int


class Batches(NamedTuple):
    """Several steps' rows.

    Attributes:
        arrays, valid, row_id: as in `Batch`, with the steps as first axis; behind the real steps stands anything.
        rows: real rows of each step, as many as there are real steps.
    """

    arrays: Mapping[str, np.ndarray]
    valid: Any
    row_id: Any
    rows: tuple[int, ...]


class LocalFeed(Protocol):
    """Where a loop's batches come from. A feed may also have `batch_size`, `batch_bytes` and `several`."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `first` on.

        ``several(epoch, first, count)`` gives the same rows as `Batches` of `count` steps; what does not fill a step that
        must be full comes as a `Batch`.
        """


def run_local(
    job: TrainJob,
    feed: LocalFeed,
    hooks: Hooks,
    validate: Callable[[Any, Any], tuple[np.ndarray, int]] | None = None,
    step: Any = None,
) -> TrainResult:
    """Trains in this process.

    1. per epoch: hooks, then per batch one fused gradient and update step, of small models several in one call; sums stay
       on the device until a report
    2. reports to the hooks every 0.1 s, or before the next step if a hook wants every one; otherwise of all steps but the
       last, so that the next batch is made while that one is computed
    3. validation, end of the epoch, hooks' decision

    Args:
        feed: the training batches.
        hooks: may also have ``on_start(loop)``, where ``loop.snapshot()`` gives the weights at any time; `each_step`, True
            if every step is to be reported before the next begins; and then ``on_step_begin(epoch, step) -> Decision``.
        validate: ``validate(params, state) -> (sums float64[M], rows)``; None = no validation.
        step: the job's `LocalStep` if there is one already.
    """
    return LocalLoop(job, hooks, step).run(feed, validate)


class LocalLoop:
    """The state of a training in one process; see `run_local`."""

    def __init__(self, job: TrainJob, hooks: Hooks, step: Any = None):
        self.job, self.hooks = job, hooks
        self.step = step if step is not None else job.source.local()
        self.iteration = job.iteration
        fills = [s.fill for s in job.source.slots]
        slots = job.slots or tuple(np.full(job.source.layout.P, fill, np.float32) for fill in fills)
        self.params, self.state, self.slots = self._placed(job.params, job.state, slots)
        self._rate = np.float32(job.learning_rate)
        self._rate_on_device: Any = None
        self._rows_on_device: dict[int, Any] = {}
        self._seconds: dict[str, float] = {}
        self._each = bool(getattr(hooks, "each_step", False))
        self._before_step: Callable = getattr(hooks, "on_step_begin", lambda epoch, step: None)
        self.steps = self.rows = 0
        self._keys, self._first_key = np.empty((0, 2), np.uint32), 0

    def snapshot(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...], int]:
        """Copies of params, state and slots as they are now, and the iteration."""
        params, slots = self._flat()
        return params, np.array(self.state), slots, self.iteration

    def _placed(self, params: Any, state: Any, slots: tuple) -> tuple[Any, Any, tuple]:
        return self.step.place(params, state, slots, self.iteration, self.job.batch_size)

    def _flat(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Copies of params and slots as flat vectors, every row as after the last step."""
        self.params = self.step.settle(self.params, self.iteration)
        return self.step.flat(self.params, self.slots)

    def run(self, feed: LocalFeed, validate: Callable[[Any, Any], tuple[np.ndarray, int]] | None) -> TrainResult:
        begin = time.perf_counter()
        if hasattr(self.hooks, "on_start"):
            self.hooks.on_start(self)
        for epoch in range(self.job.initial_epoch, self.job.epochs):
            begun = self._timed("callbacks", self.hooks.on_epoch_begin, epoch)
            self._follow(begun if isinstance(begun, Decision) else Decision(learning_rate=begun))
            end = self._epoch(epoch, feed, validate)
            if not end.steps and not (epoch == self.job.initial_epoch and self.job.initial_step):
                break  # the data ran out
            decision = self._timed("callbacks", self.hooks.on_epoch_end, end)
            self._follow(decision)
            if decision.stop:
                break
        profile = Profile.of(time.perf_counter() - begin, self._seconds, steps=self.steps, rows=self.rows)
        params, state, slots, iteration = self.snapshot()
        return TrainResult(params, state, slots, iteration, profile)

    def _epoch(self, epoch: int, feed: LocalFeed, validate) -> EpochEnd:
        begin = time.perf_counter()
        before = dict(self._seconds)
        group = _Group(self.job.source.layout.M)
        first = self.job.initial_step if epoch == self.job.initial_epoch else 0
        self._steps(epoch, first, feed, group)
        validation, validated = None, 0
        if validate is not None and self.job.validates_after(epoch):
            validation, validated = self._timed("validation", validate, *self._for_test())
        wall_s = time.perf_counter() - begin
        times = {phase: s - before.get(phase, 0.0) for phase, s in self._seconds.items()}
        return EpochEnd(
            epoch=epoch,
            steps=group.steps,
            rows=group.rows,
            sums=group.sums,
            validation_sums=validation,
            times=Profile.of(wall_s, times).seconds,
            wall_s=wall_s,
            iteration=self.iteration,
            learning_rate=float(self._rate),
            weights=lambda: (self._flat()[0], np.array(self.state)),
            slots=lambda: self._flat()[1],
            validation_rows=validated,
        )

    def _for_test(self) -> tuple[Any, Any]:
        self.params = self.step.settle(self.params, self.iteration)
        return self.step.weights(self.params), self.state

    def _steps(self, epoch: int, first: int, feed: LocalFeed, group: _Group) -> None:
        """All steps of an epoch, up to its end or until a hook stops it."""
        clock, each = time.perf_counter, self._each
        input_s = compute_s = 0.0
        number = first
        last = t0 = clock()
        source = self._batches(epoch, first, feed)
        while True:
            batch = next(source, None)
            t1 = clock()
            input_s += t1 - t0
            if batch is None:
                break
            if each:
                self._follow(self._timed("callbacks", self._before_step, epoch, number))
                t1 = clock()
            real = batch.rows if isinstance(batch, Batches) else (batch.rows,)
            sums = self._several(batch) if isinstance(batch, Batches) else self._one(batch)
            group.add_pending(number, real, sums)
            t0 = clock()
            if number == first:  # the first call of a shape compiles before it returns
                self._charge("compile", t0 - t1)
            else:
                compute_s += t0 - t1
            number += len(real)
            if each or t0 - last > REPORT_S or group.waiting >= MOST_STEPS:
                decision = self._report(epoch, group, input_s, compute_s, keep=0 if each else 1)
                input_s = compute_s = 0.0
                last = t0 = clock()
                if decision is not None:
                    self._follow(decision)
                    if decision.stop:
                        self._report(epoch, group, 0.0, 0.0)
                        return
        self._follow(self._report(epoch, group, input_s, compute_s))

    def _batches(self, epoch: int, first: int, feed: LocalFeed) -> Iterator[Batch | Batches]:
        """The batches of an epoch, several at once if no hook waits for every step and the model is small."""
        size, asked = getattr(feed, "batch_size", 0), getattr(feed, "several", None)
        if self._each or asked is None or not hasattr(self.step, "together"):
            return iter(feed.epoch(epoch, first))
        count = self.step.together(self.params, size, feed.batch_bytes)  # type: ignore[attr-defined]
        return iter(feed.epoch(epoch, first) if count < 2 else asked(epoch, first, count))

    def _one(self, batch: Batch) -> Any:
        """One step; its sums float32[M], which are still to come."""
        arrays, valid, row_id, rows = batch
        key, iteration = self._next_keys(1)[0], np.int32(self.iteration)
        self.params, self.state, self.slots, sums = self.step.train(
            self.params,
            self.state,
            self.slots,
            arrays,
            valid,
            row_id,
            key,
            self._rows(rows),
            iteration,
            self._learning_rate(),
        )
        self.iteration += 1
        return sums

    def _several(self, batches: Batches) -> Any:
        """Several steps in one call; their sums float32[steps, M]."""
        arrays, valid, row_id, rows = batches
        steps, count = len(row_id), len(rows)
        keys, iteration = self._next_keys(steps), np.int32(self.iteration)
        counts = np.array(rows + (1,) * (steps - count), np.float32)
        self.params, self.state, self.slots, sums = self.step.train_several(
            self.params,
            self.state,
            self.slots,
            arrays,
            valid,
            row_id,
            keys,
            counts,
            count,
            iteration,
            self._learning_rate(),
        )
        self.iteration += count
        return sums

    def _report(self, epoch: int, group: _Group, input_s: float, compute_s: float, keep: int = 0) -> Decision | None:
        """Fetches the sums of the pending calls but the last `keep`, which waits for them, and tells the hooks."""
        begin = time.perf_counter()
        fetched = group.fetch(keep)
        compute_s += time.perf_counter() - begin
        self._charge("input", input_s)
        self._charge("compute", compute_s)
        if not fetched:
            return None
        count = len(fetched)
        times = {"input": input_s / count, "compute": compute_s / count}
        done = self.iteration - group.waiting - count + 1
        reports = [
            StepReport(epoch, number, rows, sums, times, done + i) for i, (number, rows, sums) in enumerate(fetched)
        ]
        self.steps, self.rows = self.steps + count, self.rows + sum(r.rows for r in reports)
        return self._timed("callbacks", self.hooks.on_steps, reports)

    def _follow(self, decision: Decision | None) -> None:
        if decision is None:
            return
        if decision.learning_rate is not None and np.float32(decision.learning_rate) != self._rate:
            self._rate, self._rate_on_device = np.float32(decision.learning_rate), None
        if decision.weights is not None:
            params, state = decision.weights
            if isinstance(self.params, tuple):
                self.params, self.state = self.step.weights(params), on_device(state)
            else:  # slots of rows that are behind belong to the old weights
                self.params, self.state, self.slots = self._placed(params, state, self._flat()[1])

    def _next_keys(self, count: int) -> np.ndarray:
        """uint32[count, 2]: of the next steps."""
        at = self.iteration - self._first_key
        if not 0 <= at <= len(self._keys) - count:
            self._keys, self._first_key, at = step_keys(self.job.seed, self.iteration, KEYS), self.iteration, 0
        return self._keys[at : at + count]

    def _rows(self, rows: int) -> Any:
        known = self._rows_on_device.get(rows)
        if known is None:
            if len(self._rows_on_device) > 64:
                self._rows_on_device.clear()
            known = self._rows_on_device[rows] = on_device(np.float32(rows))
        return known

    def _learning_rate(self) -> Any:
        if self._rate_on_device is None:
            self._rate_on_device = on_device(self._rate)
        return self._rate_on_device

    def _charge(self, phase: str, seconds: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    def _timed(self, phase: str, function: Callable, *args: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args)
        finally:
            self._charge(phase, time.perf_counter() - begin)


class _Group:
    """The sums of an epoch, and the steps whose sums are still on the device."""

    def __init__(self, size: int):
        self._pending: list[tuple[int, tuple[int, ...], Any]] = []
        self.sums = np.zeros(size, np.float64)
        self.steps = self.rows = self.waiting = 0

    def add_pending(self, number: int, rows: tuple[int, ...], sums: Any) -> None:
        """A call from step `number` on, with so many rows in each of its steps."""
        self._pending.append((number, rows, sums))
        self.waiting += len(rows)

    def fetch(self, keep: int = 0) -> list[tuple[int, int, np.ndarray]]:
        """Number, rows and sums of each step that was pending, but for the last `keep` calls; waits for them."""
        found: list[tuple[int, int, np.ndarray]] = []
        ready = self._pending[: len(self._pending) - keep]
        for number, rows, sums in ready:
            found += zip(range(number, number + len(rows)), rows, np.asarray(sums).reshape(-1, len(self.sums)))
        if found:
            self.sums = self.sums + np.sum(np.stack([sums for _, _, sums in found]), axis=0, dtype=np.float64)
        self.steps, self.rows = self.steps + len(found), self.rows + sum(rows for _, rows, _ in found)
        self._pending = self._pending[len(ready) :]
        self.waiting -= len(found)
        return found


def sum_batches(step: Any, params: Any, state: Any, batches: Iterator[Batch], tell: Callable | None = None):
    """float64[M] and rows: the sums of a `LocalStep`'s test calls over `batches`.

    Args:
        tell: ``tell(number, rows, sums) -> bool`` after each batch, with float64 sums and rows so far; True stops. It
            makes every batch wait for its result.
    """
    total = np.zeros(step.layout.M, np.float64)
    rows, pending = 0, []
    for number, batch in enumerate(batches):
        pending.append(step.test(params, state, batch.arrays, batch.valid, np.float32(batch.rows)))
        rows += batch.rows
        if tell is not None or len(pending) >= MOST_STEPS:
            total += np.sum(np.stack([np.asarray(p) for p in pending]), axis=0, dtype=np.float64)
            pending = []
        if tell is not None and tell(number, rows, total):
            break
    if pending:
        total += np.sum(np.stack([np.asarray(p) for p in pending]), axis=0, dtype=np.float64)
    return total, rows


def on_device(value: Any) -> Any:
    """A JAX array of its own memory, so that it may be donated."""
    import jax

    return value if isinstance(value, jax.Array) else jax.device_put(np.array(value))
