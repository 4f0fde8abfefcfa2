"""Whether shards should move from slow workers to fast ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .shards import assign

WORTH = 1.25
"""An epoch must take so many times what it would after moving: measured times vary, and so do workers."""

COSTS = 2.0
"""Times that a group takes to form, which moving must save in the epochs that are left."""

OWN = ("compute", "input")
"""Phases that grow with a worker's rows."""


def speeds_of(
    owners: Sequence[int], rows: Sequence[int], times: Sequence[Mapping[str, float]], epochs: int, forming_s: float
) -> tuple[float, ...] | None:
    """Rows a second of each worker, if shards should be assigned anew by them; None if they are well where they are.

    Args:
        owners, rows: of each shard. times: seconds by phase of each worker in the last epoch.
        epochs: that are left. forming_s: seconds from the launch of this group to its first step.

    >>> own = [{"compute": 8.0}, {"compute": 2.0}]
    >>> speeds_of((0, 0, 0, 1, 1, 1), (100,) * 6, own, epochs=5, forming_s=1.0)
    (37.5, 150.0)
    >>> speeds_of((0, 0, 0, 1, 1, 1), (100,) * 6, own, epochs=1, forming_s=9.0)
    """
    world_size = len(times)
    had = [sum(n for n, owner in zip(rows, owners, strict=True) if owner == rank) for rank in range(world_size)]
    took = [sum(t.get(phase, 0.0) for phase in OWN) for t in times]
    known = [n / max(s, 1e-6) for n, s in zip(had, took, strict=True) if n]
    if len(known) < 2:
        return None
    idle = sum(known) / len(known)  # of a worker without rows nothing is known
    speeds = tuple(n / max(s, 1e-6) if n else idle for n, s in zip(had, took, strict=True))
    after = _epoch_s(assign(rows, world_size, speeds), rows, speeds)
    gain_s = max(took) - after
    return speeds if max(took) > WORTH * after and gain_s * epochs > COSTS * forming_s else None


def _epoch_s(owners: Sequence[int], rows: Sequence[int], speeds: Sequence[Any]) -> float:
    """Seconds of the slowest worker."""
    took = [0.0] * len(speeds)
    for owner, n in zip(owners, rows, strict=True):
        took[owner] += n / speeds[owner]
    return max(took)
