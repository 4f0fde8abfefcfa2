"""A rank's part in a fit with parameter servers: it works, serves, or both.

A worker's program (`clients.py`) is carried out here with real batches and links; a server is a `SliceServer` behind a
port, driven by the workers' messages. Epochs, reports, checkpoints and decisions are those of every other fit
(docs/design/0002-runtime.md): workers pause where checkpoints are made, so that one step stands for all.
"""

from __future__ import annotations

import dataclasses
import queue
import time
from typing import Any

import numpy as np

from ..faults import Script
from ..loop import step_keys
from ..wire import Message
from ..worker import Trainer
from .clients import Client
from .effects import WHOLE, Compute, Fetch, Fetched, Go, Node, Pause, Push, Send
from .machine import SliceServer, Snapshot
from .steps import WorkerStep, updater

FIRST_STOP = 100
"""Steps before the first checkpoint within an epoch, until the time of a step is known."""

_KEYS = 256


class ServedTrainer(Trainer):
    """As `Trainer`; ``settings.method`` is a `kerasoft.runtime.servers.method.Served`."""

    step: WorkerStep

    def __init__(self, settings: Any, rank: int, program: Any, store: Any, validation_store: Any, watch: Any):
        self.method = method = settings.method
        world = settings.world_size
        self.servers, self.workers = method.servers_of(world), method.workers_of(world)
        if rank not in self.workers:  # nothing to compile for rows
            settings = dataclasses.replace(settings, train_sizes=(), test_sizes=())
        super().__init__(settings, rank, program, store, validation_store, watch)
        parts = method.parts(self.step.P, self.step.V, world)
        self.cuts = [parts[server] for server in self.servers]
        self._update = updater(program, parts[rank]) if rank in self.servers else None
        self._made = []  # steps whose sums are still to come: none, a server gives them when they are complete
        self._marks: list[int] = []
        self._old_marks: list[int] | None = None
        self._batch: Any = None
        self._first_key = 0  # the iteration that step 0 of the epoch has for random keys
        self._most_ahead = 0  # steps that this worker was ahead of the slowest one
        self._keys, self._keys_from = np.zeros((0, 2), np.uint32), 0

    # --- from start to end -------------------------------------------------------------------------------------------

    def run(self, start: Message, control: Any, group: Any) -> None:
        """From the state in `start` to the end of the fit."""
        self.control, self.collective, self.group = control, group, group
        self.watch.take()
        self.watch.lap("wait")
        f = start.fields
        self.epoch, self.done, self.learning_rate = f["epoch"], f["step"], f["learning_rate"]
        self._first_key = f["iteration"] - f["step"]
        if group.port is not None:
            group.port.open(self._server(start))
        if group.links is not None:
            group.links.tick = self._tick
        self._stop_at = None
        if f.get("resume"):
            self._take_over()
        self._begin_epoch()
        self.watch.lap("sync")
        while self.epoch < self.settings.epochs and not self.stopping and not self.leaving:
            self._work() if group.links is not None else self._serve()
            self._epoch_end()
        self._finish({"most_ahead": self._most_ahead})

    def _take_over(self) -> None:
        """Goes on in the place of a worker that was lost: the servers know how far it had come."""
        self.settings = dataclasses.replace(self.settings, faults=Script())
        self.epoch, self.done, self._stop_at, self._first_key = self.group.links.resume()

    def _server(self, start: Message) -> SliceServer:
        assert self._update is not None
        method, first = self.method, self.rank == 0
        server = SliceServer(
            self.workers,
            start.arrays["params"],
            [start.arrays[f"slot/{i}"] for i in range(len(self.step.program.slots))],
            self._update,
            by_clock=method.by_clock,
            shards=self.step.bounds[-1],
            max_staleness=method.max_staleness,
            state=start.arrays["state"] if first else None,
            sums=self.step.M if first else 0,
            iteration=start.fields["iteration"],
            rate=self.learning_rate,
            next_stop=self._next_stop,
        )
        if first:
            server.sums[:] = start.arrays["sums"]
        return server

    def _begin_epoch(self) -> None:
        self._epoch_begin()
        self._first_step = self.done if self._stop_at is None else -1
        self._began_s = time.monotonic()
        if self.group.port is not None:
            rate = self.learning_rate
            self.group.port.act(lambda s: s.begin_epoch(self.epoch, self.done, rate))

    def _next_stop(self, step: int) -> int:
        """Where all workers pause next for a checkpoint."""
        every = self.settings.checkpoint_every_steps
        if every:
            return step + every - (self._first_key + step) % every
        made, spent_s = step - self._first_step, time.monotonic() - self._began_s
        if not made:
            return step + FIRST_STOP
        return step + max(1, int(self.settings.checkpoint_every_s * made / max(spent_s, 1e-9)))

    # --- a server without rows ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Until the epoch's end."""
        while True:
            self._tick()
            try:
                snapshot = self.group.port.snapshots.get(timeout=0.02)
            except queue.Empty:
                continue
            self._stood(snapshot)
            self.settings.faults.at(self.rank, self.epoch, snapshot.clock, "serve")
            if snapshot.end:
                self.done = snapshot.clock
                return

    # --- a worker ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """The worker's program for the rest of this epoch."""
        client: Client = self.method.client(self.done, self.plan.steps, self._local_step, self._stop_at)
        self._stop_at = None
        self._feed, self._batch, self._old_marks = self.feed.epoch(self.epoch, self.done), None, None
        result: Any = None
        while True:
            try:
                effect = client.send(result)
            except StopIteration as end:
                self.done = end.value
                return
            if isinstance(effect, Fetch):
                result = self._fetch(effect)
            elif isinstance(effect, Compute):
                result = self._compute(effect)
            elif isinstance(effect, Send):
                self._push(effect)
                result = None
            else:
                result = self._pause(effect)

    def _fetch(self, effect: Fetch) -> Fetched:
        """The next minibatch is gathered while the parameters are on their way."""
        self.group.links.ask(self.epoch, effect.at_least)
        self.watch.lap("sync")
        self._prepare()
        fetched, state, marks = self.group.links.fetched()
        self.watch.lap("wait")
        if self.method.by_clock and self._batch is not None:
            self._most_ahead = max(self._most_ahead, self._batch.step - fetched.version)
        if not fetched.stop:
            self.step.state, self._marks = state, marks
            self.learning_rate = fetched.rate
        return fetched

    def _prepare(self) -> Any:
        if self._batch is None:
            self._batch = next(self._feed, None)
            self.watch.lap("input")
        return self._batch

    def _compute(self, effect: Compute) -> Any:
        batch, step = self._prepare(), self.step
        self._batch, self.done = None, batch.step
        self._tick()
        self.settings.faults.at(self.rank, self.epoch, batch.step, "step")
        self._at(batch.step, "compute")
        step.params, step.iteration = effect.parameters, self._first_key + batch.step
        own = sum(call.rows for call in batch.calls)
        self._old_marks = self._old_marks or list(self._marks)
        parts = step.gradient(batch, self._key(step.iteration), batch.rows if self.method.by_clock else max(own, 1))
        if self.method.by_clock:
            self.watch.lap("compute")
            return parts
        vector = parts[WHOLE]
        S, P = step.S, step.P
        tail = np.concatenate([vector[P : P + S] - step.state if own else np.zeros(S, np.float32), vector[P + S :]])
        if own:
            step.state = vector[P : P + S]
        self.watch.lap("compute")
        self.group.links.push(0, Push(self.rank, self.epoch, batch.step, {}, {WHOLE: tail}, rate=self.learning_rate))
        self.watch.lap("sync")
        return vector[:P]

    def _key(self, iteration: int) -> np.ndarray:
        if not self._keys_from <= iteration < self._keys_from + len(self._keys):
            self._keys, self._keys_from = step_keys(self.settings.seed, iteration, _KEYS), iteration
        return self._keys[iteration - self._keys_from]

    def _push(self, effect: Send) -> None:
        marks, self._old_marks = self._old_marks or self._marks, None
        parts: dict[Node, np.ndarray] = effect.gradient if self.method.by_clock else {WHOLE: effect.gradient}
        for j, (server, cut) in enumerate(zip(self.servers, self.cuts, strict=True)):
            kept = self.method.by_clock and self.step.deterministic and server == self.rank  # the tree uses them again
            own = {node: np.array(v[cut]) if kept else v[cut] for node, v in parts.items()}
            tail = {}
            if self.method.by_clock and j == 0:
                tail = {node: np.array(v[self.step.P :]) for node, v in parts.items()}
            push = Push(self.rank, self.epoch, effect.step, own, tail, marks[j], effect.accrued, self.learning_rate)
            self.group.links.push(j, push)
        self.watch.lap("sync")

    def _local_step(self, parameters: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        rate = rate if self.method.local_rate is None else self.method.local_rate
        return parameters - np.float32(rate) * gradient

    def _pause(self, effect: Pause) -> Go:
        self.watch.lap("sync")
        self._at(effect.step, "pause")
        go = self.group.links.pause(self.epoch, effect.step, effect.end)
        self.watch.lap("wait")
        self.done = effect.step
        self._stood(self.group.port.snapshots.get(timeout=self.settings.timeout_s) if self.group.port else None, effect)
        return go

    # --- what both do ------------------------------------------------------------------------------------------------

    def _stood(self, snapshot: Snapshot | None, pause: Pause | None = None) -> None:
        """All workers stand still at one step: makes a checkpoint, unless the epoch begins or ends here."""
        self._tick()
        step, end = (snapshot.clock, snapshot.end) if snapshot is not None else (pause.step, pause.end)  # type: ignore
        self._snapshot = snapshot
        if end or step <= self._first_step:
            return
        if self.rank == 0:
            self._flush_reports()
        self.watch.lap("other")
        iteration = self._first_key + step if snapshot is None else snapshot.iteration
        rate = self.learning_rate if snapshot is None else snapshot.rate
        self._send("checkpoint", self._fields(step, iteration, rate), self._arrays(snapshot))
        self.watch.lap("checkpoint")

    def _arrays(self, s: Any) -> dict[str, np.ndarray]:
        """The slices of a `Snapshot` or a `SliceServer`; of a rank that does not serve: empty ones."""
        empty = np.zeros(0, np.float32)
        if s is None:
            return {"params": empty, **{f"slot/{i}": empty for i in range(len(self.step.program.slots))}}
        arrays = {"params": s.params, **{f"slot/{i}": slot for i, slot in enumerate(s.slots)}}
        return arrays | ({"state": s.state, "sums": s.sums} if self.rank == 0 else {})

    def _checkpoint_arrays(self) -> dict[str, np.ndarray]:
        return self._arrays(None if self.group.port is None else self.group.port.look(lambda s: s))

    def _checkpoint_fields(self) -> dict[str, Any]:
        iteration = self._first_key + self.done
        if self.group.port is not None:
            iteration = self.group.port.look(lambda s: s.iteration)
        return self._fields(self.done, iteration, self.learning_rate)

    def _fields(self, step: int, iteration: int, rate: float) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": step, "iteration": iteration, "learning_rate": rate, "untold": 0}

    def _tick(self) -> None:
        """Between two waits: the driver's wishes and the coordinator's reports; raises what went wrong elsewhere."""
        port = self.group.port
        if port is not None and port.failure is not None:
            raise port.failure
        if self.rank:
            self.control.poll()  # raises DriverLost; nothing is said to others within an epoch
            return
        while (message := self.control.poll()) is not None:
            if message.kind == "adjust":
                rate, stop = message.fields.get("learning_rate"), bool(message.fields.get("stop"))
                port.act(lambda s, rate=rate, stop=stop: s.adjust(rate, stop))
        for step, sums in port.look(lambda s: s.take_reports()):
            self._reports.append((step, self.plan.rows_in(step)))
            self._report_sums.append(sums)
            self.step.iteration = self._first_key + step + 1
        if self._reports and time.monotonic() - self._reported_s >= self.settings.report_every_s:
            self._flush_reports()

    def _flush_reports(self) -> None:
        if self._reports:
            self.step.iteration = self._first_key + self._reports[-1][0] + 1
        super()._flush_reports()

    def _epoch_end(self) -> None:
        self._tick()
        if self.rank == 0:
            self._flush_reports()
            self.done = self._snapshot.clock  # type: ignore[union-attr]
        self.watch.lap("other")
        arrays = {}
        if self.group.links is not None and self.epoch in self.settings.validates and self.validation_feed is not None:
            self.group.links.ask(self.epoch, 0)
            fetched, self.step.state, _ = self.group.links.fetched(whole=True)
            self.step.params = fetched.parameters
            arrays = dict(zip(("shards", "validation"), self._validate(), strict=True))
        if self.rank == 0:
            arrays["sums"] = self._snapshot.sums  # type: ignore[union-attr]
        self.watch.lap("validation")
        self._take_times()
        totals, self.phase_totals = self.phase_totals, {}
        more = {"times": totals, "stop": False, "counts": self._counts()}
        self._send("epoch_end", {**self._checkpoint_fields(), **more}, arrays)
        self._decided(self._decision())

    def _counts(self) -> dict[str, float]:
        """This server's share of what the epoch's logs say of stale pushes."""
        if self.group.port is None or self.method.by_clock:
            return {}
        counts = self.group.port.look(lambda s: s.take_counts())
        applied, number = counts["pushes"] - counts["stale_pushes"], len(self.servers)
        mean = counts["staleness"] / max(applied, 1)
        return {"stale_pushes": counts["stale_pushes"] / number, "staleness": mean / number}

    def _decided(self, decision: Message) -> None:
        self.stopping = decision.fields["stop"]
        self.learning_rate = decision.fields["learning_rate"]
        self._first_key += self.done
        self.epoch, self.done = self.epoch + 1, 0
        self.watch.lap("callbacks")
        weights = None
        if "params" in decision.arrays and self.group.port is not None:
            cut = self.cuts[self.servers.index(self.rank)]
            weights = (np.array(decision.arrays["params"][cut]), np.array(decision.arrays["state"]))
        if self.group.port is not None:
            self.group.port.act(lambda s: s.replace(weights))
        self.leaving = decision.fields["leave"]
        if decision.fields["checkpoint"] and not self.leaving:
            self.watch.lap("other")
            self._send("checkpoint", self._checkpoint_fields(), self._checkpoint_arrays())
            self.watch.lap("checkpoint")
        if not self.stopping and not self.leaving:
            self._begin_epoch()
