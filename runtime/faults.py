"""Failures: why a worker ended, whether another attempt can help, and failures on purpose for tests."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from . import errors
from .errors import DataChanged, DistributedError, DriverLost, TrainingFailed, WaitTimeout, WireError, WorkerLost

# --- on a worker -----------------------------------------------------------------------------------------------------


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain fields: what the driver needs in order to name it and to choose between retry and end.

    ``cause`` is "peer" (somebody else's fault, `culprit` says whose), "driver" (the driver went away), "environment"
    (memory, disk, network: another attempt may help), or "own" (another attempt would end the same way).
    """
    fields: dict[str, Any] = {"type": type(error).__name__, "text": str(error), "pid": os.getpid()}
    if isinstance(error, WorkerLost):
        fields |= {"cause": "peer", "culprit": error.rank, "phase": error.phase, "at_step": error.step}
    elif isinstance(error, DriverLost):
        fields["cause"] = "driver"
    elif isinstance(error, (WaitTimeout, MemoryError, ConnectionError)):
        fields["cause"] = "environment"
    elif isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError)):
        fields["cause"] = "environment"
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        fields["cause"] = "environment"
    else:
        fields["cause"] = "own"
        fields["trace"] = "".join(traceback.format_exception(error)[-6:])[-4000:]
    return fields


# --- on the driver ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sign:
    """Something that points to a failure: kind "lost", "frozen" or "failed", the rank it came from or is about."""

    kind: str
    rank: int
    fields: Mapping[str, Any]


def verdict(
    signs: Sequence[Sign],
    table: Mapping[int, tuple[str, int]],
    job_error: tuple[str, bool] | None,
    witnesses: Sequence[Any] = (),
) -> DistributedError:
    """The one error that explains the signs, which stand in the order in which they came.

    A worker's own error beats everything, for it made the others fail. Then comes who froze, who was lost without a
    word, whom the others accuse, and whatever Spark said.

    Args:
        table: rank -> (host, pid), as far as known.
        job_error: what Spark said and whether it is the user's own error; None when the job still runs.
        witnesses: `kerasoft.runtime.rendezvous.WorkerStatus` of all workers when the first sign came.

    Returns:
        `WorkerLost` (retry), or `TrainingFailed`, `DataChanged`, `CheckpointError`, ... (do not).
    """
    failed = [sign for sign in signs if sign.kind == "failed"]
    for sign in failed:
        if sign.fields["cause"] == "own":
            return _own(sign, table)
    if not signs and job_error is not None and job_error[1]:
        return TrainingFailed(f"the Spark job of the workers failed before they started: {job_error[0]}")
    told = {sign.rank for sign in failed}
    for sign in signs:
        if sign.kind == "frozen":
            return _lost(
                sign.rank, f"gave no sign of life for {sign.fields['silent_s']:.1f} s", signs, table, witnesses
            )
    for sign in signs:
        if sign.kind == "lost" and sign.rank not in told:
            return _lost(sign.rank, f"was lost ({sign.fields['reason']})", signs, table, witnesses)
    culprits = [sign.fields["culprit"] for sign in failed if sign.fields["cause"] == "peer"]
    if culprits:
        rank = max(sorted(set(culprits)), key=culprits.count)
        texts = [sign.fields["text"] for sign in failed if sign.fields.get("culprit") == rank]
        said = min(texts, key=lambda text: ", says rank " in text)  # who saw it itself knows more
        return _lost(rank, f"is lost to the others ({said})", signs, table, witnesses)
    if failed:
        f = failed[0].fields
        return _lost(failed[0].rank, f"gave up ({f['type']}: {f['text']})", signs, table, witnesses)
    return WorkerLost(f"the Spark job of the workers ended: {job_error[0] if job_error else 'no reason given'}")


def _lost(
    rank: int,
    what: str,
    signs: Sequence[Sign],
    table: Mapping[int, tuple[str, int]],
    witnesses: Sequence[Any],
) -> WorkerLost:
    """The loss of `rank`, at the step that the best informed worker names: who waited for it, else the last heartbeat."""
    host, pid = table.get(rank, ("?", 0))
    epoch, step, phase = -1, -1, "start"
    accusers = [s for s in signs if s.kind == "failed" and s.fields.get("culprit") == rank and "step" in s.fields]
    mine = [s for s in signs if s.kind == "failed" and s.rank == rank and "step" in s.fields]
    if accusers or mine:
        f = (accusers or mine)[0].fields
        epoch, step, phase = f["epoch"], f["step"], f.get("phase", "step")
    elif witnesses:
        heard = sorted(witnesses, key=lambda w: (w.rank == rank, w.silent_s))[0]
        step, phase = heard.step, heard.phase
        if step >= 0:
            epoch, phase = unpack_phase(phase)
    where = f"in epoch {epoch + 1}, step {step + 1} ({phase})" if epoch >= 0 and step >= 0 else f"in phase {phase!r}"
    text = f"rank {rank} (host {host}, pid {pid}) {what} {where}"
    return WorkerLost(text, rank=rank, host=host, pid=pid, step=step, phase=phase)


def pack_phase(epoch: int, phase: str) -> str:
    """Epoch and phase as the one text that a heartbeat carries.

    >>> unpack_phase(pack_phase(3, "sync"))
    (3, 'sync')
    """
    return f"{phase}, epoch {epoch + 1}"


def unpack_phase(text: str) -> tuple[int, str]:
    """Epoch (-1 if there is none) and phase."""
    phase, _, epoch = text.partition(", epoch ")
    return (int(epoch) - 1 if epoch else -1), phase


def _own(sign: Sign, table: Mapping[int, tuple[str, int]]) -> DistributedError:
    f = sign.fields
    known = getattr(errors, f["type"], None)
    if f["type"] in ("DataChanged", "CheckpointError", "WireError") and known is not None:
        return known(f["text"])
    where = f" in epoch {f['epoch'] + 1}, step {f['step'] + 1}" if "step" in f else " before the first step"
    return TrainingFailed(f"{_who(sign.rank, table, f)} raised {f['type']}{where}: {f['text']}\n\n{f.get('trace', '')}")


def _who(rank: int, table: Mapping[int, tuple[str, int]], fields: Mapping[str, Any]) -> str:
    host, pid = table.get(rank, (fields.get("host", "?"), fields.get("pid", 0)))
    return f"rank {rank} (host {host}, pid {pid})"


def may_retry(error: DistributedError) -> bool:
    """Whether another attempt from the last checkpoint can help."""
    return isinstance(error, WorkerLost) and not isinstance(error, (DataChanged, TrainingFailed, WireError))


# --- on purpose ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens to one rank when it comes to a step.

    Attributes:
        rank, epoch, step: where; step -1 with epoch -1 is before the first one.
        what: "kill" (SIGKILL to the Python worker), "kill_jvm" (SIGKILL to its executor), "stop" (SIGSTOP), "raise" (an
            error of the user's), "leave" (a lost network: the connection ends), or "sleep".
        phase: "step", "validation", "load", "compile", or "serve" (a server without rows, where all workers pause).
        generation: the attempt in which it happens, None: in every one.
        seconds: of a sleep.
    """

    rank: int
    epoch: int
    step: int
    what: str
    phase: str = "step"
    generation: int | None = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Script:
    """Failures on purpose, the same table for all strategies."""

    faults: tuple[Fault, ...] = ()
    generation: int = 0

    def at(self, rank: int, epoch: int, step: int, phase: str) -> None:
        """Called by the worker loop in every step; does what the table says."""
        for fault in self.faults:
            if (fault.rank, fault.epoch, fault.step, fault.phase) == (rank, epoch, step, phase):
                if fault.generation in (None, self.generation):
                    _happen(fault)


def _happen(fault: Fault) -> None:
    if fault.what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.what == "kill_jvm":
        os.kill(_parent(_parent(os.getpid())), signal.SIGKILL)
        time.sleep(60)
    elif fault.what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.what == "raise":
        raise ValueError(f"scripted failure of rank {fault.rank} in epoch {fault.epoch}, step {fault.step}")
    elif fault.what == "leave":
        raise ConnectionError("scripted loss of the network")
    elif fault.what == "sleep":
        time.sleep(fault.seconds)
    else:
        raise ValueError(f"no such fault: {fault.what!r}")


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])
