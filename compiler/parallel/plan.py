"""A `Plan`: a model cut for a mesh, its weights in parts, its programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..costs import readable
from ..ir import Graph
from ..layout import Layout
from ..program import StepSource
from .local_program import LocalCall, LocalProgram, write
from .mesh import Mesh


class Cut(Protocol):
    """One way of cutting a model.

    Attributes:
        coordinates: workers of one replica. layouts: of each.
        working_bytes: that a worker needs besides its parameters, gradients and slots.
        updates: of each: the optimizer's step on a slice of its weights, or on all of them.
    """

    coordinates: int
    layouts: tuple[Layout, ...]
    working_bytes: int
    updates: tuple[Graph | None, ...]

    def localise(self, coordinate: int, vector: np.ndarray) -> np.ndarray:
        """float32[P] -> float32[P_local]"""

    def globalise(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """The other way round, from all coordinates."""

    def runs(self, coordinate: int) -> list[tuple[int, int, bool]]:
        """For local elements one after another: the index of their variable in the whole model, how many, and whether this
        coordinate counts them in sums over all weights (one of those that hold them does)."""

    def held(self, coordinate: int) -> list[tuple[str, int, str]]:
        """Each weight that a coordinate holds: its name, how many elements, and which part."""

    def calls(self, kind: str, rows: int, lengths: Mapping[str, int]) -> tuple[list[LocalCall], set[str]]:
        """The call of each coordinate, and the native libraries that they need."""

    def operations(self) -> Sequence[Mapping[str, float]]:
        """For each coordinate, floating-point operations of a call by layer."""

    def sent(self) -> Sequence[float]:
        """For each coordinate, the bytes that it sends to others of the model in a call (training, if the model is trained)."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A model cut for a mesh; made by `partition`.

    Attributes:
        source: the whole model. mesh: for which. cut: how. rows: of the call that it was balanced for.
    """

    source: StepSource
    mesh: Mesh
    cut: Cut
    rows: int

    @property
    def coordinates(self) -> int:
        return self.cut.coordinates

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Of each coordinate: params local, states and sums of the whole model."""
        return self.cut.layouts

    def localise(self, coordinate: int, vector: Any) -> np.ndarray:
        """float32[P_local]: a coordinate's part of float32[P], parameters or a slot."""
        return self.cut.localise(coordinate, vector)

    def globalise(self, vectors: Sequence[Any]) -> np.ndarray:
        """float32[P] from the parts of all coordinates."""
        return self.cut.globalise(vectors)

    def memory(self, coordinate: int, replicas: int = 1) -> int:
        """Bytes that a worker needs for weights, gradients and its slice of the slots; activations are not in it.

        Args:
            replicas: data-parallel workers that hold the same part: each keeps a slice of the slots and of a master copy.
        """
        layout = self.layouts[coordinate]
        own = -(-layout.P // replicas) * (1 + len(self.source.slots))
        return 4 * (2 * layout.V + own) + self.cut.working_bytes

    def export(
        self,
        train_rows: Sequence[int] = (),
        test_rows: Sequence[int] = (),
        predict_rows: Sequence[int] = (),
        lengths: Mapping[str, int] | None = None,
    ) -> tuple[LocalProgram, ...]:
        """The program of each coordinate for these row counts, as `StepSource.export`."""
        calls: list[list[LocalCall]] = [[] for _ in range(self.coordinates)]
        needs: set[str] = set()
        for kind, counts in (("train", train_rows), ("test", test_rows), ("predict", predict_rows)):
            for rows in dict.fromkeys(int(r) for r in counts):
                made, wanted = self.cut.calls(kind, rows, dict(lengths or {}))
                needs |= wanted
                for held, call in zip(calls, made, strict=True):
                    held.append(call)
        programs = []
        for i, held in enumerate(calls):
            local = dataclasses.replace(
                self.source,
                layout=self.layouts[i],
                train=None,
                test=None,
                predict=None,
                update=self.cut.updates[i],
                idle={},
                whole={},
            )
            runs = self.cut.runs(i)
            programs.append(write(local.export(), i, self.coordinates, runs, held, sorted(needs), dict(lengths or {})))
        return tuple(programs)

    def describe(self) -> str:
        """A table of the layers: where they are, how their weights are cut, parameters, floating-point operations."""
        lines = [f"{_said(self.mesh)}, balanced for {self.rows} rows"]
        sent = self.cut.sent()
        for i, work in enumerate(self.cut.operations()):
            layers: dict[str, list[tuple[str, int, str]]] = {name: [] for name in work if name}
            for name, size, part in self.cut.held(i):
                layer, _, own = name.rpartition("/")
                layers.setdefault(layer, []).append((own, size, part))
            lines.append(
                f"coordinate {i}: {readable(self.layouts[i].P)} parameters, {readable(sum(work.values()), 'flop')}, "
                f"{readable(self.memory(i), 'B')} of weights, gradients and slots, sends {readable(sent[i], 'B')} in a call"
            )
            for layer, parts in layers.items():
                cut = "; ".join(f"{own} {part}" for own, _, part in parts if part)
                count, flop = readable(sum(size for _, size, _ in parts)), readable(work.get(layer, 0), "flop")
                lines.append(f"  {layer:40} {count:>8}  {flop:>12}  {cut}".rstrip())
        return "\n".join(lines)


def _said(mesh: Mesh) -> str:
    if mesh.pipeline > 1:
        return f"a pipeline of {mesh.pipeline} stages"
    if mesh.model > 1:
        return f"tensors split among {mesh.model} workers"
    return f"parameters in slices, on {mesh.slices} workers"
