"""What a step's arrays are: the flat vector's layout, inputs, optimiser slots, flags, call arguments."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .errors import ProgramError

SLICE_ALIGNMENT = 64  # elements; slices of the parameter vector start at multiples of this


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor's place in the flat vector: `size` elements from `offset`."""

    name: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclasses.dataclass(frozen=True)
class Layout:
    """The flat float32 vector of a step: trainable params, then states, then sums. Made by `Layout.of`.

    Attributes:
        params, states, sums: entries with offsets from the start of the whole vector.
        P, S, M: elements of each part; V is their sum.

    >>> layout = Layout.of(params={"dense/kernel": (4, 2), "dense/bias": (2,)}, sums={"loss/total": ()})
    >>> layout.P, layout.V, layout.params[1].offset, layout.sums[0].offset
    (10, 11, 8, 10)
    """

    params: tuple[Entry, ...] = ()
    states: tuple[Entry, ...] = ()
    sums: tuple[Entry, ...] = ()

    @classmethod
    def of(
        cls,
        params: Mapping[str, Iterable[int]] | Iterable[tuple[str, Iterable[int]]] = (),
        states: Mapping[str, Iterable[int]] | Iterable[tuple[str, Iterable[int]]] = (),
        sums: Mapping[str, Iterable[int]] | Iterable[tuple[str, Iterable[int]]] = (),
    ) -> Layout:
        """The layout of named shapes, in the given order.

        Raises:
            ProgramError: a name stands twice in one part.
        """
        offset, parts = 0, []
        for part, given in (("params", params), ("states", states), ("sums", sums)):
            entries: list[Entry] = []
            for name, shape in given.items() if isinstance(given, Mapping) else given:
                shape = tuple(int(d) for d in shape)
                if any(e.name == name for e in entries):
                    raise ProgramError(f"the layout's {part} hold {name!r} twice; give each tensor its own name")
                entries.append(Entry(name, shape, offset, math.prod(shape)))
                offset += entries[-1].size
            parts.append(tuple(entries))
        return cls(*parts)

    @property
    def P(self) -> int:  # noqa: N802 (the letters of docs/design/0001)
        return sum(e.size for e in self.params)

    @property
    def S(self) -> int:  # noqa: N802
        return sum(e.size for e in self.states)

    @property
    def M(self) -> int:  # noqa: N802
        return sum(e.size for e in self.sums)

    @property
    def V(self) -> int:  # noqa: N802
        return self.P + self.S + self.M

    def split(self, vector: Any) -> tuple[Any, Any, Any]:
        """Params, states and sums of a vector of length V (views)."""
        p, s = self.P, self.S
        return vector[:p], vector[p : p + s], vector[p + s :]

    def pack(self, part: str, values: Mapping[str, Any]) -> np.ndarray:
        """The arrays of `part` ("params", "states", "sums") as one float32 vector.

        Raises:
            ProgramError: a value is missing or has another shape.
        """
        entries: tuple[Entry, ...] = getattr(self, part)
        start = entries[0].offset if entries else 0
        out = np.empty(sum(e.size for e in entries), np.float32)
        for e in entries:
            if e.name not in values:
                raise ProgramError(f"{part}: no value for {e.name!r}")
            value = np.asarray(values[e.name])
            if value.shape != e.shape:
                raise ProgramError(f"{part}: {e.name!r} needs shape {e.shape}, got {value.shape}")
            out[e.offset - start : e.end - start] = value.ravel()
        return out

    def unpack(self, part: str, vector: Any) -> dict[str, Any]:
        """The named arrays of `part` in its flat vector (views)."""
        entries: tuple[Entry, ...] = getattr(self, part)
        start = entries[0].offset if entries else 0
        return {e.name: vector[e.offset - start : e.end - start].reshape(e.shape) for e in entries}

    def without(self, names: Iterable[str]) -> Layout:
        """The layout with fewer params."""
        names = set(names)
        kept = [(e.name, e.shape) for e in self.params if e.name not in names]
        return Layout.of(kept, [(e.name, e.shape) for e in self.states], [(e.name, e.shape) for e in self.sums])

    def segments(self) -> np.ndarray:
        """int32[P]: for each element of the parameter vector, the index of the variable that it belongs to."""
        return np.repeat(np.arange(len(self.params), dtype=np.int32), [e.size for e in self.params])

    def slices(self, count: int) -> list[tuple[int, int]]:
        """[0, P) cut into `count` ranges whose starts are multiples of 64 elements; late ones may be empty."""
        per = -(-self.P // count)
        per = -(-per // SLICE_ALIGNMENT) * SLICE_ALIGNMENT
        return [(min(i * per, self.P), min((i + 1) * per, self.P)) for i in range(count)]

    def to_json(self) -> dict[str, Any]:
        return {k: [[e.name, list(e.shape)] for e in getattr(self, k)] for k in ("params", "states", "sums")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        return cls.of(**{k: [(n, s) for n, s in value[k]] for k in ("params", "states", "sums")})


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One array of a batch: name, shape without the batch axis (a size may be None or text such as "n1"), dtype."""

    name: str
    shape: tuple[Any, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class SlotSpec:
    """One optimiser slot, a vector as long as the parameters, all `fill` at the start."""

    name: str
    fill: float = 0.0


@dataclasses.dataclass(frozen=True)
class Flags:
    """How the runtime may cut a step.

    Attributes:
        exact_rows: batches are never padded (rows influence one another without `valid`).
        couples_rows: shards are computed one by one (batch normalisation).
        update_mode: "sliced": a rank updates only the slice that it owns; "replicated": whole vectors.
    """

    exact_rows: bool = False
    couples_rows: bool = False
    update_mode: str = "sliced"

    def __post_init__(self) -> None:
        if self.update_mode not in ("sliced", "replicated"):
            raise ProgramError(f"update_mode is 'sliced' or 'replicated', got {self.update_mode!r}")


@dataclasses.dataclass
class StepArgs:
    """Arguments of a train, test or predict call; what a graph does not read may be None.

    Shapes: params float32[P], state float32[S], batch {name: [rows, ...]}, valid float32[rows], row_id uint32[rows],
    key uint32[2]; rows, share float32 and iteration int32 are numbers.
    """

    params: Any
    state: Any
    batch: Mapping[str, Any]
    valid: Any = None
    row_id: Any = None
    key: Any = None
    rows: Any = None
    share: Any = None
    iteration: Any = None


@dataclasses.dataclass
class UpdateArgs:
    """Arguments of an update call over n elements: float32[n] vectors, `segment` int32[n] or None.

    `counted`, float32[n] or None: 0 for elements that sums over all slices take from another worker.
    """

    param: Any
    gradient: Any
    slots: tuple[Any, ...] = ()
    segment: Any = None
    learning_rate: Any = None
    iteration: Any = None
    counted: Any = None
