"""Arrays between the ranks of a model group, from any to any: sending never waits, receiving takes them by number."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from .. import wire
from ..collectives.base import Counters
from ..collectives.exchange import ABORT, REASONS
from ..collectives.links import Link, blame
from ..errors import PeerAborted, PeerFrozen, PeerLost, WaitTimeout, WireError, WorkerLost

ARRAYS = 16  # kind of a frame; 2 to 15 are those of the collectives
JOIN_S, ABORT_S = 5.0, 0.3
AHEAD = 64  # frames that wait for a peer to read; a part that only goes forward must not run away from a slower one


class Channels:
    """This rank's sockets to the others of its group.

    A frame carries a number that sender and receiver agree on; those that come before they are asked for wait in memory.
    Sending waits only for a peer that is 64 frames behind. What is sent must not change any more. Calls are for one thread.

    Args:
        rank: this rank's number in the group. who: in the fit.
        links: to the others, by their numbers in the group.
        timeout_s: longest wait for a peer that sends nothing.
    """

    def __init__(self, rank: int, links: Mapping[int, Link], timeout_s: float, who: int):
        self.rank, self.size, self.timeout_s, self.who = rank, len(links) + 1, timeout_s, who
        self.counters = Counters()
        self.step = -1
        self._links = dict(links)
        self._early: dict[tuple[int, int], bytearray] = {}
        self._sums = 0
        self._closed = False
        self._senders = {other: _Sender(link, timeout_s) for other, link in links.items()}

    def at(self, step: int) -> None:
        """Says which step the next calls belong to; errors name it."""
        self.step = step

    def send(self, to: int, number: int, arrays: Sequence[np.ndarray]) -> None:
        """Sets arrays on their way to rank `to` of the group.

        Raises:
            PeerLost: it is gone.
        """
        sender = self._senders[to]
        if sender.error is not None:
            self._lost(self._links[to], "send", sender.error)
        views = [wire.byte_view(np.ascontiguousarray(a)) for a in arrays]
        size = sum(map(len, views))
        header = wire.HEADER.pack(wire.MAGIC, ARRAYS, 0, number, self.step, 0, 0, size)
        self.counters.bytes_sent += size + wire.HEADER_BYTES
        sender.put([memoryview(header), *views])

    def receive(self, source: int, number: int, types: Sequence[tuple[tuple[int, ...], str]]) -> list[np.ndarray]:
        """The arrays that rank `source` sent by this number.

        Args:
            types: shape and dtype of each array.

        Raises:
            PeerLost, PeerFrozen, PeerAborted: name the rank.
            WireError: the ranks do not run the same program.
        """
        arrays = [np.empty(shape, _dtype(name)) for shape, name in types]
        want = sum(a.nbytes for a in arrays)
        early = self._early.pop((source, number), None)
        if early is not None:
            self._fits(source, number, len(early), want)
            at = 0
            for array in arrays:
                wire.byte_view(array)[:] = early[at : at + array.nbytes]
                at += array.nbytes
            return arrays
        began = time.perf_counter()
        while True:
            header = self._header(source)
            if header.sequence == number:
                self._fits(source, number, header.body_bytes, want)
                self.counters.wait_s += time.perf_counter() - began
                for array in arrays:
                    self._read(source, wire.byte_view(array))
                return arrays
            body = bytearray(header.body_bytes)
            self._read(source, memoryview(body))
            self._early[source, header.sequence] = body

    def all_reduce_small(self, vector: np.ndarray) -> np.ndarray:
        """The sum over the group, float32, in the order of ranks; everybody sends everything to everybody."""
        self._sums += 1
        for other in self._links:
            self.send(other, -self._sums, [vector])
        total = np.zeros_like(vector)
        for other in range(self.size):
            total += (
                vector
                if other == self.rank
                else self.receive(other, -self._sums, [(vector.shape, vector.dtype.name)])[0]
            )
        return total

    def _header(self, source: int) -> wire.Header:
        data = bytearray(wire.HEADER_BYTES)
        self._read(source, memoryview(data))
        header = wire.unpack_header(data)
        if header.kind == ABORT:
            self._told(source, header.note)
        if header.kind != ARRAYS or header.body_bytes > wire.MAX_BODY_BYTES:
            raise WireError(
                f"{self._links[source].peer} sent a frame of kind {header.kind} and {header.body_bytes} bytes where rank "
                f"{self.who} expected arrays (step {self.step}): the ranks do not run the same program."
            )
        return header

    def _read(self, source: int, view: memoryview) -> None:
        link = self._links[source]
        self.counters.bytes_received += len(view)
        try:
            wire.read_exact(link.sock, view, self.timeout_s, "arrays")
        except wire.Closed as error:
            self._lost(link, "receive", error)
        except WaitTimeout:
            raise PeerFrozen(
                f"{link.peer} sent nothing for {self.timeout_s:g} s while rank {self.who} waited for its part of step "
                f"{self.step}: it hangs, is stopped, or its host cannot be reached. If a step may take that long, raise "
                "timeout_s.",
                **blame(link.peer, self.step, "receive"),
            ) from None

    def _fits(self, source: int, number: int, got: int, want: int) -> None:
        if got != want:
            raise WireError(
                f"{self._links[source].peer} sent {got} bytes by number {number} where rank {self.who} expected {want} "
                f"(step {self.step}): the ranks do not run the same program."
            )

    def _lost(self, link: Link, phase: str, error: BaseException) -> None:
        raise PeerLost(
            f"{link.peer} closed its connection while rank {self.who} was in step {self.step} ({phase}): its process or its "
            "host died.",
            **blame(link.peer, self.step, phase),
        ) from error

    def _told(self, source: int, note: int) -> None:
        """Raises what a peer that gives up has said: whose fault, and what kind."""
        link = self._links[source]
        culprit, reason = divmod(note, len(REASONS))
        kind = REASONS[reason]
        peers = {other.peer.rank: other.peer for other in self._links.values()}
        if culprit in (self.who, link.peer.rank) or culprit not in peers:
            raise PeerAborted(
                f"{link.peer} left the group while rank {self.who} waited for its part of step {self.step}.",
                **blame(link.peer, self.step, "receive"),
            )
        raise kind(
            f"{peers[culprit]} is lost, says rank {link.peer.rank}, while rank {self.who} was in step {self.step}.",
            **blame(peers[culprit], self.step, "receive"),
        )

    def close(self, patience_s: float = JOIN_S) -> None:
        """Ends in good order: what was sent arrives, if the other ends take it within `patience_s`."""
        if self._closed:
            return
        self._closed = True
        for sender in self._senders.values():
            sender.put_if_room(None)
        for sender in self._senders.values():
            sender.thread.join(patience_s)
        for link in self._links.values():
            wire.hang_up(link.sock)
        self._early.clear()

    def abort(self, error: BaseException | None = None) -> None:
        """Ends at once and tells the others whose fault it was, where nothing else is on its way."""
        if self._closed:
            return
        culprit = error.rank if isinstance(error, WorkerLost) and error.rank >= 0 else self.who
        code = next((code for code, kind in REASONS.items() if isinstance(error, kind)), 0)
        frame = wire.HEADER.pack(wire.MAGIC, ABORT, 0, 0, self.step, culprit * len(REASONS) + code, 0, 0)
        for sender in self._senders.values():
            sender.put_if_room([memoryview(frame)])
        self.close(ABORT_S)


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class _Sender:
    """A thread that writes frames to one peer in the order they were put."""

    def __init__(self, link: Link, timeout_s: float):
        self._link, self._timeout_s = link, timeout_s
        self._frames: queue.Queue[list[memoryview] | None] = queue.Queue(AHEAD)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="kerasoft-channel", daemon=True)
        self.thread.start()

    def put(self, frame: list[memoryview]) -> None:
        self._frames.put(frame)

    def put_if_room(self, frame: list[memoryview] | None) -> None:
        """For the end: a peer that reads no more is not waited for."""
        with contextlib.suppress(queue.Full):
            self._frames.put_nowait(frame)

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            if self.error is not None:
                continue
            try:
                wire.write_all(self._link.sock, frame, self._timeout_s, "arrays")
            except (wire.Closed, WaitTimeout, OSError) as error:
                self.error = error
