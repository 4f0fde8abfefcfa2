"""A worker's end of the control connection; the driver's is in `rendezvous.py`, which says how the two speak."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import wire
from .collectives.base import Peer
from .errors import DistributedError, DriverLost, HandshakeError, WaitTimeout, WireError
from .rendezvous import GOODBYE, HEARTBEAT, HELLO, SEND_TIMEOUT_S, TABLE
from .wire import Message

HEARTBEAT_S = 0.5
UNREACHABLE_S = 60.0
"""A worker ends when the driver's host has acknowledged no heartbeat for so long. The driver has given it up long before."""


class ControlClient:
    """A worker's end: connects and proves itself when made, `join`s, then sends and receives. A context manager.

    Args:
        address: the server's (host, port).
        secret, generation, rank: as the task was told.
        timeout_s: for connecting.

    Attributes:
        local_address: this machine's address as the driver's network sees it; peers' ports belong there.
    """

    def __init__(self, address: tuple[str, int], secret: bytes, generation: int, rank: int, timeout_s: float = 30.0):
        self.generation, self.rank = generation, rank
        self._sock = _connect(address, secret, wire.Hello(b"C", generation, rank, -1), timeout_s)
        wire.give_up_after(self._sock, UNREACHABLE_S)
        self.local_address = wire.source_address(self._sock)
        self._lock = threading.Lock()
        self._inbox: queue.Queue[Message | None] = queue.Queue()
        self._failure: MemoryError | None = None
        self._stop = threading.Event()
        self._where = (-1, "start")
        self._end = ""
        self._threads = [
            threading.Thread(target=self._read, name="kerasoft-inbox", daemon=True),
            threading.Thread(target=self._beat, name="kerasoft-heartbeat", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def join(
        self,
        address: Mapping[str, Any] | None = None,
        *,
        executor: str = "",
        capabilities: Mapping[str, Any] | None = None,
        timeout_s: float = 60.0,
    ) -> tuple[Peer, ...]:
        """Says hello and waits for all others.

        Args:
            address: `PeerListener(client.local_address).address`; None for a worker without peers.
            capabilities: anything else that driver and peers should know; JSON values.

        Raises:
            WaitTimeout: not all ranks came within `timeout_s`.
        """
        hello = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "address": dict(address or {}),
            "executor": executor,
            "capabilities": wire.as_fields(capabilities),
        }
        self.send(HELLO, hello)
        table = self.receive(timeout_s, "the other workers to join")
        if table.kind != TABLE:
            raise WireError(f"rank {self.rank} expected the table of workers, got message {table.kind!r}.")
        return tuple(Peer(*row) for row in table.fields["table"])

    def at(self, step: int, phase: str) -> None:
        """Says what this worker is doing; the next heartbeat carries it. Costs nothing: call it every phase."""
        self._where = (step, phase)

    def send(
        self, kind: str, fields: Mapping[str, Any] | None = None, arrays: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Sends a message to the driver. Raises `DriverLost`."""
        message = Message(kind, wire.as_fields(fields), dict(arrays or {}))
        try:
            with self._lock:
                wire.send_message(self._sock, message, SEND_TIMEOUT_S)
        except (wire.Closed, WaitTimeout, OSError) as error:
            raise DriverLost(f"rank {self.rank} could not send {kind!r} to the driver: {error}") from error

    def receive(self, timeout_s: float | None, waiting_for: str = "a message of the driver") -> Message:
        """The driver's next message.

        Raises:
            WaitTimeout: it did not come within `timeout_s`; names `waiting_for`.
            DriverLost: the driver closed the connection.
            MemoryError: the message does not fit into this process.
        """
        try:
            message = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise WaitTimeout(f"rank {self.rank} waited {timeout_s:g} s for {waiting_for}.") from None
        if message is None:
            self._inbox.put(None)
            if self._failure is not None:
                raise self._failure
            raise DriverLost(f"rank {self.rank} lost the driver while waiting for {waiting_for}: {self._end}")
        return message

    def poll(self) -> Message | None:
        """The driver's next message if one is there; None otherwise. Raises `DriverLost`."""
        if self._inbox.empty():
            return None
        return self.receive(0.0)

    def close(self) -> None:
        """Says goodbye, so that the end of the connection is no loss."""
        if self._stop.is_set():
            return
        try:
            self.send(GOODBYE)
        except DistributedError:
            pass
        self.abandon()

    def abandon(self) -> None:
        """Ends the connection without goodbye: the driver hears of a loss."""
        self._stop.set()
        wire.hang_up(self._sock)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _read(self) -> None:
        try:
            while True:
                self._inbox.put(wire.receive_message(self._sock, None, "a message of the driver"))
        except MemoryError as error:  # of this worker: it has to say so, while it can still send
            self._failure = MemoryError(f"no room for a message of the driver: {error}")
            self._inbox.put(None)
        except (wire.Closed, DistributedError, OSError, ValueError) as error:
            self._end = str(error)
            self._inbox.put(None)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            step, phase = self._where
            try:
                self.send(HEARTBEAT, {"step": step, "phase": phase})
            except DriverLost:
                return


def _connect(address: tuple[str, int], secret: bytes, hello: wire.Hello, timeout_s: float) -> socket.socket:
    """An authenticated connection; tries again while nobody listens or the server is busy with strangers."""
    deadline = wire.Deadline(timeout_s)
    reason = "no answer"
    while True:
        try:
            sock = wire.dial((address[0], address[1]), max(0.01, deadline.left()))
            try:
                wire.ask(sock, secret, hello, max(0.01, deadline.left()))
                return sock
            except BaseException:
                sock.close()
                raise
        except HandshakeError:
            raise
        except (OSError, WaitTimeout) as error:
            reason = str(error)
        if deadline.left() <= 0:
            raise WaitTimeout(
                f"rank {hello.rank} could not reach the driver at {address[0]}:{address[1]} within {timeout_s:g} s: "
                f"{reason}. Set spark.driver.host to an address that the executors reach."
            )
        time.sleep(min(0.1, deadline.left()))
