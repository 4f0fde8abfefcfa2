"""What strategies have in common whose workers live as long as the fit and talk to one another."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ..collectives.topology import NAMES
from ..division import Division, slices_of
from ..faults import Script
from ..loop import Hooks, TrainJob, TrainResult
from ..shards import Plan, ShardTable, assign, ladder
from ..worker import Method, Settings
from .strategy import Strategy, Workers, check_workers


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A fit, compiled.

    Attributes:
        programs: bytes; which of them a rank runs is its method's to say.
        division: of the driver's vectors, for given settings.
        remarks: sentences for the user.
    """

    programs: tuple[bytes, ...]
    division: Callable[[Settings], Division]
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass
class LongLived(Strategy):
    """One Spark job for the whole fit: a barrier stage of `workers` ranks, checkpoints, attempts (docs/design/0002-runtime.md).

    A strategy of this kind says what its workers do by `method`.

    Args:
        workers: ranks. A number: always as many. (fewest, most): one for each executor within these limits; when executors
            come or go, the group hands over to one of another size, at an epoch's end or where a checkpoint is due (at once
            if an executor is being decommissioned). None: (1, None), as many as there are executors and shards with rows.
        shards: logical shards of the data; None = its own partitions. Results depend on the shards, not the workers.
        deterministic: the same bits for any number of workers: each shard's part alone, summed in a fixed tree.
        checkpoint: folder on any file system that Spark reaches, from which a new driver resumes in mid-epoch. None: a
            temporary folder on the driver, for recovery from lost workers only.
        wire_dtype: "float32", or "bfloat16": half the bytes, weights stay float32 where they are updated. If `deterministic`, sums
            of gradients still travel as float32 (three quarters of the bytes). Within shared memory nothing is rounded.
        timeout_s: seconds without a sign of life or progress after which a worker counts as frozen. Longer than the
            slowest step.
        checkpoint_every_s: seconds between checkpoints within an epoch; at epochs' ends they are made anyway.
        retries: attempts that may fail one after another without progress.
        memory_cap_bytes: of a worker's rows; above it they are mapped from its scratch disk. None: no cap.
        topology: who sends to whom when vectors are summed and gathered. "direct": everybody to everybody, or shared memory
            among ranks of one host. "ring", "tree", "two_level" (members to a leader of their host, a ring of leaders):
            by sockets. "auto": shared memory on one host, else the cheapest, by times measured when the workers
            connect (half a second to some seconds) and told of by an event "strategy". All give the same bits if `deterministic`.
    """

    balance: ClassVar[bool] = False  # shards move from slow workers to fast ones
    shard_by_shard: ClassVar[bool] = False  # a call for each shard even if not deterministic
    workers: Workers = dataclasses.field(default=None, kw_only=True)
    shards: int | None = dataclasses.field(default=None, kw_only=True)
    deterministic: bool = dataclasses.field(default=False, kw_only=True)
    checkpoint: str | None = dataclasses.field(default=None, kw_only=True)
    wire_dtype: str = dataclasses.field(default="float32", kw_only=True)
    timeout_s: float = dataclasses.field(default=30, kw_only=True)
    checkpoint_every_s: float = dataclasses.field(default=30, kw_only=True)
    retries: int = dataclasses.field(default=4, kw_only=True)
    topology: str = dataclasses.field(default="direct", kw_only=True)
    memory_cap_bytes: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        who = type(self).__name__
        check_workers(who, self.workers)
        if self.shards is not None and (not isinstance(self.shards, int) or self.shards < 1):
            raise ValueError(f"{who}: shards needs a whole number of at least 1 or None, got {self.shards!r}")
        if self.wire_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"{who}: wire_dtype needs 'float32' or 'bfloat16', got {self.wire_dtype!r}")
        if self.topology not in ("auto", *NAMES):
            raise ValueError(f"{who}: topology needs 'auto' or one of {NAMES}, got {self.topology!r}")
        for name in ("timeout_s", "checkpoint_every_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{who}: {name} needs seconds above 0, got {getattr(self, name)!r}")
        if self.checkpoint is not None and not isinstance(self.checkpoint, str):
            raise ValueError(f"{who}: checkpoint needs a path or URI as text, got {self.checkpoint!r}")

    def method(self, job: TrainJob, table: ShardTable, validation: ShardTable | None) -> Method:
        """What the workers do.

        Raises:
            ValueError: this fit lacks something that it needs.
        """
        return Method()

    def prepare(self, job: TrainJob, settings: Settings, lengths: Mapping[str, int]) -> Prepared:
        """What the workers run, and how the driver's vectors are cut among them.

        Args:
            lengths: numbers for variable sizes of the inputs.
        """
        program = job.source.export(
            train_rows=settings.train_sizes,
            test_rows=settings.test_sizes,
            lengths=lengths,
            tables=settings.method.by_rows,
            buckets=settings.method.buckets,
        )
        return Prepared((program.to_bytes(),), functools.partial(slices_of, job.source.layout))

    def fit(self, job: TrainJob, data: Any, validation: Any | None, hooks: Hooks) -> TrainResult:
        from ..spark import train

        return train(job, data, validation, self, hooks)

    def settings(
        self,
        job: TrainJob,
        table: ShardTable,
        validation: ShardTable | None,
        world_size: int,
        faults: Script | None = None,
        speeds: Sequence[float] | None = None,
    ) -> Settings:
        """What the workers of this fit are told: a pure function, the same plan on every attempt.

        Args:
            speeds: of the ranks, by which shards are assigned; None: all alike.
        """
        flags, method = job.source.flags, self.method(job, table, validation)
        groups = world_size // method.sharers
        one_by_one = self.deterministic or flags.couples_rows or self.shard_by_shard
        owners = assign(table.rows, groups, speeds)
        counts = Plan(table.rows, job.batch_size, job.steps_per_epoch).row_counts(None if one_by_one else owners)
        validation_owners: tuple[int, ...] = ()
        test_counts = []
        validates: frozenset[int] = frozenset()
        if validation is not None:
            validates = frozenset(e for e in range(job.initial_epoch, job.epochs) if job.validates_after(e))
            validation_owners = assign(validation.rows, groups, speeds)
            plan = Plan(validation.rows, job.batch_size)
            test_counts = plan.row_counts(None if one_by_one else validation_owners)
        return Settings(
            table=table,
            validation=validation,
            owners=owners,
            validation_owners=validation_owners,
            world_size=world_size,
            batch_size=job.batch_size,
            steps_per_epoch=job.steps_per_epoch,
            shuffle=job.shuffle,
            seed=job.seed,
            epochs=job.epochs,
            validates=validates,
            validation_batch_size=job.batch_size,
            train_sizes=method.sizes(ladder(counts, flags.exact_rows)),
            test_sizes=method.sizes(ladder(test_counts, flags.exact_rows)),
            one_by_one=one_by_one,
            deterministic=self.deterministic,
            wire_dtype=self.wire_dtype,
            timeout_s=self.timeout_s,
            checkpoint_every_s=self.checkpoint_every_s,
            memory_cap_bytes=self.memory_cap_bytes,
            faults=faults or Script(),
            topology=self.topology,
            method=method,
            balance=self.balance,
        )
