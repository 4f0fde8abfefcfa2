"""Faults that strike a rank from inside its own process, at a named moment, by real means: signals, sockets, files.

A `Strikes` travels in the task in place of `kerasoft.runtime.faults.Script`. When a rank begins, it arms its process: a few
functions of the runtime are wrapped once, so that a strike can fall in the middle of a frame, which no hook between two
steps can. Nothing of this is in the runtime.

| when | the moment |
|---|---|
| load | the rows are about to be read |
| compile | the rows are there, nothing is compiled |
| rendezvous | the driver's table has come, no peer is connected |
| compute | a step begins |
| reduce-scatter | half of the first frame of gradients (a push) is on its way |
| all-gather | half of the first frame of weights is on its way (with servers: before a fetch is asked for) |
| checkpoint | half of this rank's slice is on its way to the driver |
| validation | a step of the validation begins |
| serve | a server takes a push |
"""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import socket
import subprocess
import threading
import time
from typing import Any

from kerasoft.runtime.faults import Script, _parent

WHENS = (
    "load",
    "compile",
    "rendezvous",
    "compute",
    "reduce-scatter",
    "all-gather",
    "checkpoint",
    "validation",
    "serve",
)
HOWS = (
    "kill", "kill executor", "freeze", "freeze executor", "slow", "half-open", "half-open to driver", "cut off", "corrupt",
    "corrupt to driver", "full disk", "full memory",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Strike:
    """One fault.

    Attributes:
        rank: whose process. when: see above. how: one of `HOWS`.
        epoch, step: not before them (a checkpoint and a validation have no step).
        generation: the attempt; None: every one.
        seconds: of a pause ("slow": at each such moment; "freeze executor", "cut off": until it is undone).
    """

    rank: int
    when: str
    how: str
    epoch: int = 1
    step: int = 2
    generation: int | None = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.when not in WHENS or self.how not in HOWS:
            raise ValueError(f"no such strike: {self.when!r}, {self.how!r}")


@dataclasses.dataclass(frozen=True)
class Strikes(Script):
    """Strikes in place of the runtime's own script.

    Attributes:
        root: pid of a process in the network namespace that the hosts' links lead to, for "cut off".
    """

    strikes: tuple[Strike, ...] = ()
    root: int = 0

    def at(self, rank: int, epoch: int, step: int, phase: str) -> None:
        if phase == "load":
            _arm(self, rank)
        if phase in ("load", "compile"):
            return _moment(phase)
        _here.epoch, _here.step = epoch, step
        _moment({"step": "compute", "validation": "validation", "serve": "serve"}[phase])


class _Here(threading.local):
    """This rank; ranks may be threads of one process."""

    armed: Strikes | None = None
    rank = epoch = step = -1
    done: set[Strike] = set()
    control: Any = None


_here = _Here()
_kept: list[Any] = []  # ends of connections that nobody serves any more


def _due(when: str) -> Strike | None:
    """The strike of this moment, if there is one, and marks it as done (a slow one falls again and again)."""
    script = _here.armed
    for strike in script.strikes if script is not None else ():
        if (strike.rank, strike.when) != (_here.rank, when) or strike in _here.done:
            continue
        if strike.generation not in (None, script.generation):
            continue
        timeless = when in ("load", "compile", "rendezvous")
        if not timeless and (_here.epoch, _here.step) < (strike.epoch, 0 if when == "validation" else strike.step):
            continue
        if strike.how != "slow":
            _here.done.add(strike)
        return strike
    return None


def _moment(when: str, socks: list[socket.socket] | None = None) -> None:
    strike = _due(when)
    if strike is not None:
        fall(strike, socks)


def fall(strike: Strike, socks: list[socket.socket] | None = None) -> None:
    """Does what the strike says to this process."""
    how = strike.how
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "kill executor":
        os.kill(executor(), signal.SIGKILL)
        time.sleep(60)
    elif how == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "freeze executor":
        os.kill(executor(), signal.SIGSTOP)
        later(strike.seconds, f"kill -CONT {executor()}")
    elif how == "slow":
        time.sleep(strike.seconds)
    elif how == "half-open":
        for sock in socks or _peers():
            half_open(sock)
    elif how == "half-open to driver":
        half_open(_here.control._sock)
    elif how == "corrupt":
        _shout((socks or _peers())[0])
    elif how == "corrupt to driver":
        with _here.control._lock:
            _shout(_here.control._sock)
    elif how == "cut off":
        assert _here.armed is not None
        port = os.environ["FAULTS_PORT"]
        enter = f"nsenter --net=/proc/{_here.armed.root}/ns/net ip link set {port}"
        subprocess.run(f"{enter} nomaster".split(), check=True)
        later(strike.seconds, f"{enter} master {os.environ['FAULTS_BRIDGE']}")
    elif how == "full disk":
        from kerasoft.runtime.store import scratch_folder

        fill(scratch_folder() or "/tmp")
    elif how == "full memory":
        fill("/dev/shm")


def executor() -> int:
    """The pid of this Python worker's executor."""
    return _parent(_parent(os.getpid()))


def later(seconds: float, command: str) -> None:
    """Runs a shell command after a while, whatever becomes of this process."""
    subprocess.Popen(["setsid", "sh", "-c", f"sleep {seconds}; {command}"], stdin=subprocess.DEVNULL)


def fill(folder: str) -> None:
    """Takes all the room that is left in a folder's file system."""
    with open(os.path.join(folder, "filler"), "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue


def half_open(sock: socket.socket) -> None:
    """The connection stays open for the other end, which hears nothing any more; this end talks to nobody."""
    left, right = socket.socketpair()
    left.setblocking(False)
    _kept.append((os.dup(sock.fileno()), left, right))
    os.dup2(left.fileno(), sock.fileno())


def _shout(sock: socket.socket) -> None:
    """Bytes that are no frame."""
    send(sock, b"\xff" * 96)


def send(sock: socket.socket, data: Any) -> None:
    """Sends all of `data` through a non-blocking socket."""
    view = memoryview(data).cast("B")
    while len(view):
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            select.select([], [sock], [], 5)


# --- arming -----------------------------------------------------------------------------------------------------------


_wrapped = False
_mine: Any = None  # this process's group of peers


def _peers() -> list[socket.socket]:
    if hasattr(_mine, "_lanes"):
        return [lane.sock for lane in _mine._lanes.values()]
    found = []
    if _mine is not None and _mine.links is not None:
        for link in _mine.links.links:
            sock = getattr(link, "_sock", None) or getattr(getattr(link, "_http", None), "sock", None)
            found += [] if sock is None else [sock]
    if _mine is not None and _mine.port is not None:
        found += [end._sock for end in _mine.port._ends.values() if hasattr(end, "_sock")]
    return found


def _arm(script: Strikes, rank: int) -> None:
    """Makes this process ready for the strikes of one attempt."""
    global _wrapped
    for descriptor, left, right in _kept:
        os.close(descriptor)
        left.close()
        right.close()
    _kept.clear()
    _here.armed, _here.rank, _here.epoch, _here.step, _here.done = script, rank, -1, -1, set()
    if not _wrapped:
        _wrapped = True
        _wrap()


def _wrap() -> None:
    from kerasoft.runtime import worker
    from kerasoft.runtime.collectives import exchange, lanes
    from kerasoft.runtime.collectives.near import Near
    from kerasoft.runtime.collectives.shared import SharedMemory
    from kerasoft.runtime.control_client import ControlClient
    from kerasoft.runtime.servers import file_store, http_store, method, port
    from kerasoft.runtime.servers import links as served

    def around(owner: Any, name: str, make: Any) -> None:
        setattr(owner, name, make(getattr(owner, name)))

    def joined(real):
        def join(self, *args, **more):
            _here.control = self
            table = real(self, *args, **more)
            _moment("rendezvous")
            return table

        return join

    def sent(real):
        """Half of the message, if the strike falls here."""

        def send_(self, kind, fields=None, arrays=None):
            if kind == "checkpoint" and _here.armed is not None:
                strike = _due("checkpoint")
                if strike is not None and strike.how != "slow":
                    data = b"".join(
                        bytes(b) for b in _message_buffers(worker.Message(kind, dict(fields or {}), dict(arrays or {})))
                    )
                    with self._lock:
                        if strike.how != "corrupt to driver":
                            send(self._sock, data[: len(data) // 2])
                        if strike.how == "corrupt to driver":
                            _shout(self._sock)
                        else:
                            fall(strike, [self._sock])
                        time.sleep(30 if strike.how.startswith(("half", "corrupt")) else 0)
                        send(self._sock, data[len(data) // 2 :])
                    return
                if strike is not None:
                    fall(strike)
            real(self, kind, fields, arrays)

        return send_

    def connected(real):
        def connect(self, *args, **more):
            global _mine
            _mine = real(self, *args, **more)
            return _mine

        return connect

    def begun(real):
        """The next frame that this rank sends is the one that is struck."""

        def begin(self, kind, sequence, step, note, out, target, want=None):
            real(self, kind, sequence, step, note, out, target, want)
            when = {exchange.REDUCE_SCATTER: "reduce-scatter", exchange.TREE: "reduce-scatter"}.get(kind, "all-gather")
            if _here.armed is not None and out and step >= 0 and kind in _STRUCK and (strike := _due(when)):
                if strike.how == "corrupt":
                    self.header_out[:4] = b"\xff" * 4
                elif strike.how != "slow":
                    half = len(self.out[1]) // 2 if len(self.out) > 1 else 0
                    send(self.sock, b"".join(bytes(b) for b in self.out)[: 48 + half])
                    fall(strike)
                    if strike.how.startswith("half"):
                        return
                    data = b"".join(bytes(b) for b in self.out)[48 + half :]
                    self.out, self.out_left, self.untouched = [memoryview(data)] if data else [], len(data), False
                else:
                    fall(strike)

        return begin

    def in_memory(when):
        def wrap(real):
            def call(self, *args, **more):
                if self.transport == "shm" and _here.armed is not None and self.step >= 0:
                    _moment(when)
                return real(self, *args, **more)

            return call

        return wrap

    def pushed(real):
        def put(self, value):
            if isinstance(value, served.Push) and _here.armed is not None and (strike := _due("reduce-scatter")):
                if hasattr(self, "_sock") and strike.how in ("kill", "kill executor", "freeze", "half-open", "corrupt"):
                    data = b"".join(bytes(b) for b in _message_buffers(served.encode(value)))
                    if strike.how == "corrupt":
                        data = b"\xff" * 8 + data[8:]
                    send(self._sock, data[: len(data) // 2])
                    if strike.how != "corrupt":
                        fall(strike)
                    send(self._sock, data[len(data) // 2 :])
                    return None
                fall(strike)
            return real(self, value)

        return put

    def asked(real):
        def ask(self, *args):
            if _here.armed is not None:
                _moment("all-gather")
            return real(self, *args)

        return ask

    def handled(real):
        def handle(self, worker_, value):
            if isinstance(value, served.Push) and _serving is not None:
                _here.armed, _here.rank, _here.epoch, _here.step = *_serving, value.epoch, value.clock
                _here.done = _served_done
                _moment("serve")
            return real(self, worker_, value)

        return handle

    def opened(real):
        def open_(self, machine):
            global _serving, _served_done
            _serving, _served_done = (_here.armed, _here.rank), set()
            return real(self, machine)

        return open_

    around(ControlClient, "join", joined)
    around(ControlClient, "send", sent)
    around(worker.Method, "connect", connected)
    around(method.Served, "connect", connected)
    around(lanes.Lane, "begin", begun)
    for name in ("reduce_scatter", "reduce_scatter_tree", "all_reduce_small_tree"):
        around(SharedMemory, name, in_memory("reduce-scatter"))
    around(SharedMemory, "all_gather", in_memory("all-gather"))
    around(Near, "up", in_memory("reduce-scatter"))
    around(Near, "members_done", in_memory("all-gather"))
    for link in (served.SocketLink, http_store.HttpLink, file_store.FileLink):
        around(link, "put", pushed)
    around(served.Links, "ask", asked)
    around(port.Port, "handle", handled)
    around(port.Port, "open", opened)
    _STRUCK.update({exchange.REDUCE_SCATTER, exchange.TREE, exchange.ALL_GATHER, exchange.SMALL, exchange.SMALL_TREE})


_STRUCK: set[int] = set()
_serving: tuple[Strikes | None, int] | None = None
_served_done: set[Strike] = set()


def _message_buffers(message: Any) -> list[memoryview]:
    from kerasoft.runtime.wire import message_buffers

    return message_buffers(message)
