"""The collective of ranks on one host: one segment of shared memory that all of them have open.

    segment := nonce | allocation words | flags, one line a rank | small slots, two a rank | regions
    region  := sent[rank][k], float32[V] each | result, float32[V]

1. reduce_scatter: every rank puts its vector (in place when the caller wrote it into `buffer(V)`) and raises its flag; an
   owner adds its slice straight from everybody's vectors into `result`.
2. all_gather: an owner puts its updated slice into `result` and raises its flag; all read `result` where it is.

That is one pass over the data instead of the four copies through sockets. A flag is an int64 that only its rank writes and
that only grows, so a plain store is enough where stores are seen in order (x86); elsewhere sockets are used. Waiting spins
briefly, then yields, then sleeps. The sockets stay open to notice a dead rank and to hear of one that gives up.

Whether ranks share a host is found out by opening a file of one in the others, never by names: containers on one host have
memories of their own. The file is deleted as soon as all have it open, so nothing stays behind a killed process.
"""

from __future__ import annotations

import mmap
import os
import platform
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import wire
from ..errors import PeerFrozen, PeerLost, WaitTimeout, WireError
from .base import Gathered, Stopwatch
from .exchange import ABORT, ALL_GATHER, PHASES, REDUCE_SCATTER, SMALL, SMALL_TREE, TREE, Exchange, add_in_order
from .lanes import peek
from .links import Link, blame

PAGE = mmap.ALLOCATIONGRANULARITY
NONCE_BYTES = 32
ALLOCATIONS_AT, MAX_REGIONS = 512, 256
LINE_BYTES = 128  # flags of a rank, away from those of the others
LINE_WORDS = LINE_BYTES // 8
BIG, FEW, NOTE = 0, 1, 2  # words in a line: calls on vectors, calls on few numbers, two notes
SMALL_BYTES = 32 << 10
SPINS = 300
YIELD_S = 0.0003
LOOK_S = 0.005
PIECE = 1 << 16


def folders() -> tuple[str, ...]:
    """Where a segment may live: memory first, else the temporary folder."""
    return ("/dev/shm", tempfile.gettempdir())


def can_share() -> bool:
    """Whether this is Linux on a machine where plain stores are seen by other cores in the order they were made."""
    return sys.platform == "linux" and platform.machine().lower() in ("x86_64", "amd64", "i686")


def _round_up(count: int) -> int:
    return -(-count // PAGE) * PAGE


def _head_bytes(world_size: int) -> int:
    return _round_up(PAGE + world_size * LINE_BYTES) + _round_up(2 * world_size * SMALL_BYTES)


def open_segment(
    rank: int, links: Mapping[int, Link], timeout_s: float, candidates: Sequence[str] | None = None
) -> int | None:
    """The descriptor of a segment that all ranks have open, or None: they do not share a host (or cannot use it).

    Rank 0 makes a file with a secret number, the others open it and say the number, rank 0 decides and deletes it.
    """
    peers = {other: (link.peer, link.sock) for other, link in links.items()}
    if rank:
        return _join_segment(*peers[0], timeout_s)
    descriptor, path, nonce = _make_segment(len(links) + 1, folders() if candidates is None else candidates)
    shared = False
    try:
        for peer, sock in peers.values():
            _tell(peer, sock, wire.Message("segment", {"path": path}), timeout_s)
        said = [_hear(peer, sock, "nonce", timeout_s).fields["nonce"] for peer, sock in peers.values()]
        shared = bool(path) and all(word == nonce for word in said)
        for peer, sock in peers.values():
            _tell(peer, sock, wire.Message("verdict", {"shared": shared}), timeout_s)
    finally:
        if path:
            os.unlink(path)
        if descriptor is not None and not shared:
            os.close(descriptor)
    return descriptor if shared else None


def _make_segment(world_size: int, candidates: Sequence[str]) -> tuple[int | None, str, str]:
    for folder in candidates if can_share() else ():
        try:
            descriptor, path = tempfile.mkstemp(prefix="kerasoft-", dir=folder)
        except OSError:
            continue
        nonce = os.urandom(NONCE_BYTES)
        try:
            os.posix_fallocate(descriptor, 0, _head_bytes(world_size))
            os.pwrite(descriptor, nonce, 0)
            return descriptor, path, nonce.hex()
        except OSError:
            os.close(descriptor)
            os.unlink(path)
    return None, "", ""


def _join_segment(peer, sock: socket.socket, timeout_s: float) -> int | None:
    path = _hear(peer, sock, "segment", timeout_s).fields["path"]
    descriptor, said = None, ""
    if path and can_share():
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
                said = os.pread(descriptor, NONCE_BYTES, 0).hex()
        except OSError:
            pass
    shared = False
    try:
        _tell(peer, sock, wire.Message("nonce", {"nonce": said}), timeout_s)
        shared = _hear(peer, sock, "verdict", timeout_s).fields["shared"] is True and descriptor is not None
    finally:
        if descriptor is not None and not shared:
            os.close(descriptor)
    return descriptor if shared else None


def _tell(peer, sock: socket.socket, message: wire.Message, timeout_s: float) -> None:
    try:
        wire.send_message(sock, message, timeout_s)
    except wire.Closed as error:
        raise PeerLost(
            f"{peer} was lost while memory was being shared: {error}", **blame(peer, -1, "connect")
        ) from error
    except WaitTimeout as error:
        raise PeerFrozen(f"{peer} takes no messages: {error}", **blame(peer, -1, "connect")) from error


def _hear(peer, sock: socket.socket, kind: str, timeout_s: float) -> wire.Message:
    try:
        message = wire.receive_message(sock, timeout_s, f"the {kind} of rank {peer.rank}")
    except wire.Closed as error:
        raise PeerLost(
            f"{peer} was lost while memory was being shared: {error}", **blame(peer, -1, "connect")
        ) from error
    except WaitTimeout as error:
        raise PeerFrozen(f"{peer} is silent: {error}", **blame(peer, -1, "connect")) from error
    if message.kind != kind:
        raise WireError(f"{peer} sent {message.kind!r} where {kind!r} was expected: transports differ between ranks.")
    return message


@dataclass
class Region:
    """Memory for vectors of one length.

    Attributes:
        sent: float32[world_size, vectors, V]; row r is written by rank r.
        result: float32[V]; slice j is written by rank j.
        summed_at: the last call that read `sent`; gathered_at: the last one that filled `result`.
    """

    sent: np.ndarray
    result: np.ndarray
    summed_at: int = -1
    gathered_at: int = -1


class SharedMemory(Exchange):
    """Everyone in one segment. Made by `connect` when all ranks share a host.

    Numbers never leave float32 here, whatever `wire_dtype` says. Falls back to the sockets, all ranks alike, for vectors
    for which the segment finds no memory (containers often have 64 MB).

    Args:
        descriptor: of the segment; closed by this object.
    """

    def __init__(self, rank: int, links: Mapping[int, Link], descriptor: int, timeout_s: float = 30.0):
        super().__init__(rank, links, timeout_s)
        self.transport = "shm"
        self._descriptor = descriptor
        self._end = _head_bytes(self.world_size)
        head = memoryview(mmap.mmap(descriptor, self._end))
        self._allocations = head[ALLOCATIONS_AT : ALLOCATIONS_AT + 8 * MAX_REGIONS].cast("q")
        self._flags = head[PAGE : PAGE + self.world_size * LINE_BYTES].cast("q")
        slots = _round_up(PAGE + self.world_size * LINE_BYTES)
        self._slots = np.frombuffer(head, np.uint8, 2 * self.world_size * SMALL_BYTES, slots).reshape(
            2, self.world_size, SMALL_BYTES
        )
        self._line = rank * LINE_WORDS
        self._regions: dict[tuple[int, int], Region | None] = {}
        self._slot_views: dict = {}
        self._calls = 0
        self._few_calls = 0

    # --- the calls --------------------------------------------------------------------------------------------

    def buffer(self, elements: int) -> np.ndarray:
        region = self._region(elements, 1)
        return super().buffer(elements) if region is None else region.sent[self.rank, 0]

    def reduce_scatter(self, vector: np.ndarray) -> np.ndarray:
        self._checked(vector)
        region = self._region(vector.size, 1)
        if region is None:
            return super().reduce_scatter(vector)
        watch = Stopwatch()
        call = self._enter()
        cuts = self.slices(vector.size)
        mine = cuts[self.rank]
        sent = region.sent[self.rank, 0]
        if sent.ctypes.data != vector.ctypes.data:
            self._await(BIG, 4 * region.summed_at + 2, REDUCE_SCATTER, watch)
            for other in self._others:
                sent[cuts[other]] = vector[cuts[other]]
        self._raise_and_await(BIG, 4 * call + 1, REDUCE_SCATTER, watch)
        parts = [region.sent[other, 0, mine] for other in range(self.world_size)]
        parts[self.rank] = vector[mine]
        owned = region.result[mine]
        _add_pieces(parts, owned)
        self._flags[self._line + BIG] = 4 * call + 2
        region.summed_at = call
        self._count(REDUCE_SCATTER, 4 * (vector.size - owned.size), 4 * owned.size * len(self._others), watch)
        return owned

    def reduce_scatter_tree(
        self, partials: Mapping[tuple[int, int], np.ndarray], bounds: Sequence[int], elements: int
    ) -> np.ndarray:
        nodes = self._tree(partials, bounds)
        region = self._region(elements, max(map(len, nodes)))
        if region is None:
            return super().reduce_scatter_tree(partials, bounds, elements)
        watch = Stopwatch()
        call = self._enter()
        cuts = self.slices(elements)
        mine = cuts[self.rank]
        self._await(BIG, 4 * region.summed_at + 2, TREE, watch)
        for row, node in enumerate(nodes[self.rank]):
            vector = self._checked(partials[node], elements)
            for other in self._others:
                region.sent[self.rank, row, cuts[other]] = vector[cuts[other]]
        self._raise_and_await(BIG, 4 * call + 1, TREE, watch)
        everything = {
            node: region.sent[other, row, mine] for other in self._others for row, node in enumerate(nodes[other])
        }
        everything.update((node, partials[node][mine]) for node in nodes[self.rank])
        owned = self._finish_tree(everything, bounds[-1], region.result[mine])
        self._flags[self._line + BIG] = 4 * call + 2
        region.summed_at = call
        given = 4 * (elements - owned.size) * len(nodes[self.rank])
        self._count(TREE, given, 4 * owned.size * sum(len(nodes[other]) for other in self._others), watch)
        return owned

    def all_gather(
        self, owned: np.ndarray, elements: int, note: int = 0, out: np.ndarray | None = None, exact: bool = False
    ) -> Gathered:
        region = self._any_region(elements)
        if region is None:
            return super().all_gather(owned, elements, note, out, exact)
        watch = Stopwatch()
        call = self._enter()
        mine = self.owned(elements)
        self._checked(owned, mine.stop - mine.start)
        self._flags[self._line + BIG] = 4 * call
        self._await(BIG, 4 * (region.gathered_at + 1), ALL_GATHER, watch)
        place = region.result[mine]
        if place.ctypes.data != owned.ctypes.data:
            place[...] = owned
        noted = NOTE + call % 2
        self._flags[self._line + noted] = note
        self._raise_and_await(BIG, 4 * call + 1, ALL_GATHER, watch)
        notes = tuple(self._flags[other * LINE_WORDS + noted] for other in range(self.world_size))
        region.gathered_at = call
        vector = region.result
        if out is not None:
            vector = self._checked(out, elements)
            vector[...] = region.result
        self._count(ALL_GATHER, 4 * owned.size * len(self._others), 4 * (elements - owned.size), watch)
        return Gathered(vector, notes)

    def all_reduce_small(self, vector: np.ndarray) -> np.ndarray:
        if vector.nbytes > SMALL_BYTES:
            return super().all_reduce_small(vector)
        if vector.dtype not in (np.float32, np.float64):
            raise ValueError(f"all_reduce_small takes float32 or float64, got {vector.dtype} on rank {self.who}.")
        watch = Stopwatch()
        views = self._few(vector.shape, vector.dtype)
        views[self.rank][...] = vector
        self._raise_and_await(FEW, self._few_calls, SMALL, watch)
        total = views[0] + views[1]
        for view in views[2:]:
            total += view
        self._count(SMALL, vector.nbytes * len(self._others), vector.nbytes * len(self._others), watch)
        return total

    def all_reduce_small_tree(
        self, partials: Mapping[tuple[int, int], np.ndarray], bounds: Sequence[int], elements: int
    ) -> np.ndarray:
        nodes = self._tree(partials, bounds)
        rows = max(map(len, nodes))
        if 4 * elements * rows > SMALL_BYTES:
            return super().all_reduce_small_tree(partials, bounds, elements)
        watch = Stopwatch()
        views = self._few((rows, elements), np.dtype(np.float32))
        for row, node in enumerate(nodes[self.rank]):
            views[self.rank][row] = self._checked(partials[node], elements)
        self._raise_and_await(FEW, self._few_calls, SMALL_TREE, watch)
        everything = {node: views[rank][row] for rank in range(self.world_size) for row, node in enumerate(nodes[rank])}
        total = self._finish_tree(everything, bounds[-1], np.empty(elements, np.float32))
        size = 4 * elements
        received = size * sum(len(nodes[other]) for other in self._others)
        self._count(SMALL_TREE, size * len(nodes[self.rank]) * len(self._others), received, watch)
        return total

    def close(self) -> None:
        if self._closed:
            return
        super().close()
        self._regions.clear()
        self._slot_views.clear()
        os.close(self._descriptor)

    # --- memory -----------------------------------------------------------------------------------------------

    def _any_region(self, elements: int) -> Region | None:
        """A region for vectors of this length, whatever number of them it holds for each rank."""
        for (size, _), region in self._regions.items():
            if size == elements:
                return region
        return self._region(elements, 1)

    def _region(self, elements: int, vectors: int) -> Region | None:
        key = (elements, vectors)
        if key not in self._regions:
            self._regions[key] = self._allocate(elements, vectors)
        return self._regions[key]

    def _allocate(self, elements: int, vectors: int) -> Region | None:
        """Rank 0 asks for the memory (so that want of it is an answer, not a SIGBUS) and tells the others."""
        number = len(self._regions)
        row_bytes = _round_up(4 * max(1, elements))
        size = row_bytes * (self.world_size * vectors + 1)
        if number >= MAX_REGIONS:
            return None
        if self.rank == 0:
            try:
                os.posix_fallocate(self._descriptor, self._end, size)
                self._allocations[number] = 1
            except OSError:
                self._allocations[number] = 2
        elif not self._allocations[number]:
            self._sleep_until(self._allocations, number, 1, 0, REDUCE_SCATTER)
        if self._allocations[number] != 1:
            return None
        memory = mmap.mmap(self._descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=self._end)
        self._end += size
        rows = np.frombuffer(memory, np.float32).reshape(self.world_size * vectors + 1, row_bytes // 4)[:, :elements]
        return Region(rows[:-1].reshape(self.world_size, vectors, elements), rows[-1])

    def _few(self, shape: tuple[int, ...], dtype: np.dtype) -> list[np.ndarray]:
        """Everybody's slot for this call on few numbers. Two slots take turns: when all have come to this call, all
        have left the one before the last."""
        self._living(SMALL)
        self._few_calls += 1
        key = (self._few_calls % 2, shape, dtype)
        if key not in self._slot_views:
            count = int(np.prod(shape)) * dtype.itemsize
            slots = self._slots[key[0], :, :count]
            self._slot_views[key] = [slots[rank].view(dtype).reshape(shape) for rank in range(self.world_size)]
        return self._slot_views[key]

    # --- flags ------------------------------------------------------------------------------------------------

    def _enter(self) -> int:
        """The number of this call. Flags of call n: 4n entered, 4n + 1 own part is there, 4n + 2 done with the others'."""
        self._living(REDUCE_SCATTER)
        self._calls += 1
        return self._calls

    def _raise_and_await(self, column: int, value: int, kind: int, watch: Stopwatch) -> None:
        self._flags[self._line + column] = value
        self._await(column, value, kind, watch)

    def _await(self, column: int, value: int, kind: int, watch: Stopwatch) -> None:
        """Waits until every rank's flag has come to `value`."""
        flags = self._flags
        for other in self._others:
            place = other * LINE_WORDS + column
            if flags[place] < value:
                began = time.perf_counter()
                self._sleep_until(flags, place, value, other, kind)
                watch.waited += time.perf_counter() - began

    def _sleep_until(self, words: memoryview, place: int, value: int, other: int, kind: int) -> None:
        for _ in range(SPINS):
            if words[place] >= value:
                return
        began = looked = time.monotonic()
        pause = 20e-6
        while words[place] < value:
            now = time.monotonic()
            if now - began < YIELD_S:
                os.sched_yield()
                continue
            time.sleep(pause)
            pause = min(pause * 1.5, 250e-6)
            if now - looked >= LOOK_S:
                looked = now
                self._look(words, place, value, kind)
                if now - began >= self.timeout_s and words[place] < value:
                    self._frozen(self._lanes[other].link, kind)

    def _look(self, words: memoryview, place: int, value: int, kind: int) -> None:
        """Raises when a rank that is waited for has died, or any rank says that it gives up.

        Frames of a later call are left where they are. A rank that has done its part may have left for good.
        """
        column = place % LINE_WORDS
        for other, lane in self._lanes.items():
            data = peek(lane.sock)
            if data is None:
                continue
            if words[place] >= value:
                return
            header = self._header(lane.link, data, kind) if len(data) == wire.HEADER_BYTES else None
            if header is not None and header.kind == ABORT:
                self._told(lane.link, header.note, kind)
            late = words[other * LINE_WORDS + column] < value if words is self._flags else other == 0
            if not data and late:
                self._lost(lane, kind)

    def _count(self, kind: int, sent: int, received: int, watch: Stopwatch) -> None:
        self.counters.bytes_sent += sent
        self.counters.bytes_received += received
        self.counters.by_kind[PHASES[kind]] = self.counters.by_kind.get(PHASES[kind], 0) + sent
        watch.stop(self.counters)


def _add_pieces(parts: Sequence[np.ndarray], out: np.ndarray) -> None:
    """`add_in_order`, in pieces that stay in the cache."""
    size = out.size if len(parts) == 2 else PIECE
    for start in range(0, out.size, max(1, size)):
        add_in_order([part[start : start + size] for part in parts], out[start : start + size])
