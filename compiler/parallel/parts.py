"""Which part of each weight a coordinate holds, and the way between the whole model's vectors and the local ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..ir import Graph
from ..layout import Layout
from ..program import StepSource
from .mesh import ParallelError


@dataclasses.dataclass(frozen=True)
class Part:
    """A coordinate's part of a weight.

    Attributes:
        name: of the weight. axis: along which it is cut; None: the whole weight.
        index, count: which of how many parts of equal size; the last one is filled up with zeros.
    """

    name: str
    axis: int | None = None
    index: int = 0
    count: int = 1

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """The part's shape."""
        if self.axis is None:
            return tuple(whole)
        return tuple(-(-d // self.count) if k == self.axis else d for k, d in enumerate(whole))

    def take(self, whole: np.ndarray) -> np.ndarray:
        """The part of a weight."""
        if self.axis is None:
            return whole
        size = self.shape(whole.shape)[self.axis]
        found = np.take(
            whole, range(self.index * size, min((self.index + 1) * size, whole.shape[self.axis])), self.axis
        )
        short = size - found.shape[self.axis]
        if short:
            found = np.pad(found, [(0, short if k == self.axis else 0) for k in range(whole.ndim)])
        return found

    def put(self, whole: np.ndarray, part: np.ndarray) -> None:
        """Writes the part into a weight."""
        if self.axis is None:
            whole[...] = part
            return
        size = part.shape[self.axis]
        start = self.index * size
        length = max(0, min(size, whole.shape[self.axis] - start))
        at = tuple(slice(start, start + length) if k == self.axis else slice(None) for k in range(whole.ndim))
        of = tuple(slice(0, length) if k == self.axis else slice(None) for k in range(whole.ndim))
        whole[at] = part[of]


def local_layout(layout: Layout, parts: Sequence[Part]) -> Layout:
    """The layout of a coordinate: its parts of the weights, all states and sums."""
    shapes = {e.name: e.shape for e in layout.params}
    return Layout.of(
        [(p.name, p.shape(shapes[p.name])) for p in parts],
        [(e.name, e.shape) for e in layout.states],
        [(e.name, e.shape) for e in layout.sums],
    )


class Parted:
    """A cut in which each coordinate holds parts of weights.

    Attributes:
        source: the whole model. parts: of each coordinate. layouts, updates: of each.
    """

    working_bytes = 0  # besides weights, gradients and slots
    source: StepSource
    updates: tuple[Graph | None, ...]
    parts: tuple[tuple[Part, ...], ...]
    layouts: tuple[Layout, ...]

    def localise(self, coordinate: int, vector: np.ndarray) -> np.ndarray:
        return localise(self.source.layout, self.parts[coordinate], vector)

    def globalise(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        return globalise(self.source.layout, self.parts, vectors)

    def runs(self, coordinate: int) -> list[tuple[int, int, bool]]:
        """See `plan.Cut`. What several hold, the first of them counts."""
        index = {e.name: i for i, e in enumerate(self.source.layout.params)}
        before = {(p.name, p.index) for parts in self.parts[:coordinate] for p in parts}
        held = zip(self.parts[coordinate], self.layouts[coordinate].params, strict=True)
        return [(index[e.name], e.size, (p.name, p.index) not in before) for p, e in held]

    def held(self, coordinate: int) -> list[tuple[str, int, str]]:
        """Each weight that a coordinate holds: its name, how many elements, and which part."""
        sizes = {e.name: e.size for e in self.layouts[coordinate].params}
        said = lambda p: "" if p.axis is None else f"axis {p.axis}, part {p.index + 1} of {p.count}"  # noqa: E731
        return [(p.name, sizes[p.name], said(p)) for p in self.parts[coordinate]]


def localise(layout: Layout, parts: Sequence[Part], vector: np.ndarray) -> np.ndarray:
    """A coordinate's part of float32[P]: parameters or a slot.

    Raises:
        ParallelError: a vector of another length.
    """
    vector = np.asarray(vector, np.float32)
    if vector.shape != (layout.P,):
        raise ParallelError(f"the model has {layout.P} parameters, got a vector of shape {vector.shape}")
    whole = layout.unpack("params", vector)
    found = [part.take(whole[part.name]).ravel() for part in parts]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def globalise(layout: Layout, parts: Sequence[Sequence[Part]], vectors: Sequence[np.ndarray]) -> np.ndarray:
    """float32[P] from the vectors of all coordinates; what several hold comes from the first of them.

    Raises:
        ParallelError: not one vector for each coordinate, or one of another length.
    """
    if len(vectors) != len(parts):
        raise ParallelError(f"the model is on {len(parts)} coordinates, got {len(vectors)} vectors")
    found = np.zeros(layout.P, np.float32)
    whole = layout.unpack("params", found)
    seen: set[tuple[str, int]] = set()
    for coordinate, (held, vector) in enumerate(zip(parts, vectors)):
        local = local_layout(layout, held)
        if np.shape(vector) != (local.P,):
            raise ParallelError(f"coordinate {coordinate} has {local.P} parameters, got shape {np.shape(vector)}")
        values = local.unpack("params", np.asarray(vector, np.float32))
        for part in held:
            if (part.name, part.index) not in seen:
                seen.add((part.name, part.index))
                part.put(whole[part.name], values[part.name])
    return found
