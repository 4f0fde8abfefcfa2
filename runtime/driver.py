"""The driver's side of a fit: starts attempts, answers the workers, tells the hooks, commits checkpoints, owns retries.

It knows no Spark: a `Launcher` carries the task to the workers, as a Spark job or as threads.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from .checkpoint import Checkpoint, Checkpoints
from .collectives import slices
from .errors import DistributedError, RetriesExhausted, WorkerLost
from .faults import Sign, may_retry, verdict
from .loop import Decision, EpochEnd, Event, Hooks, StepReport, TrainJob, TrainResult, rate_to_begin_with
from .rank import HERE, Task
from .rendezvous import FORMED, FROZEN, LOST, REJOINED, ControlServer
from .reports import Stopwatch, add, profile
from .wire import Message
from .worker import KEPT, Settings

GRACE_S = 1.0  # after the first sign of a failure, for the one that explains it
LAST_WORDS_S = 5.0  # after all workers ended without an error, for messages on their way
BACKOFF_S = (0.2, 1.0, 5.0, 15.0)


class Attempt(Protocol):
    """Workers that were started."""

    def done(self) -> bool:
        """Whether all of them have ended."""

    def error(self) -> tuple[str, bool] | None:
        """What the carrier says of the first that failed, and whether it is the user's own error (another attempt would
        end the same way); None while they run or when all went well."""

    def end(self) -> None:
        """Stops those that still run and waits for their end."""


class Launcher(Protocol):
    """Carries tasks to workers."""

    def launch(self, task: Task) -> Attempt:
        """Starts all ranks."""

    def recover(self, world_size: int) -> None:
        """Waits until so many ranks can be started again.

        Raises:
            ClusterError: they do not come.
        """


class Failed(Exception):
    """Inside an attempt: the workers cannot go on, `error` says why."""

    def __init__(self, error: DistributedError):
        super().__init__(str(error))
        self.error = error


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
    ):
        self.job, self.settings, self.server, self.launcher = job, settings, server, launcher
        self.checkpoints, self.hooks, self.retries = checkpoints, hooks, retries
        self.watch = watch or Stopwatch()
        self.address, self.threads, self.cache = address or server.address, threads, cache
        layout = job.source.layout
        self.P, self.V, self.M = layout.P, layout.V, layout.M
        self._cuts = slices(self.V, settings.world_size)
        self._parts = settings.method.parts(self.P, self.V, settings.world_size)
        self._rates: dict[int, float] = {}  # epoch -> learning rate it began with
        self._decisions: dict[int, Decision] = {}  # epoch -> what the hooks said at its end
        self._reported = (-1, -1)  # last (epoch, step) that the hooks heard of
        self._committed = 0
        self._asked = self._saved = -1e9  # perf_counter: slices asked for, last commit
        self._save_cost_s = 0.0
        self._stop_asked = False
        self._steps = self._rows = 0
        self._worker_seconds: list[dict[str, float]] = [{} for _ in range(settings.world_size)]
        self._training_s = 0.0
        self.counters: list[dict[str, Any]] = []

    # --- attempts ----------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Trains to the end.

        Raises:
            TrainingFailed, DataChanged: the user's to mend; not retried.
            RetriesExhausted: workers kept being lost; names the last loss.
        """
        resumed = self._resume()
        generation, failures = 0, 0
        while True:
            committed = self._committed
            try:
                final = self._attempt(generation, resumed)
                break
            except Failed as failed:
                loss = failed.error
            self.watch.lap("recovery")
            if not may_retry(loss):
                raise loss
            failures = 1 if self._committed > committed else failures + 1
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
            self._worker_seconds,
            self._training_s,
            self._steps,
            self._rows,
        )
        return TrainResult(final.params, final.state, final.slots, final.iteration, report)

    def _start(self) -> Checkpoint:
        """The state that the front-end gave."""
        job = self.job
        slots = tuple(job.slots) or job.source.slot_vectors()
        return Checkpoint(
            job.initial_epoch, job.initial_step, job.iteration, job.learning_rate, np.asarray(job.params, np.float32),
            np.asarray(job.state, np.float32), slots, np.zeros(self.M), job.seed, self.checkpoints.fit,
        )  # fmt: skip

    def _resume(self) -> Checkpoint:
        """The newest checkpoint of this fit, made by a driver that died, or the start."""
        found, damaged = self.checkpoints.latest()
        for text in damaged:
            self.hooks.on_event(Event("warning", text))
        if found is None:
            return self._start()
        self.settings = dataclasses.replace(self.settings, seed=found.seed)
        self._reported = (found.epoch, found.step - 1 - found.untold)
        self.hooks.load_state(found.hooks)
        text = f"resuming from {self.checkpoints.folder.where}: epoch {found.epoch + 1}, step {found.step + 1}"
        self.hooks.on_event(Event("resumed", text, {"epoch": found.epoch, "step": found.step}))
        return found

    def _attempt(self, generation: int, start: Checkpoint) -> Checkpoint:
        """One attempt from `start`; returns the end state."""
        world = self.settings.world_size
        self._signs: list[Sign] = []
        self._where: dict[int, tuple[str, int]] = {}
        self._pending: collections.deque[Message] = collections.deque()
        self._saving: dict[tuple[int, int], dict[int, Message]] = {}
        self._hook_states: dict[tuple[int, int], dict[str, Any]] = {}
        if start.epoch >= self.job.epochs:
            return start
        rate = self._begin_epoch(start.epoch, start.learning_rate)
        self._rate = start.learning_rate if start.step else rate  # a callback may have changed it within the epoch
        self.watch.lap("callbacks")
        self._replaceable = self.settings.method.replaceable(world)
        self._begun: Checkpoint | None = None
        self._missing: dict[int, tuple[float, Sign]] = {}  # ranks whose place is to be taken: since when, how they went
        self.server.start_generation(generation, world, self._replaceable)
        script = dataclasses.replace(self.settings.faults, generation=generation)
        settings = dataclasses.replace(self.settings, faults=script)
        task = Task(settings, self.address, self.server.secret, generation, self.threads, self.cache)
        self._job = self.launcher.launch(task)
        try:
            self._wait_formed()
            formed = self._told_at = self._epoch_started = time.perf_counter()
            try:
                self._send_start(start)
                final = self._follow()
            finally:  # what the workers did since they last told of it is lost, if they failed
                self.watch.lap("training", self._told_at - formed)
                self._training_s += self._told_at - formed
            self._wait_done()
            self.watch.lap("scheduling")
            return final
        finally:
            self.server.disconnect()
            self._job.end()

    def _next(self) -> Message:
        """The next message that is not housekeeping.

        Raises:
            Failed: the workers cannot go on.
        """
        if self._pending:
            return self._pending.popleft()
        silent = 0
        while True:
            event = self.server.next_event(0.1)
            for since, sign in self._missing.values():
                if time.monotonic() - since > self.settings.timeout_s:  # nobody came in its place
                    self._signs.append(sign)
                    self._fail()
            if event is None:
                # Ranks that end well send their last word first; on a busy machine it may be read a little later.
                silent += self._job.done()
                if silent and (self._job.error() is not None or silent > LAST_WORDS_S * 10):
                    self._fail()
                continue
            if event.kind == HERE:
                self._where[event.rank] = (event.fields["host"], event.fields["pid"])
            elif event.kind == "event":
                f = event.fields
                self.hooks.on_event(Event(f["kind"], f["text"], f.get("details", {})))
            elif event.kind in (LOST, FROZEN, "failed"):
                if self._goes_on_without(event):
                    continue
                self._signs.append(Sign(event.kind, event.rank, event.fields))
                self._fail()
            elif event.kind == REJOINED:
                self._welcome(event.rank)
            else:
                return event

    def _goes_on_without(self, event: Message) -> bool:
        """Whether another process will take the place of the rank that is gone, and nobody need begin anew."""
        if self._begun is None or event.rank not in self._replaceable or event.kind == FROZEN:
            return False
        if event.kind == LOST:
            f = event.fields
            text = f"rank {event.rank} (host {f['host']}, pid {f['pid']}) was lost ({f['reason']}); another process takes its place"
            details = {k: f[k] for k in ("rank", "host", "pid", "step", "phase")}
            self.hooks.on_event(Event("worker_lost", text, details))
            self._missing[event.rank] = (time.monotonic(), Sign(event.kind, event.rank, event.fields))
            return True
        return event.fields["cause"] == "environment"  # neither its own error nor an accusation of somebody else

    def _welcome(self, rank: int) -> None:
        """Lets a rank that is there again go on where the servers say."""
        assert self._begun is not None
        self._missing.pop(rank, None)
        peer = self.server.table[rank]
        self._where[rank] = (peer.host, peer.pid)
        self._send_start_to(rank, self._begun, resume=True)
        self.hooks.on_event(Event("worker_replaced", f"{peer} goes on where rank {rank} was lost", {"rank": rank}))

    def _fail(self) -> None:
        """Collects what explains the failure, and raises it.

        Steps and slices of a checkpoint that are on their way still count: what all ranks had done is not lost.
        """
        witnesses = self.server.status()
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            event = self._pending.popleft() if self._pending else self.server.next_event(0.05)
            if event is None:
                continue
            if event.kind in (LOST, FROZEN, "failed"):
                self._signs.append(Sign(event.kind, event.rank, event.fields))
            elif event.kind == "steps":
                self._on_steps(event)
            elif event.kind == "checkpoint":
                self._on_checkpoint(event)
            if any(s.kind == "failed" and s.fields["cause"] == "own" for s in self._signs):
                break
        raise Failed(verdict(self._signs, self._where, self._job.error(), witnesses))

    def _wait_formed(self) -> None:
        launched = time.perf_counter()
        while (message := self._next()).kind != FORMED:
            pass
        for row in message.fields["table"]:
            self._where[row[0]] = (row[1], row[2])
        setup: dict[str, float] = {}
        for peer in self.server.table:
            add(setup, {k: s / len(self.server.table) for k, s in peer.capabilities.get("times", {}).items()})
        spent = time.perf_counter() - launched
        scale = min(1.0, spent / max(sum(setup.values()), 1e-9))
        for phase, s in setup.items():
            self.watch.lap(phase, s * scale)
        self.watch.lap("scheduling")

    def _wait_done(self) -> None:
        deadline = time.monotonic() + self.settings.timeout_s
        while not self._job.done() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _send_start(self, start: Checkpoint) -> None:
        for rank in range(self.settings.world_size):
            self._send_start_to(rank, start)
        self._begun = start

    def _send_start_to(self, rank: int, start: Checkpoint, resume: bool = False) -> None:
        fields = {
            "epoch": start.epoch, "step": start.step, "iteration": start.iteration, "learning_rate": self._rate,
            "untold": start.untold, "resume": resume,
        }  # fmt: skip
        part = self._parts[rank]
        arrays = {"params": start.params[part], "state": start.state, "sums": start.sums}
        arrays |= {f"slot/{i}": s[part] for i, s in enumerate(start.slots)}
        arrays |= {f"{KEPT}{name}": array for name, array in self._kept_of(rank, start.kept)}
        self._to(rank, "start", fields, arrays)

    def _kept_of(self, rank: int, kept: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """What of a checkpoint's `kept` goes to `rank`."""
        for name, array in kept.items():
            kind, _, rest = name.partition("/")
            if kind == "shard":
                if self.settings.owners[int(rest.partition("/")[0])] == rank:
                    yield name, array
            elif kind == "slice":
                whole = array.shape[-1] == self.V
                yield name, array[..., self._cuts[rank] if whole else self._parts[rank]]
            else:
                yield name, array

    def _to(self, rank: int, kind: str, fields: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        try:
            self.server.send(rank, kind, fields, arrays)
        except WorkerLost:
            self._fail()

    def _broadcast(self, kind: str, fields: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        for rank in range(self.settings.world_size):
            self._to(rank, kind, fields, arrays)

    # --- following the workers ---------------------------------------------------------------------------------------

    def _follow(self) -> Checkpoint:
        """Answers the workers until they have finished."""
        ends: dict[int, Message] = {}
        finals: dict[int, Message] = {}
        while len(finals) < self.settings.world_size:
            message = self._next()
            if message.kind == "steps":
                self._on_steps(message)
            elif message.kind == "checkpoint":
                self._on_checkpoint(message)
            elif message.kind == "epoch_end":
                ends[message.rank] = message
                if len(ends) == self.settings.world_size:
                    self._on_epoch_end(ends)
                    ends = {}
            elif message.kind == "finished":
                finals[message.rank] = message
                add(self._worker_seconds[message.rank], message.fields["times"])
        self._told_at = time.perf_counter()
        self.counters = [finals[r].fields["counters"] for r in sorted(finals)]
        peaks = [c["peak_bytes"] for c in self.counters]
        text = f"peak resident memory of the workers: {', '.join(f'{p / (1 << 20):,.0f} MB' for p in peaks)}"
        self.hooks.on_event(Event("memory", text, {"bytes": peaks}))
        return self._assemble(finals)

    def _on_steps(self, message: Message) -> None:
        f, sums = message.fields, message.arrays["sums"]
        number = len(f["steps"])
        times = {phase: s / number for phase, s in f["times"].items()}
        reports = []
        for i, (step, rows) in enumerate(zip(f["steps"], f["rows"], strict=True)):
            iteration = f["iteration"] - (number - 1 - i)
            if (f["epoch"], step) > self._reported:
                reports.append(StepReport(f["epoch"], step, rows, sums[i], times, iteration))
        self._steps += number
        self._rows += sum(f["rows"])
        if not reports:
            return
        self._reported = (reports[-1].epoch, reports[-1].step)
        decision = self.hooks.on_steps(reports)
        if decision is None:
            return
        if decision.stop or decision.learning_rate is not None:
            if decision.learning_rate is not None:
                self._rate = decision.learning_rate
            self._stop_asked |= decision.stop
            self._to(0, "adjust", {"stop": decision.stop, "learning_rate": decision.learning_rate})

    def _on_checkpoint(self, message: Message) -> None:
        key = (message.fields["epoch"], message.fields["step"])
        slot = self._saving.setdefault(key, {})
        slot[message.rank] = message
        if message.rank == 0:  # all its reports up to here have been told, and none after
            self._hook_states.setdefault(key, self.hooks.save_state())
            self._asked = time.perf_counter() if key[1] else self._asked
        if len(slot) < self.settings.world_size:
            return
        checkpoint = self._assemble(self._saving.pop(key))
        checkpoint.hooks = self._hook_states.pop(key)
        name = self.checkpoints.commit(checkpoint)
        self._committed += 1
        self._saved = time.perf_counter()
        self._save_cost_s = self._saved - self._asked
        where = f"{self.checkpoints.folder.where}/{name}"
        self.hooks.on_event(
            Event(
                "checkpoint",
                f"{where} holds everything up to epoch {key[0] + 1}, step {key[1]}",
                {"epoch": key[0], "step": key[1], "seconds": self._save_cost_s},
            )
        )

    def _assemble(self, parts: dict[int, Message]) -> Checkpoint:
        """The whole vectors from every rank's slice."""
        first = parts[0]
        params, slots = self._vectors(parts)
        f = first.fields
        return Checkpoint(
            f["epoch"], f["step"], f["iteration"], f["learning_rate"], params, first.arrays["state"], slots,
            first.arrays["sums"], self.settings.seed, self.checkpoints.fit, untold=f["untold"],
            kept=_kept(parts),
        )  # fmt: skip

    def _vectors(self, parts: dict[int, Message]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        vectors = []
        for name in ("params", *(f"slot/{i}" for i in range(len(self.job.source.slots)))):
            vectors.append(np.concatenate([parts[r].arrays[name] for r in sorted(parts)]))
        return vectors[0], tuple(vectors[1:])

    # --- epochs ------------------------------------------------------------------------------------------------------

    def _begin_epoch(self, epoch: int, rate: float) -> float:
        """Tells the hooks of a new epoch, once however often it is repeated; the learning rate to begin it with."""
        if epoch not in self._rates:
            self._rates[epoch] = rate_to_begin_with(self.hooks.on_epoch_begin(epoch), rate)
        return self._rates[epoch]

    def _on_epoch_end(self, ends: dict[int, Message]) -> None:
        """All ranks wait for what comes next: the hooks decide."""
        epoch = ends[0].fields["epoch"]
        for rank, message in ends.items():
            add(self._worker_seconds[rank], message.fields["times"])
        self._told_at = time.perf_counter()
        if epoch not in self._decisions:
            self._decisions[epoch] = self._ask_hooks(ends)
        decision = self._decisions[epoch]
        if decision.learning_rate is not None:
            self._rate = decision.learning_rate
        fields: dict[str, Any] = {
            "stop": decision.stop or self._stop_asked or epoch + 1 >= self.job.epochs or ends[0].fields["stop"],
            "checkpoint": False,
        }
        if not fields["stop"]:
            self._hook_states[epoch + 1, 0] = self.hooks.save_state()
            fields["checkpoint"] = self._checkpoint_pays() or decision.weights is not None
            self._rate = self._begin_epoch(epoch + 1, self._rate)
        fields["learning_rate"] = self._rate
        arrays = None
        if decision.weights is not None:
            params, state = decision.weights
            arrays = {"params": np.asarray(params, np.float32), "state": np.asarray(state, np.float32)}
        self._epoch_started = self._asked = time.perf_counter()
        self._broadcast("decision", fields, arrays)

    def _checkpoint_pays(self) -> bool:
        """At an epoch's end: unless the last one is so fresh that checkpoints would take over 5 % of the time."""
        return time.perf_counter() - self._saved >= 20 * self._save_cost_s

    def _ask_hooks(self, ends: dict[int, Message]) -> Decision:
        first, settings = ends[0], self.settings
        epoch = first.fields["epoch"]
        plan_rows = min(first.fields["step"] * settings.batch_size, settings.table.total)
        times: dict[str, float] = {}
        for message in ends.values():
            add(times, {p: s / len(ends) for p, s in message.fields["times"].items()})
        wall_s = time.perf_counter() - self._epoch_started
        times["other"] = times.get("other", 0.0) + wall_s - sum(times.values())
        validation = _validation_sums(ends, self.M)
        counts: dict[str, float] = {}
        for message in ends.values():
            add(counts, message.fields.get("counts", {}))
        pulled: list[tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]] = []

        def pull() -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
            if not pulled:
                parts = self._pull()
                params, slots = self._vectors(parts)
                pulled.append((params, parts[0].arrays["state"], slots))
            return pulled[0]

        return self.hooks.on_epoch_end(
            EpochEnd(
                epoch=epoch,
                steps=first.fields["step"],
                rows=plan_rows,
                sums=first.arrays["sums"],
                validation_sums=validation,
                times=times,
                wall_s=wall_s,
                iteration=first.fields["iteration"],
                learning_rate=self._rate,
                weights=lambda: pull()[:2],
                slots=lambda: pull()[2],
                validation_rows=settings.validation.total if validation is not None and settings.validation else 0,
                counts=counts,
            )
        )

    def _pull(self) -> dict[int, Message]:
        """Every rank's slices, while they wait at an epoch's end."""
        self._broadcast("pull", {})
        parts: dict[int, Message] = {}
        later: list[Message] = []
        while len(parts) < self.settings.world_size:
            message = self._next()
            if message.kind == "slices":
                parts[message.rank] = message
            else:
                later.append(message)
        self._pending.extend(later)
        return parts


def _kept(parts: dict[int, Message]) -> dict[str, np.ndarray]:
    """What the ranks keep besides parameters and slots, by name: slices joined in the order of ranks."""
    found: dict[str, list[np.ndarray]] = {}
    for rank in sorted(parts):
        for name, array in parts[rank].arrays.items():
            if name.startswith(KEPT):
                found.setdefault(name.removeprefix(KEPT), []).append(array)
    return {n: np.concatenate(a, axis=-1) if n.startswith("slice/") else a[0] for n, a in found.items()}


def _validation_sums(ends: dict[int, Message], sums: int) -> np.ndarray | None:
    """float64[M] over all validation rows, added in the order of shards; None when nothing was validated."""
    parts: dict[int, np.ndarray] = {}
    for message in ends.values():
        if "validation" in message.arrays:
            parts |= dict(zip(message.arrays["shards"].tolist(), message.arrays["validation"], strict=True))
    if not any("validation" in m.arrays for m in ends.values()):
        return None
    total = np.zeros(sums, np.float64)
    for shard in sorted(parts):
        total += parts[shard]
    return total
