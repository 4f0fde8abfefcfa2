"""How the driver's whole vectors are cut among the ranks of a fit, and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .collectives import slices
from .wire import Message
from .worker import KEPT, Settings


class Division:
    """Every rank has a slice of one vector. Vectors are float32[P]: parameters or one slot each.

    Args:
        parts: the slice of each rank, in order.
    """

    def __init__(self, parts: Sequence[slice]):
        self._parts = tuple(parts)

    def own(self, rank: int, vector: np.ndarray) -> np.ndarray:
        """What `rank` updates of `vector`."""
        return vector[self._parts[rank]]

    def whole(self, rank: int, vector: np.ndarray) -> np.ndarray:
        """What `rank` computes with."""
        return vector

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The whole vector from what the ranks update, in their order."""
        return np.concatenate(parts)


def slices_of(layout: Any, settings: Settings) -> Division:
    """The division of a fit whose model lies whole on every rank."""
    return Division(settings.method.parts(layout.P, layout.V, settings.world_size))


class Pieces:
    """What of a `Checkpoint` each rank is sent, and a `Checkpoint` of what all ranks sent.

    Args:
        settings: of the workers. layout: of the model.
        slots: vectors of the optimizer.
        division: of parameters and slots.
    """

    def __init__(self, settings: Settings, layout: Any, slots: int, division: Division):
        self._settings, self._slots, self._division = settings, slots, division
        self._V = layout.V
        self._cuts = slices(layout.V, settings.world_size)
        self._parts = settings.method.parts(layout.P, layout.V, settings.world_size)

    def of_rank(self, rank: int, start: Checkpoint) -> dict[str, np.ndarray]:
        """The arrays of the message that tells `rank` where to begin."""
        own = self._division.own
        arrays = {"params": own(rank, start.params), "state": start.state, "sums": start.sums}
        arrays |= {f"slot/{i}": own(rank, s) for i, s in enumerate(start.slots)}
        return arrays | {f"{KEPT}{name}": array for name, array in self._kept_of(rank, start.kept)}

    def _kept_of(self, rank: int, kept: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """What of a checkpoint's `kept` goes to `rank`."""
        for name, array in kept.items():
            kind, _, rest = name.partition("/")
            if kind == "shard":
                if self._settings.owners[int(rest.partition("/")[0])] == rank:
                    yield name, array
            elif kind == "slice":
                whole = array.shape[-1] == self._V
                yield name, array[..., self._cuts[rank] if whole else self._parts[rank]]
            else:
                yield name, array

    def joined(self, parts: Mapping[int, Message], fit: dict[str, Any]) -> Checkpoint:
        """The state of a `fit` from every rank's message."""
        first = parts[0]
        params, slots = self.vectors(parts)
        f = first.fields
        return Checkpoint(
            f["epoch"], f["step"], f["iteration"], f["learning_rate"], params, first.arrays["state"], slots,
            first.arrays["sums"], self._settings.seed, fit, untold=f["untold"], kept=_kept(parts),
        )  # fmt: skip

    def vectors(self, parts: Mapping[int, Message]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Parameters and the optimizer's slots, whole, from every rank's message."""
        names = ("params", *(f"slot/{i}" for i in range(self._slots)))
        params, *slots = (self._division.join([parts[r].arrays[name] for r in sorted(parts)]) for name in names)
        return params, tuple(slots)


def _kept(parts: Mapping[int, Message]) -> dict[str, np.ndarray]:
    """What the ranks keep besides parameters and slots, by name: slices joined in the order of ranks."""
    found: dict[str, list[np.ndarray]] = {}
    for rank in sorted(parts):
        for name, array in parts[rank].arrays.items():
            if name.startswith(KEPT):
                found.setdefault(name.removeprefix(KEPT), []).append(array)
    return {n: np.concatenate(a, axis=-1) if n.startswith("slice/") else a[0] for n, a in found.items()}
