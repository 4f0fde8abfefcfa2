"""One server's slice of the model as a state machine: messages in, replies out, no sockets, threads or clocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..collectives.tree import finish
from .effects import WHOLE, Ask, Go, Node, Push, Reply, Stand

NEVER = 1 << 60

Update = Callable[[np.ndarray, tuple[np.ndarray, ...], np.ndarray, int, float], tuple[np.ndarray, tuple]]
"""``update(params, slots, gradient, iteration, rate) -> (params, slots)`` of a slice; leaves its arguments alone."""

Replies = list[tuple[int, Any]]
"""(worker, `Reply` or `Go`), in the order in which they must be sent."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A server between two steps, all workers standing still."""

    epoch: int
    clock: int
    end: bool
    params: np.ndarray
    slots: tuple[np.ndarray, ...]
    state: np.ndarray
    sums: np.ndarray
    iteration: int
    rate: float


class SliceServer:
    """Parameters ``[start, stop)`` of the model with their optimiser state.

    Two policies:

    - by clock: the gradients of all workers for one step of the plan are added, in a fixed order, and make one update.
      `version` counts the epoch's steps that are complete; a fetch waits until it is as fresh as asked for.
    - by push: every push is an update of its own, at once. One that missed more than `max_staleness` updates of others
      since its parameters were fetched is dropped and counted.

    The coordinator (the server that is given `state`) also keeps the model's states and the sums of every step.

    Args:
        workers: ranks that push and fetch.
        params, slots: of the slice, float32[n].
        update: the optimiser.
        by_clock: the policy.
        shards: of the whole data set, for sums along the fixed tree (by clock, deterministic).
        max_staleness: None: never drop.
        state: float32[S], at the coordinator only. sums: number of sums of a step (M).
        iteration: updates made so far. rate: learning rate in force.
        next_stop: ``next_stop(clock)``: where workers pause after standing at `clock`; the coordinator's counts.
    """

    def __init__(
        self,
        workers: Sequence[int],
        params: np.ndarray,
        slots: Sequence[np.ndarray],
        update: Update,
        *,
        by_clock: bool,
        shards: int = 1,
        max_staleness: int | None = None,
        state: np.ndarray | None = None,
        sums: int = 0,
        iteration: int = 0,
        rate: float = 0.0,
        next_stop: Callable[[int], int] = lambda clock: NEVER,
    ):
        self.workers = tuple(workers)
        self.params, self.slots, self._update = params, tuple(slots), update
        self.by_clock, self.shards, self.max_staleness = by_clock, shards, max_staleness
        self.coordinator = state is not None
        self.state = np.zeros(0, np.float32) if state is None else state
        self.sums = np.zeros(sums, np.float64)
        self.iteration, self.rate, self.stop = iteration, rate, False
        self._next_stop = next_stop
        self.epoch, self.version, self.done = -1, 0, 0
        self.reports: list[tuple[int, np.ndarray]] = []  # (step, sums float32[M]) that nobody has taken yet
        self.counts = dict.fromkeys(("pushes", "stale_pushes", "repeated_pushes", "staleness", "most_staleness"), 0)
        self._own = dict.fromkeys(self.workers, 0)  # by push: updates of each worker
        self.received = dict.fromkeys(self.workers, 0)  # the next clock that each worker has to push
        self._pending: dict[int, dict[int, Push]] = {}
        self._tails: dict[int, dict[int, dict[Node, np.ndarray]]] = {}
        self._asked: list[Ask] = []
        self._standing: dict[int, Stand] = {}
        self._last_go: Go | None = None
        self.snapshot: Snapshot | None = None

    # --- the server's own side -------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int, clock: int = 0, rate: float | None = None) -> Replies:
        """Opens an epoch at step `clock`; fetches that came too early are answered."""
        self.epoch, self.done, self.stop = epoch, clock, False
        self.version = clock if self.by_clock else self.version
        self.rate = self.rate if rate is None else rate
        self.received = dict.fromkeys(self.workers, clock)
        self._pending, self._tails = {}, {}
        return [*self._answered(), *self._settled()]

    def replace(self, weights: tuple | None) -> None:
        """Between two epochs: the sums start anew, and so do (params of the slice, states) if `weights` are given."""
        self.sums = np.zeros_like(self.sums)
        if weights is not None:
            self.params = weights[0]
            self.state = weights[1] if self.coordinator else self.state

    def adjust(self, rate: float | None, stop: bool) -> Replies:
        """The driver's wishes within an epoch; those who wait hear of a stop at once."""
        self.rate = self.rate if rate is None else rate
        self.stop |= stop
        return [*self._answered(), *self._settled()]

    def take_counts(self) -> dict[str, int]:
        """Pushes since the last call; "staleness" is the sum over those applied."""
        taken, self.counts = self.counts, dict.fromkeys(self.counts, 0)
        return taken

    def take_reports(self) -> list[tuple[int, np.ndarray]]:
        taken, self.reports = self.reports, []
        return taken

    def behind(self) -> list[int]:
        """The workers that everybody waits for: those with the fewest steps pushed."""
        least = min(self.received.values())
        return [w for w in self.workers if self.received[w] == least and w not in self._standing]

    def resume(self, worker: int) -> tuple[int, int, int]:
        """(epoch, step, next stop) from which a worker that takes another one's place goes on."""
        self._asked = [ask for ask in self._asked if ask.worker != worker]
        self._standing.pop(worker, None)
        clock, last = self.received[worker], self._last_go
        begun = (
            last is not None and last.epoch == self.epoch and not last.end
        )  # else all stand at the epoch's first step
        return self.epoch, clock, last.next_stop if begun and last is not None else clock

    # --- messages ----------------------------------------------------------------------------------------------------

    def handle(self, message: Push | Ask | Stand) -> Replies:
        """Takes one message of a worker; its messages come in the order in which it sent them."""
        if isinstance(message, Push):
            return self._push(message)
        if isinstance(message, Ask):
            self._asked.append(message)
            return self._answered()
        return self._stand(message)

    def _push(self, push: Push) -> Replies:
        if push.epoch != self.epoch:
            return []
        if self.by_clock:
            return self._push_by_clock(push)
        if push.tail:
            self._take_tail(push)
        if push.parts:
            self._apply(push)
        return []

    # --- by clock ----------------------------------------------------------------------------------------------------

    def _push_by_clock(self, push: Push) -> Replies:
        if push.clock < self.received[push.worker]:  # from the worker whose place another one took
            self.counts["repeated_pushes"] += 1
            return []
        self.received[push.worker] = push.clock + 1
        self.rate = push.rate if not self.coordinator and push.worker == self.workers[0] else self.rate
        self._pending.setdefault(push.clock, {})[push.worker] = push
        while len(self._pending.get(self.version, ())) == len(self.workers):
            self._complete([self._pending[self.version][w] for w in self.workers])
            del self._pending[self.version]
            self.version += 1
        return self._answered()

    def _complete(self, pushes: list[Push]) -> None:
        """One update with the gradients of all workers for one step."""
        gradient = combined([p.parts for p in pushes], self.shards)
        if gradient is not None and len(self.params):
            self.params, self.slots = self._update(self.params, self.slots, gradient, self.iteration, self.rate)
        self.iteration += 1
        self.counts["pushes"] += len(pushes)
        if self.coordinator:
            tail = combined([p.tail for p in pushes], self.shards)
            assert tail is not None
            self.state = tail[: len(self.state)]
            self._report(tail[len(self.state) :])

    # --- by push -----------------------------------------------------------------------------------------------------

    def _apply(self, push: Push) -> None:
        staleness = self.version - self._own[push.worker] - push.mark
        self.counts["pushes"] += 1
        if self.max_staleness is not None and staleness > self.max_staleness:
            self.counts["stale_pushes"] += 1
            return
        self.counts["staleness"] += staleness
        self.counts["most_staleness"] = max(self.counts["most_staleness"], staleness)
        rate = self.rate if self.coordinator else push.rate
        if len(self.params):
            gradient = push.parts[WHOLE]
            self.params, self.slots = self._update(self.params, self.slots, gradient, self.iteration, rate)
        self.version += 1
        self.iteration += 1
        self._own[push.worker] += 1

    def _take_tail(self, push: Push) -> None:
        """Moves the states by the worker's share of its change, and adds the step's sums once all workers gave theirs."""
        self.received[push.worker] = push.clock + 1
        tail = push.tail[WHOLE]
        S = len(self.state)
        if S:
            self.state = self.state + tail[:S] / np.float32(len(self.workers))
        self._tails.setdefault(push.clock, {})[push.worker] = {WHOLE: tail[S:]}
        while len(self._tails.get(self.done, ())) == len(self.workers):
            parts = self._tails.pop(self.done)
            total = combined([parts[w] for w in self.workers], self.shards)
            assert total is not None
            self._report(total)

    def _report(self, sums: np.ndarray) -> None:
        self.sums += sums
        self.reports.append((self.done, np.array(sums)))
        self.done += 1

    # --- answers -----------------------------------------------------------------------------------------------------

    def _answered(self) -> Replies:
        """Answers every fetch that need not wait any longer."""
        replies: Replies = []
        waiting = []
        for ask in self._asked:
            fresh = not self.by_clock or self.version >= ask.at_least or self.stop
            if ask.epoch == self.epoch and fresh:
                mark = self.version if self.by_clock else self.version - self._own[ask.worker]
                state = self.state if self.coordinator else None
                reply = Reply(ask.request, self.params, state, self.version, mark, self.rate, self.stop)
                replies.append((ask.worker, reply))
            else:
                waiting.append(ask)
        self._asked = waiting
        return replies

    def _stand(self, stand: Stand) -> Replies:
        last = self._last_go
        if last is not None and (stand.epoch, stand.clock, stand.end) == (last.epoch, last.clock, last.end):
            return [(stand.worker, last)]  # it took the place of one that had stood here
        self._standing[stand.worker] = stand
        return self._settled()

    def _settled(self) -> Replies:
        """Lets everybody go on once all stand still."""
        standing = self._standing
        if any(s.epoch != self.epoch for s in standing.values()):
            return []
        if self.stop and any(s.end for s in standing.values()):  # some have stopped: nobody waits within the epoch
            early = [w for w, s in standing.items() if not s.end]
            replies: Replies = [(w, self._go(standing.pop(w))) for w in early]
            if replies:
                return replies
        if not standing or len(standing) < len(self.workers):
            return []
        first = standing[self.workers[0]]
        if any(s.end != first.end for s in standing.values()):
            return []
        clock = self.done if first.end and self.coordinator else first.clock
        self.snapshot = Snapshot(
            self.epoch, clock, first.end, self.params, self.slots, self.state, self.sums.copy(), self.iteration, self.rate
        )  # fmt: skip
        self._last_go = self._go(first)
        self._standing = {}
        return [(w, self._last_go) for w in self.workers]

    def _go(self, stand: Stand) -> Go:
        stop_at = NEVER if stand.end else self._next_stop(stand.clock)
        return Go(stand.epoch, stand.clock, stand.end, stop_at, self.rate, self.stop)


def combined(parts: Iterable[Mapping[Node, np.ndarray]], shards: int) -> np.ndarray | None:
    """The sum of what the workers sent: along the fixed tree if it came as its nodes, else in the order of workers.

    The vectors are those of messages, nobody else's: they may be added into.
    """
    parts = [p for p in parts if p]
    if not parts:
        return None
    if WHOLE in parts[0]:
        total = parts[0][WHOLE]
        for part in parts[1:]:
            total = total + part[WHOLE]
        return total
    nodes = {node: vector for part in parts for node, vector in part.items()}
    return finish(nodes, shards, np.add)
