"""A training graph that is differentiated when somebody reads it: a step that is on disk needs no gradients."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .gradient import gradient
from .ir import Graph, Node, TensorType
from .ops.registry import constant
from .rematerialization import Segment

if TYPE_CHECKING:
    from .program import StepSource


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What a training graph is made of.

    Attributes:
        forward: its outputs "state/..." and "sum/...", and all of its inputs.
        loss: float32[], a node of `forward`. weights: what it is differentiated for, by name.
        segments: what is computed again for that.
    """

    forward: Graph
    loss: Node
    weights: Mapping[str, Node]
    segments: Sequence[Segment] = ()

    @functools.cached_property
    def graph(self) -> Graph:
        """The training graph: gradients "grad/..." of the weights that the loss depends on, then what `forward` gives.

        Raises:
            GradientError: see `gradient`.
        """
        found = gradient({self.loss: constant(1.0)}, list(self.weights.values()), self.segments)
        gradients = {f"grad/{name}": dy for name, dy in zip(self.weights, found, strict=True) if dy is not None}
        outputs = (*gradients.values(), *self.forward.outputs)
        return dataclasses.replace(self.forward, outputs=outputs, output_names=(*gradients, *self.forward.output_names))

    @property
    def may_fail(self) -> bool:
        """Whether a float that depends on the weights has no gradient, so that reading `graph` may raise."""
        depends = set(self.weights.values())
        for n in self.forward.nodes:
            if not depends.isdisjoint(n.inputs):
                depends.add(n)
                if n.op.gradient is None and not (isinstance(n.type, TensorType) and not n.type.is_inexact):
                    return True
        return False

    @property
    def described(self) -> Graph | None:
        """All that `graph` follows from, as one graph; None with segments, which also hold nodes that nothing reads."""
        if self.segments:
            return None
        named = {"loss": self.loss, **{f"weight/{name}": n for name, n in self.weights.items()}}
        outputs = (*self.forward.outputs, *named.values())
        return dataclasses.replace(self.forward, outputs=outputs, output_names=(*self.forward.output_names, *named))


class TrainField:
    """`StepSource.train`: given as a graph, or as an `Objective`, whose graph it is when read."""

    def __get__(self, source: StepSource | None, owner: type | None = None) -> Graph | None:
        given = None if source is None else source.__dict__["train"]
        return given.graph if isinstance(given, Objective) else given

    def __set__(self, source: StepSource, given: Graph | Objective | None) -> None:
        source.__dict__["train"] = given
