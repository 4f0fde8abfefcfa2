"""A `Plan`: a model cut for a mesh, its weights in parts, its programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..costs import readable
from ..layout import Layout
from ..program import StepSource
from . import parts as parts_module
from .local_program import LocalCall, LocalProgram, write
from .mesh import Mesh
from .parts import Part


class Cut(Protocol):
    """One way of cutting a model.

    Attributes:
        coordinates: workers of one replica. parts: the weights of each. layouts: of each.
    """

    coordinates: int
    parts: tuple[tuple[Part, ...], ...]
    layouts: tuple[Layout, ...]

    def calls(self, kind: str, rows: int, lengths: Mapping[str, int]) -> tuple[list[LocalCall], set[str]]:
        """The call of each coordinate, and the native libraries that they need."""

    def operations(self) -> Sequence[Mapping[str, float]]:
        """For each coordinate, floating-point operations of a call by layer."""


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
        return parts_module.localise(self.source.layout, self.cut.parts[coordinate], vector)

    def globalise(self, vectors: Sequence[Any]) -> np.ndarray:
        """float32[P] from the parts of all coordinates."""
        return parts_module.globalise(self.source.layout, self.cut.parts, vectors)

    def memory(self, coordinate: int, replicas: int = 1) -> int:
        """Bytes that a worker needs for weights, gradients and its slice of the slots; activations are not in it.

        Args:
            replicas: data-parallel workers that hold the same part: each keeps a slice of the slots and of a master copy.
        """
        layout = self.layouts[coordinate]
        own = -(-layout.P // replicas) * (1 + len(self.source.slots))
        return 4 * (2 * layout.V + own)

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
        index = {e.name: i for i, e in enumerate(self.source.layout.params)}
        programs = []
        for i, held in enumerate(calls):
            local = dataclasses.replace(
                self.source, layout=self.layouts[i], train=None, test=None, predict=None, idle={}, whole={}
            )
            variables = [index[e.name] for e in self.layouts[i].params]
            programs.append(
                write(local.export(), i, self.coordinates, variables, held, sorted(needs), dict(lengths or {}))
            )
        return tuple(programs)

    def describe(self) -> str:
        """A table of the layers: where they are, how their weights are cut, parameters, floating-point operations."""
        lines = [f"{_said(self.mesh)}, balanced for {self.rows} rows"]
        shapes = {e.name: e.shape for e in self.source.layout.params}
        for i, (held, work) in enumerate(zip(self.cut.parts, self.cut.operations())):
            layers: dict[str, list[Part]] = {name: [] for name in work if name}
            for part in held:
                layers.setdefault(part.name.rsplit("/", 1)[0], []).append(part)
            total = sum(work.values())
            count = self.layouts[i].P
            lines.append(
                f"coordinate {i}: {readable(count)} parameters, {readable(total, 'flop')}, "
                f"{readable(self.memory(i), 'B')} of weights, gradients and slots"
            )
            for name, parts in layers.items():
                size = sum(int(np.prod(p.shape(shapes[p.name]))) for p in parts)
                cut = ", ".join(
                    f"{p.name.rsplit('/', 1)[-1]} axis {p.axis}, part {p.index + 1} of {p.count}"
                    for p in parts
                    if p.axis is not None
                )
                lines.append(
                    f"  {name:40} {readable(size):>8}  {readable(work.get(name, 0), 'flop'):>12}  {cut}".rstrip()
                )
        return "\n".join(lines)


def _said(mesh: Mesh) -> str:
    if mesh.pipeline > 1:
        return f"a pipeline of {mesh.pipeline} stages"
    return f"tensors split among {mesh.model} workers" if mesh.model > 1 else "parameters in slices"
