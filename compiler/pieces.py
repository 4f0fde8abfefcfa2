"""The parameters of one process as arrays on the device: each large one by itself, all small ones in one vector.

A step over one flat vector copies every weight out of it and every gradient into it. One array for each variable costs a
microsecond of dispatch for each. Pieces do neither: there are as many as large variables, and one more. They are flat: XLA
copies what it updates in place if it must be reshaped for that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .layout import Entry, Layout
from .threads import threads

SHARE = 1 << 20  # elements that are worth a thread to be copied
LARGE = 1 << 14  # elements; variables of so many stand by themselves


@dataclasses.dataclass(frozen=True)
class Pieces:
    """How the parameters of a layout are cut: large ones in the layout's order, then the vector of all small ones.

    >>> pieces = Pieces(Layout.of(params={"bias": (2,), "kernel": (128, 128), "gain": (3,)}))
    >>> pieces.names, pieces.shapes
    (('params/0', 'params/1'), ((16384,), (5,)))
    >>> pieces.home("gain")
    ('params/1', 2)
    """

    layout: Layout

    @functools.cached_property
    def large(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.layout.params if e.size >= LARGE)

    @functools.cached_property
    def small(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.layout.params if e.size < LARGE)

    @functools.cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of each piece."""
        rest = sum(e.size for e in self.small)
        return tuple((e.size,) for e in self.large) + (((rest,),) if rest else ())

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """What the pieces are called as arguments of a packed step."""
        return tuple(f"params/{i}" for i in range(len(self.shapes)))

    def home(self, name: str) -> tuple[str, int]:
        """The piece that holds a parameter, and where it begins there."""
        return self._homes[name]

    def segments(self, piece: int) -> Any:
        """int32[n]: for each element of a piece the index of its variable in the layout."""
        index = {e.name: i for i, e in enumerate(self.layout.params)}
        if piece < len(self.large):
            return jnp.full(self.large[piece].size, index[self.large[piece].name], jnp.int32)
        return np.repeat(np.array([index[e.name] for e in self.small], np.int32), [e.size for e in self.small])

    def gather(self, values: Mapping[str, Any], join: Callable[[list], Any] = np.concatenate) -> tuple[Any, ...]:
        """The pieces of named values; `join` makes one vector of flat ones."""
        parts = tuple(values[e.name].ravel() for e in self.large)
        return parts + ((join([values[e.name].ravel() for e in self.small]),) if len(self.shapes) > len(parts) else ())

    def cut(self, vector: Any, join: Callable[[list], Any] = np.concatenate) -> tuple[Any, ...]:
        """The pieces of a flat vector."""
        return self.gather({e.name: vector[e.offset : e.end] for e in self.layout.params}, join)

    def vector(self, pieces: Sequence[Any], join: Callable[[list], Any]) -> Any:
        """The flat vector of pieces."""
        flat = {name: piece if piece.ndim == 1 else piece.ravel() for name, piece in zip(self.names, pieces)}
        homes = [(*self.home(e.name), e.size) for e in self.layout.params if e.size]
        return join([_part(flat[name], start, size) for name, start, size in homes])

    def flat(self, pieces: Sequence[Any]) -> np.ndarray:
        """float32[P], a new vector, read-only; copied by as many threads as XLA has, as pages are new for the most part."""
        out = np.empty(self.layout.P, np.float32)
        arrays = dict(zip(self.names, map(np.asarray, pieces)))
        homes = [(e, *self.home(e.name)) for e in self.layout.params]

        def copy(entries: Sequence[tuple[Entry, str, int]]) -> None:
            for e, name, start in entries:
                out[e.offset : e.end] = arrays[name].ravel()[start : start + e.size]

        parts = [[h for h in homes if first <= h[0].offset < last] for first, last in self._shares()]
        if len(parts) < 2:
            copy(homes)
        else:
            with futures.ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(copy, parts))
        out.setflags(write=False)
        return out

    def _shares(self) -> list[tuple[int, int]]:
        """Ranges of the vector for the threads that copy it."""
        count = min(threads(), self.layout.P // SHARE + 1)
        return [(self.layout.P * i // count, self.layout.P * (i + 1) // count) for i in range(count)]

    def place(self, vector: Any) -> tuple[jax.Array, ...]:
        """The pieces of a flat vector on the device, in memory of their own, so that they may be donated."""
        pieces = self.cut(np.asarray(vector, np.float32))
        return tuple(jax.device_put(piece, may_alias=False) for piece in pieces)  # one copy

    @functools.cached_property
    def _homes(self) -> dict[str, tuple[str, int]]:
        homes = {e.name: (self.names[i], 0) for i, e in enumerate(self.large)}
        start = 0
        for e in self.small:
            homes[e.name] = (self.names[-1] if self.names else "params/0", start)
            start += e.size
        return homes


def _part(vector: Any, start: int, size: int) -> Any:
    if size == vector.size:
        return vector
    if isinstance(vector, np.ndarray):
        return vector[start : start + size]
    return jax.lax.slice(vector, (start,), (start + size,))  # NumPy's way takes several times as long to trace
