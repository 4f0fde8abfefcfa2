"""What the ranks of a fit with a model cut among them do: plain values that travel to the workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..collectives import Peer
from ..reports import Stopwatch
from ..step import DistributedStep
from ..worker import Method, Settings
from .grid import Grid
from .groups import Groups, meet


@dataclasses.dataclass(frozen=True)
class Cut(Method):
    """The model is cut into `grid.parts` parts, each held by one rank of every replica.

    Args:
        grid: who holds what; "zero": every rank a part, and rows of its own.
        kind: "model" (every layer is split), "pipeline" (stages of layers) or "zero" (layers' parameters come when needed).
        microbatches: of each call, one after another through a pipeline.
        schedule: a key of `schedule.SCHEDULES`.
        differs: whether results depend on `microbatches` (layers with statistics of a batch).
    """

    grid: Grid = Grid(1, 1)
    kind: str = "model"
    microbatches: int = 1
    schedule: str = "1f1b"
    differs: bool = False

    @property
    def sharers(self) -> int:
        return 1 if self.kind == "zero" else self.grid.parts

    @property
    def speaker(self) -> int:
        """The part of a replica that has the model's outputs when rows are scored, among the `sharers`."""
        return self.grid.parts - 1 if self.kind == "pipeline" else 0

    def sizes(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Multiples of the microbatches."""
        k = self.microbatches
        return tuple(sorted({-(-n // k) * k for n in rows}))

    def program(self, rank: int, programs: Sequence[bytes]) -> Any:
        from kerasoft.compiler.parallel import LocalProgram

        return LocalProgram.from_bytes(programs[rank % len(programs)])

    def reads(self, program: Any, kind: str) -> tuple[str, ...]:
        return tuple(program.reads(kind))

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> DistributedStep:
        from .slices_step import SlicesStep
        from .step import PartStep

        return (SlicesStep if self.kind == "zero" else PartStep)(self, settings, rank, program, watch)

    def connect(
        self,
        settings: Settings,
        table: Sequence[Peer],
        rank: int,
        secret: bytes,
        generation: int,
        listener: Any,
        params: int,
    ) -> Groups:
        return meet(
            table,
            rank,
            self.grid,
            secret,
            generation,
            settings.timeout_s,
            listener,
            settings.transports,
            self.kind == "pipeline",
            wire_dtype=settings.wire_dtype,
            exact_from=params,
            topology=settings.topology,
            elements=params,
        )

    def identity(self) -> dict[str, Any]:
        """Nothing: a checkpoint holds whole vectors, and any other cut, or none, goes on from it."""
        return {"microbatches": self.microbatches} if self.differs and self.microbatches > 1 else {}
