"""From nodes of a graph to `Compute` instructions: code over named values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..costs import bound_type
from ..errors import ProgramError
from ..executables import Exported, export
from ..ir import Dim, Graph, Node, TupleType
from ..kernels.choice import Chooser
from ..layout import Layout
from ..lower import evaluate
from ..packing import flat, join, slice_of, unknown_sizes
from .instructions import Compute, Cut, Types

LEAVES = frozenset(("input", "param", "constant"))


class Lowering:
    """Makes the `Compute`s of one local graph.

    Args:
        graph: all nodes, in whose order they are computed. kind: "train", "test" or "predict".
        layout: local; a param node is read from "params" (or `homes`) or from "state".
        sizes: a number for each unknown size.
        homes: {param: (argument, offset)} where it is not in the vector "params".

    Raises:
        ProgramError: an unknown size without a number.
    """

    def __init__(
        self,
        graph: Graph,
        kind: str,
        layout: Layout,
        sizes: Mapping[str, Dim],
        homes: Mapping[str, tuple[str, int]] | None = None,
    ):
        missing = sorted(unknown_sizes(graph) - set(sizes))
        if missing:
            raise ProgramError(
                f"{kind} graph: the inputs have variable sizes {', '.join(missing)}; "
                f"give export(lengths={{{', '.join(f'{m!r}: ...' for m in missing)}}})"
            )
        self.graph, self.kind, self.layout, self.sizes = graph, kind, layout, dict(sizes)
        self.order = graph.nodes
        self.index = {n: i for i, n in enumerate(self.order)}
        self.chooser = Chooser(graph, sizes)
        self.homes = {e.name: ("params", e.offset) for e in layout.params}
        self.homes |= {e.name: ("state", e.offset - layout.P) for e in layout.states}
        self.homes |= dict(homes or {})

    def names(self, n: Node) -> tuple[str, ...]:
        """Of the values of a node in the environment; several if its type is a tuple."""
        if n.op.name == "input":
            return (n.attrs["name"],)
        name = f"v{self.index[n]}"
        return tuple(f"{name}.{k}" for k in range(len(n.type.items))) if isinstance(n.type, TupleType) else (name,)

    def types(self, n: Node) -> Types:
        bound = bound_type(n.type, self.sizes)
        items = bound.items if isinstance(bound, TupleType) else (bound,)
        return tuple((tuple(t.shape), t.dtype) for t in items)

    def compute(
        self,
        given: Sequence[Node],
        wanted: Sequence[Node],
        finish: Callable[[Mapping[Node, Any], Mapping[str, Any]], Mapping[str, Any]] | None = None,
        extra: Sequence[tuple[str, tuple[tuple[int, ...], str]]] = (),
        needs: Iterable[Node] = (),
    ) -> Compute:
        """Code that computes `wanted` from `given`, from leaves and what lies between.

        Args:
            given: nodes whose values are in the environment. wanted: nodes whose values are written there.
            finish: ``finish(values of nodes, arguments by name)`` gives further values to write, by name.
            extra: names and types of arguments that `finish` reads. needs: nodes that it reads.
        """
        known = {n for n in given}
        nodes = self.between([*wanted, *needs], known)
        given = sorted(given, key=self.index.__getitem__)
        leaves = [n for n in nodes if n.op.name in ("input", "param")]
        arguments: dict[
            str, tuple[tuple[int, ...], str]
        ] = {}  # in the order of nodes, so that alike layers share their code
        for n in leaves:
            if n.op.name == "input":
                arguments[n.attrs["name"]] = self.types(n)[0]
            elif self._home(n)[0] == "state":
                arguments["state"] = ((self.layout.S,), "float32")
            else:
                arguments[weight_name(n)] = ((math.prod(n.shape),), "float32")
        for name, type_ in extra:
            arguments[name] = type_
        for n in given:
            arguments |= dict(zip(self.names(n), self.types(n)))
        reads = tuple(arguments)
        writes: list[str] = [name for n in wanted for name in self.names(n)]

        def function(*arrays):
            named = dict(zip(reads, arrays))
            values: dict[Node, Any] = {}
            for n in given:
                parts = tuple(named[name] for name in self.names(n))
                values[n] = parts if isinstance(n.type, TupleType) else parts[0]
            for n in leaves:
                values[n] = named[n.attrs["name"]] if n.op.name == "input" else self._param(n, named)
            evaluate(nodes, values, self.sizes, self.chooser)
            out = [part for n in wanted for part in (values[n] if isinstance(n.type, TupleType) else (values[n],))]
            more = finish(values, named) if finish is not None else {}
            names[:] = more
            return (*out, *more.values())

        names: list[str] = []
        avals = [jax.ShapeDtypeStruct(*arguments[name]) for name in reads]
        blob = export(self.kind, function, avals)
        types = tuple((tuple(int(d) for d in shape), dtype) for shape, dtype in (arguments[name] for name in reads))
        return Compute(reads, types, (*writes, *names), Exported.of(blob, self.chooser.options))

    def weights(self, of: str = "params") -> Cut:
        """The instruction that makes arguments of the weights in the vector `of`."""
        sizes = {n.attrs["name"]: math.prod(n.shape) for n in self.order if n.op.name == "param"}
        found = {
            f"weight/{name}": (start, start + sizes[name])
            for name, (home, start) in self.homes.items()
            if home == of and name in sizes
        }
        return Cut(of, tuple(found), tuple(found.values()))

    def _home(self, n: Node) -> tuple[str, int]:
        name = n.attrs["name"]
        if name not in self.homes:
            raise ProgramError(f"{self.kind} graph: param {name!r} is not in the local layout")
        return self.homes[name]

    def _param(self, n: Node, named: Mapping[str, Any]) -> Any:
        home, start = self._home(n)
        if home == "state":
            return slice_of(named[home], n.shape, start).astype(n.dtype)
        return named[weight_name(n)].reshape(n.shape).astype(n.dtype)

    def between(self, wanted: Sequence[Node], known: set[Node]) -> list[Node]:
        """What must be computed to get from `known` to `wanted`, in order."""
        need: set[Node] = set()
        stack = [n for n in wanted if n not in known]
        while stack:
            n = stack.pop()
            if n not in need:
                need.add(n)
                stack.extend(i for i in n.inputs if i not in need and i not in known)
        return [n for n in self.order if n in need]


def vector_of(
    layout: Layout, gradients: Mapping[str, Any], states: Mapping[str, Any], sums: Mapping[str, Any], kept: Any = None
) -> Any:
    """float32[V]: gradients | states | sums; what is not given is zero.

    Args:
        kept: float32[S], the states that no graph assigns come from it; None: from another coordinate.
    """
    parts = [flat(gradients.get(e.name), e) for e in layout.params]
    for e in layout.states:
        if e.name not in states and kept is not None:
            start = e.offset - layout.P
            parts.append(jax.lax.slice(kept, (start,), (start + e.size,)))
        else:
            parts.append(flat(states.get(e.name), e))
    parts += [flat(sums.get(e.name), e) for e in layout.sums]
    return join(parts) if parts else jnp.zeros(0, jnp.float32)


def weight_name(n: Node) -> str:
    """Of the argument that holds a weight."""
    return f"weight/{n.attrs['name']}"
