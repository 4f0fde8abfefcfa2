"""Synchronous training: reduce-scatter of gradients, update of the owned slice, all-gather of weights."""

from __future__ import annotations

import dataclasses

from kerasoft.compiler.program import by_rows

from ..by_rows import ByRows
from ..collectives.compression import Compression, compression_of
from ..compressed import Compressed
from ..double_buffering import DoubleBuffering
from ..loop import TrainJob
from ..shards import ShardTable
from ..worker import Method
from .long_lived import LongLived
from .strategy import Workers


@dataclasses.dataclass
class AllReduce(LongLived):
    """Every step: 1. each worker's gradient of its part of the batch, 2. each gets its slice of the sum, 3. updates it,
    4. sends the new weights to all others. One Spark job for the whole fit; the driver is not on the data path.

    Each worker sends ``2 (N - 1) / N * 4 P`` bytes a step (P parameters, N workers; half of it with bfloat16).

    Large tables that are only looked up (embeddings, kernels of sparse rows) do not count: of a table of width d the workers
    send the ids of their rows and ``2 (N - 1) / N * 4 U d`` bytes, U being the rows that the global batch touches, and update
    these rows only, as if all had been (docs/design/0007); each worker then holds the table and its optimizer slots whole.
    With bfloat16, compression or double buffering tables travel whole.

    With `compression`: 2. everybody gets everybody's compressed gradient, 3. all make the same update of whole vectors; what
    was not sent is kept for the next step (error feedback). Each worker sends ``(N - 1) c`` bytes a step, with c = ``4 d P``
    for a `Threshold` of density d, ``8 f P`` for a `TopK` of fraction f, ``P / 4`` for `TwoBit`, and holds whole optimizer
    vectors and a residual of ``4 P`` bytes (of each shard, if `deterministic`). Results then depend on the workers, as each
    compresses the sum of its shards, unless `deterministic`. Residuals are in the checkpoint.

    A worker that dies or stays silent for `timeout_s` ends the attempt: the next one goes on from the last checkpoint,
    with new processes, and gives the same weights (to the bit if `deterministic`).

    Args:
        workers, shards, deterministic, checkpoint, wire_dtype, timeout_s, checkpoint_every_s, retries, memory_cap_bytes:
            as in `LongLived`.

        compression: None, "threshold", "top_k", "2bit", or a `Threshold`, `TopK` or `TwoBit` with settings of its own.

        double_buffering: the sums of a step travel while the next step's gradient is computed, which is therefore one step
            stale: its parameters lack the last update. Same bytes; hides the exchange behind the compute. Not together
            with `compression`. The last step of an epoch waits for its sums.

    Source: the parameter manager of Dai et al., BigDL: A Distributed Deep Learning Framework for Big Data (2019),
    section 3.3, without its two Spark jobs an iteration. Double buffering: ChainerMN (T. Akiba et al., 2017).
    """

    workers: Workers = None
    shards: int | None = None
    deterministic: bool = False
    checkpoint: str | None = None
    wire_dtype: str = "float32"
    timeout_s: float = 30
    compression: str | Compression | None = dataclasses.field(default=None, kw_only=True)
    double_buffering: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if compression_of(self.compression) is not None and self.double_buffering:
            raise ValueError(
                "AllReduce: compression and double_buffering cannot be had together; leave one of them out"
            )

    def method(self, job: TrainJob, table: ShardTable, validation: ShardTable | None) -> Method:
        compression = compression_of(self.compression)
        if self.double_buffering:
            return DoubleBuffering()
        if compression is not None:
            return Compressed(compression)
        tables = by_rows(job.source, job.batch_size) if self.wire_dtype == "float32" else ()
        return ByRows(tables) if tables else Method()

    def more_vectors(self, slots: int, workers: int) -> int:
        """Compressed: whole slots, a residual (for each shard if deterministic), the sum. Double buffering: two vectors."""
        if self.compression is not None:
            shards = -(-(self.shards or workers) // workers) if self.deterministic else 1
            return slots + shards + 1
        return 2 if self.double_buffering else 0
