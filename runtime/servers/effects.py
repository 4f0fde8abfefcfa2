"""What a worker's program asks for and what servers answer: plain values, the same in a simulation and on sockets.

A worker's program (`clients.py`) is a generator that yields effects and is sent their results:

| effect | result |
|---|---|
| `Fetch` | `Fetched`: whole parameters, as fresh as asked for |
| `Compute` | the gradient of one step's rows at these parameters |
| `Push` | None: gradients are on their way, nothing is waited for |
| `Pause` | `Go`, once every worker has paused |

Towards the servers they become `Push`, `Ask` and `Pause` of one slice, and come back as `Reply` and `Go`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Node = tuple[int, int]
"""Which part of a sum over shards a vector is: a node of `kerasoft.runtime.collectives.tree`, or `WHOLE`."""

WHOLE: Node = (-1, 0)


# --- what a worker's program yields ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Give me the parameters, with the updates of at least the clocks before `at_least`."""

    at_least: int = 0


@dataclasses.dataclass
class Fetched:
    """`mark` goes back with the gradients computed at these `parameters`; `stop`: the epoch ends here.

    `version`: of the coordinator's slice, see `SliceServer`.
    """

    parameters: Any
    mark: int = 0
    rate: float = 0.0
    stop: bool = False
    version: int = 0


@dataclasses.dataclass
class Compute:
    """Compute the gradient of this worker's rows of the epoch's step `step`."""

    step: int
    parameters: Any


@dataclasses.dataclass
class Send:
    """Push a gradient, the sum over `accrued` steps up to `step`; `mark` is that of the oldest parameters it used."""

    step: int
    gradient: Any
    accrued: int = 1
    mark: int = 0


@dataclasses.dataclass(frozen=True)
class Pause:
    """Everything before `step` is pushed; wait until all workers have come so far. `end`: of the epoch."""

    step: int
    end: bool = False


# --- what goes to a server -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Push:
    """Gradients for one server's slice.

    Attributes:
        worker, epoch, clock: who, and up to which step of the epoch.
        parts: float32[n] by node; {} if this message has none.
        tail: float32[S + M] by node: states times share, then the step's sums; for the coordinator only.
        mark: as in `Fetched`, of the oldest gradient. accrued: gradients in it.
        rate: learning rate that the worker knows.
    """

    worker: int
    epoch: int
    clock: int
    parts: dict[Node, np.ndarray] = dataclasses.field(default_factory=dict)
    tail: dict[Node, np.ndarray] = dataclasses.field(default_factory=dict)
    mark: int = 0
    accrued: int = 1
    rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class Ask:
    """A fetch of one server's slice; `request` numbers it."""

    worker: int
    epoch: int
    at_least: int
    request: int = 0


@dataclasses.dataclass(frozen=True)
class Stand:
    """A pause, as one server hears of it."""

    worker: int
    epoch: int
    clock: int
    end: bool = False


# --- what comes back -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Reply:
    """A server's slice of the parameters, with `state` from the coordinator only."""

    request: int
    params: np.ndarray
    state: np.ndarray | None
    version: int
    mark: int
    rate: float
    stop: bool


@dataclasses.dataclass(frozen=True)
class Go:
    """All have paused at `clock`; the next pause is at `next_stop`."""

    epoch: int
    clock: int
    end: bool
    next_stop: int
    rate: float
    stop: bool
