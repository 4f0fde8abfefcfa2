"""Synchronous training: reduce-scatter of gradients, update of the owned slice, all-gather of weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from kerasoft.compiler.program import StepSource, by_rows

from ..buckets import Buckets, by_buckets
from ..by_rows import ByRows
from ..collectives.compression import Compression, compression_of
from ..compressed import Compressed
from ..double_buffering import DoubleBuffering
from ..dropping import Dropping
from ..loop import TrainJob
from ..servers.method import sums_in
from ..shards import ShardTable
from ..worker import Method, Settings
from .long_lived import LongLived, Prepared
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

        buckets: at most so many parts of the gradient travel one after another, the last layers' while the first layers' are
            still computed; 1 = all at once. Same bytes, same weights; a model with sums over workers inside its gradient
            (synchronised batch normalisation) has one. Tables then travel whole. Not together with the two others.

        drop_percentage: of a worker's rows in a step, between 0 (wait for everybody) and 1: so many may be left out when the
            worker takes longer than 1.5 times what is usual. Each worker then computes its rows in four calls and looks at
            the clock in between. The mean is one over the rows that took part. Which rows are late depends on time, so not
            together with `deterministic`; nor with `compression`, `double_buffering`, `buckets`, or models whose gradient
            needs sums over workers.
        requeue: late rows are trained in further steps at the end of the same epoch, so that every row comes exactly once;
            if False, they are left out until the next epoch. Logs (history, TensorBoard) count them as ``requeued_rows`` or
            ``dropped_rows``, exactly.

        balance: at an epoch's end, when the slowest worker's gradients take so long that it pays, shards move: each worker then has
            rows by its speed. A new job of Spark goes on there. Give several shards to each worker. No bit changes if
            `deterministic`.

    Source: the parameter manager of Dai et al., BigDL: A Distributed Deep Learning Framework for Big Data (2019),
    section 3.3, without its two Spark jobs an iteration; its `dropPercentage` drops the slowest tasks for good. Double
    buffering: ChainerMN (T. Akiba et al., 2017). Buckets: wait-free back-propagation of H. Zhang et al., Poseidon (2017).
    """

    workers: Workers = None
    shards: int | None = None
    deterministic: bool = False
    checkpoint: str | None = None
    wire_dtype: str = "float32"
    timeout_s: float = 30
    compression: str | Compression | None = dataclasses.field(default=None, kw_only=True)
    double_buffering: bool = dataclasses.field(default=False, kw_only=True)
    buckets: int = dataclasses.field(default=1, kw_only=True)
    drop_percentage: float = dataclasses.field(default=0.0, kw_only=True)
    requeue: bool = dataclasses.field(default=True, kw_only=True)
    balance: bool = dataclasses.field(default=False, kw_only=True)  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop_percentage < 1:
            raise ValueError(
                f"AllReduce: drop_percentage needs a share of rows from 0 to below 1, got {self.drop_percentage!r}"
            )
        if not isinstance(self.buckets, int) or self.buckets < 1:
            raise ValueError(f"AllReduce: buckets needs a whole number of at least 1, got {self.buckets!r}")
        if self.drop_percentage and self.deterministic:
            raise ValueError(
                "AllReduce: drop_percentage and deterministic cannot be had together; leave one of them out"
            )
        wanted = {
            "drop_percentage": self.drop_percentage > 0,
            "compression": compression_of(self.compression) is not None,
            "double_buffering": self.double_buffering,
            "buckets": self.buckets > 1,
        }
        chosen = [name for name, is_wanted in wanted.items() if is_wanted]
        if len(chosen) > 1:
            raise ValueError(f"AllReduce: {' and '.join(chosen)} cannot be had together; leave one of them out")

    def method(self, job: TrainJob, table: ShardTable, validation: ShardTable | None) -> Method:
        compression = compression_of(self.compression)
        if self.drop_percentage:
            return self._dropping(job)
        if self.double_buffering:
            return DoubleBuffering()
        if compression is not None:
            return Compressed(compression)
        if job.source.buckets(self.buckets):
            return Buckets(self.buckets)
        tables = self.tables_by_rows(job.source, job.batch_size)
        return ByRows(tables) if tables else Method()

    def tables_by_rows(self, source: StepSource, batch_size: int) -> tuple[str, ...]:
        whole = self.drop_percentage or self.double_buffering or self.compression or self.wire_dtype != "float32"
        return () if whole or source.buckets(self.buckets) else by_rows(source, batch_size)

    def _dropping(self, job: TrainJob) -> Dropping:
        flags = job.source.flags
        if sums_in(job.source.train):
            raise ValueError(
                "AllReduce: drop_percentage needs a loss without sums over all workers within a step (masks, weights that are "
                "averaged over, synchronized batch normalisation), as late workers would take no part in them"
            )
        return Dropping(self.drop_percentage, self.requeue, cut=not (flags.couples_rows or flags.exact_rows))

    def prepare(self, job: TrainJob, settings: Settings, lengths: Mapping[str, int]) -> Prepared:
        prepared = super().prepare(job, settings, lengths)
        ranges = job.source.buckets(self.buckets)
        if not ranges:
            said = ("buckets: not used, as the gradient holds sums over all workers, or has one variable only",)
            return dataclasses.replace(prepared, remarks=said) if self.buckets > 1 else prepared
        return dataclasses.replace(prepared, division=functools.partial(by_buckets, ranges, job.source.layout))

    def more_vectors(self, slots: int, workers: int) -> int:
        """Compressed: whole slots, a residual (for each shard if deterministic), the sum. Double buffering, buckets: two vectors."""
        if self.compression is not None:
            shards = -(-(self.shards or workers) // workers) if self.deterministic else 1
            return slots + shards + 1
        return 2 if self.double_buffering or self.buckets > 1 else 0
