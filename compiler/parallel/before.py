"""Sums over all rows of a batch that are known before a call computes anything with weights.

A masked loss is divided by the number of steps that the masks leave in the whole batch. The sum depends on arrays of the batch
alone. So a call is cut in two: "before" gives its share of each such sum; the sums over all calls of all workers come back as
arguments "total/0", "total/1", ..., and the rest of the call has no sum in its middle, however many microbatches it runs in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..ir import Dim, Graph, Node, is_static
from ..layout import Layout
from ..ops.registry import input_node
from .instructions import Compute
from .local_program import LocalCall
from .lowering import Lowering

TOTAL = "total/"  # names of the arguments


def hoisted(graph: Graph) -> tuple[Graph, Graph | None]:
    """A step's graph that reads such sums as arguments, and the graph that gives a call's shares of them, by the same names.

    The very same graph, and None, where there are no such sums. Sums of what depends on weights stay where they are.
    """
    fixed: dict[Node, bool] = {}  # neither a weight nor another sum comes before it
    found: list[Node] = []
    for n in graph.nodes:
        fixed[n] = n.op.name != "param" and all(fixed[i] for i in n.inputs)
        if n.op.name == "all_reduce":
            if fixed[n] and all(map(is_static, n.shape)):
                found.append(n)
            fixed[n] = False
    if not found:
        return graph, None
    totals = {n: input_node(f"{TOTAL}{k}", n.shape, n.dtype) for k, n in enumerate(found)}
    made = graph.replace(totals)
    shares = Graph(graph.inputs, tuple(n.inputs[0] for n in found), tuple(t.attrs["name"] for t in totals.values()))
    return Graph((*made.inputs, *totals.values()), made.outputs, made.output_names), shares


class Before:
    """What goes ahead of the calls of one kind and size.

    Args:
        shares: of `hoisted`.

    Attributes:
        needs: native libraries that it calls.
    """

    def __init__(self, shares: Graph | None, kind: str, layout: Layout, sizes: Mapping[str, Dim]):
        self.shares, self.needs = shares, set[str]()
        if shares is not None:
            self._lowering = Lowering(shares, kind, layout, sizes)
            self._totals = dict(zip(shares.output_names, shares.outputs))

    def ahead_of(self, call: LocalCall) -> LocalCall:
        """The call with a phase before its own, if it reads any of the sums."""
        if self.shares is None:
            return call
        read = {
            name for phase in call.phases.values() for one in phase if isinstance(one, Compute) for name in one.reads
        }
        chosen = {name: n for name, n in self._totals.items() if name in read}
        if not chosen:
            return call
        code = self._lowering.compute(
            [], [], lambda values, _: {name: values[n] for name, n in chosen.items()}, (), tuple(chosen.values())
        )
        self.needs |= self._lowering.chooser.needs
        totals = tuple((name, tuple(n.shape)) for name, n in chosen.items())
        return dataclasses.replace(call, phases={"before": (code,), **call.phases}, totals=totals)
