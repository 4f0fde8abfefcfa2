"""Synchronous training: reduce-scatter of gradients, update of the owned slice, all-gather of weights."""

from __future__ import annotations

import dataclasses

from .long_lived import LongLived


@dataclasses.dataclass
class AllReduce(LongLived):
    """Every step: 1. each worker's gradient of its part of the batch, 2. each gets its slice of the sum, 3. updates it,
    4. sends the new weights to all others. One Spark job for the whole fit; the driver is not on the data path.

    Each worker sends ``2 (N - 1) / N * 4 P`` bytes a step (P parameters, N workers; half of it with bfloat16).

    A worker that dies or stays silent for `timeout_s` ends the attempt: the next one goes on from the last checkpoint,
    with new processes, and gives the same weights (to the bit if `deterministic`).

    Args:
        workers, shards, deterministic, checkpoint, wire_dtype, timeout_s, checkpoint_every_s, retries, memory_cap_bytes:
            as in `LongLived`.

    Source: the parameter manager of Dai et al., BigDL: A Distributed Deep Learning Framework for Big Data (2019),
    section 3.3, without its two Spark jobs an iteration.
    """

    workers: int | None = None
    shards: int | None = None
    deterministic: bool = False
    checkpoint: str | None = None
    wire_dtype: str = "float32"
    timeout_s: float = 30
