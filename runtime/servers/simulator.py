"""Workers' programs and servers in one thread and virtual time: scripted interleavings, and how long things would take.

The same `SliceServer` and the same client generators run here and on the cluster.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .clients import Client
from .effects import WHOLE, Ask, Compute, Fetch, Fetched, Go, Pause, Push, Reply, Send, Stand
from .machine import SliceServer


@dataclasses.dataclass
class Event:
    """Something that happened: at `at_s`, `worker` did `what` in `step`; `value` is what it had in hand."""

    at_s: float
    worker: int
    what: str
    step: int
    value: Any = None


class Simulation:
    """Workers and servers that move only when told.

    Args:
        clients: a program for each worker, whose ranks are those of the servers.
        servers: the slices, in order; together they are the parameters.
        gradient: ``gradient(worker, step, parameters)``, float32[P].
        epoch: begun at all servers.

    `turn(worker)` runs a worker's program up to its next wait; its messages stay underway until `deliver(worker)` hands
    the oldest of them to the servers (or to one of them). `log` holds what happened.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        servers: Sequence[SliceServer],
        gradient: Callable[[int, int, np.ndarray], np.ndarray],
        epoch: int = 0,
    ):
        self.servers, self.gradient, self.epoch = list(servers), gradient, epoch
        self.workers = servers[0].workers
        self._clients = dict(zip(self.workers, clients, strict=True))
        self._cuts = np.cumsum([0, *(len(s.params) for s in servers)])
        self.underway: dict[int, dict[int, collections.deque]] = {
            w: {j: collections.deque() for j in range(len(servers))} for w in self.workers
        }
        self._effect: dict[int, Any] = {}
        self._result: dict[int, Any] = dict.fromkeys(self.workers)
        self._replies: dict[int, dict[int, Any]] = {w: {} for w in self.workers}
        self._mark: dict[int, list[int]] = {w: [0] * len(servers) for w in self.workers}
        self._old_mark: dict[int, list[int] | None] = dict.fromkeys(self.workers)
        self._requests = itertools.count()
        self.ended: set[int] = set()
        self.log: list[Event] = []
        self.now_s = 0.0
        for server in self.servers:
            server.begin_epoch(epoch, server.done)

    @property
    def params(self) -> np.ndarray:
        """The parameters as they stand at the servers."""
        return np.concatenate([s.params for s in self.servers])

    def waiting(self, worker: int) -> Any:
        """The effect that a worker waits for; None if it can move."""
        return self._effect.get(worker)

    def turn(self, worker: int) -> Any:
        """Lets the worker's program go on to its next effect, which is begun and returned; None at its end."""
        if worker in self._effect or worker in self.ended:
            raise ValueError(f"worker {worker} cannot move: it waits for {self._effect.get(worker)}")
        try:
            effect = self._clients[worker].send(self._result[worker])
        except StopIteration:
            self.ended.add(worker)
            return None
        self._result[worker] = None
        if isinstance(effect, Compute):
            self._note(worker, "compute", effect.step, effect.parameters)
            self._old_mark[worker] = self._old_mark[worker] or list(self._mark[worker])
            self._result[worker] = self.gradient(worker, effect.step, effect.parameters)
        elif isinstance(effect, Send):
            self._note(worker, "push", effect.step, (effect.accrued, effect.gradient))
            self._push(worker, effect)
        else:
            self._effect[worker] = effect
            self._replies[worker] = {}
            request = next(self._requests)
            for j in range(len(self.servers)):
                if isinstance(effect, Fetch):
                    message: Any = Ask(worker, self.epoch, effect.at_least, request)
                else:
                    message = Stand(worker, self.epoch, effect.step, effect.end)
                self.underway[worker][j].append(message)
        return effect

    def _push(self, worker: int, effect: Send) -> None:
        marks = self._old_mark[worker] or self._mark[worker]
        self._old_mark[worker] = None
        for j, server in enumerate(self.servers):
            cut = slice(self._cuts[j], self._cuts[j + 1])
            tail = {}
            if server.coordinator:
                tail = {WHOLE: np.zeros(len(server.state) + len(server.sums), np.float32)}
            push = Push(worker, self.epoch, effect.step, {WHOLE: np.array(effect.gradient[cut])}, tail, marks[j])
            push.accrued, push.rate = effect.accrued, self.servers[0].rate
            self.underway[worker][j].append(push)

    def deliver(self, worker: int, server: int | None = None) -> None:
        """Hands the worker's oldest message to every server that has one underway (or to one server); with the
        answers, whoever waited for them can move again."""
        for j in range(len(self.servers)) if server is None else (server,):
            if self.underway[worker][j]:
                self._take(j, self.servers[j].handle(self.underway[worker][j].popleft()))

    def _take(self, j: int, replies: list[tuple[int, Any]]) -> None:
        for to, reply in replies:
            self._replies[to][j] = reply
            if len(self._replies[to]) == len(self.servers):
                self._finish(to)

    def _finish(self, worker: int) -> None:
        replies, effect = self._replies[worker], self._effect.pop(worker)
        first = replies[0]
        if isinstance(first, Reply):
            self._mark[worker] = [replies[j].mark for j in range(len(self.servers))]
            whole = np.concatenate([replies[j].params for j in range(len(self.servers))])
            self._result[worker] = Fetched(whole, first.mark, first.rate, first.stop)
            self._note(worker, "fetched", effect.at_least, whole)
        else:
            assert isinstance(first, Go) and isinstance(effect, Pause)
            self._result[worker] = first
            self._note(worker, "go", first.clock)

    def _note(self, worker: int, what: str, step: int, value: Any = None) -> None:
        self.log.append(Event(self.now_s, worker, what, step, value))


def run(
    simulation: Simulation,
    compute_s: Callable[[int, int], float] = lambda worker, step: 1.0,
    latency_s: Callable[[int], float] = lambda worker: 0.0,
) -> float:
    """Runs a simulation to its end in virtual time.

    Args:
        compute_s: ``compute_s(worker, step)``, seconds of a gradient.
        latency_s: ``latency_s(worker)``, seconds of a message to the servers; answers take none.

    Returns:
        Seconds until the last worker has ended.

    Raises:
        RuntimeError: everybody waits for somebody.
    """
    order = itertools.count()
    agenda: list[tuple[float, int, str, int]] = []
    moving = set(simulation.workers)

    def at(s: float, what: str, worker: int) -> None:
        heapq.heappush(agenda, (s, next(order), what, worker))

    for worker in simulation.workers:
        at(0.0, "turn", worker)
    while agenda:
        simulation.now_s, _, what, worker = heapq.heappop(agenda)
        if what == "turn":
            effect = simulation.turn(worker)
            moving.discard(worker)
            if isinstance(effect, Compute):
                moving.add(worker)
                at(simulation.now_s + compute_s(worker, effect.step), "turn", worker)
            elif effect is not None:
                at(simulation.now_s + latency_s(worker), "deliver", worker)
                if isinstance(effect, Send):
                    moving.add(worker)
                    at(simulation.now_s, "turn", worker)
        else:
            simulation.deliver(worker)
        for other in simulation.workers:  # whom an answer has set free
            if other not in moving and other not in simulation.ended and simulation.waiting(other) is None:
                moving.add(other)
                at(simulation.now_s, "turn", other)
    if len(simulation.ended) < len(simulation.workers):
        stuck = {w: simulation.waiting(w) for w in simulation.workers if w not in simulation.ended}
        raise RuntimeError(f"everybody waits: {stuck}")
    return simulation.now_s


def leads(log: Sequence[Event], workers: Sequence[int]) -> list[int]:
    """For each gradient that was begun: how many steps its worker was ahead of the slowest one then."""
    done = dict.fromkeys(workers, 0)
    found = []
    for event in log:
        if event.what == "compute":
            found.append(event.step - min(done.values()))
        elif event.what == "push":
            done[event.worker] = event.step + 1
    return found
