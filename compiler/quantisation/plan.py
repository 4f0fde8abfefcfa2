"""Plan: which values are integers, and of which scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ..ir import Graph, Node, is_static
from ..ops.quantised import LIMITS
from .regions import Region

# Ops whose result holds values of their inputs, or zeros: what they give has the scale of what they take.
MOVING = ("max_pool", "reshape", "transpose", "concatenate", "strided_slice", "pad", "flip")


@dataclasses.dataclass(frozen=True)
class Scale:
    """x = q * value with q of `dtype` ("uint8" or "int8")."""

    value: float
    dtype: str


def scales_of(low: float, high: float) -> Scale:
    """The scale for values from `low` to `high`.

    >>> scales_of(0.0, 25.5), scales_of(-1.27, 0.5)
    (Scale(value=0.1, dtype='uint8'), Scale(value=0.01, dtype='int8'))
    """
    dtype = "uint8" if low >= 0 else "int8"
    largest = max(high, 0.0) if low >= 0 else max(-low, high)
    return Scale(largest / LIMITS[dtype][1] if largest > 0 else 1.0, dtype)


class Plan:
    """Which values of a graph are integers.

    A region takes integers; what it gives is integers where a region (or an op of `MOVING` on the way to one) wants
    them, else floats. Values that `MOVING` ops join have one scale.

    Attributes:
        regions: of each root, the region that gives it: without addend where it gives floats.
        wanted: the values that are integers.
        inner: nodes inside regions, which need no value.
        sources: the wanted values whose ranges decide: all but results of `MOVING` ops.
    """

    def __init__(self, graph: Graph, regions: Sequence[Region]):
        nodes = graph.nodes
        full = {region.root: region for region in regions}
        self.wanted: set[Node] = {region.x for region in regions}
        self.regions: dict[Node, Region] = {}
        for n in reversed(nodes):
            if n in full:
                region = full[n] if n in self.wanted else full[n].without_addend()
                if n not in self.wanted and full[n].addend is not None:
                    # the addend stays a float and so does the sum
                    self.regions[region.root] = region
                    continue
                self.regions[n] = region
                if region.addend is not None:
                    self.wanted.add(region.addend)
            elif n in self.wanted and is_moving(n):
                self.wanted.update(n.inputs)
        self.inner = {n for region in self.regions.values() for n in region.inner}
        self._group: dict[Node, Node] = {n: n for n in self.wanted}
        for n in nodes:
            if n in self.wanted and n not in self.regions and is_moving(n):
                for i in n.inputs:
                    self._group[self._find(i)] = self._find(n)
        self.sources = [n for n in nodes if n in self.wanted and (n in self.regions or not is_moving(n))]

    def _find(self, n: Node) -> Node:
        while self._group[n] is not n:
            self._group[n] = n = self._group[self._group[n]]
        return n

    def scales(self, ranges: Mapping[Node, tuple[float, float]]) -> dict[Node, Scale]:
        """The scale of each wanted value, from the ranges of the sources."""
        joined: dict[Node, tuple[float, float]] = {}
        for n in self.sources:
            key, (low, high) = self._find(n), ranges[n]
            before = joined.get(key, (low, high))
            joined[key] = (min(before[0], low), max(before[1], high))
        made = {key: scales_of(*found) for key, found in joined.items()}
        return {n: made[self._find(n)] for n in self.wanted}


def is_moving(n: Node) -> bool:
    """Whether a node only moves values (and zeros) of its inputs, each of which differs from row to row."""
    if n.op.name not in MOVING or (n.op.name == "pad" and n.attrs["value"] != 0):
        return False
    return n.dtype == "float32" and all(i.ndim and not is_static(i.shape[0]) for i in n.inputs)
