"""Errors of the runtime.

DistributedError
├── ClusterError      the cluster cannot run this fit as asked: slots, dynamic allocation        (never retried)
├── DataChanged       rows differ from what was counted before training                          (never retried)
├── TrainingFailed    the user's own error on a worker: rank, host, step, end of its traceback   (never retried)
├── WorkerLost        a worker died, froze or lost its peers; names rank, host, pid, step, phase (retried)
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
    """A worker died, froze, or lost its peers."""


class RetriesExhausted(DistributedError):
    """Workers kept being lost."""


class CheckpointError(DistributedError):
    """A checkpoint that cannot be read or does not fit this fit."""
