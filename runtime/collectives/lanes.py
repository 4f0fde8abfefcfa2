"""One peer's traffic within one call: a frame out, a frame in, both in pieces, never blocking."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from .. import wire
from .links import Link

PIECE_BYTES = 1 << 20


class Lane:
    """One peer's traffic within one call: what is still to be sent and received."""

    __slots__ = (
        "link", "sock", "out", "out_left", "header_out", "header_in", "view_in", "target", "got", "want", "moved_at",
        "used", "untouched", "broken", "listening",
    )  # fmt: skip

    def __init__(self, link: Link):
        self.link = link
        self.sock = link.sock
        self.header_out = bytearray(wire.HEADER_BYTES)
        self.header_in = bytearray(wire.HEADER_BYTES)
        self.view_in = memoryview(self.header_in)
        self.out: list[memoryview] = []
        self.out_left = 0
        self.target = memoryview(b"")
        self.got = self.want = self.used = 0
        self.moved_at = 0.0
        self.untouched = True  # nothing of this call's frame is on its way
        self.broken = False  # sending failed
        self.listening = True  # while it is done and others are not, it may give up

    def begin(
        self,
        kind: int,
        sequence: int,
        step: int,
        note: int,
        out: Sequence[memoryview],
        target: memoryview,
        want: int | None = None,
    ) -> None:
        """Announces one frame each way.

        Args:
            target: where the body goes. When it is shorter than `want` it is filled in turns; bytes before `used` may be
                overwritten.
            want: bytes of the body, None = the length of `target`.
        """
        size = sum(map(len, out))
        wire.HEADER.pack_into(self.header_out, 0, wire.MAGIC, kind, 0, sequence, step, note, 0, size)
        self.out = [memoryview(self.header_out), *out]
        self.out_left = size + wire.HEADER_BYTES
        self.target = target
        self.got = -wire.HEADER_BYTES
        self.want = len(target) if want is None else want
        self.used = 0
        self.untouched = self.listening = True

    def send(self) -> int:
        """Sends what the socket takes now, up to a piece."""
        first = self.out[0]
        try:
            if len(self.out) > 1 and len(first) < PIECE_BYTES:
                count = self.sock.sendmsg([first, self.out[1][: PIECE_BYTES - len(first)]])
            else:
                count = self.sock.send(first[:PIECE_BYTES])
        except BlockingIOError:
            return 0
        except OSError:
            self.broken = True  # the peer may have said why: go on reading until its end
            return 0
        self.untouched = False
        self.out_left -= count
        self.out = wire.advance(self.out, count)
        return count

    @property
    def room(self) -> int:
        """Bytes that may be taken now without overwriting any that are not used yet."""
        size = len(self.target)
        place = self.got % size
        return min(size - place, self.used + size - self.got, self.want - self.got, PIECE_BYTES)

    @property
    def wants_bytes(self) -> bool:
        """Whether bytes of the peer are missing, and not for want of room here."""
        return self.got < 0 or (self.got < self.want and self.room > 0)

    def receive(self) -> int:
        """Takes what has arrived, up to a piece. -1 at the end of the connection."""
        got = self.got
        try:
            if got < 0:
                count = self.sock.recvmsg_into([self.view_in[got:], self.target[:PIECE_BYTES]])[0]
            else:
                room = self.room
                if not room:
                    return 0
                place = got % len(self.target)
                count = self.sock.recv_into(self.target[place : place + room])
        except BlockingIOError:
            return 0
        except OSError:
            return -1
        self.got = got + count
        return count or -1


def peek(sock: socket.socket) -> bytes | None:
    """The header that waits in a socket, left there: None when nothing does, b"" at the end of the connection."""
    try:
        return sock.recv(wire.HEADER_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
