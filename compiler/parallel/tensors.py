"""Tensor parallelism: weights split along an axis, each worker computes with its parts.

1. `weights` decides along which axis each weight is split, `spread` makes of each graph the one over parts. Both look at the
   whole training graph before the passes, so gradients need no rules of their own.
2. The passes run on the local graph, which is the same for all workers but for their number ("coordinate").
3. It is cut at its sums and stacks. All of one level are exchanged together: `Compute`, `Sum` or `Gather`, `Compute`, ...

Random masks come from row numbers, so everybody draws the same; states and sums are whole, and alike, everywhere.

Bytes that a worker sends in a call: for each sum 2 (m-1)/m of the vector's, for each gather (m-1) times its own part's.

Source: Shoeybi et al., "Megatron-LM", 2019; Xu et al., "GSPMD", 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..costs import bound_type, flops, size_bytes
from ..ir import Dim, Graph, Node
from ..layout import Layout
from ..passes import optimise
from ..program import StepSource
from .before import Before, hoisted
from .choices import Choices
from .instructions import Gather, Instruction, Number, Sum
from .levels import leveled
from .local_program import LocalCall
from .lowering import Lowering, vector_of
from .parts import Part, Parted, local_layout
from .shardings import Sharding
from .spread import COORDINATE, Spread
from .update import counting_once
from .weights import Weights

AXES = {"part_sum": "model", "part_stack": "model", "all_reduce": "data"}


class Tensors(Parted):
    """A model whose tensors are split among workers.

    Attributes:
        shardings: of each weight, by name. parts, layouts: of each coordinate.
    """

    def __init__(self, source: StepSource, count: int, placement: Mapping[str, Any], sizes: Mapping[str, Dim]):
        self.source, self.coordinates, self.sizes = source, count, dict(sizes)
        self.choices = Choices(count, sizes)
        kind = "train" if source.train is not None else "predict"
        graph = self._graph(kind)[0]
        learnt = {e.name for e in source.layout.params}
        self.shardings: dict[str, Sharding] = Weights(graph, self.choices, placement, learnt).shardings
        axes = {e.name: self.shardings[e.name].axis if e.name in self.shardings else None for e in source.layout.params}
        self.parts = tuple(
            tuple(Part(name) if axis is None else Part(name, axis, i, count) for name, axis in axes.items())
            for i in range(count)
        )
        self.layouts: tuple[Layout, ...] = tuple(local_layout(source.layout, parts) for parts in self.parts)
        update = source.update
        if update is not None and None in axes.values():  # weights that all workers have
            update = counting_once(update)
        self.updates = (update,) * count
        self._spreads: dict[str, Spread] = {}
        self._optimised: dict[str, Graph] = {}

    def _graph(self, kind: str) -> tuple[Graph, Graph | None]:
        """The whole model's graph before the passes, and what is summed over all rows before a call."""
        graph: Graph = getattr(self.source, kind)
        return hoisted(graph)

    def spread(self, kind: str) -> Spread:
        if kind not in self._spreads:
            self._spreads[kind] = Spread(self._graph(kind)[0], self.choices, self.shardings)
        return self._spreads[kind]

    def local(self, kind: str) -> Graph:
        """The graph of one worker after the passes."""
        if kind not in self._optimised:
            self._optimised[kind] = optimise(self.spread(kind).graph, kind)
        return self._optimised[kind]

    def calls(self, kind: str, rows: int, lengths: Mapping[str, int]) -> tuple[list[LocalCall], set[str]]:
        """The call of each coordinate: the same but for the first instruction."""
        sizes = {**lengths, "b": rows}
        lowering = Lowering(self.local(kind), kind, self.layouts[0], sizes)
        instructions, results = _instructions(lowering)
        phases = [
            {"whole": (Number(COORDINATE, i), lowering.weights(), *instructions)} for i in range(self.coordinates)
        ]
        before = Before(self._graph(kind)[1], kind, self.layouts[0], sizes)
        calls = [before.ahead_of(LocalCall(kind, rows, phase, results)) for phase in phases]
        return calls, set(lowering.chooser.needs) | before.needs

    def sent(self) -> list[float]:
        """For each coordinate, the bytes that it sends to others in a call: sums by halves, gathers to everybody."""
        graph, others = self.local("train" if self.source.train is not None else "predict"), self.coordinates - 1
        times = {"part_sum": 2.0 * others / self.coordinates, "part_stack": float(others)}
        total = sum(
            times[n.op.name] * size_bytes(bound_type(n.inputs[0].type, self.sizes))
            for n in graph.nodes
            if n.op.name in times
        )
        return [total] * self.coordinates

    def operations(self) -> list[dict[str, float]]:
        """For each coordinate, the floating-point operations of a call by layer."""
        found: dict[str, float] = {}
        kind = "train" if self.source.train is not None else "predict"
        spread = self.spread(kind)
        for n, share in spread.work.items():
            name = (n.source or "").removeprefix("gradient of ")
            found[name] = found.get(name, 0) + flops(n, self.sizes) * share
        return [dict(found) for _ in range(self.coordinates)]


def _instructions(lowering: Lowering) -> tuple[tuple[Instruction, ...], tuple[str, ...]]:
    """A graph with sums and stacks as instructions, and the names of its results."""
    graph, layout, kind = lowering.graph, lowering.layout, lowering.kind
    outputs = dict(zip(graph.output_names, graph.outputs))
    extra = []
    if kind == "train" and layout.S and any(f"state/{e.name}" not in outputs for e in layout.states):
        extra = [("state", ((layout.S,), "float32")), ("share", ((), "float32"))]

    def finish(values: Mapping[Node, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
        if kind == "predict":
            return {name: values[n] for name, n in outputs.items()}
        parts = {
            prefix: {k.removeprefix(prefix): values[n] for k, n in outputs.items() if k.startswith(prefix)}
            for prefix in ("grad/", "state/", "sum/")
        }
        if kind == "test":
            sums = Layout.of(sums=[(e.name, e.shape) for e in layout.sums])
            return {"vector": vector_of(sums, {}, {}, parts["sum/"])}
        kept = arrays["state"] * arrays["share"] if extra else None
        return {"vector": vector_of(layout, parts["grad/"], parts["state/"], parts["sum/"], kept)}

    cuts = {n: AXES[n.op.name] for n in lowering.order if n.op.name in AXES}
    made = leveled(lowering, cuts, [], [], finish, extra, tuple(outputs.values()))
    return tuple(made), ("vector",) if kind != "predict" else tuple(graph.output_names)


def collectives(call: LocalCall) -> tuple[int, int]:
    """How many exchanges of sums, and how many gathers, a call makes among the workers that share the model."""
    every = [i for phase in call.phases.values() for i in phase]
    return sum(isinstance(i, Sum) and i.axis == "model" for i in every), sum(isinstance(i, Gather) for i in every)
