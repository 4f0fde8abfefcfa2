"""Steps of models with large tables: only the rows that a batch looks up are exchanged and updated.

With exactly the numbers of an update of whole tables: a row is brought up to date before it is used
(docs/design/0007-tables-by-rows.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .collectives import aligned_empty, slices
from .feed import Call, Step
from .reports import Stopwatch
from .step import Arguments, DistributedStep, Finish
from .table import Table, add_rows, bucket
from .worker import Method, Settings

CHUNK = 1 << 15  # rows brought up to date at a time, when all are


@dataclasses.dataclass(frozen=True)
class ByRows(Method):
    """What the workers do for a model with tables that are updated by rows.

    Args:
        tables: their names.
    """

    tables: tuple[str, ...] = ()

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> RowsStep:
        return RowsStep(
            program, rank, settings.bounds(), settings.train_sizes, settings.test_sizes, settings.deterministic, watch
        )

    @property
    def by_rows(self) -> tuple[str, ...]:
        return self.tables

    def identity(self) -> dict[str, Any]:
        return {"tables": list(self.tables)}


class RowsStep(DistributedStep):
    """Arguments as of `DistributedStep`, which does what concerns all other parameters.

    1. The ids that each rank looks up go to all: everybody knows the rows U that the global batch touches.
    2. Everybody brings these rows of its copy of the tables up to date.
    3. Gradient calls with the rows as inputs; the gradients of equal ids are added up in the order of the batch.
    4. Reduce-scatter and all-gather of float32[U, d] for each table; everybody makes the same update of these rows.

    Each rank holds all tables and their slots. It sends ``4 (N - 1) u + 2 (N - 1) / N * 4 U d`` bytes a step for a table of
    width d, u being the different ids of its own rows. At an epoch's end all rows are brought up to date; a checkpoint
    within an epoch holds the rows as they are, and the step of their last touch.
    """

    def __init__(self, program: Any, rank: int, bounds: Sequence[int], *others: Any):
        self._whole_layout = program.layout
        self.tables = [Table(program, k, d) for k, d in enumerate(program.tables)]
        rest = _Rest(program)
        super().__init__(rest, rank, bounds, *others)
        self.ids_calls = {n: program.part("ids", n) for n in self.calls}
        rules = max(t.rule for t in self.tables) + 1
        self._advance = [program.part(f"advance/{r}", n=1) for r in range(rules)]
        self._rule_of = [next(t for t in self.tables if t.rule == r) for r in range(rules)]
        self.history = self._rule_of[0].history
        groups = max(t.group for t in self.tables) + 1
        self._members = [next(t for t in self.tables if t.group == g) for g in range(groups)]
        layout = self._whole_layout
        names = {t.name for t in self.tables}
        self._rest_entries = [e for e in layout.params if e.name not in names]
        number = {e.name: i for i, e in enumerate(layout.params)}
        indices = np.array([number[e.name] for e in self._rest_entries], np.int32)
        segments = indices[rest.layout.segments()] if len(indices) else np.zeros(0, np.int32)
        self._segment = segments if self.replicated else np.ascontiguousarray(segments[self.part])
        self._cut = [slice(min(s.start, layout.P), min(s.stop, layout.P)) for s in slices(layout.V, len(bounds) - 1)]
        self._gathered = aligned_empty(self.V)
        self._full = np.zeros(layout.P, np.float32)
        self._last: list[np.ndarray] = []
        self._coefficients: list[tuple[np.ndarray, ...]] = []
        self._given: dict[int, dict[str, np.ndarray]] = {}
        self._looked: dict[int, list[np.ndarray]] = {}
        self._now: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self._row_gradients: list[tuple[Call, Sequence[np.ndarray]]] = []

    def _prepare_padding(self, kind: str, call: Call) -> None:
        self._given = {}
        if kind == "train":
            ids = self._ids(call)
            self._given[id(call.batch)] = {
                name: np.zeros((*ids[k].shape, *t.shape), np.float32) for t in self.tables for k, name in t.lookups
            }

    # --- state -------------------------------------------------------------------------------------------------------

    def load(
        self,
        collective: Any,
        params: np.ndarray,
        slots: Sequence[np.ndarray],
        state: np.ndarray,
        iteration: int,
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.collective = collective
        kept = kept or {}
        self._full, whole = self._joined(params), [self._joined(s) for s in slots]
        for t in self.tables:
            t.attach(self._full, whole)
        rest = [self._rest_of(v) for v in (self._full, *whole)]
        cut = slice(None) if self.replicated else self.part
        self.state, self.iteration, self.params = np.array(state), iteration, rest[0]
        self._master, *own = (np.array(v[cut]) for v in rest)
        self._slots = tuple(own)
        self._last = [
            np.array(kept.get(f"all/last/{g}", np.full(t.rows, iteration, np.int32)))
            for g, t in enumerate(self._members)
        ]
        self._coefficients = [
            tuple(np.array(kept.get(f"all/coefficient/{r}/{i}", c)) for i, c in enumerate(t.first_coefficients()))
            for r, t in enumerate(self._rule_of)
        ]

    def replace(self, params: np.ndarray, state: np.ndarray) -> None:
        self._full[:] = params
        super().replace(self._rest_of(params), state)

    def slices(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        tables = [[t.param for t in self.tables], *([t.slots[i] for t in self.tables] for i in range(len(self._slots)))]
        params, *slots = (
            self._slice_of(parts, own) for parts, own in zip(tables, (self._master, *self._slots), strict=True)
        )
        return params, tuple(slots)

    def kept(self) -> dict[str, np.ndarray]:
        found = {f"all/last/{g}": last for g, last in enumerate(self._last)}
        for r, columns in enumerate(self._coefficients):
            found |= {f"all/coefficient/{r}/{i}": np.asarray(c) for i, c in enumerate(columns)}
        return found

    def end_epoch(self, learning_rate: float) -> np.ndarray:
        self.settle()
        return super().end_epoch(learning_rate)

    def settle(self) -> None:
        """Brings all rows up to date."""
        for k, t in enumerate(self.tables):
            for start in range(0, t.rows, CHUNK):
                rows = slice(start, min(start + CHUNK, t.rows))
                t.put(rows, self._up_to_date(k, rows, max(self.iteration - 1, 0)))
        for last in self._last:
            last[:] = self.iteration
        self._coefficients = [t.first_coefficients() for t in self._rule_of]
        self.watch.lap("update")

    def _joined(self, mine: np.ndarray) -> np.ndarray:
        """The vector of all parameters of which every rank has its slice."""
        layout = self._whole_layout
        own = slices(layout.V, len(self.bounds) - 1)[self.rank]
        send = np.zeros(own.stop - own.start, np.float32)
        send[: len(mine)] = mine
        return np.array(self.collective.all_gather(send, layout.V, exact=True).vector[: layout.P])

    def _rest_of(self, vector: np.ndarray) -> np.ndarray:
        parts = [vector[e.offset : e.end] for e in self._rest_entries]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _slice_of(self, tables: Sequence[np.ndarray], own: Any) -> np.ndarray:
        """This rank's slice of a vector of all parameters: of tables, and of the others, which it has its slice of."""
        rest = np.asarray(own) if self.replicated else self._whole(np.asarray(own))
        ends = np.cumsum([e.size for e in self._rest_entries], dtype=np.int64)
        parts = [(e.offset, rest[end - e.size : end]) for e, end in zip(self._rest_entries, ends, strict=True)]
        parts += [(t.place.start, values.reshape(-1)) for t, values in zip(self.tables, tables, strict=True)]
        cut = self._cut[self.rank]
        made = np.empty(cut.stop - cut.start, np.float32)
        for offset, values in parts:
            low, high = max(offset, cut.start), min(offset + len(values), cut.stop)
            if low < high:
                made[low - cut.start : high - cut.start] = values[low - offset : high - offset]
        return made

    # --- one step ----------------------------------------------------------------------------------------------------

    def begin(self, step: Step, key: np.ndarray) -> Finish:
        if self.iteration and self.iteration % self.history == 0:
            self.settle()
        self._look_up(step.calls)
        return super().begin(step, key)

    def test(self, step: Step) -> list[tuple[Call, np.ndarray]]:
        self._given, start = {}, 0
        for e in self._rest_entries:
            self._full[e.offset : e.end] = self.params[start : start + e.size]
            start += e.size
        return super().test(step)

    def _arguments(self, call: Call, rows: int, key: np.ndarray | None) -> Arguments:
        made = super()._arguments(call, rows, key)
        looked_up = self._given.get(id(call.batch))
        if looked_up is None:  # an evaluation
            return dataclasses.replace(made, params=self._full)
        return dataclasses.replace(made, batch={**call.batch, **looked_up})

    def _ids(self, call: Call) -> list[np.ndarray]:
        """The ids of each lookup of a call."""
        return [np.asarray(i) for i in self.ids_calls[call.size].run(0, Arguments(batch=call.batch), (), None)[1]]

    def _look_up(self, calls: Sequence[Call]) -> None:
        """Rows for all lookups of the calls, up to date."""
        self.watch.lap("compute")
        found = [self._ids(call) for call in calls]
        mine = []
        for t in self._members:
            flat = [t.inside(ids[k])[0].ravel() for ids in found for k, _ in t.lookups]
            mine.append(np.unique(np.concatenate(flat)) if flat else np.zeros(0, np.int32))
        self.watch.lap("input")
        touched = self._exchanged(mine)
        self._charge_sync()
        self._now = [(touched[t.group], self._up_to_date(k, touched[t.group])) for k, t in enumerate(self.tables)]
        self._given, self._looked = {}, {}
        for call, ids in zip(calls, found, strict=True):
            given: dict[str, np.ndarray] = {}
            places = []
            for t, (rows, values) in zip(self.tables, self._now, strict=True):
                for k, name in t.lookups:
                    there, inside = t.inside(ids[k])
                    taken = values["param"][np.searchsorted(rows, there)]
                    if not inside.all():
                        taken[~inside] = np.nan
                    given[name] = taken.reshape(*ids[k].shape, *t.shape)
                of_table = [t.or_none(ids[k]) for k in t.gradients]
                places.append(np.concatenate(of_table) if of_table else np.zeros(0, np.int64))
            self._given[id(call.batch)] = given
            self._looked[id(call.batch)] = places
        self.watch.lap("compute")

    def _exchanged(self, mine: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each group the different ids of all ranks, ascending."""
        world, groups = len(self.bounds) - 1, len(mine)
        if world == 1:
            return list(mine)
        counts = np.zeros((world, groups), np.float64)
        counts[self.rank] = [len(ids) for ids in mine]
        counts = self.collective.all_reduce_small(counts.ravel()).reshape(world, groups).astype(np.int64)
        room = bucket(int(counts.sum(axis=1).max()))
        send = np.zeros(room, np.int32)
        joined = np.concatenate(mine)
        send[: len(joined)] = joined
        given = self.collective.all_gather(send.view(np.float32), world * room, exact=True).vector
        rows = given.view(np.int32).reshape(world, room)
        ends = np.cumsum(counts, axis=1)
        return [
            np.unique(np.concatenate([rows[r, ends[r, g] - counts[r, g] : ends[r, g]] for r in range(world)]))
            for g in range(groups)
        ]

    def _up_to_date(self, k: int, rows: np.ndarray | slice, at: int | None = None) -> dict[str, np.ndarray]:
        """Weights and slots of some rows of a table after the steps made, padded to a `bucket` of rows."""
        t = self.tables[k]
        base = (self.iteration if at is None else at) // self.history * self.history
        last = self._last[t.group][rows]
        when = np.clip(last - base, 0, self.history)
        columns = [np.asarray(c)[when] for c in self._coefficients[t.rule]]
        return t.caught_up(rows, columns, self.iteration - last)

    def _results(self, kind: str, calls: Mapping[int, Any], jobs: list, started: Any) -> Iterable:
        if kind != "train":
            return super()._results(kind, calls, jobs, started)
        return self._with_row_gradients(calls, jobs, started)

    def _with_row_gradients(self, calls: Mapping[int, Any], jobs: list, started: Any) -> Iterator:
        self._row_gradients = []
        lengths = self._lengths.get("train", ())
        running = []
        for i, (call, args) in enumerate(jobs):
            running.append((call, args, started if i == 0 else calls[call.size].run(0, args, (), None)))
        for k, length in enumerate(lengths, 1):
            reduced = self._sum_small([(call, np.asarray(out)) for call, _, (_, out) in running], length)
            running = [(c, args, calls[c.size].run(k, args, carry, reduced)) for c, args, (carry, _) in running]
        for call, _, (_, (vector, *rows)) in running:
            self._row_gradients.append((call, [np.asarray(r) for r in rows]))
            yield call, np.asarray(vector)

    def _update_and_gather(
        self, owned: np.ndarray, learning_rate: float, note: int, iteration: int, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        result = super()._update_and_gather(owned, learning_rate, note, iteration, self._gathered)
        self._update_tables(learning_rate, iteration)
        return result

    def _update_tables(self, learning_rate: float, iteration: int) -> None:
        sizes = [len(rows) * t.width for t, (rows, _) in zip(self.tables, self._now, strict=True)]
        total = self._summed(sum(sizes))
        self._charge_sync()
        start = 0
        for t, (rows, values), size in zip(self.tables, self._now, sizes, strict=True):
            gradient = total[start : start + size].reshape(-1, t.width)
            t.put(rows, t.updated(values, gradient, learning_rate, iteration))
            start += size
        for t in self._members:
            self._last[t.group][self._now[self.tables.index(t)][0]] = iteration + 1
        base = iteration // self.history * self.history
        age = (iteration + 1 - base - np.arange(self.history + 1)).astype(np.float32)
        for r, columns in enumerate(self._coefficients):
            if columns:
                batch = {"age": age, **{f"coefficient/{i}": c for i, c in enumerate(columns)}}
                args = Arguments(batch=batch, learning_rate=np.float32(learning_rate), iteration=np.int32(iteration))
                moved = self._advance[r].run(0, args, (), None)[1]
                self._coefficients[r] = tuple(
                    np.where(age >= 1, np.asarray(new), old) for new, old in zip(moved, columns, strict=True)
                )
        self.watch.lap("update")

    def _summed(self, size: int) -> np.ndarray:
        """float32[size]: the gradients of all touched rows, table behind table, summed over all calls of all ranks."""
        length = bucket(size)

        def vectors() -> Iterator[tuple[Call, np.ndarray]]:
            for call, gradients in self._row_gradients:
                vector, start, taken = np.zeros(length, np.float32), 0, list(gradients)
                places = self._looked[id(call.batch)]
                for t, (rows, _), ids in zip(self.tables, self._now, places, strict=True):
                    mine, taken = taken[: len(t.gradients)], taken[len(t.gradients) :]
                    part = vector[start : start + len(rows) * t.width].reshape(-1, t.width)
                    if mine:
                        add_rows(part, rows, ids, np.concatenate([g.reshape(-1, t.width) for g in mine]))
                    start += len(rows) * t.width
                yield call, vector

        if self.deterministic:
            owned = self.collective.reduce_scatter_tree(self._partials(vectors(), length), self.bounds, length)
        else:
            total = np.zeros(length, np.float32)
            for _, vector in vectors():
                total += vector
            self.watch.lap("compute")
            owned = self.collective.reduce_scatter(total)
        return np.array(self.collective.all_gather(np.array(owned), length, exact=True).vector[:size])


class _Rest:
    """A program of all parameters but the tables, for `DistributedStep`."""

    def __init__(self, program: Any):
        self.layout = program.layout.without([t["name"] for t in program.tables])
        self.flags, self.slots = program.flags, program.slots
        self.train = lambda rows: program.part("rows", rows)
        self.test, self.update = program.test, program.update
