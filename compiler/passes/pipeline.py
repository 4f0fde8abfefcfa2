"""Which passes run, in which order."""

from __future__ import annotations

from ..ir import Graph


def optimise(graph: Graph, kind: str) -> Graph:
    """The graph after all passes for `kind`: "train", "test", "predict" or "update"."""
    return graph
