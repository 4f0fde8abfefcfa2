"""The server's end: connections of workers, each read by a thread of its own, before one `SliceServer`."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from .. import wire
from ..errors import DistributedError, PeerLost, WireError
from ..wire import Message
from .effects import Push
from .machine import Replies, SliceServer, Snapshot
from .messages import decode, encode


class Answerer(Protocol):
    """The server's end of a connection to one worker."""

    def send(self, value: Any) -> None:
        """Sends a `Reply`, a `Go` or a message; whoever is gone misses it."""


class Port:
    """One server and those who are connected to it.

    Messages that come before `open` wait. `snapshots` gets a `Snapshot` whenever all workers have stood still.
    """

    def __init__(self, timeout_s: float = 30.0):
        self.timeout_s = timeout_s
        self.snapshots: queue.Queue[Snapshot] = queue.Queue()
        self.failure: BaseException | None = None
        self.bytes_sent = 0  # answers, to workers in other processes
        self._machine: SliceServer | None = None
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self._closed = False
        self._ends: dict[int, Answerer] = {}
        self._seen: Snapshot | None = None

    def open(self, machine: SliceServer) -> None:
        """Begins to serve."""
        self._machine = machine
        self._opened.set()

    def act(self, change: Callable[[SliceServer], Replies | None]) -> None:
        """Does something to the server itself and sends what follows from it."""
        assert self._machine is not None
        self._take(lambda: change(self._machine) or [])  # type: ignore[arg-type]

    def look(self, at: Callable[[SliceServer], Any]) -> Any:
        """Reads something off the server between two messages."""
        assert self._machine is not None
        with self._lock:
            return at(self._machine)

    def enter(self, worker: int, end: Answerer) -> None:
        """Answers for `worker` go to `end` from now on; a connection that it had before ends: its process may be frozen, or
        the network between, so that nobody else would end it."""
        old, self._ends[worker] = self._ends.get(worker), end
        if isinstance(old, SocketEnd):
            old.close()

    def handle(self, worker: int, value: Any) -> None:
        """Takes a decoded message.

        Raises:
            WireError: a push that does not fit this slice.
        """
        self._opened.wait()
        if self._machine is None:
            return
        machine = self._machine
        if isinstance(value, Message):
            self._ends[worker].send(self._told(machine, worker, value.kind))
            return
        if isinstance(value, Push):
            n, tail = len(machine.params), len(machine.state) + len(machine.sums)
            if any(len(a) != n for a in value.parts.values()) or any(len(a) != tail for a in value.tail.values()):
                raise WireError(f"worker {worker} pushed vectors that do not fit a slice of {n} parameters.")
        self._take(lambda: machine.handle(value))

    def _told(self, machine: SliceServer, worker: int, kind: str) -> Message:
        with self._lock:
            if kind == "who":
                done = [machine.epoch, machine.version, machine.done, *machine.received.values()]
                return Message("who", {"behind": machine.behind(), "done": done})
            epoch, clock, next_stop = machine.resume(worker)
            first = machine.iteration - machine.version
            return Message("resume", {"epoch": epoch, "clock": clock, "next": next_stop, "first": first})

    def _take(self, change: Callable[[], Replies]) -> None:
        assert self._machine is not None
        with self._lock:
            replies = change()
            snapshot = self._machine.snapshot
            if snapshot is not self._seen:
                self._seen = snapshot
                assert snapshot is not None
                self.snapshots.put(snapshot)
        for worker, reply in replies:
            if worker in self._ends:
                self._ends[worker].send(reply)

    def close(self) -> None:
        """Ends all connections; messages still underway count for nothing."""
        self._closed = True
        self._machine = None
        self._opened.set()
        for end in list(self._ends.values()):
            if isinstance(end, SocketEnd):
                end.close()

    # --- sockets -------------------------------------------------------------------------------------------------------

    def serve(self, worker: int, sock: socket.socket) -> None:
        """Reads a worker's messages from an authenticated connection until it ends; for a thread of its own."""
        end = SocketEnd(sock, self)
        self.enter(worker, end)
        try:
            while not self._closed:
                waiting_for = f"a message of rank {worker}"
                try:
                    message = wire.receive_message(sock, None, waiting_for, body_timeout_s=self.timeout_s)
                except WireError as error:  # damaged on the way: another connection may do better
                    raise PeerLost(
                        f"rank {worker} sent what is no message: {error}", rank=worker, phase="push"
                    ) from error
                self.handle(worker, decode(message, worker))
        except (wire.Closed, OSError):
            pass
        except DistributedError as error:
            if not self._closed:
                self.failure = self.failure or error
        except Exception as error:  # of the update, say: the rank's own thread raises it
            self.failure = error
        finally:
            end.close()


class SocketEnd:
    """The server's end of a worker's connection."""

    def __init__(self, sock: socket.socket, port: Port):
        self._sock, self._port, self._lock = sock, port, threading.Lock()

    def send(self, value: Any) -> None:
        try:
            with self._lock:
                self._port.bytes_sent += wire.send_message(self._sock, encode(value), self._port.timeout_s)
        except (DistributedError, OSError):
            self.close()  # its reader notices

    def close(self) -> None:
        wire.hang_up(self._sock)
