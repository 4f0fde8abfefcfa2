"""Errors of the runtime.

DistributedError
├── ClusterError      the cluster cannot run this fit as asked: slots, dynamic allocation        (never retried)
├── DataChanged       rows differ from what was counted before training                          (never retried)
├── TrainingFailed    the user's own error on a worker: rank, host, step, end of its traceback   (never retried)
├── WorkerLost        a worker died, froze or lost its peers; has rank, host, pid, step, phase   (retried)
│   ├── PeerLost      its connection closed: the process or its host died
│   ├── PeerFrozen    it made no progress within `timeout_s`; also a TimeoutError
│   └── PeerAborted   it left the group by itself, for a reason that its own message tells
├── DriverLost        the control connection to the driver closed
├── WaitTimeout       a named wait ended without the thing waited for; also a TimeoutError
├── HandshakeError    the other end does not hold this fit's secret, or belongs to another generation
├── WireError         bytes that break the wire format, or ranks that do not run the same program
├── RetriesExhausted  workers kept being lost; holds the last loss
└── CheckpointError   a checkpoint that cannot be read or does not fit this fit                  (never retried)
"""

from __future__ import annotations


class DistributedError(Exception):
    """Base of the runtime's errors."""


class ClusterError(DistributedError):
    """The cluster cannot run this fit as asked."""


class DataChanged(DistributedError):
    """Rows differ from what was counted before training."""


class TrainingFailed(DistributedError):
    """The user's own error on a worker."""


class WorkerLost(DistributedError):
    """A worker died, froze, or lost its peers.

    Args:
        message: the whole text.
        rank: the worker meant (never the one that noticed), -1 when unknown.
        host, pid: where it runs or ran.
        step: the step that the group was in, -1 when unknown.
        phase: what was being waited for, such as "reduce_scatter".
    """

    def __init__(
        self, message: str, *, rank: int = -1, host: str = "?", pid: int = 0, step: int = -1, phase: str = "?"
    ):
        super().__init__(message)
        self.rank, self.host, self.pid, self.step, self.phase = rank, host, pid, step, phase


class PeerLost(WorkerLost):
    """A worker's connection closed: its process or its host died."""


class PeerFrozen(WorkerLost, TimeoutError):
    """A worker made no progress within the stated timeout: stopped, stuck or unreachable."""


class PeerAborted(WorkerLost):
    """A worker left the group by itself."""


class DriverLost(DistributedError):
    """The control connection to the driver closed."""


class WaitTimeout(DistributedError, TimeoutError):
    """A wait ended without the thing waited for; the message names both."""


class HandshakeError(DistributedError):
    """The other end does not hold this fit's secret, or belongs to another generation."""


class WireError(DistributedError):
    """Bytes that break the wire format, or ranks that do not run the same program."""


class RetriesExhausted(DistributedError):
    """Workers kept being lost."""


class CheckpointError(DistributedError):
    """A checkpoint that cannot be read or does not fit this fit."""
