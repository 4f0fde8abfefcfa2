"""Rows scored by a model that is cut: one rank's part of it, without a driver."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..collectives import Peer, PeerListener
from ..feed import Call
from ..reports import Stopwatch
from .calls import Job, run, tasks
from .groups import Groups, meet
from .links import Links
from .method import Cut


@dataclasses.dataclass(frozen=True)
class Scoring:
    """A cut model, compiled for scoring: what a strategy makes of a `StepSource`.

    Attributes:
        method: the cut.
        programs: bytes of each part's program.
        vectors: float32 of each part: what it holds of the parameters.
        rows: of a call.
    """

    method: Cut
    programs: tuple[bytes, ...]
    vectors: tuple[np.ndarray, ...]
    rows: int


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
        self._links = Links(groups, Stopwatch(), lambda: None)

    def outputs(self, blocks: Iterable[Mapping[str, np.ndarray]]) -> Iterator[tuple[np.ndarray, ...]]:
        """For each block the model's outputs for its rows; () where another part gives them."""
        call = self.program.predict(self.rows)
        speaks = self.method.kind == "pipeline" or self._place == 0  # the parts of split layers all have the outputs
        for block in blocks:
            parts = [
                tuple(np.asarray(o)[: job.rows] for o in call.result(job.environment)) if speaks else ()
                for job in self._run("predict", block)
            ]
            yield tuple(np.concatenate(p) for p in zip(*parts, strict=True))

    def sums(self, blocks: Iterable[Mapping[str, np.ndarray]], elements: int) -> np.ndarray:
        """float64[M] of the test step over all rows: this part's share of them, if parts give different ones."""
        total = np.zeros(elements, np.float64)
        for block in blocks:
            for job in self._run("test", block):
                total += np.asarray(job.environment["vector"], np.float64)
        adds = self.method.kind == "pipeline" or self._place == 0
        return total if adds else np.zeros_like(total)

    def _run(self, kind: str, block: Mapping[str, np.ndarray]) -> Iterator[Job]:
        made = [self._job(piece) for piece in self._pieces(block)]
        order = tasks(kind, self.method.kind, "gpipe", self._place, self.method.grid.parts, len(made))
        return run(kind, getattr(self.program, kind), made, order, self._links)

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
