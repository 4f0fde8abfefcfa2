"""The step of `row_step` for Adam: its rows go through native kernels twice, and are changed in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .kernels import bridge
from .kernels.rows import chain_rows, owners, settle_adam_rows, step_adam_rows, take_adam_rows
from .lower import function
from .ops.registry import input_node
from .passes.fuse_lookups import multiply_rows_once
from .row_step import Placed, RowStep
from .rows import AdamRows, Table

if TYPE_CHECKING:
    from .program import StepSource


def row_step(source: StepSource, tables: Sequence[Table]) -> RowStep:
    """The `RowStep` for these tables."""
    if bridge.loaded("native") and all(source.idle[t.name].adam is not None for t in tables):
        return AdamRowStep(source, tables)
    return RowStep(source, tables)


class AdamRowStep(RowStep):
    """By native kernels that gather, catch up, step and put rows in place, for Adam's steps.

    The kernels go through the rows once before the forward pass, reading param, momentum and velocity, and once after the
    backward pass, when the latter two still are in the caches.
    """

    def _parts(self, k: int, placed: Placed) -> tuple[Any, Any, Any]:
        return placed.tables[k], *placed.slots[k]

    def _adam(self, k: int) -> AdamRows:
        adam = self._rules[self._rule[k]].adam
        assert adam is not None
        return adam

    def _prepared(self, graph):
        """Layers on rows that a batch looks up several times multiply them once."""
        ids = {}
        for t in self._tables:
            if len(t.inputs) == 1 and all(d == 1 for d in t.inputs[0].shape[1:-1]):
                name = t.inputs[0].attrs["name"]
                ids[t.inputs[0]] = input_node(f"owners/{name}", t.inputs[0].shape[:1], "int32")
        return multiply_rows_once(graph, ids)

    def _as_inputs(self, table, at, rows):
        return super()._as_inputs(table, at, rows) | {
            f"owners/{leaf.attrs['name']}": owners(at.chained) for leaf in table.inputs
        }

    def _looked_up(self, g, shapes, ids, placed, iteration):
        return _Chained(shapes, *chain_rows(ids, placed.last[g], placed.places[g], iteration))

    def _taken(self, k, placed, at, iteration, base):
        coefficients = placed.coefficients[self._rule[k]]
        return (take_adam_rows(self._adam(k), self._parts(k, placed), at.chained, coefficients, iteration, base),)

    def _stepped(self, k, placed, at, taken, gradient, iteration, learning_rate):
        adam, given = self._adam(k), {"learning_rate": learning_rate, "iteration": iteration}
        rates = function(adam.rates)(*(given[n.attrs["name"]] for n in adam.rates.inputs))
        return step_adam_rows(adam, self._parts(k, placed), at.chained, taken[0], gradient, iteration, *rates)

    def _settled_table(self, k, placed, iteration, base):
        last, coefficients = placed.last[self._group[k]], placed.coefficients[self._rule[k]]
        return settle_adam_rows(self._adam(k), self._parts(k, placed), last, coefficients, iteration, base)


class _Chained(NamedTuple):
    """As `_Lookups`; `chained` is what `chain_rows` gives."""

    shapes: Mapping[Any, tuple[int, ...]]
    chained: Any
    touched: Any
    places: Any
