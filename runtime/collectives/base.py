"""What every collective offers, for one rank, sockets or shared memory alike.

A step of synchronous training, `V` float32 elements, `N` ranks:

    vector = collective.buffer(V)                   # optional: write the gradient where it is sent from
    owned = collective.reduce_scatter(vector)       # this rank's slice of the sum, in fixed rank order
    ...                                             # update the slice
    gathered = collective.all_gather(owned, V, note=1)   # everybody's slices, and everybody's notes

Each worker sends 2 (N-1)/N * V * 4 bytes a step, each of them straight to the rank that needs it.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

ALIGNMENT = 64
"""Elements: slices begin at multiples of it (256 bytes of float32)."""


def slices(elements: int, world_size: int) -> list[slice]:
    """The slice that each rank owns of a vector; those behind the end are empty.

    >>> from kerasoft.runtime.collectives import slices
    >>> slices(200, 2)
    [slice(0, 128, None), slice(128, 200, None)]
    >>> slices(3, 2)
    [slice(0, 0, None), slice(0, 3, None)]
    """
    units = -(-elements // ALIGNMENT)
    cuts = [min(elements, ALIGNMENT * (units * rank // world_size)) for rank in range(world_size + 1)]
    return [slice(start, stop) for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]


def aligned_empty(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """An uninitialised array that starts at a multiple of 64 bytes (JAX takes such arrays without a copy)."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count].view(dtype).reshape(shape)


class Peer(NamedTuple):
    """One row of the table that the driver hands out when all ranks of a generation are there.

    Args:
        rank: 0 .. world_size - 1.
        host: its host's name, for people; nothing is decided by it.
        pid: its process.
        address: where it takes connections of peers: {"tcp": [host, port], "unix": name or None}.
        executor: Spark's executor id, "" when there is none.
        capabilities: what else it said about itself.
    """

    rank: int
    host: str
    pid: int
    address: Mapping[str, Any]
    executor: str = ""
    capabilities: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, pid {self.pid})"


class Gathered(NamedTuple):
    """Result of an all-gather: `vector` (float32[V]) and `notes`, one int for each rank."""

    vector: np.ndarray
    notes: tuple[int, ...]


@dataclass
class Counters:
    """What a collective has moved and waited for since the last `take`.

    `wait_s`: from the start of a call until the first byte of the last peer to show up (others were slower than we).
    `transfer_s`: the rest of the time inside calls (moving, adding).
    """

    calls: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    wait_s: float = 0.0
    transfer_s: float = 0.0
    by_kind: dict[str, int] = field(default_factory=dict)

    def take(self) -> dict[str, Any]:
        """The counts so far; they start at zero again."""
        taken = asdict(self)
        self.__init__()  # type: ignore[misc]
        return taken


class Collective(abc.ABC):
    """Sums and exchanges among the ranks of one generation. A context manager: closes on success, aborts on error.

    All ranks make the same calls in the same order with the same sizes; where they do not, a `WireError` says so.
    Calls are for one thread.

    Lifetimes. What `reduce_scatter` returns is valid until the next call of it or of `all_gather`. What `all_gather`
    returns is valid until this rank's next `reduce_scatter` or `all_gather` (sums of few numbers with
    `all_reduce_small` leave it alone). What `buffer` returned may be written again after the next `all_gather`.

    Attributes:
        rank, world_size: this rank and how many there are.
        transport: "solo", "shm", or what connects the peers: "unix", "tcp", "unix+tcp".
        timeout_s: seconds without any progress of a peer before `PeerFrozen`; may be changed between calls.
        counters: `Counters`.
        exact_from: elements of a vector from here on are never rounded on the wire, None = there are none; may be changed
            between calls, by all ranks alike.
        remark: a sentence for the user about how it goes about its work, or "".
        who: this rank's number in the fit, which errors name; `rank` where the group is the whole fit.
    """

    transport = "?"
    remark = ""
    exact_from: int | None = None

    def __init__(self, rank: int, world_size: int, timeout_s: float = 30.0):
        self.rank, self.world_size, self.timeout_s = rank, world_size, timeout_s
        self.who = rank
        self.counters = Counters()
        self.step = -1
        self._buffers: dict[Any, np.ndarray] = {}

    def at(self, step: int) -> None:
        """Says which step the next calls belong to; errors name it."""
        self.step = step

    def slices(self, elements: int) -> list[slice]:
        """`slices(elements, world_size)`."""
        return slices(elements, self.world_size)

    def owned(self, elements: int) -> slice:
        """The slice of this rank."""
        return slices(elements, self.world_size)[self.rank]

    def buffer(self, elements: int) -> np.ndarray:
        """float32[elements] from which `reduce_scatter` sends without a copy. Every rank calls it alike."""
        return self._scratch("send", elements)

    @abc.abstractmethod
    def reduce_scatter(self, vector: np.ndarray) -> np.ndarray:
        """This rank's slice of the sum over all ranks, float32, added in the order of ranks.

        Args:
            vector: float32[V], C-contiguous.

        Raises:
            PeerLost, PeerFrozen, PeerAborted: names rank, host, pid, step and phase.
            WireError: the ranks do not run the same program.
        """

    @abc.abstractmethod
    def reduce_scatter_tree(
        self, partials: Mapping[tuple[int, int], np.ndarray], bounds: Sequence[int], elements: int
    ) -> np.ndarray:
        """This rank's slice of the sum over all shards, added along one fixed binary tree.

        The result's bits depend on the shards' vectors only, neither on the number of ranks nor on who owns what.

        Args:
            partials: this rank's partial sums by (level, index), as `tree.TreeSum` makes them: float32[V] each.
            bounds: rank r owns the shards `bounds[r] .. bounds[r + 1] - 1`; N + 1 numbers, the same on all ranks.
            elements: V; a rank may own no shard at all.
        """

    @abc.abstractmethod
    def all_gather(
        self, owned: np.ndarray, elements: int, note: int = 0, out: np.ndarray | None = None, exact: bool = False
    ) -> Gathered:
        """Everybody's slice, in place of ranks, and everybody's note.

        Args:
            owned: float32, this rank's slice of a vector of `elements`.
            note: a small integer that all ranks get (agreeing on a checkpoint, a stop, ...).
            out: float32[elements] to fill; None = a buffer of the collective, read in place.
            exact: float32 on the wire whatever `wire_dtype` says.
        """

    @abc.abstractmethod
    def all_reduce_small(self, vector: np.ndarray) -> np.ndarray:
        """The sum over all ranks of a few float32 or float64 numbers, in the order of ranks; a new array.

        Everyone sends everything to everyone: one exchange instead of two.
        """

    @abc.abstractmethod
    def all_reduce_small_tree(
        self, partials: Mapping[tuple[int, int], np.ndarray], bounds: Sequence[int], elements: int
    ) -> np.ndarray:
        """As `all_reduce_small`, along the fixed tree of `reduce_scatter_tree`; vectors are float32[elements]."""

    def all_reduce(self, vector: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The sum over all ranks, float32[V]; short vectors take one exchange instead of two."""
        if vector.size <= SMALL_ELEMENTS:
            total = self.all_reduce_small(vector)
            if out is None:
                return total
            out[...] = total
            return out
        return self.all_gather(self.reduce_scatter(vector), vector.size, out=out, exact=True).vector

    def barrier(self) -> None:
        """Waits for all ranks."""
        self.all_reduce_small(np.zeros(1, np.float32))

    def close(self) -> None:
        """Ends this rank's part in good order."""
        self._buffers.clear()

    def abort(self, error: BaseException | None = None) -> None:
        """Ends this rank's part at once and tells the others whose fault it was.

        Args:
            error: why; a `WorkerLost` names the rank at fault, anything else makes it this rank's own.
        """
        self.close()

    def __enter__(self) -> Collective:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self.close()
        else:
            self.abort(error)

    def _scratch(self, name: Any, elements: int, dtype: Any = np.float32) -> np.ndarray:
        """A buffer that is made once for a name and size."""
        key = (name, elements, np.dtype(dtype))
        if key not in self._buffers:
            self._buffers[key] = aligned_empty(elements, dtype)
        return self._buffers[key]

    def _checked(self, vector: np.ndarray, elements: int | None = None) -> np.ndarray:
        if vector.dtype != np.float32 or vector.ndim != 1 or not vector.flags.c_contiguous:
            raise ValueError(
                f"a collective takes a contiguous float32 vector, got {vector.dtype}{list(vector.shape)} on rank {self.who}."
            )
        if elements is not None and vector.size != elements:
            raise ValueError(f"rank {self.who} should give {elements} elements, got {vector.size}.")
        return vector


SMALL_ELEMENTS = 4096
"""`all_reduce` of at most so many elements sends everything to everyone."""


class Stopwatch:
    """Splits the time of one call into waiting and the rest."""

    __slots__ = ("start", "waited")

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.waited = 0.0

    def stop(self, counters: Counters) -> None:
        counters.calls += 1
        counters.wait_s += self.waited
        counters.transfer_s += max(0.0, time.perf_counter() - self.start - self.waited)
