"""A table on one rank, whole, and its rows: brought up to date, updated, their gradients added up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .collectives import ALIGNMENT
from .step import Arguments


class Table:
    """A table and its slots on this rank, whole.

    Attributes:
        name, rows, width, shape: float32[rows, *shape], shape being of `width` elements.
        group, rule: tables that are looked up together, and those with the same idle steps, have one number.
        lookups: number of the ids and the input for the rows, of each. gradients: numbers of the ids.
    """

    def __init__(self, program: Any, k: int, described: Mapping[str, Any]):
        self.program, self.k = program, k
        self.name, self.rows, self.width = described["name"], described["rows"], described["width"]
        self.group, self.rule, self.first = described["group"], described["rule"], described["first"]
        self.lookups, self.gradients = described["lookups"], described["gradients"]
        self.shape, self.history = tuple(described["shape"]), described["history"]
        entry = next(e for e in program.layout.params if e.name == self.name)
        self.place = slice(entry.offset, entry.end)
        self.index = next(i for i, e in enumerate(program.layout.params) if e.name == self.name)
        self.param = np.zeros((0, self.width), np.float32)
        self.slots: list[np.ndarray] = []

    def attach(self, params: np.ndarray, slots: Sequence[np.ndarray]) -> None:
        """Lies in `params`, and copies its part of the slots."""
        self.param = params[self.place].reshape(-1, self.width)
        self.slots = [np.array(s[self.place]).reshape(-1, self.width) for s in slots]

    def first_coefficients(self) -> tuple[np.ndarray, ...]:
        return tuple(np.full(self.history + 1, value, np.float32) for value in self.first)

    def inside(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids moved inside the table, negative ones counted from the end, and whether they were inside."""
        ids = np.where(ids < 0, ids + self.rows, ids)
        inside = (ids >= 0) & (ids < self.rows)
        return np.clip(ids, 0, self.rows - 1), inside

    def or_none(self, ids: np.ndarray) -> np.ndarray:
        """Ids moved inside the table, -1 where they were not inside; flat."""
        there, inside = self.inside(ids)
        return np.where(inside, there, -1).ravel()

    def caught_up(
        self, rows: np.ndarray | slice, columns: Sequence[np.ndarray], gap: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Weights and slots of rows after the steps of `gap` that each has missed, padded to a `bucket` of rows."""
        room = bucket(len(gap))
        batch = {
            "param": self.param,
            **{f"slot/{s.name}": v for s, v in zip(self.program.slots, self.slots, strict=True)},
        }
        batch = {name: padded(value[rows], room) for name, value in batch.items()}
        names = tuple(batch)
        batch |= {f"coefficient/{i}": padded(c[:, None], room) for i, c in enumerate(columns)}
        batch["gap"] = padded(gap.astype(np.float32)[:, None], room)
        values = self.program.part(f"catch_up/{self.k}", n=room).run(0, Arguments(batch=batch), (), None)[1]
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def updated(
        self, values: Mapping[str, np.ndarray], gradient: np.ndarray, learning_rate: float, iteration: int
    ) -> dict[str, np.ndarray]:
        """Rows and slots after the optimizer's step."""
        room = len(values["param"])
        names = tuple(values)
        args = Arguments(
            param=values["param"].reshape(-1),
            gradient=padded(gradient, room).reshape(-1),
            slots=tuple(values[name].reshape(-1) for name in names[1:]),
            segment=np.full(room * self.width, self.index, np.int32),
            learning_rate=np.float32(learning_rate),
            iteration=np.int32(iteration),
        )
        out = self.program.update(room * self.width).run(0, args, (), None)[1]
        return {name: np.asarray(v).reshape(-1, self.width) for name, v in zip(names, out, strict=True)}

    def put(self, rows: np.ndarray | slice, values: Mapping[str, np.ndarray]) -> None:
        """Writes rows and slots."""
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        for whole, new in zip((self.param, *self.slots), values.values(), strict=True):
            whole[rows] = new[:count]


def bucket(count: int) -> int:
    """Room for `count`: at least, and at most about a fifth more; one of few numbers, and a multiple of 64.

    >>> [bucket(n) for n in (0, 64, 65, 1000, 100_000)]
    [64, 64, 128, 1024, 110272]
    """
    units = max(-(-count // ALIGNMENT), 1)
    step = 2 ** (math.ceil(4 * math.log2(units)) / 4)
    return ALIGNMENT * max(math.ceil(step), units)


def padded(values: np.ndarray, rows: int) -> np.ndarray:
    if len(values) == rows and values.flags.c_contiguous:
        return values
    made = np.zeros((rows, *values.shape[1:]), np.float32)
    made[: len(values)] = values
    return made


def add_rows(into: np.ndarray, rows: np.ndarray, ids: np.ndarray, gradients: np.ndarray) -> None:
    """Adds each gradient to its id's row of `into`, whose rows are those of the ascending ids `rows`; -1: to none."""
    order = np.argsort(ids, kind="stable")
    order = order[np.searchsorted(ids[order], 0) :]
    if not len(order):
        return
    found, starts = np.unique(ids[order], return_index=True)
    into[np.searchsorted(rows, found)] = np.add.reduceat(gradients[order], starts, axis=0)
