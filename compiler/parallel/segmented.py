"""A model's graphs in segments that follow one another: what pipelines and zero stage 3 share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..costs import flops
from ..ir import Dim, Graph, Node
from ..program import StepSource
from .before import hoisted
from .places import Kinds, backward_places, forward_places, kinds_of, pinned_line, pins_of
from .stages import Line, cuts


class Segmented:
    """The training graph of a model in segments, and its other graphs in those that have their weights.

    Attributes:
        stages: how many segments. homes: the segment of each weight, by name.
        forward, backward: the segment of each node of the training graph.
        seconds: what each segment was expected to cost, for a call of the rows that it was balanced for.
    """

    def __init__(
        self,
        source: StepSource,
        stages: int,
        placement: Mapping[str, int],
        sizes: Mapping[str, Dim],
    ):
        self.source, self.stages, self.sizes = source, stages, dict(sizes)
        self._graphs: dict[str, tuple[Graph, Graph | None]] = {}
        self.batch = [i.name for i in source.inputs]
        graph = self._graph("train" if source.train is not None else "predict")
        kinds = kinds_of(graph, source.layout, self.batch)
        pins = pins_of(kinds.line, placement, stages)
        nodes, least, latest = pinned_line(kinds, pins, stages)
        line = self._weighed(kinds, nodes, graph)
        begins = cuts(line, stages, least, latest)
        at = {n: sum(i >= b for b in begins[1:]) for i, n in enumerate(nodes)}
        self.kinds, (self.forward, homes) = kinds, forward_places(kinds, at, stages - 1)
        self.backward = backward_places(graph.nodes, kinds, self.forward, homes, stages - 1)
        self.seconds = [float(line.seconds[a:b].sum()) for a, b in zip(begins, [*begins[1:], len(nodes)])]
        self.homes = {n.attrs["name"]: home for n, home in homes.items()}
        for name, n in zip(graph.output_names, graph.outputs):  # a kernel and its bias may have one gradient
            weight = name.removeprefix("grad/")
            if name.startswith("grad/") and n in self.backward:
                self.homes[weight] = min(self.homes[weight], self.backward[n])
        self.layers: dict[str, int] = {}  # the first stage that computes something of a layer
        for n in nodes:
            if n.source:
                self.layers[n.source] = min(self.layers.get(n.source, at[n]), at[n])
        self.graph = graph

    def _weighed(self, kinds: Kinds, nodes: Sequence[Node], graph: Graph) -> Line:
        """The line with what is to be balanced."""
        raise NotImplementedError

    def _graph(self, kind: str) -> Graph:
        return self._hoisted(kind)[0]

    def _hoisted(self, kind: str) -> tuple[Graph, Graph | None]:
        """The graph of a call after the passes, and what is summed over all rows before it."""
        if kind not in self._graphs:
            self._graphs[kind] = hoisted(self.source.optimised(kind))
        return self._graphs[kind]

    def places(self, kind: str) -> tuple[Graph, dict[Node, int], dict[Node, int]]:
        """The graph of a call after the passes, and the segments of its forward and of its other nodes."""
        graph = self._graph(kind)
        if kind == "train":
            return graph, self.forward, self.backward
        return graph, self._following(graph), {}

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
