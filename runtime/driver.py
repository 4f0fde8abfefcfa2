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
from .elastic import Crew
from .errors import DistributedError, RetriesExhausted
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
        crew: limits of the number of workers; None = always as many as in `settings`.
        plan: the settings for another number of workers, where `crew` allows that, or for other ``speeds=`` of them.
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
        crew: Crew | None = None,
        plan: Callable[..., Settings] | None = None,
    ):
        self.job, self.settings, self.server, self.launcher = job, settings, server, launcher
        self.checkpoints, self.hooks, self.retries = checkpoints, hooks, retries
        self.watch = watch or Stopwatch()
        self.address, self.threads, self.cache = address or server.address, threads, cache
        self.division = division or functools.partial(slices_of, job.source.layout)
        self.crew, self.plan = crew or Crew(settings.world_size, settings.world_size), plan
        self.progress = Progress(job, hooks)
        self._handed: Checkpoint | None = None  # where the last group of workers left
        self.counters: list[dict[str, Any]] = []
        self._speeds: tuple[float, ...] | None = None  # that the last group of workers measured, if shards should move

    def run(self) -> TrainResult:
        """Trains to the end.

        Raises:
            TrainingFailed, DataChanged: the user's to mend; not retried.
            RetriesExhausted: workers kept being lost; names the last loss.
        """
        at = self._resume()
        generation, failures = 0, 0
        while True:
            committed = self.progress.committed
            try:
                at, wanted = self._attempt(generation, at)
                if not wanted:
                    break
                self._handed, failures = at, 0
                self._regroup(wanted, at, self._speeds)
            except Failed as failed:
                failures = 1 if self.progress.committed > committed else failures + 1
                at = self._recover(failed.error, failures, generation + 1)
            generation += 1
        if not self.checkpoints.temporary:
            self.checkpoints.commit(dataclasses.replace(at, finished=True))
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
        return TrainResult(at.params, at.state, at.slots, at.iteration, report)

    def _recover(self, loss: DistributedError, failures: int, generation: int) -> Checkpoint:
        """Where the next attempt goes on from, when it can start.

        Raises:
            DistributedError: another attempt would not help, or there were too many.
        """
        self.watch.lap("recovery")
        if not may_retry(loss):
            raise loss
        details = {k: getattr(loss, k) for k in ("rank", "host", "pid", "step", "phase")}
        self.hooks.on_event(Event("worker_lost", str(loss), details))
        if failures > self.retries:
            raise RetriesExhausted(f"{failures} attempts in a row ended without progress; the last: {loss}") from loss
        time.sleep(BACKOFF_S[min(failures - 1, len(BACKOFF_S) - 1)])
        found, damaged = self.checkpoints.latest()
        for text in damaged:
            self.hooks.on_event(Event("warning", text))
        at = found or self._start()
        if self._handed is not None and (self._handed.epoch, self._handed.step) > (at.epoch, at.step):
            at = self._handed
        self._regroup(self.settings.world_size, at)
        text = f"attempt {generation + 1}: going on from epoch {at.epoch + 1}, step {at.step + 1}"
        details = {"generation": generation, "epoch": at.epoch, "step": at.step}
        self.hooks.on_event(Event("retrying", text, details))
        self.watch.lap("recovery")
        return at

    def _regroup(self, wanted: int, at: Checkpoint, speeds: tuple[float, ...] | None = None) -> None:
        """Waits for room, and plans for as many workers as there is, `wanted` if possible.

        Args:
            speeds: of as many workers as before, among which shards are to be assigned by them.
        """
        before = self.settings.world_size
        began = time.perf_counter()
        workers = self.launcher.gather(self.crew, wanted)
        if workers == before and speeds is None:
            return
        assert self.plan is not None
        by_speed = {"speeds": speeds} if workers == before else {}
        self.settings = dataclasses.replace(self.plan(workers, **by_speed), seed=self.settings.seed)
        if workers == before:
            self._tell_of_moves(at)
            return
        text = f"{before} workers hand over to {workers} before epoch {at.epoch + 1}, step {at.step + 1}"
        details = {"workers": workers, "before": before, "epoch": at.epoch, "step": at.step}
        self.hooks.on_event(Event("regrouped", text, {**details, "waited_s": time.perf_counter() - began}))
        self.watch.lap("scheduling")

    def _tell_of_moves(self, at: Checkpoint) -> None:
        table, owners = self.settings.table, self.settings.owners
        shares = [0] * self.settings.world_size
        for n, owner in zip(table.rows, owners, strict=True):
            shares[owner] += n
        text = f"shards move by the workers' speeds before epoch {at.epoch + 1}: rows {', '.join(f'{n:,}' for n in shares)}"
        self.hooks.on_event(Event("rebalanced", text, {"rows": shares, "epoch": at.epoch}))
        self.watch.lap("scheduling")

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

    def _attempt(self, generation: int, start: Checkpoint) -> tuple[Checkpoint, int]:
        """One attempt from `start`; the end state, and how many workers should go on from there: 0 at the fit's end."""
        settings, progress = self.settings, self.progress
        if start.epoch >= self.job.epochs:
            return start, 0
        rate = progress.begin_epoch(start.epoch, start.learning_rate)
        progress.rate = start.learning_rate if start.step else rate  # a callback may have changed it within the epoch
        self.watch.lap("callbacks")
        self.server.start_generation(generation, settings.world_size, settings.method.replaceable(settings.world_size))
        script = dataclasses.replace(settings.faults, generation=generation)
        told = dataclasses.replace(settings, faults=script)
        task = Task(told, self.address, self.server.secret, generation, self.threads, self.cache)
        attempt = self.launcher.launch(task)
        try:
            conversation = Conversation(
                settings, self.server, attempt, self.launcher, self.crew, self.checkpoints, progress, self.watch,
                self.division(settings),
            )  # fmt: skip
            end = conversation.run(start)
            self.counters, self._speeds = conversation.counters, conversation.speeds
            return end, conversation.lookout.wanted if conversation.left else 0
        finally:
            self.server.disconnect()
            attempt.end()
