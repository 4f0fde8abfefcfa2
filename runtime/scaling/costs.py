"""What compute, networks, stragglers and deaths cost, and who waits for whom: plain functions of seconds and bytes.

1. Compute: seconds of a gradient, for each worker and step drawn from a distribution of stragglers (seeded).
2. Exchange: bytes and rounds from the strategies' docstrings, times alpha and beta (R. Hockney's model; the tests compare
   with the schedules of `kerasoft.runtime.collectives.topology`, message by message).
3. Who waits for whom: a recursion over steps, worker by worker: barriers, clocks, rounds, pushes.
4. Deaths: the expected share of time for checkpoints, lost work and new starts (J. Daly, A higher order estimate of the
   optimum checkpoint interval for restart dumps, 2006).

What is not in it: several processes on a host's cores or link, switches that cannot carry all links at once, convergence
(a step of `LocalSGD` or `Downpour` is not worth a step of `AllReduce`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """Links between nodes, the same for all, and what a processor pays for bytes.

    Attributes:
        alpha_s: seconds of a round of messages. byte_s: of a byte on a link that sends and receives at the same time.
        message_s: of the processor for each message that a node sends in a round. add_s: of adding a byte of float32.
        incast: share by which bytes get slower for each doubling of the senders, beyond one, that send to a node at once.
    """

    alpha_s: float = 120e-6
    byte_s: float = 8.5e-10
    message_s: float = 8.5e-6
    add_s: float = 2.5e-11
    incast: float = 0.1

    @classmethod
    def ethernet(cls, gbit: float, **more: float) -> Network:
        """TCP on links of so many Gbit/s: 94 % of the wire, but no more than a thread moves (4.5e9 bytes/s each way)."""
        return cls(byte_s=max(8e-9 / gbit / 0.943, 1 / 4.5e9), **more)


@dataclasses.dataclass(frozen=True)
class Stragglers:
    """How long a gradient takes, as a factor of its mean time: log-normal with a standard deviation of `spread`, and with
    probability `chance`, by itself in each step, `factor` times as long. Seeded; the same for all strategies."""

    spread: float = 0.0
    chance: float = 0.0
    factor: float = 4.0
    seed: int = 0

    def draw(self, steps: int, nodes: int) -> np.ndarray:
        """float64[steps, nodes]"""
        rng = np.random.default_rng(self.seed)
        sigma = math.sqrt(math.log1p(self.spread**2))
        times = np.exp(rng.normal(-(sigma**2) / 2, sigma, (steps, nodes))) if sigma else np.ones((steps, nodes))
        return np.where(rng.random((steps, nodes)) < self.chance, self.factor * times, times)


@dataclasses.dataclass(frozen=True)
class Failures:
    """Deaths of nodes, each at `mtbf_s` in the mean (inf: never), by itself; exponential."""

    mtbf_s: float = math.inf
    restart_s: float = 20.0
    checkpoint_every_s: float = 30.0
    checkpoint_s: float = 0.0

    def stretch(self, nodes: int, keeps_work: bool = False) -> float:
        """Expected wall time per time of undisturbed work, at least 1.

        Args:
            keeps_work: a death costs `restart_s`, but no step is made again.
        """
        every, rate = self.checkpoint_every_s, 0.0 if math.isinf(self.mtbf_s) else nodes / self.mtbf_s
        saved = 1 + self.checkpoint_s / every
        if keeps_work:
            return saved * (1 + rate * self.restart_s)
        if rate * (every + self.checkpoint_s + self.restart_s) > 700:
            return math.inf
        if rate == 0:
            return saved
        return math.exp(rate * self.restart_s) * math.expm1(rate * (every + self.checkpoint_s)) / (rate * every)


@dataclasses.dataclass(frozen=True)
class Spark:
    """What a Spark job in each step costs: only `DriverReduce` and `ShuffleAllReduce` have one.

    Attributes:
        job_s: of a job of few tasks. task_s: of the driver for each task. block_s: of the driver for each shuffle block.
        byte_s: of a byte through pickle and the JVM.
    """

    job_s: float = 0.126
    task_s: float = 1e-3
    block_s: float = 12e-6
    byte_s: float = 8e-9


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, and where.

    Attributes:
        parameters: P. compute_s: seconds of a gradient of a worker's part of the batch (weak scaling: the same for any number
            of nodes). update_s: seconds of the optimiser for each parameter. other_s: of a step's bookkeeping (measured).
        buckets: shares of the parameters in the buckets of the gradient, the last layers' first; () = alike. forward: share
            of the gradient's time before the first bucket's part of the backward pass begins, which goes by parameters.
        nodes: N, one worker each. steps: that are drawn.
    """

    parameters: float
    compute_s: float
    nodes: int
    network: Network = Network()
    stragglers: Stragglers = Stragglers()
    failures: Failures = Failures()
    spark: Spark = Spark()
    update_s: float = 3e-9
    other_s: float = 0.0
    slots: int = 2
    table: float = 0.0
    touched: float = 0.0
    steps: int = 240
    buckets: tuple[float, ...] = ()
    forward: float = 1 / 3

    def __post_init__(self) -> None:
        for name in ("parameters", "compute_s", "nodes", "steps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Job: {name} needs a number above 0, got {getattr(self, name)!r}")
        if self.buckets and not (min(self.buckets) > 0 and math.isclose(sum(self.buckets), 1)):
            raise ValueError(f"Job: buckets needs shares above 0 that add up to 1, got {self.buckets!r}")

    @property
    def vector_bytes(self) -> float:
        return 4 * self.parameters

    @property
    def travelling(self) -> float:
        """Parameters that `AllReduce` exchanges in a step: at most, as workers may touch the same rows."""
        return self.dense + self.rows

    @property
    def dense(self) -> float:
        return self.parameters - self.table

    @property
    def rows(self) -> float:
        return min(self.table, self.nodes * self.touched)

    def times(self) -> np.ndarray:
        """Seconds of each gradient, float64[steps, nodes]."""
        return self.compute_s * self.stragglers.draw(self.steps, self.nodes)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of a mean step, and of what; `compute_s` is a worker's mean gradient, `wait_s` waiting for others, `faults_s`
    checkpoints and deaths. `alone_s`: a step of one worker by itself. `sent_bytes`: of a worker in a step.

    With exchange hidden behind compute, `sync_s` is what is left of it.
    """

    step_s: float
    compute_s: float
    wait_s: float
    sync_s: float
    update_s: float
    scheduling_s: float
    faults_s: float
    alone_s: float
    sent_bytes: float

    @property
    def efficiency(self) -> float:
        """Of N workers' rows a second, the share of N times one worker's."""
        return self.alone_s / self.step_s

    @property
    def sync_share(self) -> float:
        """Exchange to compute: the share that BigDL published."""
        return self.sync_s / self.compute_s


def all_reduce_s(network: Network, nodes: int, size: float, topology: str = "direct", wire: float = 1.0) -> float:
    """Seconds of a reduce-scatter and an all-gather of `size` bytes of float32, of which `wire` go on the network.

    Of "two_level" every host has one rank here, so it is a ring.
    """
    if nodes == 1:
        return 0.0
    slice_, beta, add = size / nodes, wire * network.byte_s, network.add_s
    if topology == "direct":
        each = (nodes - 1) * (network.message_s + slice_ * beta * (1 + network.incast * math.log2(nodes - 1)))
        return 2 * (network.alpha_s + each) + (nodes - 1) * slice_ * add
    each_round = network.alpha_s + network.message_s
    if topology in ("ring", "two_level"):
        return 2 * (nodes - 1) * (each_round + slice_ * (beta + add))
    if topology == "tree":
        levels = math.ceil(math.log2(nodes))
        owners = 2 * (network.alpha_s + (nodes - 1) * network.message_s) + (nodes - 1) * slice_ * (2 * beta + add)
        return 2 * levels * (each_round + size * (beta + add)) + owners
    raise ValueError(f"topology needs 'direct', 'ring', 'tree' or 'two_level', got {topology!r}")


def barrier_steps(times: np.ndarray, each_s: float) -> float:
    """Seconds of all steps when everybody waits for everybody, then `each_s` passes."""
    return float(times.max(axis=1).sum() + len(times) * each_s)


def overlapped_steps(times: np.ndarray, exchange_s: float) -> float:
    """Double buffering: step t - 1's exchange begins when all have its gradient, and runs beside step t's gradient."""
    begin, exchanged = np.zeros(times.shape[1]), 0.0
    for t, row in enumerate(times):
        finish = begin + row
        if t:
            exchanged = begin.max() + exchange_s  # of step t - 1
        begin = np.maximum(finish, exchanged)
    return float(begin.max() + exchange_s)


def bucketed_steps(
    times: np.ndarray, ready: Sequence[float], exchanges_s: Sequence[float], updates_s: Sequence[float]
) -> float:
    """Buckets: the k-th one travels when all have it, after `ready[k]` of a gradient, and the one before has travelled.

    A worker updates its slice of a bucket between the bucket's two halves, which keeps the processor from what is left of
    the gradient.
    """
    total = 0.0
    for slowest in times.max(axis=1):
        free = held_up = 0.0
        for share, exchange, update in zip(ready, exchanges_s, updates_s, strict=True):
            free = max(free, share * slowest + held_up) + exchange + update
            held_up += update
        total += free
    return float(total)


def clock_steps(times: np.ndarray, staleness: int, push_s: float, fetch_s: float, update_s: float = 0.0) -> float:
    """Bounded staleness: clock c's parameters are there when all have pushed it; step t needs those of t - 1 - staleness.

    A worker's push and its next fetch share its link (which serves others meanwhile): they do not overlap.
    """
    free = np.zeros(times.shape[1])
    there: list[float] = []
    for t, row in enumerate(times):
        needed = there[t - 1 - staleness] if t > staleness else 0.0
        free = np.maximum(free, needed) + fetch_s + row + push_s
        there.append(float(free.max()) + update_s)
    return there[-1]


def round_steps(times: np.ndarray, every: int, local_s: float, exchange_s: float) -> float:
    """Local steps, and an exchange after every so many of them (and at the end)."""
    starts = range(0, len(times), every)
    return float(sum(times[i : i + every].sum(axis=0).max() + exchange_s for i in starts) + len(times) * local_s)
