"""A worker process from start to end: connect, load, compile, join the others, train; and tell the driver if it fails."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .control_client import ControlClient
from .errors import DriverLost
from .faults import describe
from .preflight import versions
from .reports import Stopwatch
from .store import ShardStore
from .worker import Settings, Trainer, shards_of


@dataclasses.dataclass(frozen=True)
class Task:
    """One attempt at a fit: what every worker is started with.

    Attributes:
        settings: of the fit.
        address: of the driver's control server.
        secret: of the fit. generation: of the attempt.
        threads: that XLA computes with; results may depend on it to the bit. 0 leaves it as it is.
        cache: whether compiled executables are kept in a folder of the user's on each host, so that another attempt
            need not compile again.
    """

    settings: Settings
    address: tuple[str, int]
    secret: bytes
    generation: int
    threads: int = 0
    cache: bool = False


HERE = "here"
TRAINING, VALIDATION = 0, 1  # which data set a record belongs to


def run_rank(
    task: Task, rank: int, program: Callable[[], Any], records: Iterable[tuple[int, int, int, dict[str, np.ndarray]]]
) -> None:
    """A worker's whole part in one attempt at a fit.

    1. connect to the driver  2. load the rows  3. compile  4. join the other ranks  5. train  6. send the end state.

    Args:
        rank: this worker's.
        program: reads the `StepProgram`; called when threads and compile cache are set up.
        records: (data set, shard, sequence, block), this rank's.

    Raises:
        Whatever went wrong; the driver has been told by a "failed" message then.
    """
    settings, watch = task.settings, Stopwatch()
    with ControlClient(task.address, task.secret, task.generation, rank) as control:
        trainer: Trainer | None = None
        stores: tuple[ShardStore | None, ...] = ()
        try:
            control.send(HERE, {"host": socket.gethostname(), "pid": os.getpid(), "versions": versions()})
            control.at(-1, "load")
            settings.faults.at(rank, -1, -1, "load")
            stores = training, validation = _stores(settings, rank)
            _load(records, stores)
            watch.lap("ingest")
            control.at(-1, "compile")
            settings.faults.at(rank, -1, -1, "compile")
            if task.threads:
                use_threads(task.threads, settings.deterministic)
            if task.cache:
                use_cache()
            trainer = settings.method.trainer(settings, rank, program(), training, validation, watch)
            watch.lap("compile")
            control.at(-1, "join")
            with _join(task, rank, control, trainer.step.P, watch) as collective:
                control.at(-1, "start")
                trainer.run(control.receive(JOIN_TIMEOUT_S, "the driver's start"), control, collective)
        except BaseException as error:
            _tell(control, error, trainer)
            raise
        finally:
            for store in stores:
                if store is not None:
                    store.close()


def use_threads(count: int, needed: bool) -> None:
    """Lets XLA compute with `count` threads.

    Raises:
        OSError: this process has computed with another number already and it is `needed`; the process ends by this and
            the next attempt gets a fresh one.
    """
    from kerasoft.compiler.program import ProgramError, pin_threads

    try:
        pin_threads(count)
    except ProgramError as error:
        if needed:
            raise OSError(f"{error}; another process takes over") from error


def use_cache() -> None:
    """Keeps compiled executables in a folder of this user's; none if somebody else made it."""
    folder = os.path.join(tempfile.gettempdir(), f"kerasoft-compiled-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022:
        from kerasoft.compiler.program import use_compile_cache

        use_compile_cache(folder)


JOIN_TIMEOUT_S = 3600.0
"""For the slowest rank to load and compile; the driver notices dead and frozen ones long before."""


def _join(task: Task, rank: int, control: ControlClient, params: int, watch: Stopwatch) -> Any:
    settings = task.settings
    listener = settings.method.listen(control.local_address) if settings.world_size > 1 else None
    try:
        address = listener.address if listener is not None else None
        table = control.join(address, capabilities={"times": watch.take()}, timeout_s=JOIN_TIMEOUT_S)
        return settings.method.connect(settings, table, rank, task.secret, task.generation, listener, params)
    except BaseException:
        if listener is not None:
            listener.close()
        raise


def _stores(settings: Settings, rank: int) -> tuple[ShardStore, ShardStore | None]:
    tables = [(settings.table, settings.owners, "training")]
    if settings.validation is not None:
        tables.append((settings.validation, settings.validation_owners, "validation"))
    group = rank // settings.method.sharers
    owned = [(t, shards_of(owners, group), f"{name} data on rank {rank}") for t, owners, name in tables]
    sizes = [sum(t.bytes[s] for s in shards) for t, shards, _ in owned]
    cap = settings.memory_cap_bytes
    caps = [None if cap is None else cap * size // max(sum(sizes), 1) for size in sizes]
    stores = [ShardStore(t, shards, name, c) for (t, shards, name), c in zip(owned, caps, strict=True)]
    return stores[0], stores[1] if len(stores) > 1 else None


def _load(records: Iterable[tuple[int, int, int, dict[str, np.ndarray]]], stores: Sequence[ShardStore | None]) -> None:
    for which, shard, sequence, block in records:
        store = stores[which]
        assert store is not None
        store.add(shard, sequence, block)
    for store in stores:
        if store is not None:
            store.finish()


def _tell(control: ControlClient, error: BaseException, trainer: Trainer | None) -> None:
    """Tells the driver why this worker ends, so that it need not guess from Spark's error."""
    fields: dict[str, Any] = describe(error)
    if trainer is not None:
        fields |= {"epoch": trainer.epoch, "step": trainer.done}
    try:
        control.send("failed", fields)
    except DriverLost:
        pass
