"""What the pieces of a segmented graph read of one another."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from ..ir import Graph, Node, TensorType
from .instructions import Compute, Instruction, Receive
from .lowering import Lowering
from .places import CHEAP, kinds_of
from .segmented import Segmented

Piece = tuple[str, int]  # phase and segment


class Pieces:
    """The forward and the backward piece of each segment: what each gives, reads of others, and must write for them.

    Attributes:
        results: the outputs of the graph that each piece gives, by name.
        given: nodes of other pieces that a piece reads. wanted: its own nodes that others read.
    """

    def __init__(
        self, graph: Graph, cut: Segmented, forward: Mapping[Node, int], backward: Mapping[Node, int], kind: str
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
        self._begin()
        self._trace()

    def _begin(self) -> None:
        """Before pieces are traced."""

    @property
    def order(self) -> list[Piece]:
        """All pieces as they follow one another."""
        found = [("forward", s) for s in range(self.cut.stages)]
        if "backward" in self.phases:
            found += [("backward", s) for s in reversed(range(self.cut.stages))]
        return found

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
        for piece in reversed(self.order):
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
                if self._is_foreign(n, piece):
                    found[n] = None
            elif home is None or home == piece or (home == ("forward", stage) and n.op.name in CHEAP):
                stack.extend(n.inputs)
            else:
                found[n] = None
        return sorted(found, key=self._index.__getitem__)

    @functools.cached_property
    def _index(self) -> dict[Node, int]:
        return {n: i for i, n in enumerate(self.graph.nodes)}

    def _is_foreign(self, weight: Node, piece: Piece) -> bool:
        """Whether a weight that a piece reads comes from another one."""
        return self.homes[weight] != piece[1]

    def _bring(self, n: Node, piece: Piece) -> None:
        """`n` to where `piece` reads it."""
        origin = self.piece.get(n, ("forward", self.homes.get(n, piece[1])))
        self.given[piece][n] = None
        if n not in self.homes:
            self.wanted[origin][n] = None


def _floats(graph: Graph, cut: Segmented, forward: Mapping[Node, int]) -> dict[Node, set[int]]:
    """The stages whose forward phase computes a floating node, such as a mask, that is worth keeping for the backward one."""
    kinds = kinds_of(graph, cut.source.layout, cut.batch)
    found: dict[Node, set[int]] = {}
    for n in reversed(kinds.order):
        if n in kinds.floating:
            users = kinds.users[n]
            found[n] = {forward[u] for u in users if u in forward}.union(*(found[u] for u in users if u in found))
    return {n: at for n, at in found.items() if n.op.name not in CHEAP and isinstance(n.type, TensorType) and n.shape}


def names_of(lowering: Lowering, nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(name for n in nodes for name in lowering.names(n))


def written_by(instruction: Instruction) -> tuple[str, ...]:
    if isinstance(instruction, Compute):
        return instruction.writes
    return instruction.values if isinstance(instruction, Receive) else ()
