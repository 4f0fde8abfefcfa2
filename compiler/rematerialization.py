"""Rematerialisation: the gradient of a segment computes the segment's results again instead of keeping them.

A segment is a set of forward nodes, found while they were made (`ir.recording`). The rules of its nodes are applied to
copies whose inputs come from outside through a `barrier` that waits for the first gradient to arrive at the segment, so
that neither interning nor XLA makes one node of a copy and its original. Segments may stand in one another; then an inner
one starts from copies of the outer one's nodes.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from .ir import Node, TensorType, Type, is_static, node, rebuilt, source
from .ops.barrier import barrier
from .ops.registry import item, item_op
from .rows import is_lookup

Chain = tuple[int, ...]

PASSING = frozenset((
    "add", "subtract", "negative", "reshape", "transpose", "concatenate", "cast", "sum", "mean", "item", "pad",
    "strided_slice", "broadcast_to", "stop_gradient", "flip", "roll",
))  # fmt: skip
"""Ops whose gradient needs none of their inputs: being read by one of them keeps a value no longer."""

SMALL = (
    1 << 14
)  # elements of a result of known size that is kept rather than computed again, such as a batch's statistics


@dataclasses.dataclass(frozen=True)
class Segment:
    """Forward nodes that are computed again for the backward pass.

    Attributes:
        nodes: made inside; those of inner segments too.
        owner: the layer or function, for whoever wants to leave a segment out.
    """

    nodes: frozenset[Node]
    owner: Any = None


class Recomputation:
    """The copies for one backward pass.

    Where a copy is: a chain of segments, outermost first, each within the one before. What is needed outside of a segment
    for other gradients is kept anyway and not computed again; neither are lookups in tables, what depends on weights
    alone, nodes with effects, and small results of known size.

    Args:
        segments: in any order.
        order: the forward nodes, inputs before users.
    """

    def __init__(self, segments: Sequence[Segment], order: Sequence[Node]):
        self.fixed = _fixed(order)
        largest_first = sorted(segments, key=lambda s: -len(s.nodes))
        self.nodes = [frozenset(n for n in s.nodes if n not in self.fixed and _again(n)) for s in largest_first]
        self.chains: dict[Node, Chain] = {}
        for k, held in enumerate(self.nodes):
            for n in held:
                outer = self.chains.get(n, ())
                if not outer or held < self.nodes[outer[-1]]:
                    self.chains[n] = (*outer, k)
        self.kept = self._read_outside(order)
        self.tokens: dict[int, Node] = {}
        self.copies: dict[tuple[Node, Chain], Node] = {}
        self.originals: dict[Node, tuple[Node, Chain]] = {}
        self.barriers: dict[Node, set[int]] = {}

    def _read_outside(self, order: Sequence[Node]) -> list[set[Node]]:
        """For each segment, its nodes that are kept anyway: a node outside needs them for its own gradient."""
        kept: list[set[Node]] = [set() for _ in self.nodes]
        for n in order:
            if n.op.name not in PASSING:
                for i in n.inputs:
                    for k in self.chains.get(i, ()):
                        if n not in self.nodes[k]:
                            kept[k].add(i)
        return kept

    def for_rule(self, n: Node, arrived: Any) -> Node:
        """The node to which the gradient rule of `n` is applied, when `arrived` arrives at it."""
        chain = self.chains.get(n, ())
        parts = arrived if isinstance(arrived, tuple) else (arrived,)
        for k in chain:
            self.tokens.setdefault(k, next(dy for dy in parts if dy is not None))
        return self._copy(n, chain) if chain else n

    def _at(self, n: Node, chain: Chain) -> Node:
        """What is read for `n` inside `chain`."""
        if not chain or n in self.fixed:
            return n
        last = chain[-1]
        if n in self.nodes[last] and n not in self.kept[last]:
            return self._copy(n, chain)
        outer = self._at(n, chain[:-1])
        if n in self.nodes[last] or not isinstance(n.type, TensorType):
            return outer
        known = outer.op is barrier and outer.inputs[1] is self.tokens[last]
        made = outer if known else barrier(outer, self.tokens[last])
        self.barriers.setdefault(made, set()).add(last)
        return made

    def _copy(self, n: Node, chain: Chain) -> Node:
        stack = [n]  # no recursion: segments may be long
        while stack:
            current = stack[-1]
            missing = [i for i in current.inputs if (i, chain) not in self.copies and self._is_copied(i, chain[-1])]
            if (current, chain) in self.copies:
                stack.pop()
            elif missing:
                stack += missing
            else:
                with source(current.source and f"{current.source}, again"):
                    made = node(current.op, [self._at(i, chain) for i in current.inputs], current.attrs, _leaf(current))
                self.copies[current, chain] = made
                if made is not current:
                    self.originals.setdefault(made, (current, chain))
        return self.copies[n, chain]

    def _is_copied(self, n: Node, segment: int) -> bool:
        return n in self.nodes[segment] and n not in self.kept[segment] and n not in self.fixed

    def settled(self, results: Sequence[Node | None]) -> list[Node | None]:
        """The gradients, in which copies give way to what is kept anyway, and idle barriers are gone."""
        live = _below(results, self._instead)
        busy = {self.originals[n][1][-1] for n in live if n in self.originals and self._instead(n) is None}
        idle = {n for n in live if n in self.barriers and not self.barriers[n] & busy}
        new: dict[Node, Node] = {}
        for n in _below(results, lambda n: n.inputs[0] if n in idle else self._instead(n)):
            other = n.inputs[0] if n in idle else self._instead(n)
            inputs = tuple(new[i] for i in n.inputs) if other is None else n.inputs
            new[n] = new[other] if other is not None else n if inputs == n.inputs else rebuilt(n, inputs)
        return [None if r is None else new[r] for r in results]

    def _instead(self, n: Node) -> Node | None:
        """What the gradients read in place of `n`; None: `n`."""
        if n in self.originals:
            first, chain = self.originals[n]
            return self._at(first, chain[:-1]) if first in self.kept[chain[-1]] else None
        if n.op is item_op and n.inputs[0] in self.originals and _is_small(n.type):
            return item(self.originals[n.inputs[0]][0], n.attrs["index"])
        return None


def _below(results: Sequence[Node | None], instead: Callable[[Node], Node | None]) -> list[Node]:
    """All nodes that the results need, needed ones first, where ``instead(n)`` is needed in place of the inputs of `n`."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(r, False) for r in results if r is not None]
    while stack:
        n, expanded = stack.pop()
        if expanded:
            order.append(n)
        elif n not in seen:
            seen.add(n)
            other = instead(n)
            stack.append((n, True))
            stack.extend((i, False) for i in (n.inputs if other is None else (other,)) if i not in seen)
    return order


def _fixed(order: Sequence[Node]) -> set[Node]:
    """Nodes that depend on weights and constants alone."""
    found: set[Node] = set()
    for n in order:
        if n.op.name != "input" and not n.op.has_effect and found.issuperset(n.inputs):
            found.add(n)
    return found


def _again(n: Node) -> bool:
    """Whether a node is worth computing again."""
    table = is_lookup(n) and n.inputs[0].op.name == "param"
    return n.op.name != "input" and not n.op.has_effect and not table and not _is_small(n.type)


def _is_small(type_: Type) -> bool:
    known = isinstance(type_, TensorType) and all(map(is_static, type_.shape))
    return known and math.prod(type_.shape) <= SMALL  # type: ignore[union-attr]


def _leaf(n: Node) -> Type | None:
    return None if n.inputs else n.type
