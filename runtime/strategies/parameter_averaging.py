"""DL4J's training master: models, gradients or the best model combined every so many batches."""

from __future__ import annotations

import dataclasses

from ..averaging import AVERAGE, BEST, GRADIENTS, PARAMETERS, RESET, Averaging
from ..loop import TrainJob
from ..shards import ShardTable
from .long_lived import LongLived

_COMBINE = (PARAMETERS, GRADIENTS, BEST)


@dataclasses.dataclass
class ParameterAveraging(LongLived):
    """Every `frequency` batches the models that the shards have trained become one.

    1. Every shard's replica begins as the common model, with the common optimizer state (or a fresh one).
    2. `frequency` steps: each replica takes its shard's rows of the global batch and makes one optimizer step. With
       ``combine="gradients"`` it only adds up gradients.
    3. The common model becomes
       - "parameters": the mean of the replicas, weighted by the rows that each has seen; so does the optimizer state;
       - "gradients": the old one, moved by one optimizer step with the mean gradient of the round's rows;
       - "best": the replica (and its optimizer state) with the lowest loss on the validation data.

    With ``frequency=1`` and plain SGD, averaging parameters is averaging gradients, and both are synchronous SGD. Results
    depend on the shards, not on the workers. Moving statistics of batch normalisation follow the model.

    Each worker sends ``2 (N - 1) / N * 4 P (1 + K) / frequency`` bytes a step (P parameters, K vectors of optimizer state
    if they are averaged, else 0; N workers). "best" in addition sends each replica to all, ``2 (N - 1) / N * 4 P S`` bytes
    a round, and computes the validation loss S times (S shards).

    A worker that dies ends the attempt; the next one goes on from the last checkpoint, made between rounds, and gives the
    same weights, to the bit if `deterministic`.

    Args:
        frequency: batches between two averages, at least 1.
        average_optimizer_state: go on with the mean of the replicas' optimizer states. False: each round begins with a
            fresh one. Of no account with "gradients", where there is one state.
        combine: "parameters", "gradients" or "best". "best" needs validation data.
        workers, shards, deterministic, checkpoint, wire_dtype, timeout_s, checkpoint_every_s, retries, memory_cap_bytes:
            as in `LongLived`.

    Source: DL4J's ParameterAveragingTrainingMaster (averagingFrequency, saveUpdater); the three rules of combining are
    from the appendix of a talk on Adatao's distributed deep learning on Spark (2015).
    """

    shard_by_shard = True
    frequency: int = 5
    average_optimizer_state: bool = True
    combine: str = PARAMETERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.frequency, int) or self.frequency < 1:
            raise ValueError(
                f"ParameterAveraging: frequency needs a whole number of at least 1 batch, got {self.frequency!r}"
            )
        if self.combine not in _COMBINE:
            raise ValueError(f"ParameterAveraging: combine needs one of {_COMBINE}, got {self.combine!r}")

    def method(self, job: TrainJob, table: ShardTable, validation: ShardTable | None) -> Averaging:
        if self.combine == BEST and (validation is None or not validation.total):
            raise ValueError(
                "ParameterAveraging(combine='best') compares validation losses: give fit(..., validation_data=...) with "
                "at least one row, or combine 'parameters'."
            )
        return Averaging(self.frequency, AVERAGE if self.average_optimizer_state else RESET, self.combine)

    def more_vectors(self, slots: int, workers: int) -> int:
        """The common slots and a replica, with its own, for each shard."""
        return slots + (1 + slots) * -(-(self.shards or workers) // workers)
