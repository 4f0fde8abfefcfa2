"""The table: which fault, when, on which strategy, and what must come of it. Add a strategy by a `Way`, a fault by a `Case`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from kerasoft.runtime import (
    LBFGS,
    AllReduce,
    Downpour,
    DriverReduce,
    LocalSGD,
    Parallel,
    ParameterAveraging,
    ParameterServer,
    ShuffleAllReduce,
    StaleSynchronous,
)

TIMEOUT_S = 5.0

BITS, NUMBERS, CONVERGES = "the same bits", "the same numbers to 1e-5", "converges"


@dataclasses.dataclass(frozen=True)
class Way:
    """A strategy with its options.

    Attributes:
        make: the strategy; it is given `workers`, `timeout_s`, `checkpoint_every_s` where it knows them, and what a case says.
        result: what an undisturbed run and a disturbed one have in common.
        model: "mlp" or "tables".
        alone: what one process without Spark is asked to do for the same result; None: the undisturbed run on the cluster.
        workers: ranks that a case begins with.
        stateless: Spark tasks without ranks; faults strike them from outside.
    """

    make: Callable[..., Any]
    result: str = BITS
    model: str = "mlp"
    alone: Any = None
    workers: int = 3
    stateless: bool = False


EXACT = AllReduce(deterministic=True, timeout_s=60)


def _exact(workers: int = 3, **options: Any) -> Way:
    alone = {k: v for k, v in options.items() if k != "topology"}
    make = lambda **m: AllReduce(deterministic=True, **options, **m)
    return Way(make, alone=AllReduce(deterministic=True, **alone), workers=workers)


def _by_kind(kind: Any, *given: Any, **options: Any) -> Way:
    return Way(
        lambda **m: kind(*given, deterministic=True, **options, **m), alone=kind(*given, deterministic=True, **options)
    )


def _cut(workers: int, **options: Any) -> Way:
    return Way(lambda workers=None, **m: Parallel(**options, **m), workers=workers)


def _server(store: str, **more: Any) -> Way:
    make = lambda folder=None, **m: ParameterServer(
        2, store=store, deterministic=True, folder=folder if store == "file" else None, **{**m, "workers": 2}
    )
    return Way(make, alone=EXACT, **more)


WAYS: dict[str, Way] = {
    "AllReduce": _exact(),
    "AllReduce ring": _exact(topology="ring"),
    "AllReduce tree": _exact(topology="tree"),
    "AllReduce two-level": _exact(4, topology="two_level"),
    "AllReduce bfloat16": Way(lambda **m: AllReduce(wire_dtype="bfloat16", **m)),
    "AllReduce compressed": _exact(compression="top_k"),
    "AllReduce double buffering": _exact(double_buffering=True),
    "AllReduce tables by rows": Way(lambda **m: AllReduce(deterministic=True, **m), model="tables"),
    "LocalSGD": _by_kind(LocalSGD, 2),
    "ParameterAveraging": _by_kind(ParameterAveraging, 2),
    "ParameterAveraging best": _by_kind(ParameterAveraging, 2, combine="best"),
    "LBFGS": _by_kind(LBFGS),
    "Parallel pipeline": _cut(2, pipeline=2),
    "Parallel model": _cut(4, model=2, data=2),
    "Parallel zero": _cut(2, zero=3, data=2),
    "StaleSynchronous 0": Way(lambda **m: StaleSynchronous(0, deterministic=True, **m), alone=EXACT),
    "StaleSynchronous 2": Way(lambda **m: StaleSynchronous(2, **m), CONVERGES),
    "Downpour": Way(lambda **m: Downpour(2, 2, **m), CONVERGES),
    "ParameterServer": _server("coprocessor"),
    "ParameterServer http": _server("http"),
    "ParameterServer file": _server("file"),
    "ParameterServer broadcast": Way(
        lambda **m: ParameterServer(store="broadcast", **m), NUMBERS, alone=EXACT, stateless=True
    ),
    "DriverReduce": Way(lambda **m: DriverReduce(**m), NUMBERS, alone=EXACT, stateless=True),
    "ShuffleAllReduce": Way(lambda **m: ShuffleAllReduce(**m), alone=EXACT, stateless=True),
    "ParameterContext": Way(lambda **m: None, CONVERGES, stateless=True),
}


SAME = "same"  # the undisturbed run's result, as the `Way` says


@dataclasses.dataclass(frozen=True)
class Case:
    """One fault and what must come of it.

    Attributes:
        who: "worker", "server", "executor", "driver" or "link". when, how: see `tests.faults.strikes`.
        way: a key of `WAYS`.
        expected: `SAME`, or the name of the error that ends the fit.
        says: a pattern in the text of that error, or of an event of the run.
        rank: of the process that is struck. seconds: see `Strike`. again: it strikes in every attempt.
        options: of the strategy.
        hosts: only where hosts are network namespaces (or where sockets are wanted: ranks of one host share memory).
        epoch, step: not before them.
    """

    who: str
    when: str
    how: str
    way: str = "AllReduce"
    expected: str = SAME
    says: str = ""
    rank: int = 1
    seconds: float = 0.0
    again: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    hosts: bool = False
    epoch: int = 1
    step: int = 2

    def __str__(self) -> str:
        more = ", every attempt" if self.again else ""
        more += "".join(f", {k}={v}" for k, v in self.options if k in ("workers", "retries", "memory_cap_bytes"))
        more += "" if self.rank == 1 else f", rank {self.rank}"
        more += "" if (self.epoch, self.step) == (1, 2) else f", epoch {self.epoch} step {self.step}"
        return f"{self.way}: {self.who}, {self.when}, {self.how}{more}"


def _of(way: str, *faults: tuple[str, str, str], **more: Any) -> list[Case]:
    return [Case(*fault, way, **more) for fault in faults]


LOST = "rank 1 .*(was lost|is lost|closed its connection|made no progress|gave no sign of life|does not answer|makes no step)"
_MOMENTS = ("rendezvous", "compile", "compute", "reduce-scatter", "all-gather", "checkpoint", "validation")

CASES: list[Case] = [
    # every moment of a synchronous fit
    *[Case("worker", when, "kill", says=LOST) for when in _MOMENTS],
    *[Case("worker", when, "freeze", says=LOST) for when in _MOMENTS if when != "compile"],
    *[Case("worker", when, "slow", seconds=0.3) for when in ("rendezvous", "compute", "all-gather")],
    Case("worker", "load", "kill", says=LOST),
    Case("worker", "reduce-scatter", "kill", rank=0, says="rank 0 .*(was|is) lost"),
    Case("worker", "compute", "kill", again=True, expected="RetriesExhausted", says=r"3 attempts in a row .* rank 1"),
    *[Case("executor", when, "kill executor", says=LOST) for when in ("compile", "compute", "all-gather", "validation")],
    Case("executor", "compute", "freeze executor", seconds=8),
    *[Case("link", when, "half-open", hosts=True, says=" made no progress") for when in ("compute", "reduce-scatter", "all-gather")],
    *[Case("link", when, "half-open to driver", says="rank 1 .*gave no sign of life") for when in ("compute", "checkpoint")],
    *[Case("link", when, "corrupt", hosts=True, says="rank 1 .*(is not understood by|no message)") for when in ("reduce-scatter", "all-gather")],
    *[Case("link", when, "corrupt to driver", says="rank 1 .* no message") for when in ("compute", "checkpoint")],
    Case("link", "compute", "cut off", seconds=8, hosts=True, says="(gave no sign of life|made no progress)"),
    Case("link", "rendezvous", "cut off", seconds=8, hosts=True, says="(gave no sign of life|did not answer|did not connect)"),
    Case("link", "whole fit", "slow link", hosts=True),
    Case("worker", "load", "full disk", hosts=True, options=(("memory_cap_bytes", 300),), says="No space left on device"),
    Case(
        "worker", "load", "full disk", hosts=True, again=True, options=(("memory_cap_bytes", 300),),
        expected="RetriesExhausted", says="No space left on device",
    ),
    Case("worker", "compile", "full memory", hosts=True),
    Case("driver", "checkpoint", "full disk", expected="CheckpointError", says="No space left on device"),
    Case("driver", "temporary checkpoint", "full disk", expected="CheckpointError", says="No space left on device"),
    *[
        Case("driver", when, "kill", says="resuming from")
        for when in ("compute", "commit", "validation")
    ],
    Case("driver", "rendezvous", "kill"),
    Case("driver", "compute", "freeze", seconds=8),
    # other ways to sum
    *_of("AllReduce ring", ("worker", "reduce-scatter", "kill"), ("worker", "all-gather", "kill"), ("worker", "compute", "freeze"),
         ("link", "reduce-scatter", "half-open"), ("link", "all-gather", "corrupt"), says="rank"),
    *_of("AllReduce tree", ("worker", "reduce-scatter", "kill"), ("worker", "all-gather", "freeze"),
         ("link", "all-gather", "half-open"), says="rank"),
    *_of("AllReduce two-level", ("worker", "reduce-scatter", "kill"), ("worker", "all-gather", "kill"),
         ("worker", "reduce-scatter", "freeze"), ("executor", "compute", "kill executor"), says="rank"),
    *_of("AllReduce bfloat16", ("worker", "reduce-scatter", "kill"), ("worker", "all-gather", "freeze"), says=LOST),
    *_of("AllReduce compressed", ("worker", "all-gather", "kill"), ("worker", "checkpoint", "kill"),
         ("worker", "compute", "freeze"), ("link", "all-gather", "half-open"), says="rank"),
    *_of("AllReduce double buffering", ("worker", "reduce-scatter", "kill"), ("worker", "all-gather", "freeze"),
         ("worker", "checkpoint", "kill"), says=LOST),
    *_of("AllReduce tables by rows", ("worker", "all-gather", "kill"), ("worker", "reduce-scatter", "freeze"),
         ("executor", "compute", "kill executor"), says="rank 1"),
    # local steps, full batch
    *_of("LocalSGD", ("worker", "compute", "kill"), ("worker", "reduce-scatter", "kill"), ("worker", "all-gather", "freeze"),
         ("link", "all-gather", "half-open"), says="rank"),
    *_of("ParameterAveraging", ("worker", "reduce-scatter", "kill"), ("worker", "checkpoint", "kill"),
         ("worker", "compute", "freeze"), says=LOST),
    *_of("ParameterAveraging best", ("worker", "validation", "kill"), ("worker", "all-gather", "freeze"), says="rank"),
    *_of("LBFGS", ("worker", "compute", "kill"), ("worker", "all-gather", "freeze"), ("executor", "validation", "kill executor"),
         says="rank"),
    # cut models
    *_of("Parallel pipeline", ("worker", "compute", "kill"), ("worker", "checkpoint", "kill"), ("worker", "validation", "kill"),
         ("worker", "compute", "freeze"), ("executor", "compute", "kill executor"), says="rank 1"),
    *_of("Parallel model", ("worker", "compute", "kill"), ("worker", "reduce-scatter", "kill"), ("worker", "compute", "freeze"),
         says="rank 1"),
    *_of("Parallel zero", ("worker", "compute", "kill"), ("worker", "checkpoint", "kill"), says="rank 1"),
    # servers
    *_of("StaleSynchronous 0", ("worker", "compute", "kill"), ("worker", "reduce-scatter", "kill"), ("server", "serve", "freeze"),
         ("link", "reduce-scatter", "half-open"), ("worker", "validation", "kill"), says="rank 1"),
    *_of("StaleSynchronous 2", ("worker", "compute", "kill"), ("worker", "reduce-scatter", "freeze"),
         ("executor", "all-gather", "kill executor"), says="rank 1"),
    *_of("Downpour", ("worker", "compute", "kill"), ("server", "serve", "kill"), ("worker", "reduce-scatter", "freeze"),
         ("link", "all-gather", "half-open"), says="rank 1"),
    *_of("Downpour", ("worker", "checkpoint", "kill"), says="rank 1", epoch=0, step=0),  # at the first epoch's end
    *[
        Case("server", when, how, "ParameterServer", rank=0, says="rank 0 ")
        for when, how in (("serve", "kill"), ("serve", "freeze"))
    ],
    *_of("ParameterServer", ("server", "serve", "kill"), ("server", "serve", "slow"), says="", rank=1, seconds=0.1),
    *_of("ParameterServer", ("worker", "compute", "kill"), ("worker", "reduce-scatter", "kill"), ("worker", "all-gather", "kill"),
         ("worker", "validation", "kill"), rank=2, says="goes on where rank 2 was lost|going on from"),
    *_of("ParameterServer", ("worker", "compute", "freeze"), ("link", "reduce-scatter", "half-open"),
         ("executor", "compute", "kill executor"), rank=2, says="rank 2"),
    Case("link", "compute", "corrupt", "ParameterServer", rank=2, says="rank [02] .*(lost|no message)"),  # either end
    Case("link", "compute", "cut off", "ParameterServer", rank=2, seconds=8, hosts=True, says="rank"),
    *_of("ParameterServer http", ("worker", "compute", "kill"), ("worker", "reduce-scatter", "freeze"), rank=2, says="rank 2"),
    *_of("ParameterServer http", ("server", "serve", "kill"), ("server", "serve", "freeze"), rank=1, says="rank 1"),
    *_of("ParameterServer file", ("worker", "reduce-scatter", "kill"), ("worker", "compute", "freeze"), rank=2, says="rank 2"),
    *_of("ParameterServer file", ("server", "serve", "kill"), ("server", "serve", "freeze"), rank=1, says="rank 1"),
    # Spark jobs a step: tasks are struck from outside
    *_of("ShuffleAllReduce", ("worker", "compute", "kill"), ("executor", "compute", "kill executor"), ("worker", "compute", "freeze")),
    *_of("DriverReduce", ("worker", "compute", "kill"), ("executor", "compute", "kill executor"), ("worker", "compute", "freeze")),
    *_of("ParameterServer broadcast", ("worker", "compute", "kill"), ("executor", "compute", "kill executor")),
    *_of("ParameterContext", ("worker", "compute", "kill"), ("executor", "compute", "kill executor"), ("worker", "compute", "freeze")),
    # drivers that die, of other strategies
    *[
        Case("driver", "compute", "kill", way, says="resuming from")
        for way in ("LocalSGD", "StaleSynchronous 0", "Downpour", "ShuffleAllReduce")
    ],
]  # fmt: skip

SAMPLE = [
    "AllReduce: worker, reduce-scatter, kill",
    "AllReduce ring: link, reduce-scatter, half-open",
    "AllReduce ring: link, all-gather, corrupt",
    "AllReduce double buffering: worker, checkpoint, kill",
    "Downpour: server, serve, kill",
    "ParameterServer: worker, reduce-scatter, kill, rank 2",
]
