"""One attempt at a fit, as the driver sees it: it answers the workers, commits checkpoints, and notices who is gone."""

from __future__ import annotations

import collections
import time
from typing import Any

import numpy as np

from .balance import speeds_of
from .checkpoint import Checkpoint, Checkpoints
from .division import Division, Pieces, slices_of
from .elastic import Crew, Lookout
from .errors import ClusterError, DistributedError, WorkerLost
from .faults import Sign, verdict
from .launcher import Attempt, Launcher
from .loop import Event
from .preflight import HostFacts, Report, check_versions, versions
from .progress import Progress
from .rank import HERE
from .rendezvous import FORMED, FROZEN, LOST, REJOINED, ControlServer
from .reports import Stopwatch, add
from .wire import Message
from .worker import Settings

GRACE_S = 1.0  # after the first sign of a failure, for the one that explains it
START_S = 30.0  # for the tasks of an attempt to be placed, while there is room for them
LAST_WORDS_S = 5.0  # after all workers ended without an error, for messages on their way


class Failed(Exception):
    """Inside an attempt: the workers cannot go on, `error` says why."""

    def __init__(self, error: DistributedError):
        super().__init__(str(error))
        self.error = error


class Conversation:
    """The driver's side of one attempt.

    Args:
        settings: of its workers.
        server: where they connect; its generation is this attempt's.
        attempt: the workers, started. launcher, crew: what started them, and how many they may be.
        checkpoints: where progress is kept.
        progress: of the fit.
        watch: charged with the driver's phases.
        division: how vectors are cut among the ranks.

    Attributes:
        counters: of each rank, when they have finished.
        speeds: of the workers, where shards should move by them.
        left: whether the workers ended for others to go on, `lookout.wanted` of them.
    """

    def __init__(
        self,
        settings: Settings,
        server: ControlServer,
        attempt: Attempt,
        launcher: Launcher,
        crew: Crew,
        checkpoints: Checkpoints,
        progress: Progress,
        watch: Stopwatch,
        division: Division | None = None,
    ):
        self.settings, self.server, self.attempt = settings, server, attempt
        self.checkpoints, self.progress, self.watch = checkpoints, progress, watch
        self.counters: list[dict[str, Any]] = []
        self.left = False
        self.speeds: tuple[float, ...] | None = None
        self._forming_s = 0.0
        self._launched_s = time.monotonic()
        self.lookout = Lookout(crew, settings.world_size, launcher.room)
        self._asked = ""  # of the workers: "leave" or "checkpoint"
        layout, world = progress.job.source.layout, settings.world_size
        self.division = division or slices_of(layout, settings)
        self.pieces = Pieces(settings, layout, len(progress.job.source.slots), self.division)
        self._replaceable = settings.method.replaceable(world)
        self._signs: list[Sign] = []
        self._where: dict[int, tuple[str, int]] = {}
        self._pending: collections.deque[Message] = collections.deque()
        self._saving: dict[tuple[int, int], dict[int, Message]] = {}
        self._hook_states: dict[tuple[int, int], dict[str, Any]] = {}
        self._begun: Checkpoint | None = None
        self._missing: dict[int, tuple[float, Sign]] = {}  # ranks whose place is to be taken: since when, how they went

    def run(self, start: Checkpoint) -> Checkpoint:
        """From `start` to the end state.

        Raises:
            Failed: the workers cannot go on.
        """
        progress = self.progress
        self._wait_formed()
        formed = self._formed_at = progress.told_at = progress.epoch_started = time.perf_counter()
        try:
            self._send_start(start)
            final = self._follow()
        finally:  # what the workers did since they last told of it is lost, if they failed
            self.watch.lap("training", progress.told_at - formed)
            progress.training_s += progress.told_at - formed
        self._wait_done()
        self.watch.lap("scheduling")
        return final

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
            self._look_around()
            for since, sign in self._missing.values():
                if time.monotonic() - since > self.settings.timeout_s:  # nobody came in its place
                    self._signs.append(sign)
                    self._fail()
            if event is None:
                # Ranks that end well send their last word first; on a busy machine it may be read a little later.
                silent += self.attempt.done()
                if silent and (self.attempt.error() is not None or silent > LAST_WORDS_S * 10):
                    self._fail()
                continue
            if event.kind == HERE:
                self._where[event.rank] = (event.fields["host"], event.fields["pid"])
                self._compare(event.rank, event.fields["versions"])
            elif event.kind == "event":
                f = event.fields
                self.progress.hooks.on_event(Event(f["kind"], f["text"], f.get("details", {})))
            elif event.kind in (LOST, FROZEN, "failed"):
                if self._goes_on_without(event):
                    continue
                self._signs.append(Sign(event.kind, event.rank, event.fields))
                self._fail()
            elif event.kind == REJOINED:
                self._welcome(event.rank)
            else:
                return event

    def _compare(self, rank: int, there: dict[str, str]) -> None:
        """Refuses a worker, before it loads any row, whose executor came after the preflight with other versions."""
        report = Report()
        check_versions(versions(), [HostFacts(rank, self._where[rank][0], there, 0, 0, "")], report)
        if report.failures:
            raise Failed(ClusterError("an executor cannot take part:\n" + "\n".join(f"- {x}" for x in report.failures)))

    def _look_around(self) -> None:
        """Asks the workers to hand over when there is room for more of them, or not for all: the latter at once, the
        former no sooner than a checkpoint would be due."""
        lookout, progress = self.lookout, self.progress
        if self._begun is None:
            self._check_started()
            return
        lookout.look()
        if progress.stop_asked or not self.settings.method.leaves_within_epoch:
            return
        due = time.perf_counter() - max(progress.saved, self._formed_at) >= self.settings.checkpoint_every_s
        asked = ""
        if lookout.too_few:
            asked = "checkpoint"
        elif lookout.wanted < lookout.workers or (lookout.wanted > lookout.workers and due):
            asked = "leave"
        if asked and asked != self._asked:
            self._to(0, "adjust", {asked: True})
        self._asked = asked

    def _check_started(self) -> None:
        """Gives up on workers that have no place: executors went away between the last look and the start."""
        world = self.settings.world_size
        if len(self._where) == world or time.monotonic() - self._launched_s < START_S:
            return
        room = self.lookout.room()
        if room < world:
            text = f"{len(self._where)} of {world} workers have started in {START_S:g} s, and there is room for {room}"
            raise Failed(WorkerLost(text, phase="start"))
        self._launched_s = time.monotonic()

    def _goes_on_without(self, event: Message) -> bool:
        """Whether another process will take the place of the rank that is gone, and nobody need begin anew."""
        if self._begun is None or event.rank not in self._replaceable or event.kind == FROZEN:
            return False
        if event.kind == LOST:
            f = event.fields
            text = f"rank {event.rank} (host {f['host']}, pid {f['pid']}) was lost ({f['reason']}); another process takes its place"
            details = {k: f[k] for k in ("rank", "host", "pid", "step", "phase")}
            self.progress.hooks.on_event(Event("worker_lost", text, details))
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
        self.progress.hooks.on_event(
            Event("worker_replaced", f"{peer} goes on where rank {rank} was lost", {"rank": rank})
        )

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
        raise Failed(verdict(self._signs, self._where, self.attempt.error(), witnesses))

    def _wait_formed(self) -> None:
        launched = time.perf_counter()
        while (message := self._next()).kind != FORMED:
            pass
        for row in message.fields["table"]:
            self._where[row[0]] = (row[1], row[2])
        setup: dict[str, float] = {}
        for peer in self.server.table:
            add(setup, {k: s / len(self.server.table) for k, s in peer.capabilities.get("times", {}).items()})
        spent = self._forming_s = time.perf_counter() - launched
        scale = min(1.0, spent / max(sum(setup.values()), 1e-9))
        for phase, s in setup.items():
            self.watch.lap(phase, s * scale)
        self.watch.lap("scheduling")

    def _wait_done(self) -> None:
        deadline = time.monotonic() + self.settings.timeout_s
        while not self.attempt.done() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _send_start(self, start: Checkpoint) -> None:
        for rank in range(self.settings.world_size):
            self._send_start_to(rank, start)
        self._begun = start

    def _send_start_to(self, rank: int, start: Checkpoint, resume: bool = False) -> None:
        fields = {
            "epoch": start.epoch, "step": start.step, "iteration": start.iteration, "learning_rate": self.progress.rate,
            "untold": start.untold, "resume": resume,
        }  # fmt: skip
        self._to(rank, "start", fields, self.pieces.of_rank(rank, start))

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
                self.progress.worked(message.rank, message.fields["times"])
        self.progress.told_at = time.perf_counter()
        self.left = finals[0].fields["left"]
        self.counters = [finals[r].fields["counters"] for r in sorted(finals)]
        peaks = [c["peak_bytes"] for c in self.counters]
        text = f"peak resident memory of the workers: {', '.join(f'{p / (1 << 20):,.0f} MB' for p in peaks)}"
        self.progress.hooks.on_event(Event("memory", text, {"bytes": peaks}))
        return self.pieces.joined(finals, self.checkpoints.fit)

    def _on_steps(self, message: Message) -> None:
        decision = self.progress.on_steps(message)
        if decision is not None:
            self._to(0, "adjust", {"stop": decision.stop, "learning_rate": decision.learning_rate})

    def _on_checkpoint(self, message: Message) -> None:
        key = (message.fields["epoch"], message.fields["step"])
        slot = self._saving.setdefault(key, {})
        slot[message.rank] = message
        if message.rank == 0:  # all its reports up to here have been told, and none after
            self._hook_states.setdefault(key, self.progress.hooks.save_state())
            self.progress.asked = time.perf_counter() if key[1] else self.progress.asked
        if len(slot) < self.settings.world_size:
            return
        checkpoint = self.pieces.joined(self._saving.pop(key), self.checkpoints.fit)
        checkpoint.hooks = self._hook_states.pop(key)
        name = self.checkpoints.commit(checkpoint)
        progress = self.progress
        progress.committed += 1
        progress.saved = time.perf_counter()
        progress.save_cost_s = progress.saved - progress.asked
        where = f"{self.checkpoints.folder.where}/{name}"
        progress.hooks.on_event(
            Event(
                "checkpoint",
                f"{where} holds everything up to epoch {key[0] + 1}, step {key[1]}",
                {"epoch": key[0], "step": key[1], "seconds": progress.save_cost_s},
            )
        )

    def _on_epoch_end(self, ends: dict[int, Message]) -> None:
        """All ranks wait for what comes next: the hooks decide."""
        progress, epochs = self.progress, self.progress.job.epochs
        epoch = ends[0].fields["epoch"]
        decision = progress.on_epoch_end(ends, self.settings, self._weights)
        fields: dict[str, Any] = {
            "stop": decision.stop or progress.stop_asked or epoch + 1 >= epochs or ends[0].fields["stop"],
            "checkpoint": False,
            "leave": False,
        }
        if not fields["stop"]:
            self._hook_states[epoch + 1, 0] = progress.hooks.save_state()
            self.speeds = self._new_speeds(ends, epochs - epoch - 1)
            fields["leave"] = self.lookout.wanted != self.lookout.workers or self.speeds is not None
            fields["checkpoint"] = progress.checkpoint_pays() or decision.weights is not None
            progress.rate = progress.begin_epoch(epoch + 1, progress.rate)
        fields["learning_rate"] = progress.rate
        progress.epoch_started = progress.asked = time.perf_counter()
        self._asked = ""
        if decision.weights is None:
            self._broadcast("decision", fields)
            return
        params, state = (np.asarray(a, np.float32) for a in decision.weights)
        for rank in range(self.settings.world_size):
            self._to(rank, "decision", fields, {"params": self.division.whole(rank, params), "state": state})

    def _new_speeds(self, ends: dict[int, Message], epochs: int) -> tuple[float, ...] | None:
        """Of the workers, if shards should move."""
        settings = self.settings
        if not settings.balance or settings.world_size < 2:
            return None
        times = [ends[rank].fields["times"] for rank in range(settings.world_size)]
        return speeds_of(settings.owners, settings.table.rows, times, epochs, self._forming_s)

    def _weights(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """Parameters, states and slots, while the workers wait at an epoch's end."""
        parts = self._pull()
        params, slots = self.pieces.vectors(parts)
        return params, parts[0].arrays["state"], slots

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
