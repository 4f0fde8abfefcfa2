"""Errors of the runtime.

RuntimeFailure
├── PeerFailure          a worker of the group cannot go on; has rank, host, pid, step, phase
│   ├── PeerLost         its connection closed: the process or its host died
│   ├── PeerFrozen       it made no progress within `timeout_s`           (also a TimeoutError)
│   ├── PeerAborted      it gave up by itself, for a reason of its own
│   └── WorkerError      it raised; the message ends with its traceback
├── DriverLost           the control connection to the driver closed
├── WaitTimeout          a named wait on the driver or a worker ended     (also a TimeoutError)
├── HandshakeError       the other end does not hold this fit's secret, or belongs to another generation
├── WireError            bytes that break the wire format, or ranks that do not run the same program
├── PreflightError       the cluster cannot run this fit; found before any data is touched
│   ├── SlotsError       fewer task slots than workers
│   ├── VersionsError    an executor has other versions of Python, JAX or kerasoft
│   ├── MemoryEstimateError   the fit needs more memory than an executor has
│   └── AllocationError  dynamic allocation is on, which barrier jobs refuse
├── DataChanged          rows recomputed by Spark differ from the rows first seen
└── CheckpointError      a checkpoint that is incomplete, or of another model
"""

from __future__ import annotations


class RuntimeFailure(Exception):
    """Base of all runtime errors."""


class PeerFailure(RuntimeFailure):
    """A worker of the group cannot go on.

    Args:
        message: the whole text.
        rank: the worker meant, never the one that noticed.
        host, pid: where it runs or ran.
        step: the step that the group was in, -1 before the first one.
        phase: what was being waited for, such as "reduce_scatter".
    """

    def __init__(self, message: str, *, rank: int, host: str = "?", pid: int = 0, step: int = -1, phase: str = "?"):
        super().__init__(message)
        self.rank, self.host, self.pid, self.step, self.phase = rank, host, pid, step, phase


class PeerLost(PeerFailure):
    """A worker's connection closed: its process or its host died."""


class PeerFrozen(PeerFailure, TimeoutError):
    """A worker made no progress within the stated timeout: stopped, stuck or unreachable."""


class PeerAborted(PeerFailure):
    """A worker gave up by itself."""


class WorkerError(PeerFailure):
    """A worker raised; the message ends with its traceback."""


class DriverLost(RuntimeFailure):
    """The control connection to the driver closed."""


class WaitTimeout(RuntimeFailure, TimeoutError):
    """A wait ended without the thing waited for; the message names both."""


class HandshakeError(RuntimeFailure):
    """The other end does not hold this fit's secret, or belongs to another generation."""


class WireError(RuntimeFailure):
    """Bytes that break the wire format, or ranks that do not run the same program."""


class PreflightError(RuntimeFailure):
    """The cluster cannot run this fit; found before any data is touched."""


class SlotsError(PreflightError):
    """Fewer task slots than workers."""


class VersionsError(PreflightError):
    """An executor has other versions of Python, JAX or kerasoft than the driver."""


class MemoryEstimateError(PreflightError):
    """The fit needs more memory than an executor has."""


class AllocationError(PreflightError):
    """Dynamic allocation is on, which barrier jobs refuse."""


class DataChanged(RuntimeFailure):
    """Rows that Spark recomputed differ from the rows first seen."""


class CheckpointError(RuntimeFailure):
    """A checkpoint that is incomplete, or of another model."""
