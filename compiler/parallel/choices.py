"""How each op of a graph is spread over workers: the cheapest of what its labels allow, counted in bytes on the wire."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ..costs import bound_type, flops, size_bytes
from ..ir import Dim, Node, TensorType, TupleType, is_static
from .places import VIEWS
from .shardings import PARTIAL, WHOLE, Label, Sharding, Spec, Term, spec_of

BYTES_A_FLOP = 0.02  # what a worker could send in the time of one operation: 1 GB/s beside 50 Gflop/s
BY_ROWS = "rows"  # a lookup in, or a gradient of, a table whose rows are split


@dataclasses.dataclass(frozen=True)
class Choice:
    """How one node is computed.

    Attributes:
        need: the shardings that its inputs must have. outs: those of its results.
        label: along which it is split; None: not, or `BY_ROWS`. cost: bytes on the wire, and operations as bytes.
        linear: partial inputs are taken as they are.
    """

    need: tuple[Sharding, ...]
    outs: tuple[Sharding, ...]
    cost: float
    label: Label | None = None
    linear: bool = False


def is_weight(n: Node) -> bool:
    """Whether a node is a weight or a view of one."""
    while n.op.name in VIEWS:
        n = n.inputs[0]
    return n.op.name == "param"


class Choices:
    """Picks for one graph and so many workers.

    Args:
        sizes: a number for each unknown size.
    """

    def __init__(self, count: int, sizes: Mapping[str, Dim]):
        self.count, self.sizes = count, sizes
        self._specs: dict[Node, Spec | None] = {}

    def spec(self, n: Node) -> Spec | None:
        if n not in self._specs:
            self._specs[n] = spec_of(n)
        return self._specs[n]

    def bytes(self, n: Node) -> int:
        return size_bytes(bound_type(n.type, self.sizes))

    def moving(self, n: Node, have: Sharding, need: Sharding) -> float:
        """Bytes on the wire to make the one of the other."""
        if have == need or have == WHOLE:
            return 0.0
        if is_weight(n):  # it is split so that nobody has to hold it
            return float("inf")
        return self.bytes(n) * (2.0 if have == PARTIAL else 1.0) * (self.count - 1) / self.count

    def choose(self, n: Node, have: Sequence[Sharding], wanted: int | None = None) -> Choice:
        """The cheapest way to compute a node of tensors.

        Args:
            have: the shardings of its inputs. wanted: the axis along which its only result will be split.
        """
        work = flops(n, self.sizes) * BYTES_A_FLOP
        results = n.type.items if isinstance(n.type, TupleType) else (n.type,)
        need = (WHOLE,) * len(have)
        found = [Choice(need, (WHOLE,) * len(results), self._moving(n, have, need) + work)]
        found += self._by_rows(n, have, wanted, work)
        spec = self.spec(n)
        if spec is not None:
            found += self._linear(n, spec, have, work)
            for label in self._labels(spec, have, wanted):
                choice = self._split(n, spec, have, label, work)
                if choice is not None:
                    found.append(choice)
        return min(found, key=lambda c: c.cost)

    def backward(self, n: Node, weight: Node, have: Sequence[Sharding], choice: Choice) -> float:
        """Bytes on the wire for the gradients of the inputs other than `weight`, if `n` is computed like this."""
        spec = self.spec(n)
        if spec is None or choice.label in (None, BY_ROWS):
            return 0.0
        total = 0.0
        for i, term, a, b in zip(n.inputs, spec.inputs, have, choice.need):
            if i is not weight and isinstance(i.type, TensorType) and i.type.is_float and i.op.name != "input":
                times = 2.0 if choice.label not in term else 1.0 if a != b else 0.0
                total += times * self.bytes(i) * (self.count - 1) / self.count
        return total

    def _moving(self, n: Node, have: Sequence[Sharding], need: Sequence[Sharding]) -> float:
        return sum(self.moving(i, a, b) for i, a, b in zip(n.inputs, have, need))

    def _labels(self, spec: Spec, have: Sequence[Sharding], wanted: int | None) -> list[Label]:
        labels = [term[s.axis] for term, s in zip(spec.inputs, have) if s.axis is not None]
        if wanted is not None and len(spec.outputs) == 1:
            labels.append(spec.outputs[0][wanted])
        return [label for label in dict.fromkeys(labels) if label is not None]

    def _split(self, n: Node, spec: Spec, have: Sequence[Sharding], label: Label, work: float) -> Choice | None:
        need, outs = [], []
        for i, term in zip(n.inputs, spec.inputs):
            need.append(self._along(term, label))
            axis = need[-1].axis
            if axis is not None and not self._divides(i.shape[axis]):
                return None
        types = n.type.items if isinstance(n.type, TupleType) else (n.type,)
        partial = 0.0
        for type_, term in zip(types, spec.outputs):
            out = self._along(term, label)
            if out == WHOLE:
                if label not in spec.summed or not type_.is_float:
                    return None
                out = PARTIAL
                partial += 2.0 * size_bytes(bound_type(type_, self.sizes)) * (self.count - 1) / self.count
            elif out.axis is not None and not self._divides(type_.shape[out.axis]):
                return None
            outs.append(out)
        cost = self._moving(n, have, need) + partial + work / self.count
        return Choice(tuple(need), tuple(outs), cost, label)

    def _along(self, term: Term, label: Label) -> Sharding:
        return Sharding(term.index(label)) if label in term else WHOLE

    def _divides(self, size: Dim) -> bool:
        return is_static(size) and size % self.count == 0

    def _linear(self, n: Node, spec: Spec, have: Sequence[Sharding], work: float) -> list[Choice]:
        partial = [s == PARTIAL for s in have]
        if not spec.linear or not any(partial) or not isinstance(n.type, TensorType) or not n.type.is_float:
            return []
        if spec.linear == "first" and (not partial[0] or any(partial[1:])):
            return []
        if spec.linear == "one" and sum(partial) != 1:
            return []
        need = tuple(PARTIAL if p else WHOLE for p in partial)
        later = 2.0 * self.bytes(n) * (self.count - 1) / self.count
        return [Choice(need, (PARTIAL,), self._moving(n, have, need) + later + work, None, True)]

    def _by_rows(self, n: Node, have: Sequence[Sharding], wanted: int | None, work: float) -> list[Choice]:
        if n.op.name == "embedding_lookup" and have[0] == Sharding(0) and n.type.is_float:  # type: ignore[union-attr]
            later = 2.0 * self.bytes(n) * (self.count - 1) / self.count
            cost = self.moving(n.inputs[1], have[1], WHOLE) + later + work
            return [Choice((Sharding(0), WHOLE), (PARTIAL,), cost, BY_ROWS)]
        if n.op.name == "scatter_rows" and wanted == 0:
            need = (WHOLE, WHOLE)
            return [Choice(need, (Sharding(0),), self._moving(n, have, need) + work / self.count, BY_ROWS)]
        return []
