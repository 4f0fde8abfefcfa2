"""What a part's call asks of the other ranks: the `links` that `kerasoft.compiler.parallel` runs instructions with."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..collectives import ALIGNMENT, Collective
from ..reports import Stopwatch
from .groups import Groups

PIECE = 1 << 18  # elements of a rank in one exchange: what a group of ranks keeps as buffers does not grow with a model
MICROBATCHES, MESSAGES = 1 << 16, 1 << 16  # of a step; of a microbatch from one rank to another


class Links:
    """The links of one rank; `of(a)` gives those of microbatch a.

    Args:
        groups: this rank's.
        watch: charged with "compute" before, and by `charge` after each exchange.
    """

    def __init__(self, groups: Groups, watch: Stopwatch, charge: Callable[[], None]):
        self.groups, self.watch, self.charge = groups, watch, charge
        self._step = 0
        self._counts: collections.Counter[tuple[str, int, int]] = collections.Counter()

    def of(self, microbatch: int, job: Any = None) -> MicrobatchLinks:
        """Args: job: the `Job` of the microbatch."""
        return MicrobatchLinks(self, microbatch)

    def end_step(self) -> None:
        """Messages are counted anew."""
        self._step += 1
        self._counts.clear()

    def number(self, direction: str, other: int, microbatch: int) -> int:
        """Of the next message of this microbatch: sender and receiver count alike, as they run the same instructions."""
        key = (direction, other, microbatch)
        count = self._counts[key]
        self._counts[key] += 1
        return (self._step % (1 << 31) * MICROBATCHES + microbatch) * MESSAGES + count

    def group(self, axis: str) -> Collective:
        return self.groups.data if axis == "data" else self.groups.model


class MicrobatchLinks:
    """See `Links`."""

    def __init__(self, links: Links, microbatch: int):
        self._all, self._microbatch = links, microbatch

    def sum(self, axis: str, vector: Any) -> np.ndarray:
        """float32[n], the sum over the ranks of "model" or "data"; the same bits on all of them."""
        mine = np.ascontiguousarray(vector, np.float32)
        self._all.watch.lap("compute")
        total = np.array(self._all.group(axis).all_reduce(mine))
        self._all.charge()
        return total

    def gather(self, axis: str, value: Any) -> np.ndarray:
        """[ranks, *shape] of `value`, in the order of ranks."""
        mine = np.ascontiguousarray(value)
        self._all.watch.lap("compute")
        group = self._all.group(axis)
        data = mine.reshape(-1).view(np.uint8)
        words = _padded(data, 4 * ALIGNMENT).view(np.float32)
        every = np.empty((group.world_size, words.size), np.float32)
        for start in range(0, words.size, PIECE):
            piece = words[start : start + PIECE]
            found = group.all_gather(piece, piece.size * group.world_size, exact=True).vector
            every[:, start : start + PIECE] = found.reshape(group.world_size, piece.size)
        rows = every.view(np.uint8)[:, : data.size]
        self._all.charge()
        return np.ascontiguousarray(rows).view(mine.dtype).reshape(group.world_size, *mine.shape)

    def scatter(self, axis: str, vector: Any, name: str) -> np.ndarray:
        """This rank's slice of the sum over the ranks: float32[n / ranks] of float32[n]. `name`: of what is summed."""
        self._all.watch.lap("compute")
        group, mine = self._all.group(axis), np.ascontiguousarray(vector, np.float32)
        own = in_pieces(mine.size, group.world_size, lambda cut, _: group.reduce_scatter(cut(mine)))
        self._all.charge()
        return own

    def send(self, to: int, arrays: Sequence[Any]) -> None:
        """Sets arrays on their way to part `to`; they must not change any more."""
        ready = [np.asarray(a) for a in arrays]
        self._all.watch.lap("compute")
        assert self._all.groups.channels is not None
        self._all.groups.channels.send(to, self._all.number("to", to, self._microbatch), ready)
        self._all.charge()

    def receive(self, source: int, types: Sequence[Any]) -> list[np.ndarray]:
        """The next arrays of this microbatch from part `source`."""
        self._all.watch.lap("compute")
        assert self._all.groups.channels is not None
        number = self._all.number("from", source, self._microbatch)
        arrays = self._all.groups.channels.receive(source, number, types)
        self._all.charge()
        return arrays


def in_pieces(
    elements: int, ranks: int, reduced: Callable[[Callable[[np.ndarray], np.ndarray], int], np.ndarray]
) -> np.ndarray:
    """A rank's slice of a sum, in exchanges of at most `PIECE` elements a rank.

    Args:
        elements: of the vectors that are summed, a multiple of `ranks`.
        reduced: ``reduced(cut, n)`` sums what ``cut(vector)``, float32[n], takes of a vector, and gives the rank's slice of it.
    """
    size = elements // ranks
    own = np.empty(size, np.float32)
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        room = -(-(stop - start) // ALIGNMENT) * ALIGNMENT

        def cut(vector: np.ndarray, start: int = start, stop: int = stop, room: int = room) -> np.ndarray:
            piece = np.zeros((ranks, room), np.float32)
            piece[:, : stop - start] = vector.reshape(ranks, size)[:, start:stop]
            return piece.reshape(-1)

        own[start:stop] = reduced(cut, room * ranks)[: stop - start]
    return own


def _padded(data: np.ndarray, unit: int) -> np.ndarray:
    """uint8[n], filled up with zeros to at least one multiple of `unit`."""
    size = -(-max(data.size, 1) // unit) * unit
    if size == data.size:
        return data
    padded = np.zeros(size, np.uint8)
    padded[: data.size] = data
    return padded
