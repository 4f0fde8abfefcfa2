"""Several processes, models with large tables: the calls of a step that touches only the rows that its batch looks up.

What `row_step` traces as one executable is cut here where the processes exchange something:

    ids          batch -> the ids of each lookup
    rows         params without tables, rows looked up -> float32[V], and the gradient of each lookup's rows
    catch_up/k   rows of table k, their slots, coefficients, missed steps -> rows and slots up to date
    advance/r    coefficients of rule r -> those after one step more
    update       as ever, on the rows' elements
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from .ir import Graph, symbol
from .kernels.choice import Chooser
from .lower import function
from .options import compiler_options
from .packing import PackedStage, pack_step, unknown_sizes
from .passes import optimise
from .rows import HISTORY, applicable, ids_graph, row_graph

if TYPE_CHECKING:
    from .program import StepSource


def by_rows(source: StepSource, rows: int) -> tuple[str, ...]:
    """The tables that a distributed step of a global batch of `rows` updates by rows."""
    if source.update is None or unknown_sizes(source.optimised("update")) != {"n"}:
        return ()
    return tuple(t.name for t in applicable(source.tables, source.idle, rows))


@dataclasses.dataclass(frozen=True)
class RowFootprint:
    """What a step by rows takes in memory.

    Attributes:
        tables: elements of the tables. touched: elements of the rows that a step touches at most.
        graph: its training graph, in which no array is as large as a table.
    """

    tables: int
    touched: int
    graph: Graph


def footprint(source: StepSource, names: Sequence[str], rows: int) -> RowFootprint:
    """Of steps on global batches of `rows` rows that update these tables by rows."""
    assert source.train is not None
    tables = [source.tables[name] for name in names]
    width = [math.prod(t.shape[1:]) for t in tables]
    touched = sum(w * min(t.shape[0], t.lookups_of(rows)) for t, w in zip(tables, width, strict=True))
    whole = sum(w * t.shape[0] for t, w in zip(tables, width, strict=True))
    return RowFootprint(whole, touched, optimise(row_graph(source.train, tables), "train"))


class RowCalls:
    """The calls for these tables of a `StepSource`.

    Attributes:
        described: for the program's header, a JSON value for each table: name, rows, width, the group of tables that are
            looked up together, the rule of its idle steps, the first values of its coefficients; of each lookup the ids'
            number, the input that takes its rows; of each gradient the ids' number.
    """

    def __init__(self, source: StepSource, names: Sequence[str]):
        assert source.train is not None
        self.source, self.tables = source, [source.tables[name] for name in names]
        self.rest = source.layout.without(names)
        self.ids = ids_graph(source.train, self.tables)
        self.graph = optimise(row_graph(source.train, self.tables), "train")
        number = {node: k for k, node in enumerate(self.ids.outputs)}
        groups: dict[tuple, int] = {}
        rules: dict[int, int] = {}
        self.described = []
        for t in self.tables:
            rule = source.idle[t.name]
            self.described.append(
                {
                    "name": t.name,
                    "rows": t.shape[0],
                    "width": math.prod(t.shape[1:]),
                    "group": groups.setdefault((t.ids, t.shape[0]), len(groups)),
                    "rule": rules.setdefault(id(rule), len(rules)),
                    "first": list(rule.first),
                    "history": HISTORY,
                    "lookups": [[number[i], n.attrs["name"]] for i, n in zip(t.ids, t.inputs, strict=True)],
                    "gradients": [number[i] for i, _ in t.gradients],
                    "shape": [int(d) for d in t.shape[1:]],
                }
            )
        self.rules = [
            source.idle[self.tables[[d["rule"] for d in self.described].index(r)].name] for r in range(len(rules))
        ]

    def calls(self, rows: int, lengths: Mapping[str, int]) -> Iterator[tuple[str, list[PackedStage], Any, set[str]]]:
        """Kind, stages, XLA options and native libraries of the calls for batches of `rows` rows."""
        sizes = {**lengths, "b": rows}
        chooser = Chooser(self.ids, sizes)
        yield "ids", pack_step(self.ids, "predict", self.source.layout, sizes, chooser), chooser.options, chooser.needs
        chooser = Chooser(self.graph, sizes)
        further = [f"rows/{t.name}/{k}" for t in self.tables for k in range(len(t.gradients))]
        packed = pack_step(self.graph, "train", self.rest, sizes, chooser, further=further)
        yield "rows", packed, chooser.options, chooser.needs

    def shared(self) -> Iterator[tuple[str, list[PackedStage], Any]]:
        """The calls that do not depend on the batch."""
        n = symbol("n")
        for k, (t, d) in enumerate(zip(self.tables, self.described, strict=True)):
            graph = self.source.idle[t.name].catch_up
            values = ("param", *(f"slot/{s.name}" for s in self.source.slots))
            types: dict[str, tuple] = {v: (n, d["width"]) for v in values}
            yield f"catch_up/{k}", [_stage(graph, types | _columns(graph, n), values)], compiler_options(graph)
        for r, rule in enumerate(self.rules):
            graph = rule.advance
            of: dict[str, tuple] = {f"coefficient/{i}": (HISTORY + 1,) for i in range(len(rule.first))} | {
                "age": (HISTORY + 1,)
            }
            of |= {"learning_rate": (), "iteration": ()}
            yield f"advance/{r}", [_stage(graph, of, graph.output_names)], compiler_options(graph)


def _columns(graph: Graph, n: Any) -> dict[str, tuple]:
    return {m.attrs["name"]: (n, 1) for m in graph.inputs if m.attrs["name"].startswith(("coefficient/", "gap"))}


def _stage(graph: Graph, types: Mapping[str, tuple], outputs: Sequence[str]) -> PackedStage:
    """A graph as one stage that gives these outputs; one that it does not set is what came in under that name."""
    known = {n.attrs["name"]: n for n in graph.inputs}
    kept = [name for name in outputs if name not in graph.output_names]
    names = tuple(sorted({*known, *kept}))
    avals = tuple(
        jax.ShapeDtypeStruct(types[name], known[name].dtype if name in known else "float32") for name in names
    )
    inner: Callable = function(graph, graph.inputs)

    def run(arrays, carried, reduced):
        named = dict(zip(names, arrays))
        made = dict(zip(graph.output_names, inner(*(named[n.attrs["name"]] for n in graph.inputs))))
        return (), tuple(made[name] if name in made else named[name] for name in outputs)

    return PackedStage(names, avals, (), None, run)
