"""Zero stage 3: every worker computes all layers on rows of its own, and keeps a slice of all parameters.

1. The training graph is cut into segments whose weights take about the same room: groups.
2. Before a segment is computed, forward and again backward, its group's parameters are gathered from all slices; behind it
   they are let go.
3. A group's gradient is summed over the workers as soon as it is whole; each keeps its own slice of it.
4. Each worker updates its slices. Nothing more is to be exchanged.

Bytes that each of d workers sends in a call: 12 P (d-1)/d, half as much again as data parallelism with whole parameters
(8 P (d-1)/d); it keeps P/d of parameters, gradients and slots, and at most two groups besides.

Source: Rajbhandari et al., "ZeRO", 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..costs import size_bytes
from ..ir import Dim, Graph, Node
from ..layout import SLICE_ALIGNMENT, Entry, Layout
from ..packing import flat, join
from ..program import StepSource
from .before import Before
from .instructions import Compute, Drop, GatherParams, Instruction, ScatterGrads
from .levels import leveled, sums_in
from .local_program import LocalCall
from .lowering import Lowering, vector_of
from .mesh import ParallelError
from .places import Kinds, forward_places
from .segmented import Segmented
from .stages import Line, counted, weighed
from .wiring import Piece, Pieces

MOST = 8  # groups


@dataclasses.dataclass(frozen=True)
class Group:
    """Weights that are gathered together.

    Attributes:
        entries: of the whole model's layout. size: elements of all.
        start, slice_size: where a worker's slice begins in its local vector, and its length; the last is filled up with zeros.
    """

    entries: tuple[Entry, ...]
    size: int
    start: int
    slice_size: int


def _slice_size(size: int, workers: int) -> int:
    """A multiple of 64, so that an element stands at the same place in a vector register for any number of workers."""
    return -(-size // (workers * SLICE_ALIGNMENT)) * SLICE_ALIGNMENT


class Slices(Segmented):
    """A model whose parameters are kept in slices.

    Attributes:
        groups: one for each segment, possibly empty. layouts: of each worker: its slices under the names of the groups.
    """

    def __init__(self, source: StepSource, workers: int, sizes: Mapping[str, Dim]):
        graph = source.optimised("train" if source.train is not None else "predict")
        weights = len([n for n in graph.params if n.attrs["name"] in {e.name for e in source.layout.params}])
        super().__init__(source, max(1, min(MOST, weights // 2)), {}, sizes)
        self.coordinates, self.updates = workers, (source.update,) * workers
        groups: list[Group] = []
        start = 0
        for k in range(self.stages):
            entries = tuple(e for e in source.layout.params if self.homes.get(e.name, 0) == k)
            size = sum(e.size for e in entries)
            groups.append(Group(entries, size, start, _slice_size(size, workers)))
            start += groups[-1].slice_size
        self.groups = tuple(groups)
        own = Layout.of(
            [(f"group/{k}", (g.slice_size,)) for k, g in enumerate(groups)],
            [(e.name, e.shape) for e in source.layout.states],
            [(e.name, e.shape) for e in source.layout.sums],
        )
        self.layouts: tuple[Layout, ...] = (own,) * workers
        self.working_bytes = 4 * 2 * max(g.slice_size * workers for g in groups)

    def _weighed(self, kinds: Kinds, nodes: Sequence[Node], graph: Graph) -> Line:
        """Bytes of the weights that are first read at each place; where little passes, other things being equal."""
        line = weighed(kinds, nodes, graph.nodes, self.sizes, counted(self.sizes))
        _, homes = forward_places(kinds, {n: i for i, n in enumerate(nodes)}, len(nodes) - 1)
        room = np.zeros(len(nodes))
        for n, at in homes.items():
            room[at] += size_bytes(n.type)
        return Line(line.nodes, room, line.crossing)

    # --- vectors ------------------------------------------------------------------------------------------------------

    def localise(self, coordinate: int, vector: np.ndarray) -> np.ndarray:
        """A worker's slices of float32[P].

        Raises:
            ParallelError: a vector of another length.
        """
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.source.layout.P,):
            raise ParallelError(
                f"the model has {self.source.layout.P} parameters, got a vector of shape {vector.shape}"
            )
        found = np.zeros(self.layouts[0].P, np.float32)
        for g in self.groups:
            whole = np.concatenate([vector[e.offset : e.end] for e in g.entries] or [np.zeros(0, np.float32)])
            part = whole[coordinate * g.slice_size : (coordinate + 1) * g.slice_size]
            found[g.start : g.start + len(part)] = part
        return found

    def globalise(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """float32[P] from all workers' slices.

        Raises:
            ParallelError: not one vector for each worker, or one of another length.
        """
        if len(vectors) != self.coordinates or any(np.shape(v) != (self.layouts[0].P,) for v in vectors):
            raise ParallelError(
                f"the model is in slices of {self.layouts[0].P} on {self.coordinates} workers, got vectors of shapes "
                f"{', '.join(str(np.shape(v)) for v in vectors)}"
            )
        found = np.zeros(self.source.layout.P, np.float32)
        for g in self.groups:
            whole = np.concatenate([v[g.start : g.start + g.slice_size] for v in vectors])
            offset = 0
            for e in g.entries:
                found[e.offset : e.end] = whole[offset : offset + e.size]
                offset += e.size
        return found

    def runs(self, coordinate: int) -> list[tuple[int, int, bool]]:
        """As `Parted.runs`; what fills up a slice, zeros, counts to the last variable."""
        index = {e.name: i for i, e in enumerate(self.source.layout.params)}
        found = []
        for g in self.groups:
            whole = np.repeat([index[e.name] for e in g.entries], [e.size for e in g.entries]).astype(np.int32)
            own = whole[coordinate * g.slice_size : (coordinate + 1) * g.slice_size]
            own = np.concatenate([own, np.full(g.slice_size - len(own), whole[-1] if len(whole) else 0, np.int32)])
            edges = [0, *(np.flatnonzero(np.diff(own)) + 1), len(own)]
            found += [(int(own[a]), int(b - a), True) for a, b in zip(edges, edges[1:]) if b > a]
        return found

    def held(self, coordinate: int) -> list[tuple[str, int, str]]:
        return [
            (e.name, -(-e.size // self.coordinates), f"in slices, group {k}")
            for k, g in enumerate(self.groups)
            for e in g.entries
        ]

    def operations(self) -> list[dict[str, float]]:
        found: dict[str, float] = {}
        for work in super().operations():
            for name, count in work.items():
                found[name] = found.get(name, 0) + count
        return [dict(found) for _ in range(self.coordinates)]

    def sent(self) -> list[float]:
        """For each coordinate, the bytes that it sends in a call: a slice to all others for each gather, parts of gradients."""
        kind = "train" if self.source.train is not None else "predict"
        graph, forward, backward = self.places(kind)
        total = 0.0
        for group in _Rounds(graph, self, forward, backward, kind).gathered():
            total += 4.0 * self.groups[group].slice_size
        total += 4.0 * sum(g.slice_size for g in self.groups) * (kind == "train")
        return [total * (self.coordinates - 1)] * self.coordinates

    # --- calls --------------------------------------------------------------------------------------------------------

    def calls(self, kind: str, rows: int, lengths: Mapping[str, int]) -> tuple[list[LocalCall], set[str]]:
        """The call of each coordinate, the same for all; and the native libraries that it needs."""
        graph, forward, backward = self.places(kind)
        homes: dict[str, tuple[str, int]] = {}
        for k, g in enumerate(self.groups):
            offset = 0
            for e in g.entries:
                homes[e.name] = (f"params/{k}", offset)
                offset += e.size
        sizes = {**lengths, "b": rows}
        lowering = Lowering(graph, kind, self.layouts[0], sizes, homes)
        instructions, results = _Rounds(graph, self, forward, backward, kind).instructions(lowering)
        before = Before(self._hoisted(kind)[1], kind, self.layouts[0], sizes)
        call = before.ahead_of(LocalCall(kind, rows, {"whole": instructions}, results))
        return [call] * self.coordinates, set(lowering.chooser.needs) | before.needs


class _Rounds(Pieces):
    """All pieces one after another, each with the groups that it reads."""

    cut: Slices

    def _begin(self) -> None:
        self.read: dict[Piece, set[int]] = {piece: set() for piece in self.wanted}

    def _is_foreign(self, weight: Node, piece: Piece) -> bool:
        self.read[piece].add(self.homes[weight])
        return False

    def gathered(self) -> list[int]:
        """The groups that are gathered in a call, one after another."""
        found: list[int] = []
        here: set[int] = set()
        for piece in self.order:
            found += sorted(self.read[piece] - here)
            here = self.read[piece]
        return found

    def instructions(self, lowering: Lowering) -> tuple[tuple[Instruction, ...], tuple[str, ...]]:
        made: list[Instruction] = []
        here: set[int] = set()  # groups that are gathered
        order = self.order
        ends = {name: k for k, piece in enumerate(order) for n in self.given[piece] for name in lowering.names(n)}
        for k, piece in enumerate(order):
            for group in sorted(self.read[piece] - here):
                g = self.cut.groups[group]
                made.append(GatherParams(group, g.start, g.start + g.slice_size, g.size))
                made.append(lowering.weights(f"params/{group}"))
            here |= self.read[piece]
            made += self._computed(piece, lowering)
            following = self.read[order[k + 1]] if k + 1 < len(order) else set()
            vectors = [f"params/{group}" for group in sorted(here - following)]
            gone = [*vectors, *(name for of in vectors for name in lowering.weights(of).values)]
            here &= following
            gone += sorted(name for name, end in ends.items() if end == k)
            if gone:
                made.append(Drop(tuple(gone)))
        if self.kind == "predict":
            return tuple(made), tuple(self.outputs)
        made.append(self._vector(lowering))
        return tuple(made), ("vector",)

    def _computed(self, piece: Piece, lowering: Lowering) -> list[Instruction]:
        """The code of a piece; its outputs are kept under "part/...", a group's gradients go to their slices."""
        phase, stage = piece
        outs, group = self.results[piece], self.cut.groups[stage]
        scatters = phase == "backward" and group.size > 0
        total = group.slice_size * self.cut.coordinates

        def finish(values: Mapping[Node, Any], _: Mapping[str, Any]) -> dict[str, Any]:
            if scatters:
                parts = [
                    flat(values[outs[f"grad/{e.name}"]] if f"grad/{e.name}" in outs else None, e) for e in group.entries
                ]
                return {f"grads/{stage}": join([*parts, jnp.zeros(total - group.size, jnp.float32)])}
            names = outs if self.kind == "predict" else {f"part/{name}": n for name, n in outs.items()}
            return {name: values[n] for name, n in names.items()}

        wanted = list(self.wanted[piece])
        if not wanted and not outs and not scatters:
            return []
        code = leveled(
            lowering, sums_in(lowering.graph), list(self.given[piece]), wanted, finish, (), tuple(outs.values())
        )
        return [*code, ScatterGrads(stage, group.slice_size)] if scatters else code

    def _vector(self, lowering: Lowering) -> Compute:
        """Own slices of the gradient, and this worker's share of states and sums, as one vector."""
        layout = lowering.layout
        parts = {name: n for name, n in self.outputs.items() if not name.startswith("grad/")}
        extra = [(f"part/{name}", lowering.types(n)[0]) for name, n in parts.items()]
        train = self.kind == "train"
        groups = [k for k, g in enumerate(self.cut.groups) if g.size and train]
        extra += [(f"slice/{k}", ((self.cut.groups[k].slice_size,), "float32")) for k in groups]
        keeps = train and any(f"state/{e.name}" not in parts for e in layout.states)
        if keeps:
            extra += [("state", ((layout.S,), "float32")), ("share", ((), "float32"))]

        def finish(_: Mapping[Node, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
            states = {e.name: arrays.get(f"part/state/{e.name}") for e in layout.states}
            states = {name: value for name, value in states.items() if value is not None}
            sums = {e.name: arrays.get(f"part/sum/{e.name}") for e in layout.sums}
            if not train:
                only = Layout.of(sums=[(e.name, e.shape) for e in layout.sums])
                return {"vector": vector_of(only, {}, {}, sums)}
            slices = {f"group/{k}": arrays[f"slice/{k}"] for k in groups}
            kept = arrays["state"] * arrays["share"] if keeps else None
            return {"vector": vector_of(layout, slices, states, sums, kept)}

        return lowering.compute([], [], finish, extra)
