"""The calls of a step run on a part: microbatch after microbatch, in the order of a schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..feed import Call
from .links import Links
from .schedule import BACKWARD, FORWARD, SCHEDULES, Task

WHOLE, BEFORE = "whole", "before"
NOBODY: Any = None  # links of code that asks nothing of other ranks


@dataclasses.dataclass
class Job:
    """One microbatch.

    Attributes:
        nth, call: which call it belongs to.
        rows: of `call` that it holds, padding not counted.
        last: whether it is the call's last.
        environment: its named values.
    """

    nth: int
    call: Call
    rows: int
    last: bool
    environment: dict[str, Any]


def jobs(calls: Sequence[Call], microbatches: int, rows: int, common: Mapping[str, Any]) -> list[Job]:
    """The microbatches of all calls, those without rows left out.

    Args:
        rows: of the global batch.
        common: values that are the same for all of them ("params", "state", "key", "iteration").
    """
    made: list[Job] = []
    for nth, call in enumerate(calls):
        size = call.size // microbatches
        pieces = max(1, -(-call.rows // size))
        for a in range(pieces):
            part = slice(a * size, (a + 1) * size)
            real = min(call.rows - a * size, size)
            environment = {
                **common,
                **{name: array[part] for name, array in call.batch.items()},
                "valid": call.valid[part],
                "row_id": call.row_id[part],
                "rows": np.float32(max(rows, 1)),
                "share": np.float32(real / max(rows, 1)),
            }
            made.append(Job(nth, call, real, a + 1 == pieces, environment))
    return made


def tasks(kind: str, parted: str, schedule: str, place: int, parts: int, count: int) -> list[Task]:
    """What a part runs in which order.

    Args:
        kind: "train", "test" or "predict". parted: the method's kind. count: microbatches.
    """
    if parted != "pipeline":
        return [(WHOLE, a) for a in range(count)]
    if kind == "train":
        return SCHEDULES[schedule](place, parts, count)
    return [(FORWARD, a) for a in range(count)]


def run(kind: str, compiled: Any, made: Sequence[Job], order: Sequence[Task], links: Links) -> Iterator[Job]:
    """Runs all tasks; gives each microbatch when its last phase is done, in their order.

    Args:
        compiled: ``compiled(rows of a microbatch)`` is the part's call.
    """
    from kerasoft.compiler.parallel import run as interpret

    last = {BACKWARD, WHOLE} if kind == "train" else {FORWARD, WHOLE}
    for phase, a in order:
        job = made[a]
        call = compiled(len(job.environment["valid"]))
        interpret(call.phases[phase], job.environment, links.of(a, job))
        if phase in last:
            yield job
            job.environment.clear()
    links.end_step()


def shares(compiled: Any, made: Sequence[Job]) -> list[tuple[Call, np.ndarray]]:
    """Of each call what it adds to the sums that are made before a step's calls: over its microbatches, one vector."""
    from kerasoft.compiler.parallel import run as interpret

    found: list[tuple[Call, np.ndarray]] = []
    total: np.ndarray | float = 0.0
    for job in made:
        call = compiled(len(job.environment["valid"]))
        interpret(call.phases[BEFORE], job.environment, NOBODY)
        total = total + np.concatenate([np.ravel(job.environment[name]) for name, _ in call.totals])
        if job.last:
            found.append((job.call, np.asarray(total, np.float32)))
            total = 0.0
    return found


def give(totals: Sequence[tuple[str, tuple[int, ...]]], vector: np.ndarray, made: Sequence[Job]) -> None:
    """The sums, by name, to all microbatches."""
    at = 0
    for name, shape in totals:
        size = math.prod(shape)
        for job in made:
            job.environment[name] = vector[at : at + size].reshape(shape)
        at += size


def sums_over_replicas(call: Any) -> bool:
    """Whether ranks with other rows must meet in the middle of a call."""
    return any(getattr(i, "axis", None) == "data" for phase in call.phases.values() for i in phase)
