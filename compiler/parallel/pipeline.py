"""Pipeline parallelism: the training graph in stages, each with a forward and a backward phase for a microbatch.

1. The line of the forward part is cut into stages (`stages`), everything else follows it (`places`).
2. Coordinate i computes stage i. In "forward" it receives what earlier stages computed, computes, and sends on what later
   ones read. In "backward" it receives gradients from later stages, computes its own and sends on those of earlier ones.
3. What "backward" reads of "forward" stays in the environment of the microbatch.

Bytes for a microbatch: the values at each cut forward, their gradients backward. A weight that several stages read (tied
embeddings) belongs to the first and is sent to the others, its gradient back.

Source: Huang et al., "GPipe", 2019; Narayanan et al., "PipeDream", 2019 (schedules are the runtime's part).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ..costs import bound_type, size_bytes
from ..ir import Dim, Graph, Node
from ..layout import Layout
from ..program import StepSource
from .before import Before
from .instructions import Drop, Instruction, Receive, Send
from .levels import leveled, sums_in
from .local_program import LocalCall
from .lowering import Lowering, vector_of
from .mesh import ParallelError
from .parts import Part, Parted, local_layout
from .places import Kinds
from .segmented import Segmented
from .stages import Cost, Line, counted, weighed
from .update import part_update
from .wiring import Piece, Pieces, names_of, written_by


class Pipeline(Segmented, Parted):
    """A model cut into stages, one for each coordinate.

    Attributes:
        parts: the weights of each coordinate. layouts: of each.
    """

    def __init__(
        self,
        source: StepSource,
        stages: int,
        placement: Mapping[str, int],
        sizes: Mapping[str, Dim],
        cost: Cost | None = None,
    ):
        self.cost = cost or counted(sizes)
        super().__init__(source, stages, placement, sizes)
        self.coordinates = stages
        self.parts = tuple(
            tuple(Part(e.name) for e in source.layout.params if self.homes.get(e.name, 0) == stage)
            for stage in range(stages)
        )
        self.layouts: tuple[Layout, ...] = tuple(local_layout(source.layout, parts) for parts in self.parts)
        self.updates = tuple(part_update(source, [p.name for p in parts]) for parts in self.parts)

    def _weighed(self, kinds: Kinds, nodes: Sequence[Node], graph: Graph) -> Line:
        return weighed(kinds, nodes, graph.nodes, self.sizes, self.cost)

    def calls(self, kind: str, rows: int, lengths: Mapping[str, int]) -> tuple[list[LocalCall], set[str]]:
        """The call of each coordinate, and the native libraries that they need."""
        graph, forward, backward = self.places(kind)
        exchange = _Exchange(graph, self, forward, backward, kind)
        made, needs, sizes = [], set(), {**lengths, "b": rows}
        before = Before(self._hoisted(kind)[1], kind, self.layouts[0], sizes)
        for stage in range(self.stages):
            lowering = Lowering(graph, kind, self.layouts[stage], sizes)
            made.append(before.ahead_of(exchange.call(stage, rows, lowering)))
            needs |= lowering.chooser.needs
        return made, needs | before.needs

    def sent(self) -> list[float]:
        """For each coordinate, the bytes that it sends to others in a call."""
        kind = "train" if self.source.train is not None else "predict"
        graph, forward, backward = self.places(kind)
        found = [0.0] * self.stages
        for (_, source, _), nodes in _Exchange(graph, self, forward, backward, kind).messages.items():
            found[source] += sum(size_bytes(bound_type(n.type, self.sizes)) for n in nodes)
        return found


class _Exchange(Pieces):
    """What the phases of each stage send to others."""

    def _begin(self) -> None:
        self.messages: dict[tuple[str, int, int], dict[Node, None]] = {}  # phase, from, to

    def _bring(self, n: Node, piece: Piece) -> None:
        """`n` to where `piece` reads it."""
        phase, stage = piece
        origin, source = self.piece.get(n, ("forward", self.homes.get(n, stage)))
        super()._bring(n, piece)
        if source == stage:
            return
        sending = "forward" if origin == "forward" and source < stage else "backward"
        if sending not in self.phases or (sending == "backward" and source < stage):
            raise ParallelError(
                f"{n.source or n.op.name!r} of stage {source} is read by the {phase} phase of stage {stage}, which no "
                "order of the stages allows; pin the layers that share it to one stage"
            )
        self.messages.setdefault((sending, source, stage), {})[n] = None

    def call(self, stage: int, rows: int, lowering: Lowering) -> LocalCall:
        """The instructions of one stage."""
        phases: dict[str, tuple[Instruction, ...]] = {}
        results: tuple[str, ...] = ()
        for phase in self.phases:
            instructions, results = self._phase(phase, stage, lowering)
            phases[phase] = instructions
        return LocalCall(self.kind, rows, phases, results)

    def _phase(self, phase: str, stage: int, lowering: Lowering) -> tuple[tuple[Instruction, ...], tuple[str, ...]]:
        piece = (phase, stage)
        taken = [(source, list(m)) for (p, source, to), m in self.messages.items() if p == phase and to == stage]
        sent = [(to, list(m)) for (p, source, to), m in self.messages.items() if p == phase and source == stage]
        made: list[Instruction] = [lowering.weights()] if phase == "forward" else []
        for source, nodes in sorted(taken, key=lambda m: m[0], reverse=phase == "backward"):
            nodes.sort(key=self._index.__getitem__)
            types = tuple(t for n in nodes for t in lowering.types(n))
            made.append(Receive(source, names_of(lowering, nodes), types))
        shared = [n for to, nodes in sent for n in nodes if n in self.homes]  # own weights that others read
        wanted = [*self.wanted[piece], *dict.fromkeys(n for n in shared if n not in self.wanted[piece])]
        code, results = self._code(piece, wanted, lowering)
        made += code
        for to, nodes in sorted(sent, key=lambda m: m[0], reverse=phase == "backward"):
            nodes.sort(key=self._index.__getitem__)
            made.append(Send(to, names_of(lowering, nodes)))
        there = {name for one in made for name in written_by(one)} | {
            name for n in self.given[piece] for name in lowering.names(n)
        }
        kept = {"vector", *results}
        if phase == "forward" and "backward" in self.phases:
            after = ("backward", stage)
            later = [*self.given[after], *(n for (p, s, _), m in self.messages.items() if (p, s) == after for n in m)]
            kept |= {name for n in later for name in lowering.names(n)}
            kept |= {name for name in there if name.startswith("part/")}
        gone = tuple(sorted(there - kept))
        return (*made, *((Drop(gone),) if gone else ())), results

    def _code(self, piece: Piece, wanted: list[Node], lowering: Lowering) -> tuple[list[Instruction], tuple[str, ...]]:
        phase, stage = piece
        cuts = sums_in(lowering.graph)
        layout = lowering.layout
        outs = self.results[piece]
        given = list(self.given[piece])
        last = phase == self.phases[-1]
        if self.kind == "predict":
            if not outs:
                return (leveled(lowering, cuts, given, wanted) if wanted else []), ()
            names = tuple(outs)
            finish = lambda values, _: {name: values[n] for name, n in outs.items()}  # noqa: E731
            return leveled(lowering, cuts, given, wanted, finish, (), tuple(outs.values())), names
        if not last:  # sums and states of the forward phase wait for the vector

            def finish(values: Mapping[Node, Any], _: Mapping[str, Any]) -> dict[str, Any]:
                return {f"part/{name}": values[n] for name, n in outs.items()}

            if not wanted and not outs:
                return [], ()
            return leveled(lowering, cuts, given, wanted, finish, (), tuple(outs.values())), ()
        before = self.results["forward", stage] if phase == "backward" else {}
        extra = [(f"part/{name}", lowering.types(n)[0]) for name, n in before.items()]
        keeps = self.kind == "train" and stage == 0 and layout.S > 0
        if keeps:
            extra += [("state", ((layout.S,), "float32")), ("share", ((), "float32"))]
        given = [n for n in given]

        assigned = {name.removeprefix("state/") for name in self.outputs if name.startswith("state/")}

        def finish_vector(values: Mapping[Node, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
            found = {name: values[n] for name, n in outs.items()}
            found |= {name: arrays[f"part/{name}"] for name in before}
            parts = {
                p: {k.removeprefix(p): v for k, v in found.items() if k.startswith(p)}
                for p in ("grad/", "state/", "sum/")
            }
            kept = None
            if self.kind != "train":
                return {
                    "vector": vector_of(Layout.of(sums=[(e.name, e.shape) for e in layout.sums]), {}, {}, parts["sum/"])
                }
            if keeps:
                kept = arrays["state"] * arrays["share"]
                parts["state/"] |= {name: _zero(layout, name) for name in assigned - set(parts["state/"])}
            return {"vector": vector_of(layout, parts["grad/"], parts["state/"], parts["sum/"], kept)}

        return leveled(lowering, cuts, given, wanted, finish_vector, extra, tuple(outs.values())), ("vector",)


def _zero(layout: Layout, name: str) -> Any:
    return jnp.zeros(next(e.shape for e in layout.states if e.name == name), jnp.float32)
