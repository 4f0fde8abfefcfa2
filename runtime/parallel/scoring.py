"""Rows scored by a model that is cut: one rank's part of it, without a driver."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..collectives import Peer, PeerListener
from ..feed import Call
from ..reports import Stopwatch
from ..worker import fixed_shape
from .calls import WHOLE, Job, run, shares, tasks
from .groups import Groups, meet
from .links import Links
from .method import Cut
from .slices_step import SlicesLinks


@dataclasses.dataclass(frozen=True)
class Scoring:
    """A cut model, compiled for scoring: what a strategy makes of a `StepSource`.

    Attributes:
        method: the cut.
        programs: bytes of each part's program.
        vectors: float32 of each part: what it holds of the parameters.
        rows: of a call.
        reads: of each part: the arrays that it needs of a block, at least one, as it must know how many rows there are.
    """

    method: Cut
    programs: tuple[bytes, ...]
    vectors: tuple[np.ndarray, ...]
    rows: int
    reads: tuple[tuple[str, ...], ...]


class Scorer:
    """One part of a cut model.

    Args:
        groups: this rank's connections. program: its part's. params: float32[P_local]. state: float32[S].
        rows: of a call; shorter ones are padded.
    """

    def __init__(self, method: Cut, groups: Groups, program: Any, params: np.ndarray, state: np.ndarray, rows: int):
        self.method, self.program, self.rows = method, program, rows
        self._common = {"params": params, "state": state, "key": np.zeros(2, np.uint32), "iteration": np.int32(0)}
        self._place = method.grid.place(groups.rank)[1]
        self._zero, self._group = method.kind == "zero", groups.model
        self._links = (SlicesLinks if self._zero else Links)(groups, Stopwatch(), lambda: None)

    def outputs(self, blocks: Iterable[Mapping[str, np.ndarray]]) -> Iterator[tuple[np.ndarray, ...]]:
        """For each block the model's outputs for its rows; () where another part gives them."""
        call = self.program.predict(self.rows)
        speaks = self._speaks
        for block in blocks:
            parts = [
                tuple(np.asarray(o)[: job.rows] for o in call.result(job.environment)) if speaks else ()
                for job in self._run("predict", block)
            ]
            yield tuple(np.concatenate(p) for p in zip(*parts, strict=True))
        self._accompany("predict")

    def sums(self, blocks: Iterable[Mapping[str, np.ndarray]], elements: int) -> np.ndarray:
        """float64[M] of the test step over all rows: this part's share of them, if parts give different ones."""
        total = np.zeros(elements, np.float64)
        for block in blocks:
            for job in self._run("test", block):
                total += np.asarray(job.environment["vector"], np.float64)
        self._accompany("test")
        return total if self._speaks else np.zeros_like(total)

    @property
    def _speaks(self) -> bool:
        """Whether results come from this part: those of split layers all have the same."""
        return self.method.kind != "model" or self._place == 0

    def _run(self, kind: str, block: Mapping[str, np.ndarray]) -> Iterator[Job]:
        made = [self._job(piece) for piece in self._pieces(block)]
        compiled = getattr(self.program, kind)
        if compiled(self.rows).totals:
            shares(compiled, made)  # a call is a batch of its own: its shares are the sums
        if self._zero:
            for job in made:
                self._anybody_has_rows(True)
                yield from run(kind, compiled, [job], [(WHOLE, 0)], self._links)
            return
        order = tasks(kind, self.method.kind, "gpipe", self._place, self.method.grid.parts, len(made))
        yield from run(kind, compiled, made, order, self._links)

    def _anybody_has_rows(self, here: bool) -> bool:
        """All ranks ask before each call: with ``zero=3`` they gather parameters together."""
        return bool(self._group.all_reduce_small(np.array([here], np.float32))[0])

    def _accompany(self, kind: str) -> None:
        """Calls of padding for as long as other ranks have rows."""
        if not self._zero:
            return
        empty = {
            i.name: np.zeros((0, *fixed_shape(i, self.program.lengths)), np.dtype(i.dtype)) for i in self.program.inputs
        }
        compiled = getattr(self.program, kind)
        while self._anybody_has_rows(False):
            job = self._job(empty)
            if compiled(self.rows).totals:
                shares(compiled, [job])
            for _ in run(kind, compiled, [job], [(WHOLE, 0)], self._links):
                pass

    def _pieces(self, block: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        total = len(next(iter(block.values())))
        for start in range(0, total, self.rows):
            yield {name: array[start : start + self.rows] for name, array in block.items()}

    def _job(self, piece: dict[str, np.ndarray]) -> Job:
        real = len(next(iter(piece.values())))
        missing = self.rows - real
        if missing:
            piece = {n: np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) for n, a in piece.items()}
        valid = np.zeros(self.rows, np.float32)
        valid[:real] = 1
        row_id = np.zeros(self.rows, np.uint32)
        environment = {
            **self._common,
            **piece,
            "valid": valid,
            "row_id": row_id,
            "rows": np.float32(max(real, 1)),
            "share": np.float32(1),
        }
        return Job(0, Call(-1, real, self.rows, piece, valid, row_id), real, True, environment)


def join(
    table: Sequence[Peer], rank: int, method: Cut, secret: bytes, generation: int, listener: PeerListener
) -> Groups:
    """Connects a rank with the other parts of its replica; replicas score rows of their own and never meet."""
    alone = len(table) == 1
    if alone:
        listener.close()
    return meet(
        table, rank, method.grid, secret, generation, TIMEOUT_S, None if alone else listener,
        ("shm", "unix", "tcp"), method.kind == "pipeline", replicas_meet=False,
    )  # fmt: skip


TIMEOUT_S = 600.0
"""Longest wait for another part: it may have to compile, or to read its rows first."""
