"""Training of models that are cut among workers: split layers, pipelines, or parameters that come when they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..loop import TrainJob
from ..parallel.grid import Grid
from ..parallel.method import Cut
from ..parallel.schedule import SCHEDULES, bubble
from ..parallel.scoring import Scoring
from ..shards import ShardTable
from ..worker import Method, Settings
from .long_lived import LongLived, Prepared


@dataclasses.dataclass
class Parallel(LongLived):
    """Synchronous training of a model of which each worker holds a part. ``data`` replicas of c parts train on ``data * c``
    workers; worker ``j * c + i`` has part i and the rows of replica j. The results are those of `AllReduce`, up to rounding.

    ``model=c``: every layer is split (tensor parallelism). Each step: 1. all parts compute the same rows, each its columns,
    rows or heads of the weights, 2. where the next layer needs all of it, they add up or gather activations, 3. likewise
    for gradients on the way back, 4. each part's gradient is summed over replicas and updated as in `AllReduce`. A worker
    sends ``2 (c - 1) / c * 4 a`` bytes for each of these sums of a numbers, of which an MLP or a Transformer's block needs
    one forward and one backward for each pair of products, and ``2 (d - 1) / d * 4 P / c`` for 4.

    ``pipeline=c``: the layers are cut into c stages. Each step: 1. each replica's rows are cut into `microbatches`, 2. a
    stage takes activations from the stage before, sends its own to the next, and gradients back, in the order of
    `schedule`, 3. gradients are added over microbatches in their order, 4. summed over replicas and updated as in
    `AllReduce`, 5. states and the step's sums are added up over stages. A worker sends ``4 a`` bytes for a rows times numbers
    between two stages, each way, and ``2 (d - 1) / d * 4 P / c`` for 4. Stages wait ``(c - 1) / (k + c - 1)`` of the step
    for k microbatches. "gpipe" holds the activations of k microbatches, "1f1b" of at most c.

    ``zero=3``: every worker computes all layers on its own rows and keeps one slice of every layer's parameters and
    optimizer slots. Each step: 1. a layer's slices are gathered before it is used, and let go of after, forward and
    backward, 2. its gradient is reduced to slices as soon as it is there, 3. each worker updates its slices. It sends
    ``3 (d - 1) / d * 4 P`` bytes.

    The compiler chooses where to cut from shapes and costs; ``layer.placement = 1`` puts a layer into that stage of a
    pipeline, "split" or "replicate" say it of a layer's weights under ``model=``. Optimizers that look at
    whole weights (Muon, Adafactor, constraints) need ``pipeline=``. `wire_dtype` and `topology` count between replicas; between parts float32 travels directly.

    A worker that dies or stays silent for `timeout_s` ends the attempt: the next one goes on from the last checkpoint and
    gives the same bits. Checkpoints hold whole vectors, so that a fit goes on with another cut, other replicas, or
    `AllReduce`.

    Args:
        data: replicas.
        model, pipeline: parts of each, one of the two above 1. zero: 3, or 0 for not.
        microbatches: of each call through a pipeline; None: four for each stage.
        schedule: "1f1b" or "gpipe".
        shards, deterministic, checkpoint, wire_dtype, timeout_s, checkpoint_every_s, retries, memory_cap_bytes, topology: as
            in `LongLived`; deterministic: the same bits for any number of replicas. `workers` is not given.

    Sources: Megatron-LM (M. Shoeybi et al., 2019); GPipe (Y. Huang et al., 2019); PipeDream-Flush, 1F1B (D. Narayanan et al.,
    2021); ZeRO (S. Rajbhandari et al., 2020); GSPMD (Y. Xu et al., 2021).
    """

    data: int = 1
    model: int = 1
    pipeline: int = 1
    zero: int = 0
    microbatches: int | None = None
    schedule: str = "1f1b"

    def __post_init__(self) -> None:
        if self.workers is not None:
            raise ValueError(
                "Parallel: workers follow from data * model or data * pipeline; leave workers= out and give data="
            )
        super().__post_init__()
        for name in ("data", "model", "pipeline", "microbatches"):
            value = getattr(self, name)
            if value is None and name == "microbatches":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Parallel: {name} needs a whole number of at least 1, got {value!r}")
        if self.zero not in (0, 3):
            raise ValueError(
                f"Parallel: zero needs 3 (parameters, gradients and slots in slices) or 0, got {self.zero!r}; slots in "
                "slices alone, stage 1, are what AllReduce does"
            )
        if (self.model > 1) + (self.pipeline > 1) + (self.zero > 0) > 1:
            raise ValueError(
                f"Parallel: one of model, pipeline and zero at a time, got model={self.model}, pipeline={self.pipeline}, "
                f"zero={self.zero}"
            )
        if self.zero and (self.wire_dtype != "float32" or self.topology != "direct"):
            raise ValueError(
                "Parallel: zero=3 exchanges float32 directly; leave wire_dtype= and topology= out, got "
                f"{self.wire_dtype!r} and {self.topology!r}"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(f"Parallel: schedule needs one of {sorted(SCHEDULES)}, got {self.schedule!r}")
        if self.microbatches is not None and self.pipeline == 1:
            raise ValueError("Parallel: microbatches need a pipeline; give pipeline= or leave them out")

    @property
    def grid(self) -> Grid:
        return Grid(1, self.data) if self.zero else Grid(self.data, self.model * self.pipeline)

    @property
    def limits(self) -> tuple[int, int | None]:
        return self.grid.world_size, self.grid.world_size

    @property
    def ranks_without_rows(self) -> int:
        """The parts of a replica count as one where rows are concerned."""
        return self.limits[0] - self.data

    @property
    def kind(self) -> str:
        return "zero" if self.zero else "pipeline" if self.pipeline > 1 else "model"

    def method(self, job: TrainJob, table: ShardTable, validation: ShardTable | None) -> Method:
        flags, who = job.source.flags, "Parallel"
        count = self.microbatches or 4 * self.pipeline if self.pipeline > 1 else 1
        if flags.exact_rows and count > 1:
            raise ValueError(
                f"{who}: the model mixes the rows of a batch, which microbatches={count} would tear apart. "
                "Give microbatches=1, or model= instead of pipeline=."
            )
        return Cut(self.grid, self.kind, count, self.schedule, flags.couples_rows)

    @property
    def _mesh(self) -> Any:
        from kerasoft.compiler.parallel import Mesh

        return Mesh(model=self.model, pipeline=self.pipeline, zero=self.zero, slices=self.data if self.zero else 1)

    def prepare(self, job: TrainJob, settings: Settings, lengths: Mapping[str, int]) -> Prepared:
        from kerasoft.compiler.parallel import partition

        from ..parallel.division import PartsDivision

        method = settings.method
        assert isinstance(method, Cut)
        k = method.microbatches
        train, test = (tuple(n // k for n in sizes) for sizes in (settings.train_sizes, settings.test_sizes))
        plan = partition(job.source, self._mesh, job.placement, max(train, default=1), lengths)
        made = plan.export(train, test, (), lengths)
        self._check_sums(job.source, made, settings.one_by_one or k > 1)
        programs = tuple(p.to_bytes() for p in made)
        remark = plan.describe()
        if self.pipeline > 1:
            remark += f"\nstages wait {bubble(self.pipeline, k):.0%} of a step, if they take the same time"
        return Prepared(programs, lambda settings: PartsDivision(plan, self.grid), (remark,))

    def _check_sums(self, source: Any, programs: Any, several: bool) -> None:
        """Raises `ValueError` if sums are needed in the middle of a step that cannot be made there."""
        from ..parallel.calls import sums_over_replicas

        calls = [call for p in programs for call in (*map(p.train, p.train_rows), *map(p.test, p.test_rows))]
        if several and any(map(sums_over_replicas, calls)):
            raise ValueError(
                "Parallel: a layer of the model needs sums of what it computes over the whole batch in the middle of a step "
                "(BatchNormalization(synchronized=True)), which a step of several calls cannot make: leave deterministic= out, "
                "give microbatches=1, or synchronized=False."
            )
        if self.zero and self.deterministic and any(n.op.name == "all_reduce" for n in source.update.nodes):
            raise ValueError(
                "Parallel(zero=3, deterministic=True): this optimizer needs norms of weights, whose sums would depend on how "
                "many workers have slices. Leave deterministic= out, or give pipeline= or model=."
            )

    def scoring(
        self, source: Any, kind: str, rows: int, lengths: Mapping[str, int], placement: Mapping[str, Any], params: Any
    ) -> Scoring:
        """The model cut for `evaluate` ("test") or `predict`, in calls of `rows` rows.

        Raises:
            ValueError: the model's own sums go over rows of all workers.
        """
        from kerasoft.compiler.parallel import partition

        from ..parallel.calls import sums_over_replicas

        plan = partition(source, self._mesh, placement, rows, lengths)
        programs = plan.export((), (rows,) if kind == "test" else (), (rows,) if kind == "predict" else (), lengths)
        calls = [getattr(p, kind)(rows) for p in programs]
        if self.zero and any(map(sums_over_replicas, calls)):
            raise ValueError(
                "Parallel(zero=3): a test step of this model sums what it computes over a batch, whose rows would be those of all "
                "workers. Give model= or pipeline=."
            )
        vectors = tuple(plan.localise(i, params) for i in range(plan.coordinates))
        reads = tuple(p.reads(kind) or (source.inputs[0].name,) for p in programs)
        return Scoring(Cut(self.grid, self.kind), tuple(p.to_bytes() for p in programs), vectors, rows, reads)

    def check_memory(
        self,
        report: Any,
        params: int,
        vector: int,
        slots: int,
        data_bytes: int,
        step_bytes: int,
        tables: int = 0,
        touched: int = 0,
    ) -> None:
        """A part's share of the weights and of the step; all parts of a replica hold its rows."""
        parts, sharers = self.grid.parts, 1 if self.zero else self.grid.parts
        super().check_memory(
            report,
            params // parts,
            vector // parts,
            slots,
            data_bytes * sharers,
            step_bytes // sharers,
            tables,
            touched,
        )
