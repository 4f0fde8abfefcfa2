"""The driver's side of a fit: starts attempts, each one a `Conversation` with its workers, and owns retries.

It knows no Spark: a `Launcher` carries the task to the workers, as a Spark job or as threads.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .checkpoint import Checkpoint, Checkpoints
from .conversation import Conversation, Failed
from .division import Division, slices_of
from .errors import RetriesExhausted
from .faults import may_retry
from .launcher import Launcher
from .loop import Event, Hooks, TrainJob, TrainResult
from .progress import Progress
from .rank import Task
from .rendezvous import ControlServer
from .reports import Stopwatch, profile
from .worker import Settings

BACKOFF_S = (0.2, 1.0, 5.0, 15.0)


class Driver:
    """One distributed fit.

    Args:
        job: of the front-end.
        settings: of the workers. With ``settings.faults`` tests make them fail.
        server: the control server, its secret is the fit's.
        launcher: carries the task.
        checkpoints: where progress is kept.
        hooks: who is told.
        retries: attempts that may fail one after another without a new checkpoint between them.
        watch: charged with the driver's phases.
        address: of the server as workers reach it. threads, cache: see `Task`.
        division: how vectors are cut among the ranks of these settings; None: as `settings.method.parts` says.
    """

    def __init__(
        self,
        job: TrainJob,
        settings: Settings,
        server: ControlServer,
        launcher: Launcher,
        checkpoints: Checkpoints,
        hooks: Hooks,
        retries: int = 4,
        watch: Stopwatch | None = None,
        address: tuple[str, int] | None = None,
        threads: int = 0,
        cache: bool = False,
        division: Callable[[Settings], Division] | None = None,
    ):
        self.job, self.settings, self.server, self.launcher = job, settings, server, launcher
        self.checkpoints, self.hooks, self.retries = checkpoints, hooks, retries
        self.watch = watch or Stopwatch()
        self.address, self.threads, self.cache = address or server.address, threads, cache
        self.division = division or functools.partial(slices_of, job.source.layout)
        self.progress = Progress(job, hooks, settings.world_size)
        self.counters: list[dict[str, Any]] = []

    def run(self) -> TrainResult:
        """Trains to the end.

        Raises:
            TrainingFailed, DataChanged: the user's to mend; not retried.
            RetriesExhausted: workers kept being lost; names the last loss.
        """
        resumed = self._resume()
        generation, failures = 0, 0
        while True:
            committed = self.progress.committed
            try:
                final = self._attempt(generation, resumed)
                break
            except Failed as failed:
                loss = failed.error
            self.watch.lap("recovery")
            if not may_retry(loss):
                raise loss
            failures = 1 if self.progress.committed > committed else failures + 1
            details = {k: getattr(loss, k) for k in ("rank", "host", "pid", "step", "phase")}
            self.hooks.on_event(Event("worker_lost", str(loss), details))
            if failures > self.retries:
                raise RetriesExhausted(
                    f"{failures} attempts in a row ended without progress; the last: {loss}"
                ) from loss
            generation += 1
            time.sleep(BACKOFF_S[min(failures - 1, len(BACKOFF_S) - 1)])
            self.launcher.recover(self.settings.world_size)
            found, damaged = self.checkpoints.latest()
            for text in damaged:
                self.hooks.on_event(Event("warning", text))
            resumed = found or self._start()
            self.hooks.on_event(
                Event(
                    "retrying",
                    f"attempt {generation + 1}: going on from epoch {resumed.epoch + 1}, step {resumed.step + 1}",
                    {"generation": generation, "epoch": resumed.epoch, "step": resumed.step},
                )
            )
            self.watch.lap("recovery")
        if not self.checkpoints.temporary:
            self.checkpoints.commit(dataclasses.replace(final, finished=True))
            self.watch.lap("checkpoint")
        seconds = self.watch.take()
        seconds.pop("training")  # the workers say what they did in it
        report = profile(
            time.perf_counter() - self.watch.started,
            seconds,
            self.progress.worker_seconds,
            self.progress.training_s,
            self.progress.steps,
            self.progress.rows,
        )
        return TrainResult(final.params, final.state, final.slots, final.iteration, report)

    def _start(self) -> Checkpoint:
        """The state that the front-end gave."""
        job = self.job
        slots = tuple(job.slots) or job.source.slot_vectors()
        return Checkpoint(
            job.initial_epoch, job.initial_step, job.iteration, job.learning_rate, np.asarray(job.params, np.float32),
            np.asarray(job.state, np.float32), slots, np.zeros(job.source.layout.M), job.seed, self.checkpoints.fit,
        )  # fmt: skip

    def _resume(self) -> Checkpoint:
        """The newest checkpoint of this fit, made by a driver that died, or the start."""
        found, damaged = self.checkpoints.latest()
        for text in damaged:
            self.hooks.on_event(Event("warning", text))
        if found is None:
            return self._start()
        self.settings = dataclasses.replace(self.settings, seed=found.seed)
        self.progress.reported = (found.epoch, found.step - 1 - found.untold)
        self.hooks.load_state(found.hooks)
        text = f"resuming from {self.checkpoints.folder.where}: epoch {found.epoch + 1}, step {found.step + 1}"
        self.hooks.on_event(Event("resumed", text, {"epoch": found.epoch, "step": found.step}))
        return found

    def _attempt(self, generation: int, start: Checkpoint) -> Checkpoint:
        """One attempt from `start`; returns the end state."""
        settings, progress = self.settings, self.progress
        if start.epoch >= self.job.epochs:
            return start
        rate = progress.begin_epoch(start.epoch, start.learning_rate)
        progress.rate = start.learning_rate if start.step else rate  # a callback may have changed it within the epoch
        self.watch.lap("callbacks")
        self.server.start_generation(generation, settings.world_size, settings.method.replaceable(settings.world_size))
        script = dataclasses.replace(settings.faults, generation=generation)
        told = dataclasses.replace(settings, faults=script)
        task = Task(told, self.address, self.server.secret, generation, self.threads, self.cache)
        attempt = self.launcher.launch(task)
        try:
            division = self.division(settings)
            conversation = Conversation(
                settings, self.server, attempt, self.checkpoints, progress, self.watch, division
            )
            final = conversation.run(start)
            self.counters = conversation.counters
            return final
        finally:
            self.server.disconnect()
            attempt.end()
