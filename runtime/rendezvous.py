"""The control connection: workers find one another through the driver, then stay connected to it.

1. The driver opens a `ControlServer` and a generation; its address, secret and number travel in the task.
2. Every worker connects (`ControlClient`), proves the secret, and says hello with the address where peers reach it.
3. When all ranks have said hello, everybody gets the table of all.
4. The connection stays open for typed messages both ways (progress, weights, decisions, errors), for heartbeats with
   the worker's current step and phase, and for noticing a dead worker at once.

The driver alone chooses generations. Whoever belongs to an earlier one is refused or cut off.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import wire
from .collectives.base import Peer
from .errors import DistributedError, PeerLost, WaitTimeout, WireError
from .wire import Message

SEND_TIMEOUT_S = 30.0
MAX_STRANGERS = 64

FORMED, LOST, FROZEN, HELLO, TABLE, HEARTBEAT, GOODBYE, REJOINED = (
    "formed", "lost", "frozen", "hello", "table", "heartbeat", "goodbye", "rejoined",
)  # fmt: skip


@dataclass
class WorkerStatus:
    """What the driver knows of one worker.

    Args:
        silent_s: seconds since it was last heard of.
        step, phase: what its last heartbeat said it was doing.
        connected: whether its control connection is open.
    """

    rank: int
    host: str
    pid: int
    executor: str
    step: int
    phase: str
    silent_s: float
    connected: bool

    def __str__(self) -> str:
        where = f"step {self.step}, {self.phase}" if self.step >= 0 else self.phase
        return f"rank {self.rank} (host {self.host}, pid {self.pid}, {where})"


class _Member:
    """The driver's end of one worker's connection."""

    def __init__(self, rank: int, sock: socket.socket, generation: int):
        self.rank, self.sock, self.generation = rank, sock, generation
        self.peer: Peer | None = None
        self.step, self.phase = -1, "start"
        self.heard_at = time.monotonic()
        self.connected = True
        self.leaving = False
        self.warned = False
        self.lock = threading.Lock()

    def hear(self) -> None:
        self.heard_at = time.monotonic()
        self.warned = False

    def status(self) -> WorkerStatus:
        peer = self.peer or Peer(self.rank, "?", 0, {})
        silent = time.monotonic() - self.heard_at
        return WorkerStatus(
            self.rank, peer.host, peer.pid, peer.executor, self.step, self.phase, silent, self.connected
        )


class ControlServer:
    """The driver's end. A context manager.

    Args:
        secret: 32 bytes, `wire.new_secret()`.
        host: the driver's address that executors reach; never a wildcard.
        port: 0 picks a free one.
        frozen_s: a worker unheard of for so long is reported by a "frozen" event (None: never).

    Events are `Message`s with `rank` and `generation`, those of workers as they sent them, and from the server itself:

    - "formed": all ranks are there; `fields["table"]` as lists.
    - "rejoined": a replaceable rank is there again, in another process.
    - "lost": a connection closed without goodbye; fields host, pid, executor, step, phase, reason.
    - "frozen": no sign of life for `frozen_s`; the same fields and silent_s. At most once until it is heard again.
    """

    def __init__(self, secret: bytes, host: str, port: int = 0, frozen_s: float | None = None):
        if len(secret) != wire.SECRET_BYTES:
            raise ValueError(f"the secret should have {wire.SECRET_BYTES} bytes, got {len(secret)}.")
        self.secret, self.frozen_s = secret, frozen_s
        self.generation, self.world_size = -1, 0
        self.table: tuple[Peer, ...] = ()
        self.refused = 0
        self._listener = wire.listen(host, port)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._members: dict[int, _Member] = {}
        self._replaceable: frozenset[int] = frozenset()
        self._events: queue.Queue[Message] = queue.Queue()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._strangers = threading.BoundedSemaphore(MAX_STRANGERS)
        self._threads = [
            threading.Thread(target=self._accept, name="kerasoft-control", daemon=True),
            threading.Thread(target=self._watch, name="kerasoft-watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # --- what the driver calls --------------------------------------------------------------------------------

    def start_generation(self, number: int, world_size: int, replaceable: Sequence[int] = ()) -> None:
        """Opens generation `number` for `world_size` ranks; connections and events of earlier ones end.

        Args:
            replaceable: ranks that may join again once they were lost.
        """
        with self._lock:
            if number <= self.generation:
                raise ValueError(f"generation {number} should be greater than the last one, {self.generation}.")
            old = list(self._members.values())
            self._members = {}
            self.generation, self.world_size, self.table = number, world_size, ()
            self._replaceable = frozenset(replaceable)
        for member in old:
            member.connected = False
            wire.hang_up(member.sock)

    def disconnect(self) -> None:
        """Cuts all workers of this generation off: those that still run hear that the driver is gone."""
        with self._lock:
            old, self._members = list(self._members.values()), {}
            self.world_size = 0
        for member in old:
            member.connected = False
            wire.hang_up(member.sock)

    def next_event(self, timeout_s: float | None = None) -> Message | None:
        """The next event of the current generation; None when `timeout_s` passed without one, or after `close`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                return None
            if self._closed.is_set() and event.kind == "":
                self._events.put(event)
                return None
            if event.generation == self.generation:
                return event

    def events(self, timeout_s: float | None = None) -> Iterator[Message]:
        """Events until none has come for `timeout_s` (None: for ever) or the server is closed."""
        while (event := self.next_event(timeout_s)) is not None:
            yield event

    def send(
        self,
        rank: int,
        kind: str,
        fields: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Sends a message to one worker.

        Raises:
            PeerLost: it is not connected, or takes no bytes for `SEND_TIMEOUT_S`.
        """
        member = self._members.get(rank)
        if member is None or not member.connected:
            raise PeerLost(f"rank {rank} is not connected, so it cannot get message {kind!r}.", rank=rank)
        self._send(member, Message(kind, wire.as_fields(fields), dict(arrays or {}), rank, self.generation))

    def broadcast(
        self, kind: str, fields: Mapping[str, Any] | None = None, arrays: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Sends a message to every connected worker; those lost on the way become events."""
        for rank in sorted(self._members):
            try:
                self.send(rank, kind, fields, arrays)
            except PeerLost:
                continue

    def status(self) -> list[WorkerStatus]:
        """What is known of each worker that has joined this generation, by rank."""
        return [self._members[rank].status() for rank in sorted(self._members)]

    def missing(self) -> list[int]:
        """Ranks of this generation that have not said hello."""
        return [r for r in range(self.world_size) if (m := self._members.get(r)) is None or m.peer is None]

    def wait_formed(self, timeout_s: float) -> tuple[Peer, ...]:
        """The table, once all ranks are there. Takes no events.

        Raises:
            WaitTimeout: names the ranks that are missing.
        """
        deadline = time.monotonic() + timeout_s
        while not self.table:
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    f"waited {timeout_s:g} s for {self.world_size} workers; ranks {self.missing()} have not joined."
                )
            time.sleep(0.005)
        return self.table

    def close(self) -> None:
        """Ends all connections, threads and the port."""
        if self._closed.is_set():
            return
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        with self._lock:
            members, self._members = list(self._members.values()), {}
        for member in members:
            member.connected = False
            wire.hang_up(member.sock)
        self._events.put(Message("", generation=self.generation))

    def __enter__(self) -> ControlServer:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # --- threads ----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        while not self._closed.is_set():
            if not poller.poll(100):
                continue
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue
            if not self._strangers.acquire(blocking=False):
                sock.close()
                continue
            threading.Thread(target=self._serve, args=(sock,), name="kerasoft-worker", daemon=True).start()

    def _admit(self, hello: wire.Hello) -> int:
        with self._lock:
            if hello.role != b"C":
                return 4
            if hello.generation != self.generation:
                return 1
            if not 0 <= hello.rank < self.world_size:
                return 2
            known = self._members.get(hello.rank)
            late = bool(self.table) and hello.rank not in self._replaceable
            return 3 if known is not None and (known.connected or late) else 0

    def _serve(self, sock: socket.socket) -> None:
        """One connection from its handshake to its end."""
        try:
            wire.prepare(sock)
            hello = wire.answer(sock, self.secret, self._admit)
        except (DistributedError, OSError):
            self.refused += 1
            sock.close()
            return
        finally:
            self._strangers.release()
        member = _Member(hello.rank, sock, hello.generation)
        with self._lock:
            if self._closed.is_set() or self._admit(hello):  # closed meanwhile, or another one was faster
                sock.close()
                return
            self._members[hello.rank] = member
        reason = "its connection closed: the process or its host died"
        try:
            while True:
                message = wire.receive_message(sock, None, "a worker's message", heard=member.hear)
                member.hear()
                self._take(member, message)
        except wire.Closed:
            pass
        except WaitTimeout as error:
            reason = f"it stopped in the middle of a message: {error}"
        except (WireError, KeyError, TypeError, ValueError) as error:
            reason = f"it sent what is no message: {error}"
        self._drop(member, reason)

    def _take(self, member: _Member, message: Message) -> None:
        if message.kind == HEARTBEAT:
            member.step, member.phase = int(message.fields["step"]), str(message.fields["phase"])
        elif message.kind == GOODBYE:
            member.leaving = True
        elif message.kind == HELLO:
            self._greet(member, message)
        else:
            message.rank, message.generation = member.rank, member.generation
            self._events.put(message)

    def _greet(self, member: _Member, message: Message) -> None:
        f = message.fields
        member.peer = Peer(
            member.rank, str(f["host"]), int(f["pid"]), dict(f["address"]), str(f["executor"]), dict(f["capabilities"])
        )
        with self._lock:
            members = [self._members[rank] for rank in range(self.world_size) if rank in self._members]
            again = bool(self.table) and member.rank in self._replaceable and member.generation == self.generation
            if again:
                self.table = tuple(member.peer if p.rank == member.rank else p for p in self.table)
        # Events come after the table is sent: whoever hears of them sends at once, and a worker expects the table first.
        if again:
            try:
                self._send(member, Message(TABLE, {"table": [list(peer) for peer in self.table]}))
            except PeerLost:
                return
            self._events.put(Message(REJOINED, {}, rank=member.rank, generation=member.generation))
            return
        with self._lock:
            if self.table or member.generation != self.generation:
                return
            peers = tuple(m.peer for m in members if m.connected and m.peer is not None)
            if len(peers) < self.world_size:
                return
            self.table = peers
        fields = {"table": [list(peer) for peer in peers]}
        for other in members:
            try:
                self._send(other, Message(TABLE, fields))
            except PeerLost:
                continue
        self._events.put(Message(FORMED, fields, generation=member.generation))

    def _send(self, member: _Member, message: Message) -> None:
        try:
            with member.lock:
                wire.send_message(member.sock, message, SEND_TIMEOUT_S)
        except (wire.Closed, WaitTimeout, OSError) as error:
            reason = f"it takes no message {message.kind!r}: {error}"
            self._drop(member, reason)
            raise PeerLost(f"{member.status()} is lost: {reason}", **self._blame(member)) from error

    def _blame(self, member: _Member) -> dict[str, Any]:
        status = member.status()
        return {"rank": status.rank, "host": status.host, "pid": status.pid, "step": status.step, "phase": status.phase}

    def _drop(self, member: _Member, reason: str) -> None:
        with self._lock:
            was, member.connected = member.connected, False
            current = self._members.get(member.rank) is member
        wire.hang_up(member.sock)
        if was and current and not member.leaving:
            self._events.put(self._about(LOST, member, {"reason": reason}))

    def _about(self, kind: str, member: _Member, more: dict[str, Any]) -> Message:
        fields = {**self._blame(member), "executor": member.status().executor, **more}
        return Message(kind, fields, rank=member.rank, generation=member.generation)

    def _watch(self) -> None:
        """Notices workers that stay silent."""
        while not self._closed.wait(0.1):
            if self.frozen_s is None:
                continue
            for member in list(self._members.values()):
                silent = time.monotonic() - member.heard_at
                if member.connected and not member.warned and silent >= self.frozen_s:
                    member.warned = True
                    self._events.put(self._about(FROZEN, member, {"silent_s": round(silent, 3)}))
