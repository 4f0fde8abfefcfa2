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

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ..costs import flops
from ..ir import Dim, Graph, Node
from ..layout import Layout
from ..program import StepSource
from .instructions import Compute, Drop, Instruction, Receive, Send
from .local_program import LocalCall
from .lowering import Lowering, vector_of
from .mesh import ParallelError
from .parts import Part, local_layout
from .places import CHEAP, backward_places, forward_places, kinds_of, pinned_line, pins_of
from .stages import Cost, counted, cuts, weighed

Piece = tuple[str, int]  # phase and stage


class Pipeline:
    """A model cut into stages.

    Attributes:
        parts: the weights of each coordinate. layouts: of each.
        seconds: what each stage was expected to take for a call of the rows that it was balanced for.
    """

    def __init__(
        self,
        source: StepSource,
        stages: int,
        placement: Mapping[str, int],
        sizes: Mapping[str, Dim],
        cost: Cost | None = None,
    ):
        self.source, self.stages, self.coordinates = source, stages, stages
        self.batch = [i.name for i in source.inputs]
        layout = source.layout
        graph = self._graph("train" if source.train is not None else "predict")
        kinds = kinds_of(graph, layout, self.batch)
        pins = pins_of(kinds.line, placement, stages)
        nodes, least, latest = pinned_line(kinds, pins, stages)
        line = weighed(kinds, nodes, graph.nodes, sizes, cost or counted(sizes))
        begins = cuts(line, stages, least, latest)
        at = {n: sum(i >= b for b in begins[1:]) for i, n in enumerate(nodes)}
        self.kinds, (self.forward, homes) = kinds, forward_places(kinds, at, stages - 1)
        self.backward = backward_places(graph.nodes, kinds, self.forward, homes, stages - 1)
        self.seconds = [float(line.seconds[a:b].sum()) for a, b in zip(begins, [*begins[1:], len(nodes)])]
        self.homes = {n.attrs["name"]: home for n, home in homes.items()}
        self.layers: dict[str, int] = {}  # the first stage that computes something of a layer
        for n in nodes:
            if n.source:
                self.layers[n.source] = min(self.layers.get(n.source, at[n]), at[n])
        home = lambda name: self.homes.get(name, 0)  # noqa: E731
        self.parts = tuple(
            tuple(Part(e.name) for e in layout.params if home(e.name) == stage) for stage in range(stages)
        )
        self.layouts: tuple[Layout, ...] = tuple(local_layout(layout, parts) for parts in self.parts)
        self.graph, self.sizes = graph, dict(sizes)

    def _graph(self, kind: str) -> Graph:
        graph = self.source.optimised(kind)
        for n in graph.nodes:
            if n.op.name == "all_reduce":
                raise ParallelError(
                    f"a pipeline cannot train this model: {n.source or 'its loss'} needs a sum over all rows of the batch "
                    "within the step (a mask's number of steps, synchronised statistics), which the microbatches make one "
                    "after another. Use model= or zero= in place of pipeline=."
                )
        return graph

    def calls(self, kind: str, rows: int, lengths: Mapping[str, int]) -> tuple[list[LocalCall], set[str]]:
        """The call of each coordinate, and the native libraries that they need."""
        graph = self._graph(kind)
        if kind == "train":
            forward, backward = self.forward, self.backward
        else:
            forward, backward = self._following(graph), {}
        made, needs = [], set()
        exchange = _Exchange(graph, self, forward, backward, kind)
        for stage in range(self.stages):
            lowering = Lowering(graph, kind, self.layouts[stage], {**lengths, "b": rows})
            made.append(exchange.call(stage, rows, lowering))
            needs |= lowering.chooser.needs
        return made, needs

    def _following(self, graph: Graph) -> dict[Node, int]:
        """Stages of a test or predict graph: where the weights are, and the layers of the training graph."""
        kinds = kinds_of(graph, self.source.layout, self.batch)
        at: dict[Node, int] = {}
        on_line = set(kinds.line)
        deep: dict[Node, int] = {}  # the home of what a node of weights reads
        for n in kinds.order:
            if n in kinds.params:
                deep[n] = self.homes.get(n.attrs["name"], 0)
            elif n in kinds.weights:
                deep[n] = max((deep[i] for i in n.inputs if i in deep), default=0)
            elif n in on_line:
                before = [at[i] for i in n.inputs if i in at] + [deep[i] for i in n.inputs if i in deep]
                at[n] = max([*before, self.layers.get(n.source or "", 0)])
        place, _ = forward_places(kinds, at, self.stages - 1)
        return {**place, **{n: deep[n] for n in kinds.weights - kinds.views}}

    def operations(self) -> list[dict[str, float]]:
        """For each stage, the floating-point operations of a call by layer."""
        found: list[dict[str, float]] = [{} for _ in range(self.stages)]
        for place in (self.forward, self.backward):
            for n, stage in place.items():
                name = (n.source or "").removeprefix("gradient of ")
                found[stage][name] = found[stage].get(name, 0) + flops(n, self.sizes)
        return found


class _Exchange:
    """What each phase of each stage computes, keeps and sends."""

    def __init__(
        self, graph: Graph, cut: Pipeline, forward: Mapping[Node, int], backward: Mapping[Node, int], kind: str
    ):
        self.graph, self.cut, self.kind = graph, cut, kind
        self.outputs = dict(zip(graph.output_names, graph.outputs))
        self.floats = _floats(graph, cut, forward)
        self.piece: dict[Node, Piece] = {n: ("forward", stage) for n, stage in forward.items()}
        self.piece |= {n: ("backward", stage) for n, stage in backward.items()}
        self.homes = {n: cut.homes.get(n.attrs["name"], 0) for n in graph.params if n.attrs["name"] in cut.homes}
        self.phases = ("forward", "backward") if kind == "train" else ("forward",)
        self.results = self._results()
        self.wanted: dict[Piece, dict[Node, None]] = {(p, s): {} for p in self.phases for s in range(cut.stages)}
        self.given: dict[Piece, dict[Node, None]] = {piece: {} for piece in self.wanted}
        self.messages: dict[tuple[str, int, int], dict[Node, None]] = {}  # phase, from, to
        self._trace()

    def _results(self) -> dict[Piece, dict[str, Node]]:
        """The outputs of the graph that each piece gives."""
        last = self.cut.stages - 1
        found: dict[Piece, dict[str, Node]] = {(p, s): {} for p in self.phases for s in range(last + 1)}
        for name, n in self.outputs.items():
            if name.startswith("grad/"):
                piece = ("backward", self.cut.homes.get(name.removeprefix("grad/"), 0))
            elif self.kind == "predict" or n not in self.piece:
                piece = ("forward", last)
            else:
                piece = self.piece[n]
            found[piece][name] = n
        return found

    def _trace(self) -> None:
        """Finds what each piece reads of others, last pieces first: what they read, earlier ones must give."""
        order = [("forward", s) for s in range(self.cut.stages)]
        if "backward" in self.phases:
            order += [("backward", s) for s in reversed(range(self.cut.stages))]
        for piece in reversed(order):
            own = [*self.results[piece].values(), *self.wanted[piece]]
            for n in self._reads(piece, own):
                self._bring(n, piece)

    def _reads(self, piece: Piece, wanted: Sequence[Node]) -> list[Node]:
        """The nodes of other pieces that `piece` needs for these."""
        phase, stage = piece
        found: dict[Node, None] = {}
        seen: set[Node] = set()
        stack = list(wanted)
        while stack:
            n = stack.pop()
            if n in seen:
                continue
            seen.add(n)
            home = self.piece.get(n)
            if phase == "backward" and stage in self.floats.get(n, ()):
                found[n] = None
            elif n in self.homes:
                if self.homes[n] != stage:
                    found[n] = None
            elif home is None or home == piece or (home == ("forward", stage) and n.op.name in CHEAP):
                stack.extend(n.inputs)
            else:
                found[n] = None
        return sorted(found, key=self._index.__getitem__)

    @functools.cached_property
    def _index(self) -> dict[Node, int]:
        return {n: i for i, n in enumerate(self.graph.nodes)}

    def _bring(self, n: Node, piece: Piece) -> None:
        """`n` to where `piece` reads it."""
        phase, stage = piece
        origin, source = self.piece.get(n, ("forward", self.homes.get(n, stage)))
        self.given[piece][n] = None
        if n not in self.homes:
            self.wanted[origin, source][n] = None
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
        made: list[Instruction] = []
        for source, nodes in sorted(taken, key=lambda m: m[0], reverse=phase == "backward"):
            nodes.sort(key=self._index.__getitem__)
            types = tuple(t for n in nodes for t in lowering.types(n))
            made.append(Receive(source, _names(lowering, nodes), types))
        shared = [n for to, nodes in sent for n in nodes if n in self.homes]  # own weights that others read
        wanted = [*self.wanted[piece], *dict.fromkeys(n for n in shared if n not in self.wanted[piece])]
        compute, results = self._compute(piece, wanted, lowering)
        if compute is not None:
            made.append(compute)
        for to, nodes in sorted(sent, key=lambda m: m[0], reverse=phase == "backward"):
            nodes.sort(key=self._index.__getitem__)
            made.append(Send(to, _names(lowering, nodes)))
        there = {name for one in made for name in _written(one)} | {
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

    def _compute(self, piece: Piece, wanted: list[Node], lowering: Lowering) -> tuple[Compute | None, tuple[str, ...]]:
        phase, stage = piece
        layout = lowering.layout
        outs = self.results[piece]
        given = list(self.given[piece])
        last = phase == self.phases[-1]
        if self.kind == "predict":
            if not outs:
                return (lowering.compute(given, wanted) if wanted else None), ()
            names = tuple(outs)
            finish = lambda values, _: {name: values[n] for name, n in outs.items()}  # noqa: E731
            return lowering.compute(given, wanted, finish, (), tuple(outs.values())), names
        if not last:  # sums and states of the forward phase wait for the vector

            def finish(values: Mapping[Node, Any], _: Mapping[str, Any]) -> dict[str, Any]:
                return {f"part/{name}": values[n] for name, n in outs.items()}

            if not wanted and not outs:
                return None, ()
            return lowering.compute(given, wanted, finish, (), tuple(outs.values())), ()
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

        return lowering.compute(given, wanted, finish_vector, extra, tuple(outs.values())), ("vector",)


def _floats(graph: Graph, cut: Pipeline, forward: Mapping[Node, int]) -> dict[Node, set[int]]:
    """The stages whose forward phase computes a floating node, such as a mask, that is worth keeping for the backward one."""
    kinds = kinds_of(graph, cut.source.layout, cut.batch)
    found: dict[Node, set[int]] = {}
    for n in reversed(kinds.order):
        if n in kinds.floating:
            users = kinds.users[n]
            found[n] = {forward[u] for u in users if u in forward}.union(*(found[u] for u in users if u in found))
    return {n: stages for n, stages in found.items() if n.op.name not in CHEAP and getattr(n.type, "shape", ())}


def _zero(layout: Layout, name: str) -> Any:
    import jax.numpy as jnp

    return jnp.zeros(next(e.shape for e in layout.states if e.name == name), jnp.float32)


def _names(lowering: Lowering, nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(name for n in nodes for name in lowering.names(n))


def _written(instruction: Instruction) -> tuple[str, ...]:
    if isinstance(instruction, Compute):
        return instruction.writes
    return instruction.values if isinstance(instruction, Receive) else ()
