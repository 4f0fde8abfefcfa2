"""Pushes, fetches and answers as messages of `kerasoft.runtime.wire`: JSON fields and raw arrays, no pickle.

    push     worker → server   e, c, m, a, r; arrays p/<level>/<index> (gradient), t/<level>/<index> (states and sums)
    ask      worker → server   e, at, q
    stand    worker → server   e, c, end
    who      worker → server   nothing; answered at once: whom everybody waits for, and how far things are
    resume   worker → server   nothing; answered at once: epoch, clock, next stop
    params   server → worker   q, v, m, r, stop; arrays params, state (coordinator)
    go       server → worker   e, c, end, next, r, stop

Who sent a message is known from its connection, not from its fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import WireError
from ..wire import HEADER_BYTES, MESSAGE, Message, message_buffers, parse_head, unpack_header
from .effects import Ask, Go, Node, Push, Reply, Stand


def encode(value: Any) -> Message:
    """`Push`, `Ask`, `Stand`, `Reply` or `Go` as a message; a `Message` is one already."""
    if isinstance(value, Message):
        return value
    if isinstance(value, Push):
        arrays = {_named("p", n): a for n, a in value.parts.items()} | {
            _named("t", n): a for n, a in value.tail.items()
        }
        fields = {"e": value.epoch, "c": value.clock, "m": value.mark, "a": value.accrued, "r": value.rate}
        return Message("push", fields, arrays)
    if isinstance(value, Ask):
        return Message("ask", {"e": value.epoch, "at": value.at_least, "q": value.request})
    if isinstance(value, Stand):
        return Message("stand", {"e": value.epoch, "c": value.clock, "end": value.end})
    if isinstance(value, Reply):
        fields = {"q": value.request, "v": value.version, "m": value.mark, "r": value.rate, "stop": value.stop}
        arrays = {"params": value.params} | ({} if value.state is None else {"state": value.state})
        return Message("params", fields, arrays)
    assert isinstance(value, Go), value
    fields = {"e": value.epoch, "c": value.clock, "end": value.end, "next": value.next_stop}
    return Message("go", fields | {"r": value.rate, "stop": value.stop})


def decode(message: Message, worker: int = -1) -> Any:
    """What `encode` made a message of; "who", "resume" and their answers stay messages.

    Args:
        worker: at the other end of the connection.

    Raises:
        WireError: it is none of these, or a field or array is missing or of the wrong kind.
    """
    f, arrays = message.fields, message.arrays
    try:
        if message.kind == "push":
            for name, array in arrays.items():
                if array.dtype != np.float32 or array.ndim != 1:
                    raise ValueError(f"array {name!r} is {array.dtype}{list(array.shape)}")
            parts = {_node(n): a for n, a in arrays.items() if n[0] == "p"}
            tail = {_node(n): a for n, a in arrays.items() if n[0] == "t"}
            return Push(worker, int(f["e"]), int(f["c"]), parts, tail, int(f["m"]), int(f["a"]), float(f["r"]))
        if message.kind == "ask":
            return Ask(worker, int(f["e"]), int(f["at"]), int(f["q"]))
        if message.kind == "stand":
            return Stand(worker, int(f["e"]), int(f["c"]), bool(f["end"]))
        if message.kind == "params":
            state = arrays.get("state")
            return Reply(f["q"], arrays["params"], state, f["v"], f["m"], f["r"], f["stop"])
        if message.kind == "go":
            return Go(f["e"], f["c"], f["end"], f["next"], f["r"], f["stop"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WireError(f"message {message.kind!r} of worker {worker} cannot be read: {error!r}.") from error
    if message.kind in ("who", "resume"):
        return message
    raise WireError(f"a parameter server does not know message {message.kind!r}.")


def _named(kind: str, node: Node) -> str:
    return f"{kind}/{node[0]}/{node[1]}"


def _node(name: str) -> Node:
    _, level, index = name.split("/")
    return int(level), int(index)


def to_bytes(value: Any) -> bytes:
    """A message as one string of bytes, for stores that are not sockets."""
    return b"".join(message_buffers(encode(value)))


def from_bytes(data: bytes) -> Message:
    """What `to_bytes` made.

    Raises:
        WireError: it is no message, or not all of it.
    """
    if len(data) < HEADER_BYTES:
        raise WireError(f"a message has at least {HEADER_BYTES} bytes, got {len(data)}.")
    header = unpack_header(data)
    start = HEADER_BYTES + header.head_bytes
    if header.kind != MESSAGE or len(data) != start + header.body_bytes:
        raise WireError(f"a message announces {start + header.body_bytes} bytes and has {len(data)}.")
    message, arrays = parse_head(data[HEADER_BYTES:start], header.body_bytes)
    for name, dtype, shape in arrays:
        count = int(np.prod(shape, dtype=np.int64))
        message.arrays[name] = np.frombuffer(data, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    return message
