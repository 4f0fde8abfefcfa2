"""One process, models with large tables: a training step that touches only the rows that its batch looks up.

Exactly as if every row had made every step: a row is first brought up to date (`IdleRule`), then used and updated.

1. ids of all lookups; for each id one of its positions stands for it (no sorting: positions are written at ids, then read)
2. rows, slots and the step of their last touch are gathered and brought up to date
3. forward and backward pass with rows as inputs; gradients of equal ids are added up
4. the optimiser's update on these rows and on the vector of all other weights; rows are put back in place
5. the coefficients of idle rows make one step more

Every `HISTORY` steps, and when the weights are read, all rows are brought up to date.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .calls import Compiled, Making, run
from .ir import Graph
from .kernels.choice import Choosers
from .kernels.rows import put_rows, sum_rows, take_rows
from .layout import Layout
from .lower import function, sizes_of
from .packing import pack_step, pack_update
from .passes import optimise
from .pieces import Pieces
from .rows import HISTORY, IdleRule, Table, ids_graph, row_graph

if TYPE_CHECKING:
    from .program import StepSource


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Placed:
    """Parameters with tables by themselves, on the device; donated by a step.

    Attributes:
        dense: the `Pieces` of all other parameters. tables, slots: float32[n, d] of each table, and of each of its slots.
        last: int32[n] for each group of tables that are looked up together: steps made when a row was last up to date.
        places: int32[n] for each group: scratch.
        coefficients: float32[HISTORY + 1] for each coefficient of each rule, by the step of the last touch.
        names: of the tables.
    """

    dense: tuple[Any, ...]
    tables: tuple[Any, ...]
    slots: tuple[tuple[Any, ...], ...]
    last: tuple[Any, ...]
    places: tuple[Any, ...]
    coefficients: tuple[tuple[Any, ...], ...]
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})


class RowStep:
    """The training step of a `StepSource` with these tables updated by rows."""

    def __init__(self, source: StepSource, tables: Sequence[Table]):
        assert source.train is not None
        self._source, self._tables = source, tuple(tables)
        self.names = tuple(t.name for t in tables)
        self._entries = {e.name: (i, e) for i, e in enumerate(source.layout.params)}
        self.rest: Layout = source.layout.without(self.names)
        self.pieces = Pieces(self.rest)
        groups: dict[tuple, int] = {}
        self._group = [groups.setdefault((t.ids, t.shape[0]), len(groups)) for t in tables]
        self._members = [self._group.index(g) for g in range(len(groups))]  # a table of each group
        rules: dict[int, int] = {}
        self._rule = [rules.setdefault(id(source.idle[t.name]), len(rules)) for t in tables]
        self._rules: list[IdleRule] = [source.idle[self.names[self._rule.index(r)]] for r in range(len(rules))]
        self._graph = self._prepared(optimise(row_graph(source.train, tables), "train"))
        self.inputs = tuple(n.attrs["name"] for n in source.train.inputs)
        self._segmented = any(n.attrs["name"] == "segment" for n in source.optimised("update").inputs)
        self._choosers = Choosers(self._graph)
        self._step = Compiled(lambda: Making(self._traced, self._choosers), 3, donate_argnums=(0, 1, 2))
        self._settle = jax.jit(self._settled, donate_argnums=0)

    # --- between flat vectors and tables ------------------------------------------------------------------------------

    def place(self, params: Any, slots: Sequence[Any], iteration: int) -> tuple[Placed, tuple[Any, ...]]:
        """Flat parameters and slots on the device, tables by themselves; and the slots of the others."""
        vectors = [np.asarray(v) for v in (params, *slots)]
        dense, *dense_slots = (self.pieces.place(self._others(v)) for v in vectors)
        parts = [[jax.device_put(self._table(v, t), may_alias=False) for v in vectors] for t in self._tables]
        rows = [self._tables[m].shape[0] for m in self._members]
        placed = Placed(
            dense,
            tuple(p[0] for p in parts),
            tuple(tuple(p[1:]) for p in parts),
            tuple(jnp.full(n, iteration, jnp.int32) for n in rows),
            tuple(jnp.zeros(n, jnp.int32) for n in rows),
            tuple(tuple(map(jnp.asarray, self._first(rule))) for rule in self._rules),
            self.names,
        )
        return placed, tuple(dense_slots)

    def flat(self, placed: Placed, slots: Sequence[Any] = ()) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Settled parameters and slots as flat vectors float32[P], copies."""
        own = [[of[i] for of in placed.slots] for i in range(len(slots))]
        params = self._vector(placed.dense, placed.tables)
        return params, tuple(self._vector(dense, tables) for dense, tables in zip(slots, own))

    def _vector(self, dense: Any, tables: Sequence[Any]) -> np.ndarray:
        out = np.empty(self._source.layout.P, np.float32)
        values = self.rest.unpack("params", self.pieces.flat(dense))
        values |= {t.name: np.asarray(v) for t, v in zip(self._tables, tables)}
        for name, (_, e) in self._entries.items():
            out[e.offset : e.end] = values[name].ravel()
        return out

    def settle(self, placed: Placed, iteration: int) -> Placed:
        """With every row up to date after `iteration` steps. Donates what it is given."""
        return self._settle(placed, np.int32(iteration))

    def _others(self, vector: np.ndarray) -> np.ndarray:
        parts = [vector[e.offset : e.end] for name, (_, e) in self._entries.items() if name not in self.names]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _table(self, vector: np.ndarray, table: Table) -> np.ndarray:
        _, e = self._entries[table.name]
        return vector[e.offset : e.end].reshape(e.shape[0], -1)

    # --- the step -----------------------------------------------------------------------------------------------------

    def train(
        self, placed: Placed, state: Any, slots: tuple[Any, ...], arrays: tuple, iteration: Any, learning_rate: Any
    ) -> tuple[Placed, Any, tuple[Any, ...], Any]:
        """As `LocalStep.train`; `slots` are those of the other parameters, `arrays` those of `inputs`."""
        if iteration and iteration % HISTORY == 0:
            placed = self.settle(placed, int(iteration))
        return self._step(placed, state, slots, arrays, iteration, learning_rate)

    def _traced(self, placed, state, slots, arrays, iteration, learning_rate):
        arrays = dict(zip(self.inputs, map(jnp.asarray, arrays)))
        base = iteration // HISTORY * HISTORY
        lookups = [
            self._looked_up(g, shapes, ids, placed, iteration) for g, (shapes, ids) in enumerate(self._ids(arrays))
        ]
        now: list[Any] = []
        found: dict[str, Any] = {}
        for k, t in enumerate(self._tables):
            at = lookups[self._group[k]]
            now.append(self._taken(k, placed, at, iteration, base))
            found |= self._as_inputs(t, at, now[k][0])
        (by_piece, new_state, sums), *gradients = self._backward(placed.dense, state, arrays | found)
        dense, new_slots = self._others_updated(placed.dense, slots, by_piece, iteration, learning_rate)
        stepped = []
        for k, t in enumerate(self._tables):
            at = lookups[self._group[k]]
            mine, gradients = gradients[: len(t.gradients)], gradients[len(t.gradients) :]
            gradient = self._by_position(t, at, mine)
            stepped.append(self._stepped(k, placed, at, now[k], gradient, iteration, learning_rate))
        after = Placed(
            dense,
            tuple(param for param, *_ in stepped),
            tuple(tuple(own) for _, *own in stepped),
            tuple(at.touched for at in lookups),
            tuple(at.places for at in lookups),
            self._advanced(placed.coefficients, iteration, base, learning_rate),
            self.names,
        )
        return after, new_state, new_slots, sums

    def _prepared(self, graph: Graph) -> Graph:
        """The row graph as it will run; further inputs come last, from `_as_inputs`."""
        return graph

    def _ids(self, arrays: Mapping[str, Any]) -> list[tuple[dict[Any, tuple[int, ...]], Any]]:
        """For each group the shapes of its lookups' ids, and all ids int32[l] one after the other."""
        graph = ids_graph(self._source.train, self._tables)  # type: ignore[arg-type]
        values = function(graph, graph.inputs)(*(arrays[n.attrs["name"]] for n in graph.inputs))
        known = dict(zip(graph.outputs, values))
        found = []
        for m in self._members:
            ids = self._tables[m].ids
            joined = jnp.concatenate([known[n].ravel().astype(jnp.int32) for n in ids])
            found.append(({n: known[n].shape for n in ids}, joined))
        return found

    def _looked_up(
        self, g: int, shapes: Mapping[Any, tuple[int, ...]], ids: Any, placed: Placed, iteration: Any
    ) -> Any:
        """Of a group: an object with `shapes`, and `last` and `places` of the group afterwards as `touched`, `places`."""
        count = self._tables[self._members[g]].shape[0]
        ids = jnp.where(ids < 0, ids + count, ids)  # as NumPy counts
        inside = (ids >= 0) & (ids < count)
        dropped = jnp.where(inside, ids, count)
        positions = jnp.arange(ids.size, dtype=jnp.int32)
        places = placed.places[g].at[dropped].set(positions, mode="drop")
        owner = jnp.where(inside, places.at[ids].get(mode="clip"), ids.size)
        return _Lookups(
            shapes,
            jnp.clip(ids, 0, count - 1),
            inside,
            owner,
            jnp.where(owner == positions, ids, count),
            placed.last[g].at[ids].get(mode="clip"),
            placed.last[g].at[dropped].set(iteration + 1, mode="drop"),
            places,
        )

    def _taken(self, k: int, placed: Placed, at: Any, iteration: Any, base: Any) -> tuple[Any, ...]:
        """Rows of table k at the lookups, NaN for ids outside; and what else `_stepped` needs."""
        rows = self._caught_up(k, placed, at.ids, at.last, iteration, base)
        return jnp.where(at.inside[:, None], rows["param"], jnp.nan), rows

    def _stepped(
        self, k: int, placed: Placed, at: Any, taken: tuple, gradient: Any, iteration: Any, learning_rate: Any
    ) -> Sequence[Any]:
        """Table k and its slots after the step; `gradient` float32[l, d] is that of each lookup."""
        rows, gradient = taken[1], sum_rows(gradient, at.owner)
        own = tuple(rows[f"slot/{s.name}"].ravel() for s in self._source.slots)
        segment = None
        if self._segmented:
            segment = jnp.full(gradient.size, self._entries[self.names[k]][0], jnp.int32)
        param, own = self._update(rows["param"].ravel(), own, gradient.ravel(), segment, iteration, learning_rate)
        return [
            put_rows(old, at.owners, new.reshape(gradient.shape))
            for old, new in zip((placed.tables[k], *placed.slots[k]), (param, *own))
        ]

    def _caught_up(self, k: int, placed: Placed, ids: Any, last: Any, iteration: Any, base: Any) -> dict[str, Any]:
        """Weights and slots of rows of table k after `iteration` steps. `ids` None: of all rows."""

        def rows(table):
            return table if ids is None else take_rows(table, ids)

        values = {"param": rows(placed.tables[k])}
        values |= {f"slot/{s.name}": rows(v) for s, v in zip(self._source.slots, placed.slots[k])}
        rule = self._rules[self._rule[k]]
        at = jnp.clip(last - base, 0, HISTORY)
        given = {f"coefficient/{i}": c[at][:, None] for i, c in enumerate(placed.coefficients[self._rule[k]])}
        given |= {"gap": (iteration - last).astype(jnp.float32)[:, None], **values}
        outputs = function(rule.catch_up)(*(given[n.attrs["name"]] for n in rule.catch_up.inputs))
        return values | dict(zip(rule.catch_up.output_names, outputs))

    def _as_inputs(self, table: Table, at: Any, rows: Any) -> dict[str, Any]:
        found, start = {}, 0
        for ids, leaf in zip(table.ids, table.inputs):
            shape = at.shapes[ids]
            part = rows[start : start + math.prod(shape)]
            start += math.prod(shape)
            found[leaf.attrs["name"]] = part.reshape((*shape, *table.shape[1:]))
        return found

    def _backward(self, dense: Any, state: Any, arrays: dict[str, Any]) -> tuple:
        inputs = list(self._graph.inputs)
        arrays = {"share": jnp.float32(1), **arrays}
        sizes = sizes_of(inputs, [arrays[n.attrs["name"]] for n in inputs])
        rows = [f"rows/{t.name}/{k}" for t in self._tables for k in range(len(t.gradients))]
        packed = pack_step(self._graph, "train", self.rest, sizes, self._choosers(sizes), self.pieces, rows)
        out = run(packed, {"state": state, **dict(zip(self.pieces.names, dense)), **arrays})
        return out if rows else (out,)

    def _by_position(self, table: Table, at: Any, gradients: Sequence[Any]) -> Any:
        """float32[lookups, d]: the gradient at each position."""
        width = math.prod(table.shape[1:])
        by_ids: dict[Any, Any] = {}
        for (ids, _), dy in zip(table.gradients, gradients):
            by_ids[ids] = by_ids[ids] + dy if ids in by_ids else dy
        parts, done = [], set()
        for ids in table.ids:
            size = math.prod(at.shapes[ids])
            dy = by_ids.get(ids) if ids not in done else None
            done.add(ids)
            parts.append(jnp.zeros((size, width), jnp.float32) if dy is None else dy.reshape(size, width))
        return jnp.concatenate(parts) if len(parts) > 1 else parts[0]

    def _others_updated(self, params, slots, gradients, iteration, learning_rate) -> tuple[tuple, tuple]:
        """All parameters but the tables, and their slots, piece by piece."""
        indices = np.array([i for name, (i, _) in self._entries.items() if name not in self.names], np.int32)
        outs = []
        for i, (param, gradient) in enumerate(zip(params, gradients)):
            segment = jnp.asarray(indices)[self.pieces.segments(i)] if self._segmented else None
            outs.append(self._update(param, [s[i] for s in slots], gradient, segment, iteration, learning_rate))
        new_slots = tuple(tuple(own[k] for _, own in outs) for k in range(len(slots)))
        return tuple(param for param, _ in outs), new_slots

    def _update(self, param, slots, gradient, segment, iteration, learning_rate) -> tuple[Any, tuple[Any, ...]]:
        given = {"param": param, "gradient": gradient, "learning_rate": learning_rate, "iteration": iteration}
        given |= {f"slot/{s.name}": v for s, v in zip(self._source.slots, slots)}
        if segment is not None:
            given["segment"] = segment
        update = self._source.optimised("update")
        param, *slots = run(pack_update(update, self._source.slots, {"n": param.size}), given)
        return param, tuple(slots)

    # --- idle rows ----------------------------------------------------------------------------------------------------

    def _first(self, rule: IdleRule) -> list[np.ndarray]:
        return [np.full(HISTORY + 1, value, np.float32) for value in rule.first]

    def _advanced(self, coefficients, iteration, base, learning_rate) -> tuple[tuple[Any, ...], ...]:
        """After the step `iteration`, which has been one more for rows touched before it."""
        age = (iteration + 1 - base - jnp.arange(HISTORY + 1, dtype=jnp.int32)).astype(jnp.float32)
        after = []
        for rule, columns in zip(self._rules, coefficients):
            given = {f"coefficient/{i}": c for i, c in enumerate(columns)}
            given |= {"age": age, "learning_rate": learning_rate, "iteration": iteration}
            moved = function(rule.advance)(*(given[n.attrs["name"]] for n in rule.advance.inputs)) if columns else ()
            after.append(tuple(jnp.where(age >= 1, new, old) for new, old in zip(moved, columns)))
        return tuple(after)

    def _settled(self, placed: Placed, iteration: Any) -> Placed:
        base = jnp.maximum(iteration - 1, 0) // HISTORY * HISTORY
        tables = [self._settled_table(k, placed, iteration, base) for k in range(len(self._tables))]
        return dataclasses.replace(
            placed,
            tables=tuple(param for param, *_ in tables),
            slots=tuple(tuple(own) for _, *own in tables),
            last=tuple(jnp.full_like(last, iteration) for last in placed.last),
            coefficients=tuple(tuple(map(jnp.asarray, self._first(rule))) for rule in self._rules),
        )

    def _settled_table(self, k: int, placed: Placed, iteration: Any, base: Any) -> Sequence[Any]:
        rows = self._caught_up(k, placed, None, placed.last[self._group[k]], iteration, base)
        return [rows["param"], *(rows[f"slot/{s.name}"] for s in self._source.slots)]


@dataclasses.dataclass(frozen=True)
class _Lookups:
    """All lookups of a group of tables in one step.

    Attributes:
        shapes: of the ids of each lookup.
        ids: int32[l], moved inside the table. inside: whether they were.
        owner: the position that stands for the id, l for ids outside.
        owners: the id where a position stands for it, else the number of rows.
        last: of each row looked up. touched, places: the group's `last` and `places` afterwards.
    """

    shapes: Mapping[Any, tuple[int, ...]]
    ids: Any
    inside: Any
    owner: Any
    owners: Any
    last: Any
    touched: Any
    places: Any
