"""A model that is any tree of arrays, behind a server on the driver, with functions of the user's for gradient and descent."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import wire
from ..collectives.base import Peer
from ..collectives.links import dial
from ..errors import DistributedError, TrainingFailed, WireError
from ..wire import Message
from .links import ServerListener
from .pytree import copied, pack, unpack

Descent = Callable[[Any, Any], Any]
"""``descent(model, update)``: changes the model in place, or returns another one."""

TIMEOUT_S = 60.0


class TreeServer:
    """The state machine: one model, updates one after another, each part of the data counted once.

    A part (a partition in one epoch) is worked through in batches numbered from 0. A batch that comes again, from a task that
    took another one's place, is ignored.
    """

    def __init__(self, model: Any, descent: Descent):
        self.model, self._descent = model, descent
        self.version = 0
        self._done: dict[tuple[int, int], int] = {}  # (epoch, part) -> batches applied
        self.counts = dict.fromkeys(("updates", "repeated", "staleness", "most_staleness"), 0)

    def begin(self, epoch: int, part: int) -> int:
        """The batch to go on with."""
        return self._done.get((epoch, part), 0)

    def push(self, epoch: int, part: int, batch: int, version: int, update: Any) -> None:
        """Applies an update computed at the model of `version`."""
        if batch != self.begin(epoch, part):
            self.counts["repeated"] += 1
            return
        changed = self._descent(self.model, update)
        self.model = self.model if changed is None else changed
        self._done[epoch, part] = batch + 1
        staleness = self.version - version
        self.counts["updates"] += 1
        self.counts["staleness"] += staleness
        self.counts["most_staleness"] = max(self.counts["most_staleness"], staleness)
        self.version += 1


class TreePort:
    """Serves a `TreeServer` on one authenticated port. A context manager.

    Args:
        host: to listen at. secret: of this training.
    """

    def __init__(self, server: TreeServer, host: str, secret: bytes):
        self.server, self.failure = server, None
        self._lock = threading.Lock()
        self._listener, self._secret = ServerListener(host), secret
        self.port = self._listener.address["tcp"][1]
        self._socks: list[socket.socket] = []

    def open(self, parts: int) -> None:
        """Begins to take connections of the parts ``1 .. parts`` (0 is the server)."""
        self._listener.serve(self._secret, 0, 0, range(1, parts + 1), self)  # type: ignore[arg-type]

    def serve(self, rank: int, sock: socket.socket) -> None:
        """Answers one worker until it hangs up."""
        self._socks.append(sock)
        try:
            while True:
                message = wire.receive_message(sock, None, f"a message of part {rank - 1}", body_timeout_s=TIMEOUT_S)
                answer = self._handle(rank - 1, message)
                if answer is not None:
                    wire.send_message(sock, answer, TIMEOUT_S)
        except (wire.Closed, OSError, DistributedError):
            pass
        except Exception as error:  # of the user's descent
            self.failure = self.failure or error  # type: ignore[assignment]
        finally:
            wire.hang_up(sock)

    def _handle(self, part: int, message: Message) -> Message | None:
        f, server = message.fields, self.server
        if message.kind == "update":
            update = unpack(f["tree"], message.arrays)
            with self._lock:
                server.push(int(f["epoch"]), part, int(f["batch"]), int(f["version"]), update)
            return None
        if message.kind == "begin":
            with self._lock:
                return Message("begin", {"batch": server.begin(int(f["epoch"]), part)})
        if message.kind == "model":
            with self._lock:
                model, version = copied(server.model), server.version
            tree, arrays = pack(model)
            return Message("model", {"tree": tree, "version": version}, arrays)
        if message.kind == "done":
            return Message("done")
        raise WireError(f"a tree's server does not know message {message.kind!r}.")

    def close(self) -> None:
        self._listener.close()
        for sock in self._socks:
            wire.hang_up(sock)


class TreeTask:
    """What a task does with its partition: plain values and the user's function, shipped by Spark's own closure."""

    def __init__(self, address: tuple[str, int], secret: bytes, epoch: int, gradient: Callable[[Any, Any], Any],
                 batch_size: int | None, n_fetch: int):  # fmt: skip
        self.address, self.secret, self.epoch, self.gradient = address, secret, epoch, gradient
        self.batch_size, self.n_fetch = batch_size, n_fetch

    def __call__(self, part: int, rows: Iterable[Any]) -> Iterator[None]:
        """Computes the gradients of all batches that are not done yet; the last answer says that all have arrived."""
        peer = Peer(0, self.address[0], 0, {"tcp": list(self.address), "unix": None})
        sock = dial(peer, part + 1, self.secret, 0, wire.Deadline(TIMEOUT_S), ("tcp",), TIMEOUT_S).sock
        try:
            first = self._asked(sock, Message("begin", {"epoch": self.epoch})).fields["batch"]
            model, version = None, 0
            for batch, group in enumerate(self._batches(rows)):
                if batch < first:
                    continue
                if model is None or batch % self.n_fetch == 0:
                    answer = self._asked(sock, Message("model"))
                    model, version = unpack(answer.fields["tree"], answer.arrays), answer.fields["version"]
                tree, arrays = pack(self.gradient(model, group))
                fields = {"epoch": self.epoch, "batch": batch, "version": version, "tree": tree}
                wire.send_message(sock, Message("update", fields, arrays), TIMEOUT_S)
            self._asked(sock, Message("done"))
        finally:
            wire.hang_up(sock)
        return iter(())

    def _batches(self, rows: Iterable[Any]) -> Iterator[Any]:
        rows = iter(rows)
        if self.batch_size is None:
            group = list(rows)
            if group:
                yield group
            return
        while group := list(itertools.islice(rows, self.batch_size)):
            yield group

    def _asked(self, sock: socket.socket, message: Message) -> Message:
        try:
            wire.send_message(sock, message, TIMEOUT_S)
            return wire.receive_message(sock, TIMEOUT_S, f"the server's answer to {message.kind!r}")
        except wire.Closed as error:
            raise TrainingFailed(f"the parameter server hung up: {error}; its driver tells why") from error
