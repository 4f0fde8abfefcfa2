"""Connections between the ranks of a generation: everyone to everyone, authenticated, AF_UNIX where it works, else TCP.

Each rank listens at the address that reaches the driver (and on an abstract AF_UNIX name, which needs no file). When the
table of all ranks is there, the higher rank of a pair connects to the lower one: first AF_UNIX, which only succeeds
within one host, then TCP. Both ends show that they hold the fit's secret. Strangers are answered by threads, so that a
silent one delays nobody; once all ranks are connected the ports are closed.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import wire
from ..errors import DistributedError, PeerFrozen, PeerLost, WaitTimeout
from .base import Peer

MAX_STRANGERS = 64


@dataclass
class Link:
    """A connection to one peer; `place` is the peer's number in the group that uses it, if not its rank."""

    peer: Peer
    sock: socket.socket
    transport: str
    place: int = -1

    def __post_init__(self) -> None:
        if self.place < 0:
            self.place = self.peer.rank


class PeerListener:
    """Where the other ranks will connect. Made before the driver's table, whose rows carry its `address`.

    Args:
        host: this machine's address as the others see it; `ControlClient.local_address` is right.
    """

    def __init__(self, host: str):
        self.tcp = wire.listen(host)
        self.unix: socket.socket | None = None
        self.address: dict[str, Any] = {"tcp": list(self.tcp.getsockname()[:2]), "unix": None}
        if sys.platform == "linux":
            self.unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            name = f"kerasoft-{os.urandom(16).hex()}"
            self.unix.bind("\0" + name)
            self.unix.listen(128)
            self.unix.setblocking(False)
            self.address["unix"] = name
        self._links: queue.Queue[tuple[int, socket.socket, str]] = queue.Queue()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._joined: set[int] = set()
        self._lock = threading.Lock()
        self._strangers = threading.BoundedSemaphore(MAX_STRANGERS)

    def start(self, secret: bytes, generation: int, rank: int, world_size: int) -> None:
        """Begins to take connections from the ranks above `rank`."""

        def admit(hello: wire.Hello) -> int:
            if hello.role != b"P" or hello.target != rank:
                return 4
            if hello.generation != generation:
                return 1
            if not rank < hello.rank < world_size:
                return 2
            return 3 if hello.rank in self._joined else 0

        self._thread = threading.Thread(target=self._accept, args=(secret, admit), name="kerasoft-peers", daemon=True)
        self._thread.start()

    def _accept(self, secret: bytes, admit) -> None:
        poller = select.poll()
        names = {}
        for sock, transport in ((self.tcp, "tcp"), (self.unix, "unix")):
            if sock is not None:
                poller.register(sock, select.POLLIN)
                names[sock.fileno()] = (sock, transport)
        while not self._closed.is_set():
            for descriptor, _ in poller.poll(50):
                sock, transport = names[descriptor]
                try:
                    accepted, _ = sock.accept()
                except OSError:
                    continue
                if not self._strangers.acquire(blocking=False):
                    accepted.close()
                    continue
                threading.Thread(target=self._greet, args=(accepted, transport, secret, admit), daemon=True).start()

    def _greet(self, sock: socket.socket, transport: str, secret: bytes, admit) -> None:
        try:
            wire.prepare(sock)
            hello = wire.answer(sock, secret, admit)
            with self._lock:
                if hello.rank in self._joined or self._closed.is_set():
                    sock.close()
                    return
                self._joined.add(hello.rank)
                self._links.put((hello.rank, sock, transport))
        except (DistributedError, OSError):
            sock.close()
        finally:
            self._strangers.release()

    def take(self, timeout_s: float) -> tuple[int, socket.socket, str]:
        """The next authenticated connection: (rank, socket, transport). Raises `queue.Empty`."""
        return self._links.get(timeout=timeout_s)

    def close(self) -> None:
        """Closes the ports and what nobody took; connections that were taken stay."""
        with self._lock:
            self._closed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for sock in (self.tcp, self.unix):
            if sock is not None:
                sock.close()
        while not self._links.empty():
            wire.hang_up(self._links.get()[1])

    def __enter__(self) -> PeerListener:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def connect_all(
    table: Sequence[Peer],
    rank: int,
    secret: bytes,
    generation: int,
    timeout_s: float,
    listener: PeerListener,
    transports: Sequence[str],
    partners: Container[int] | None = None,
) -> dict[int, Link]:
    """A link to every other rank of `table`, or to those in `partners`; closes `listener`.

    Raises:
        PeerLost: a rank takes no connections: it died since it said hello.
        PeerFrozen: a rank did not connect or answer within `timeout_s`.
        HandshakeError: something else listens at a rank's address.
    """
    links: dict[int, Link] = {}
    deadline = wire.Deadline(timeout_s)
    try:
        listener.start(secret, generation, rank, len(table))
        wanted = [p for p in table if p.rank != rank and (partners is None or p.rank in partners)]
        for peer in [p for p in wanted if p.rank < rank]:
            links[peer.rank] = dial(peer, rank, secret, generation, deadline, transports, timeout_s)
        missing = {peer.rank for peer in wanted if peer.rank > rank}
        while missing:
            try:
                other, sock, transport = listener.take(max(0.01, deadline.left()))
            except queue.Empty:
                peer = table[min(missing)]
                raise PeerFrozen(
                    f"{peer} did not connect to rank {rank} within {timeout_s:g} s.", **blame(peer, -1, "connect")
                ) from None
            links[other] = Link(table[other], sock, transport)
            missing.discard(other)
    except BaseException:
        for link in links.values():
            wire.hang_up(link.sock)
        raise
    finally:
        listener.close()
    return links


def dial(
    peer: Peer,
    rank: int,
    secret: bytes,
    generation: int,
    deadline: wire.Deadline,
    transports: Sequence[str],
    timeout_s: float,
) -> Link:
    """A connection to another rank's listener, authenticated; tries again while it hangs up (its places for strangers may be taken).

    Raises:
        PeerLost: it takes no connections. PeerFrozen: it did not answer within `timeout_s`.
        HandshakeError: something else listens there.
    """
    hello = wire.Hello(b"P", generation, rank, peer.rank)
    reason = "its port is closed"
    while True:
        for transport, connected in _ways(peer.address, transports, deadline):
            try:
                sock = connected()
            except OSError as error:
                reason = str(error)
                continue
            try:
                wire.ask(sock, secret, hello, max(0.01, deadline.left()))
                return Link(peer, sock, transport)
            except WaitTimeout:
                sock.close()
            except wire.Closed as error:
                sock.close()
                reason = str(error)
            except BaseException:
                sock.close()
                raise
        if deadline.left() <= 0:
            raise PeerFrozen(f"{peer} did not answer rank {rank} within {timeout_s:g} s.", **blame(peer, -1, "connect"))
        if "refused" in reason:
            raise PeerLost(f"{peer} takes no connection from rank {rank}: {reason}.", **blame(peer, -1, "connect"))
        time.sleep(0.05)


def _ways(address: Mapping[str, Any], transports: Sequence[str], deadline: wire.Deadline):
    def unix() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect("\0" + address["unix"])
        except OSError:
            sock.close()
            raise
        wire.prepare(sock)
        return sock

    if address.get("unix") and sys.platform == "linux" and ("unix" in transports or "shm" in transports):
        yield "unix", unix
    if "tcp" in transports or not address.get("unix"):
        host, port = address["tcp"]
        yield "tcp", lambda: wire.dial((host, port), max(0.01, deadline.left()))


def blame(peer: Peer, step: int, phase: str) -> dict[str, Any]:
    """The keyword arguments of a `WorkerLost` about `peer`."""
    return {"rank": peer.rank, "host": peer.host, "pid": peer.pid, "step": step, "phase": phase}
