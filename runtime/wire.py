"""What travels on the runtime's sockets: frames, messages and the handshake. No pickle, every length checked.

    frame   := header (48 bytes, little endian) head body
    header  := magic "KSW1" | kind u16 | 0 u16 | sequence i64 | step i64 | note i64 | head bytes u64 | body bytes u64
    head    := JSON object, UTF-8 (messages only)
    body    := raw array bytes, C order, little endian

    handshake:  client -> server   hello   "KSH1" | role u8 | generation u64 | rank i32 | target i32 | nonce 32
                server -> client   answer  status u8 | nonce 32 | HMAC("server" | hello | nonce)
                client -> server   proof   HMAC("client" | hello | nonce)

Both ends prove that they hold the fit's 32-byte secret, for this generation, this pair of ranks and this connection; a
recorded handshake is worth nothing on another connection. HMAC-SHA256 authenticates the connection when it is made; it
neither encrypts nor signs what follows.

Sockets handed to these functions are non-blocking for good, so that one thread may read while another one writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import math
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .errors import HandshakeError, WaitTimeout, WireError

MAGIC = b"KSW1"
HEADER = struct.Struct("<4sHHqqqQQ")
HEADER_BYTES = HEADER.size
MAX_HEAD_BYTES = 16 << 20
MAX_BODY_BYTES = 16 << 30
SECRET_BYTES = 32
HANDSHAKE_TIMEOUT_S = 5.0
UNIX_BUFFER_BYTES = 2 << 20

MESSAGE = 1  # kinds 2.. are those of the collectives

DTYPES = {
    name: np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    )
}  # fmt: skip

HELLO = struct.Struct("<4sBQii32s")
ANSWER = struct.Struct("<B32s32s")
HELLO_MAGIC = b"KSH1"
REFUSALS = {
    1: "it is at another generation",
    2: "it does not expect this rank",
    3: "this rank has joined already",
    4: "it is not made for this kind of connection",
}


class Closed(ConnectionError):
    """The other end closed the connection."""


class Header(NamedTuple):
    kind: int
    sequence: int
    step: int
    note: int
    head_bytes: int
    body_bytes: int


@dataclass
class Message:
    """A typed message of the control connection.

    Args:
        kind: what it is, such as "progress".
        fields: JSON values.
        arrays: arrays by name.
        rank: the sender (driver side) or the receiver.
        generation: the generation that the sender belongs to.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rank: int = -1
    generation: int = 0


def unpack_header(data: bytes | bytearray | memoryview) -> Header:
    """The header in the first 48 bytes of `data`.

    Raises:
        WireError: the magic is wrong.
    """
    magic, kind, _, sequence, step, note, head_bytes, body_bytes = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise WireError(
            f"a frame should start with {MAGIC!r}, got {magic!r}: the other end does not speak this protocol."
        )
    return Header(kind, sequence, step, note, head_bytes, body_bytes)


def new_secret() -> bytes:
    """A secret for one fit: 32 random bytes."""
    return os.urandom(SECRET_BYTES)


# --- exact reads and writes ---------------------------------------------------------------------------------------


def _wait(sock: socket.socket, event: int, timeout_s: float | None, waiting_for: str) -> None:
    poller = select.poll()
    try:
        poller.register(sock, event)
    except ValueError as error:  # another thread hung up
        raise Closed(f"this end closed the connection while waiting for {waiting_for}") from error
    if not poller.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000):
        raise WaitTimeout(f"waited {timeout_s:g} s for {waiting_for}, and no byte moved.")


def read_exact(sock: socket.socket, view: memoryview, timeout_s: float | None, waiting_for: str) -> None:
    """Fills `view` from a non-blocking socket.

    Args:
        timeout_s: seconds without any byte before giving up; None waits for ever.
        waiting_for: named in the error.

    Raises:
        Closed: the connection ended first.
        WaitTimeout: no byte came for `timeout_s`.
    """
    while len(view):
        try:
            count = sock.recv_into(view)
        except BlockingIOError:
            _wait(sock, select.POLLIN, timeout_s, waiting_for)
            continue
        except OSError as error:
            raise Closed(f"the connection broke ({error.strerror}) while waiting for {waiting_for}") from error
        if not count:
            raise Closed(f"the connection closed while waiting for {waiting_for}")
        view = view[count:]


def write_all(sock: socket.socket, buffers: Sequence[memoryview], timeout_s: float | None, waiting_for: str) -> None:
    """Sends all `buffers` (of bytes, flat) through a non-blocking socket. Raises as `read_exact`."""
    pending = [buffer for buffer in buffers if len(buffer)]
    while pending:
        try:
            count = sock.sendmsg(pending[:64])
        except BlockingIOError:
            _wait(sock, select.POLLOUT, timeout_s, waiting_for)
            continue
        except OSError as error:
            raise Closed(f"the connection broke ({error.strerror}) while sending {waiting_for}") from error
        pending = advance(pending, count)


def advance(buffers: list[memoryview], count: int) -> list[memoryview]:
    """`buffers` without their first `count` bytes."""
    for position, buffer in enumerate(buffers):
        if count < len(buffer):
            return [buffer[count:], *buffers[position + 1 :]]
        count -= len(buffer)
    return []


def byte_view(array: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array, flat, without a copy."""
    return array.reshape(-1).view(np.uint8).data


# --- messages -----------------------------------------------------------------------------------------------------


def message_buffers(message: Message, sequence: int = 0) -> list[memoryview]:
    """A message as buffers to send. Arrays are not copied (unless they are not contiguous).

    Raises:
        WireError: a dtype that does not travel, or more bytes than the format allows.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise WireError(
                f"array {name!r} of message {message.kind!r} has dtype {array.dtype}; one of {list(DTYPES)} can travel."
            )
    specs = [[name, array.dtype.name, message.arrays[name].shape] for name, array in arrays.items()]
    head = json.dumps({"kind": message.kind, "fields": message.fields, "arrays": specs}).encode()
    body_bytes = sum(array.nbytes for array in arrays.values())
    if len(head) > MAX_HEAD_BYTES or body_bytes > MAX_BODY_BYTES:
        raise WireError(
            f"message {message.kind!r} has {len(head)} bytes of fields and {body_bytes} bytes of arrays; "
            f"at most {MAX_HEAD_BYTES} and {MAX_BODY_BYTES} travel. Send it in parts."
        )
    header = HEADER.pack(MAGIC, MESSAGE, 0, sequence, -1, 0, len(head), body_bytes)
    return [memoryview(header), memoryview(head), *(byte_view(array) for array in arrays.values())]


def send_message(sock: socket.socket, message: Message, timeout_s: float | None, sequence: int = 0) -> int:
    """Sends a message; returns its bytes. `timeout_s` is the longest time without any byte moving."""
    buffers = message_buffers(message, sequence)
    write_all(sock, buffers, timeout_s, f"message {message.kind!r}")
    return sum(len(buffer) for buffer in buffers)


def receive_message(
    sock: socket.socket, timeout_s: float | None, waiting_for: str, *, body_timeout_s: float = 30.0, heard=None
) -> Message:
    """The next message.

    Args:
        timeout_s: seconds to wait for its first byte; None for ever.
        body_timeout_s: seconds without a byte once it has begun.
        heard: called after every piece that arrived, so that a long message counts as a sign of life.

    Raises:
        WireError: not a message, or longer than the format allows; nothing of that size is ever allocated.
    """
    data = bytearray(HEADER_BYTES)
    view = memoryview(data)
    read_exact(sock, view[:1], timeout_s, waiting_for)
    read_exact(sock, view[1:], body_timeout_s, f"the rest of a frame ({waiting_for})")
    header = unpack_header(data)
    if header.kind != MESSAGE:
        raise WireError(f"expected a message while waiting for {waiting_for}, got a frame of kind {header.kind}.")
    if header.head_bytes > MAX_HEAD_BYTES or header.body_bytes > MAX_BODY_BYTES:
        raise WireError(
            f"a message announces {header.head_bytes} bytes of fields and {header.body_bytes} of arrays; "
            f"at most {MAX_HEAD_BYTES} and {MAX_BODY_BYTES} are taken."
        )
    head = bytearray(header.head_bytes)
    read_exact(sock, memoryview(head), body_timeout_s, f"the fields of a message ({waiting_for})")
    message, arrays = parse_head(bytes(head), header.body_bytes)
    for name, dtype, shape in arrays:
        array = np.empty(shape, dtype)
        message.arrays[name] = array
        target = byte_view(array)
        for start in range(0, len(target), 8 << 20):
            read_exact(sock, target[start : start + (8 << 20)], body_timeout_s, f"array {name!r} of {message.kind!r}")
            if heard is not None:
                heard()
    return message


def parse_head(head: bytes, body_bytes: int) -> tuple[Message, list[tuple[str, np.dtype, tuple[int, ...]]]]:
    """Message without arrays, and what arrays follow. Everything is checked before anything is allocated."""
    try:
        parsed = json.loads(head)
        kind, fields, specs = parsed["kind"], parsed["fields"], parsed["arrays"]
        arrays = [(str(name), DTYPES[dtype], tuple(int(size) for size in shape)) for name, dtype, shape in specs]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"the fields of a message are no valid JSON description: {error!r}.") from error
    if (
        not isinstance(kind, str)
        or not isinstance(fields, dict)
        or any(min(shape, default=0) < 0 for *_, shape in arrays)
    ):
        raise WireError("a message needs a kind, an object of fields, and arrays of sizes >= 0.")
    described = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in arrays)
    if described != body_bytes:
        raise WireError(f"message {kind!r} describes {described} bytes of arrays and carries {body_bytes}.")
    return Message(kind, fields), arrays


# --- handshake ----------------------------------------------------------------------------------------------------


class Hello(NamedTuple):
    """Who asks for a connection: `role` is b"C" (control) or b"P" (peer), `target` the rank asked (-1: the driver)."""

    role: bytes
    generation: int
    rank: int
    target: int


def _mac(secret: bytes, side: bytes, hello: bytes | bytearray, nonce: bytes) -> bytes:
    return hmac.new(secret, side + hello + nonce, hashlib.sha256).digest()


def ask(sock: socket.socket, secret: bytes, hello: Hello, timeout_s: float = HANDSHAKE_TIMEOUT_S) -> None:
    """The connecting end of the handshake.

    Raises:
        HandshakeError: the other end refused, or does not hold the secret.
        Closed: it hung up before answering (worth another try).
    """
    data = HELLO.pack(HELLO_MAGIC, hello.role[0], hello.generation, hello.rank, hello.target, os.urandom(32))
    deadline = Deadline(timeout_s)
    write_all(sock, [memoryview(data)], deadline.left(), "the handshake")
    answer = bytearray(ANSWER.size)
    deadline.read(sock, memoryview(answer), "the answer to the handshake")
    status, nonce, mac = ANSWER.unpack(answer)
    if status in REFUSALS:
        raise HandshakeError(f"rank {hello.rank} of generation {hello.generation} was refused: {REFUSALS[status]}.")
    if status or not hmac.compare_digest(mac, _mac(secret, b"server", data, nonce)):
        raise HandshakeError(
            f"rank {hello.rank} of generation {hello.generation} reached something that does not hold this fit's secret."
        )
    write_all(sock, [memoryview(_mac(secret, b"client", data, nonce))], deadline.left(), "the handshake")


def answer(sock: socket.socket, secret: bytes, admit, timeout_s: float = HANDSHAKE_TIMEOUT_S) -> Hello:
    """The accepting end of the handshake.

    Args:
        admit: `admit(hello) -> int`, 0 to go on or a key of `REFUSALS`.

    Raises:
        HandshakeError: garbage, a wrong or replayed proof, a refused rank or generation.
        WaitTimeout: the whole handshake took longer than `timeout_s`.
    """
    data = bytearray(HELLO.size)
    deadline = Deadline(timeout_s)
    deadline.read(sock, memoryview(data), "a handshake")
    magic, role, generation, rank, target, _ = HELLO.unpack(data)
    if magic != HELLO_MAGIC:
        raise HandshakeError(f"a handshake should start with {HELLO_MAGIC!r}, got {magic!r}: a stranger.")
    hello = Hello(bytes([role]), generation, rank, target)
    refusal = admit(hello)
    if refusal:
        write_all(sock, [memoryview(ANSWER.pack(refusal, bytes(32), bytes(32)))], deadline.left(), "a refusal")
        raise HandshakeError(f"refused rank {rank} of generation {generation}: {REFUSALS[refusal]}.")
    nonce = os.urandom(32)
    write_all(
        sock, [memoryview(ANSWER.pack(0, nonce, _mac(secret, b"server", data, nonce)))], deadline.left(), "a handshake"
    )
    proof = bytearray(32)
    deadline.read(sock, memoryview(proof), "the proof of a handshake")
    if not hmac.compare_digest(bytes(proof), _mac(secret, b"client", data, nonce)):
        raise HandshakeError(
            f"who calls itself rank {rank} of generation {generation} does not hold this fit's secret."
        )
    return hello


class Deadline:
    """A point in monotonic time, for a whole exchange rather than for one byte."""

    def __init__(self, timeout_s: float):
        self.end = time.monotonic() + timeout_s

    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.end - time.monotonic())

    def read(self, sock: socket.socket, view: memoryview, waiting_for: str) -> None:
        """`read_exact` that ends at the deadline even if single bytes keep dripping."""
        while len(view):
            if self.left() <= 0:
                raise WaitTimeout(f"the time for {waiting_for} is over.")
            try:
                count = sock.recv_into(view)
            except BlockingIOError:
                _wait(sock, select.POLLIN, self.left(), waiting_for)
                continue
            except OSError as error:
                raise Closed(f"the connection broke ({error.strerror}) during {waiting_for}") from error
            if not count:
                raise Closed(f"the connection closed during {waiting_for}")
            view = view[count:]


# --- connections --------------------------------------------------------------------------------------------------


def checked_host(host: str) -> str:
    """`host`, unless it would listen on every interface.

    Raises:
        ValueError: an empty or wildcard address.
    """
    if host in ("", "0.0.0.0", "::", "*"):
        raise ValueError(f"listening on {host!r} opens every interface; give the address that reaches the driver.")
    return host


def listen(host: str, port: int = 0, backlog: int = 128) -> socket.socket:
    """A listening, non-blocking TCP socket on one interface."""
    family = socket.getaddrinfo(checked_host(host), port, type=socket.SOCK_STREAM)[0][0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def dial(address: tuple[str, int], timeout_s: float) -> socket.socket:
    """A connected, non-blocking TCP socket without Nagle's delay. Raises OSError."""
    sock = socket.create_connection(address, timeout=timeout_s)
    prepare(sock)
    return sock


def prepare(sock: socket.socket) -> None:
    """Makes a connected socket non-blocking for good; TCP without delay, and with keep-alive.

    AF_UNIX gets a larger buffer (as far as the system allows): with its default both ends sleep every 200 kB.
    """
    sock.setblocking(False)
    if sock.family == getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)
    else:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def give_up_after(sock: socket.socket, seconds: float) -> None:
    """Ends a TCP connection whose other end has acknowledged nothing for so long: a host or network that is gone says
    nothing, and the system would send again for a quarter of an hour. Somebody has to send for it to be noticed."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


def hang_up(sock: socket.socket | None) -> None:
    """Closes a connection at once, also for a thread that waits in it."""
    if sock is None:
        return
    with contextlib.suppress(OSError):  # closed already, or never connected
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def source_address(sock: socket.socket) -> str:
    """This end's address of a connection: the interface that reaches the other end."""
    return sock.getsockname()[0]


def as_fields(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of `values` as a plain dict; {} for None."""
    return dict(values or {})
