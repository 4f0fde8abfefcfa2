"""The worker's end: one link to each server, over authenticated sockets, or a plain call for the server in this process."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import wire
from ..collectives.base import Counters, Peer
from ..collectives.links import PeerListener, blame, dial
from ..errors import DistributedError, PeerFrozen, PeerLost
from ..wire import Message
from .effects import Ask, Fetched, Go, Push, Reply, Stand
from .messages import decode, encode
from .port import Port

Inbox = queue.Queue  # of (server, `Reply` | `Go` | `Message` | exception)


class LocalLink:
    """To the server in this process: a call. Arrays are handed over, not copied."""

    def __init__(self, server: int, worker: int, port: Port, inbox: Inbox):
        self.server, self._worker, self._port, self._inbox = server, worker, port, inbox
        self.bytes_sent = self.bytes_received = 0
        port.enter(worker, self)

    def put(self, value: Any) -> None:
        self._port.handle(self._worker, value)

    def send(self, value: Any) -> None:
        """An answer of the server."""
        self._inbox.put((self.server, value))

    def close(self) -> None:
        pass


class SocketLink:
    """To a server in another process. Answers are read by a thread as they come, so that neither end waits for the
    other to read."""

    def __init__(self, server: int, peer: Peer, sock: socket.socket, inbox: Inbox, timeout_s: float):
        self.server, self.peer, self._sock, self._inbox, self._timeout_s = server, peer, sock, inbox, timeout_s
        self.bytes_sent = self.bytes_received = 0
        self._thread = threading.Thread(target=self._read, name="kerasoft-answers", daemon=True)
        self._thread.start()

    def put(self, value: Any) -> None:
        try:
            self.bytes_sent += wire.send_message(self._sock, encode(value), self._timeout_s)
        except (wire.Closed, OSError) as error:
            raise PeerLost(f"{self.peer} is lost: {error}.", **blame(self.peer, -1, "push")) from error

    def _read(self) -> None:
        try:
            while True:
                waiting_for = f"an answer of {self.peer}"
                message = wire.receive_message(self._sock, None, waiting_for, body_timeout_s=self._timeout_s)
                self.bytes_received += sum(a.nbytes for a in message.arrays.values())
                self._inbox.put((self.server, decode(message)))
        except (wire.Closed, DistributedError, OSError) as error:
            lost = PeerLost(f"{self.peer} is lost: {error}.", **blame(self.peer, -1, "fetch"))
            self._inbox.put((self.server, lost))

    def close(self) -> None:
        wire.hang_up(self._sock)
        self._thread.join()


class Links:
    """A worker's connections to all servers, in the order of their slices.

    Args:
        make: ``make(inbox)`` gives the links.
        table: of all ranks, for errors. servers: their ranks.
        timeout_s: longest wait without any progress anywhere.
    """

    def __init__(
        self,
        worker: int,
        make: Callable[[Inbox], list],
        table: Sequence[Peer],
        servers: Sequence[int],
        timeout_s: float,
    ):
        self.worker, self.table, self.servers, self.timeout_s = worker, table, tuple(servers), timeout_s
        self._inbox: Inbox = queue.Queue()
        self.links = make(self._inbox)
        self._requests = itertools.count(1)
        self._asking = 0
        self.tick: Callable[[], None] = lambda: None  # called while waiting

    def push(self, server: int, push: Push) -> None:
        """Sends gradients on their way."""
        self.links[server].put(push)

    def ask(self, epoch: int, at_least: int) -> None:
        """Starts a fetch from all servers; `fetched` waits for it."""
        self._asking = next(self._requests)
        for link in self.links:
            link.put(Ask(self.worker, epoch, at_least, self._asking))

    def fetched(self, whole: bool = False) -> tuple[Fetched, np.ndarray, list[int]]:
        """The parameters asked for, the states, and each server's mark; `whole`: even if the epoch stops here."""
        found: dict[int, Reply] = {}

        def complete(server: int, answer: Any) -> bool:
            if isinstance(answer, Reply) and answer.request == self._asking:
                found[server] = answer
            return len(found) == len(self.links) or (not whole and 0 in found and found[0].stop)

        self._wait(complete, found, "fetch")
        first = found[0]
        if len(found) < len(self.links):  # the epoch stops here
            return Fetched(None, 0, first.rate, True), np.zeros(0, np.float32), []
        pieces = [found[j].params for j in range(len(self.links))]
        vector = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        assert first.state is not None
        marks = [found[j].mark for j in range(len(self.links))]
        return Fetched(vector, first.mark, first.rate, first.stop, first.version), first.state, marks

    def pause(self, epoch: int, step: int, end: bool) -> Go:
        """Waits until all workers stand at `step`; the coordinator's answer."""
        found: dict[int, Go] = {}

        def complete(server: int, answer: Any) -> bool:
            if isinstance(answer, Go) and (answer.epoch, answer.end) == (epoch, end):
                found[server] = answer
            return len(found) == len(self.links)

        for link in self.links:
            link.put(Stand(self.worker, epoch, step, end))
        self._wait(complete, found, "pause")
        return found[0]

    def resume(self) -> tuple[int, int, int, int]:
        """(epoch, step, next stop, iteration of step 0) to go on from in another worker's place: the furthest that all
        servers know of."""
        found: dict[int, Message] = {}

        def complete(server: int, answer: Any) -> bool:
            if isinstance(answer, Message) and answer.kind == "resume":
                found[server] = answer
            return len(found) == len(self.links)

        for link in self.links:
            link.put(Message("resume"))
        self._wait(complete, found, "resume")
        epoch, clock = min((m.fields["epoch"], m.fields["clock"]) for m in found.values())
        return epoch, clock, found[0].fields["next"], found[0].fields["first"]

    def _wait(self, complete: Callable[[int, Any], bool], found: dict[int, Any], phase: str) -> None:
        """Reads answers until they are complete; asks who is late when that takes long.

        Raises:
            PeerLost: a server is gone. PeerFrozen: a server does not answer, or a worker makes no step.
        """
        heard = {j: time.monotonic() for j in range(len(self.links))}
        progress: dict[int, tuple[Any, float]] = {}  # of each server: what it last told, since when
        asked = time.monotonic()
        while True:
            try:
                server, answer = self._inbox.get(timeout=0.05)
            except queue.Empty:
                self.tick()
                now = time.monotonic()
                if now - asked > self.timeout_s / 4:
                    asked = now
                    for j, link in enumerate(self.links):
                        if j not in found:
                            link.put(Message("who"))
                for j, at in heard.items():
                    if j not in found and now - at > self.timeout_s:
                        self._give_up(self.servers[j], "does not answer", phase)
                if progress and all(now - since > self.timeout_s for _, since in progress.values()):
                    behind = progress[min(progress)][0][0]
                    self._give_up(behind[0] if behind else self.servers[0], "makes no step", phase)
                continue
            if isinstance(answer, Exception):
                raise answer
            heard[server] = time.monotonic()
            if isinstance(answer, Message) and answer.kind == "who":
                seen = (answer.fields["behind"], answer.fields["done"])
                if server not in progress or progress[server][0] != seen:
                    progress[server] = (seen, time.monotonic())
            elif complete(server, answer):
                return

    def _give_up(self, rank: int, what: str, phase: str) -> None:
        peer = self.table[rank]
        raise PeerFrozen(
            f"{peer} {what} for {self.timeout_s:g} s while rank {self.worker} waits ({phase}).",
            **blame(peer, -1, phase),
        )

    def moved(self) -> tuple[int, int]:
        """Bytes sent to and received from servers in other processes."""
        return sum(link.bytes_sent for link in self.links), sum(link.bytes_received for link in self.links)

    def close(self) -> None:
        for link in self.links:
            link.close()


class Group:
    """What a rank has of the others: its port if it serves, its links if it works. A context manager."""

    def __init__(self, port: Port | None, links: Links | None, listener: Any):
        self.port, self.links, self._listener = port, links, listener
        self.step = -1

    def at(self, step: int) -> None:
        self.step = step

    @property
    def counters(self) -> Counters:
        """Sent: gradients as a worker, parameters as a server. Received: as a worker."""
        sent, received = self.links.moved() if self.links is not None else (0, 0)
        served = self.port.bytes_sent if self.port is not None else 0
        return Counters(bytes_sent=sent + served, bytes_received=received)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
        if self.port is not None:
            self.port.close()
        if self.links is not None:
            self.links.close()


class ServerListener(PeerListener):
    """Takes the connections of workers, at any time: one that replaces another connects again."""

    def serve(self, secret: bytes, generation: int, rank: int, workers: Sequence[int], port: Port) -> None:
        """Begins to take connections and to serve them at `port`."""

        def admit(hello: wire.Hello) -> int:
            if hello.role != b"P" or hello.target != rank:
                return 4
            if hello.generation != generation:
                return 1
            return 0 if hello.rank in workers and hello.rank != rank else 2

        def hand_over() -> None:
            while not self._closed.is_set():
                try:
                    worker, sock, _ = self.take(0.1)
                except queue.Empty:
                    continue
                self._joined.discard(worker)
                threading.Thread(target=port.serve, args=(worker, sock), name="kerasoft-serve", daemon=True).start()

        self._thread = threading.Thread(target=self._accept, args=(secret, admit), name="kerasoft-peers", daemon=True)
        self._thread.start()
        self._giver = threading.Thread(target=hand_over, name="kerasoft-hand-over", daemon=True)
        self._giver.start()

    def close(self) -> None:
        super().close()
        giver = getattr(self, "_giver", None)
        if giver is not None:
            giver.join()


def link_to(
    store: str, server: int, peer: Peer, rank: int, secret: bytes, generation: int, inbox: Inbox, timeout_s: float,
    transports: Sequence[str],
) -> Any:  # fmt: skip
    """A link to a server in another process, by the way that the store is reached."""
    if store == "http":
        from .http_store import HttpLink

        return HttpLink(server, peer, rank, secret, generation, inbox, timeout_s)
    if store == "file":
        from .file_store import FileLink

        return FileLink(server, peer, rank, secret, generation, inbox, timeout_s)
    sock = dial(peer, rank, secret, generation, wire.Deadline(timeout_s), transports, timeout_s).sock
    return SocketLink(server, peer, sock, inbox, timeout_s)


def listen(store: str, host: str, folder: str | None) -> Any:
    """Where this rank's server is reached; see `meet`."""
    if store == "http":
        from .http_store import HttpListener

        return HttpListener(wire.checked_host(host))
    if store == "file":
        from .file_store import FileListener

        assert folder is not None
        return FileListener(folder)
    return ServerListener(host)


def meet(
    table: Sequence[Peer], rank: int, secret: bytes, generation: int, servers: Sequence[int], workers: Sequence[int],
    listener: Any, store: str, transports: Sequence[str], timeout_s: float,
) -> Group:  # fmt: skip
    """This rank's `Group`: opens its port if it is one of `servers`, connects to all servers if it is one of `workers`."""
    port = Port(timeout_s) if rank in servers else None
    if listener is not None and port is not None:
        listener.serve(secret, generation, rank, workers, port)
    if rank not in workers:
        return Group(port, None, listener)
    made: list[Any] = []

    def make(inbox: Inbox) -> list:
        for j, server in enumerate(servers):
            if server == rank:
                assert port is not None
                made.append(LocalLink(j, rank, port, inbox))
            else:
                made.append(link_to(store, j, table[server], rank, secret, generation, inbox, timeout_s, transports))
        return made

    try:
        return Group(port, Links(rank, make, table, servers, timeout_s), listener)
    except BaseException:
        for link in made:
            link.close()
        if port is not None:
            port.close()
        raise
