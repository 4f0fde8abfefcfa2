"""The training loop's seam: what goes in, who is told what, and what comes back, for one process or many."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

PHASES = ("input", "compile", "compute", "sync", "update", "wait", "scheduling", "validation", "callbacks", "other")


@dataclasses.dataclass
class TrainJob:
    """One fit, without its data.

    Attributes:
        source: a `kerasoft.compiler.program.StepSource`.
        params: float32[P], in the order of `source.layout`.
        state: float32[S].
        slots: one float32[P] for each of `source.slots`; empty means "start with each slot's fill".
        iteration: optimiser steps made before this fit.
        batch_size: rows of the global batch.
        epochs: final epoch (exclusive), as in Keras: epochs `initial_epoch .. epochs - 1` are run.
        initial_epoch: first epoch.
        seed: 0 .. 2**63 - 1; row order and every random mask depend on it.
        shuffle: a new row order every epoch.
        learning_rate: used until a hook says otherwise (a schedule is part of the update graph and ignores it).
        validation_freq: validate after every so many epochs, or after the 1-based epochs listed.
        steps_per_epoch: steps after which an epoch ends even if rows are left; None = all rows.
        initial_step: steps of the first epoch that are already done (a restored backup).
        placement: where the user wants layers of a model that is cut, by their names.
    """

    source: Any
    params: np.ndarray
    state: np.ndarray
    slots: tuple[np.ndarray, ...] = ()
    iteration: int = 0
    batch_size: int = 32
    epochs: int = 1
    initial_epoch: int = 0
    seed: int = 0
    shuffle: bool = True
    learning_rate: float = 0.001
    validation_freq: int | Sequence[int] = 1
    steps_per_epoch: int | None = None
    initial_step: int = 0
    placement: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def validates_after(self, epoch: int) -> bool:
        """Whether the 0-based `epoch` is followed by a validation."""
        if isinstance(self.validation_freq, int):
            return (epoch + 1) % self.validation_freq == 0
        return (epoch + 1) in self.validation_freq


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one step gave.

    Attributes:
        epoch, step: 0-based; `step` counts within the epoch.
        rows: real rows of the step, over all workers.
        sums: float32[M], the step's sums in the order of the layout (over all workers).
        times: seconds by phase (names from `PHASES`), the mean over workers.
        iteration: optimiser steps made after this one.
    """

    epoch: int
    step: int
    rows: int
    sums: np.ndarray
    times: Mapping[str, float] = dataclasses.field(default_factory=dict)
    iteration: int = 0


@dataclasses.dataclass(frozen=True)
class EpochEnd:
    """What one epoch gave.

    Attributes:
        epoch: 0-based.
        steps, rows: made in this epoch.
        sums: float64[M], the sums of all steps of the epoch in the order of the layout.
        validation_sums: the same over the validation data, None when it was not this epoch's turn.
        times: seconds by phase, the mean over workers; they add up to `wall_s`.
        wall_s: seconds from the epoch's first step to the end of its validation.
        iteration: optimiser steps made so far, those before this fit included.
        learning_rate: used in the last step, as far as the loop knows it.
        weights: pulls (params float32[P], state float32[S]) as they are now.
        slots: pulls the optimiser's slots, a tuple of float32[P]. Both are None once a fit in one process has ended.
        validation_rows: rows validated.
        counts: what else a strategy counts in an epoch, by name; goes into the logs.
    """

    epoch: int
    steps: int
    rows: int
    sums: np.ndarray
    validation_sums: np.ndarray | None
    times: Mapping[str, float]
    wall_s: float
    iteration: int
    learning_rate: float
    weights: Callable[[], tuple[np.ndarray, np.ndarray]]
    slots: Callable[[], tuple[np.ndarray, ...]]
    validation_rows: int = 0
    counts: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the hooks want after some steps or an epoch.

    Attributes:
        stop: end the training; asked for within an epoch, its remaining steps are left out and its end is reported.
        learning_rate: to go on with; None = keep.
        weights: (params, state) to go on with (a callback set them); None = keep. Several processes honour this only
            at an epoch's end.
    """

    stop: bool = False
    learning_rate: float | None = None
    weights: tuple[np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Event:
    """Something the user should hear of: "worker_lost", "retrying", "checkpoint", "rebalanced", "warning", ...

    Attributes:
        kind: one of a few words, for programs.
        text: one sentence for people.
        details: what the sentence was made of (rank, host, pid, step, phase, ...).
    """

    kind: str
    text: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    at_s: float = dataclasses.field(default_factory=time.time)


def rate_to_begin_with(wanted: float | Decision | None, rate: float) -> float:
    """The learning rate of an epoch among several processes, from what `Hooks.on_epoch_begin` returned.

    Raises:
        TypeError: a `Decision`, which only one process can follow before a step.
    """
    if isinstance(wanted, Decision):
        raise TypeError("several processes take a learning rate or None at the beginning of an epoch, got a Decision")
    return rate if wanted is None else wanted


class Hooks(Protocol):
    """Whom a loop tells; all calls come from one thread of the driver, in the order of training."""

    def on_epoch_begin(self, epoch: int) -> float | Decision | None:
        """Before the epoch's first step. Returns the learning rate to use, None = keep; in one process a `Decision`."""

    def on_steps(self, reports: list[StepReport]) -> Decision | None:
        """After one or more steps; None = go on as before. Several processes follow it as soon as they can."""

    def on_epoch_end(self, end: EpochEnd) -> Decision:
        """After the epoch's validation."""

    def on_event(self, event: Event) -> None:
        """A worker was lost, a checkpoint committed, ..."""

    def save_state(self) -> dict[str, Any]:
        """History and callbacks as they are now: any JSON object. Kept in every checkpoint of a distributed fit."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `save_state` gave in a driver that died; called once, before the first `on_epoch_begin`.

        The epoch that was under way is begun again with `on_epoch_begin`; steps before the checkpoint are not reported
        a second time, and `EpochEnd.sums` hold them.
        """


@dataclasses.dataclass
class Profile:
    """Where the wall time of a fit went.

    Attributes:
        wall_s: seconds of the whole fit.
        seconds: by phase; they add up to `wall_s`.
        steps, rows: trained.
        workers: processes that computed.
        by_worker: the same seconds for each rank, where known.
    """

    wall_s: float
    seconds: dict[str, float]
    steps: int = 0
    rows: int = 0
    workers: int = 1
    by_worker: tuple[Mapping[str, float], ...] = ()

    @classmethod
    def of(cls, wall_s: float, seconds: Mapping[str, float], **counts: Any) -> Profile:
        """A profile whose phase "other" is what the given phases leave of `wall_s`."""
        known = {phase: s for phase, s in seconds.items() if phase != "other"}
        return cls(wall_s, {**known, "other": max(wall_s - sum(known.values()), 0.0)}, **counts)

    def __str__(self) -> str:
        who = "1 process" if self.workers == 1 else f"{self.workers} workers"
        lines = [f"{self.wall_s:.3f} s wall, {self.steps} steps, {self.rows} rows, {who}"]
        lines.append(f"{'phase':<12}{'seconds':>10}{'share':>8}{'ms/step':>10}")
        order = [p for p in PHASES if p in self.seconds] + [p for p in self.seconds if p not in PHASES]
        for phase in order:
            s = self.seconds[phase]
            lines.append(
                f"{phase:<12}{s:>10.3f}{s / max(self.wall_s, 1e-12):>8.1%}{1e3 * s / max(self.steps, 1):>10.3f}"
            )
        return "\n".join(lines)


@dataclasses.dataclass
class TrainResult:
    """The end of a fit: what to write back into the model, and where the time went."""

    params: np.ndarray
    state: np.ndarray
    slots: tuple[np.ndarray, ...]
    iteration: int
    profile: Profile


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def step_keys(seed: int, first: int, count: int) -> np.ndarray:
    """uint32[count, 2]: the random keys of iterations `first .. first + count - 1`.

    The same as ``jax.random.fold_in(jax.random.PRNGKey(seed), iteration)``, without starting JAX.

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011), Threefry-2x32 with 20 rounds.

    >>> step_keys(0, 0, 1).tolist()
    [[1797259609, 2579123966]]
    """
    keys = np.array([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF, 0], np.uint32)
    keys[2] = keys[0] ^ keys[1] ^ np.uint32(0x1BD11BDA)
    x0 = np.full(count, keys[0], np.uint32)
    x1 = np.arange(first, first + count, dtype=np.uint64).astype(np.uint32) + keys[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))
            x1 = x0 ^ x1
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + np.array(block + 1, np.uint32)
    return np.stack([x0, x1], axis=1)
