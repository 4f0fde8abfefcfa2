"""What the stages of `ShuffleAllReduce` do in a task: gradients of one shard, update of one slice. No Spark in here.

Tasks are stateless: what a Python worker keeps between them (program, rows) is best effort and rebuilt when not there.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .collectives.tree import finish, height
from .feed import Feed
from .loop import step_keys
from .shards import Plan, ShardTable
from .step import Arguments
from .store import ShardStore
from .worker import fixed_shape

WEIGHTS, GRADIENT, ROWS = "weights", "gradient", "rows"  # first part of a record's value: what it holds


@dataclasses.dataclass(frozen=True)
class Plans:
    """What a task must know of the fit: plain values and the program's bytes.

    Attributes:
        program: bytes of the `StepProgram`. fingerprint: of the program and the data, for caches.
        table: of the data. batch_size, steps, seed, shuffle: as in `TrainJob`.
        sizes: row numbers of calls. threads: that XLA computes with.
        validation: whether the rows are the validation data (evaluation calls, in order).
    """

    program: bytes
    fingerprint: str
    table: ShardTable
    batch_size: int
    steps: int | None
    seed: int
    shuffle: bool
    sizes: tuple[int, ...]
    threads: int
    validation: bool = False


_kept: dict[Any, Any] = {}  # of this Python worker: programs, rows and feeds; best effort, rebuilt when not there


def _keep(key: Any, make: Callable[[], Any]) -> Any:
    if key not in _kept:
        if len(_kept) > 64:
            _kept.clear()
        _kept[key] = make()
    return _kept[key]


def program_of(plans: Plans) -> Any:
    """The program, read once in this process."""

    def read():
        from kerasoft.compiler.program import ProgramError, StepProgram, pin_threads

        try:
            pin_threads(plans.threads)  # the number decides the bits (docs/design/0003-determinism.md)
        except ProgramError:  # JAX runs here already, with another number: right to rounding
            pass
        return StepProgram.from_bytes(plans.program)

    return _keep(("program", plans.fingerprint), read)


class ShardTask:
    """The rows of one shard and the calls on them, in one Python worker."""

    def __init__(self, plans: Plans, shard: int, records: Iterator[tuple]):
        self.plans, self.shard = plans, shard
        self.program = program_of(plans)
        where = f"partition {shard} of the {'validation' if plans.validation else 'training'} data"
        self.store = ShardStore(plans.table, [shard] if plans.table.rows[shard] else [], where)
        for record in records:
            self.store.add(*record)
        self.store.finish()
        specs = tuple((i.name, fixed_shape(i, self.program.lengths), np.dtype(i.dtype)) for i in self.program.inputs)
        plan = Plan(plans.table.rows, plans.batch_size, plans.steps)
        self.feed = Feed(self.store, plan, plans.sizes, True, specs, plans.seed, plans.shuffle)
        self._position: tuple[int, int] | None = None
        self._steps: Iterator[Any] = iter(())

    def step(self, epoch: int, step: int) -> Any:
        """The batch of a step; going on from the one before costs nothing."""
        if self._position != (epoch, step):
            self._steps = self.feed.epoch(epoch, step)
        self._position = (epoch, step + 1)
        return next(self._steps)

    def gradient(
        self, at: tuple[int, int, int], vector: np.ndarray, reduced: Sequence[np.ndarray]
    ) -> tuple[int, np.ndarray | None]:
        """The result of stage ``len(reduced)`` of the gradient call of one step, and how many stages there are.

        Args:
            at: epoch, step, iteration. vector: float32[V], weights and states first.
            reduced: sums over all shards that the earlier stages asked for.
        """
        epoch, step, iteration = at
        batch = self.step(epoch, step)
        stages = self.program.train(self.plans.sizes[0]).stages
        if not batch.calls:
            return stages, None
        key = step_keys(self.plans.seed, iteration, 1)[0]
        return stages, run_stages(
            self.program.train, batch.calls[0], batch.rows, self.program.layout, vector, reduced, key, iteration
        )

    def sums(self, vector: np.ndarray) -> np.ndarray:
        """float64[M]: the sums of the evaluation call over all rows of the shard."""
        total = np.zeros(self.program.layout.M, np.float64)
        for step in self.feed.epoch(0):
            for call in step.calls:
                out = None
                reduced: list[np.ndarray] = []
                for _ in range(self.program.test(call.size).stages):
                    out = run_stages(self.program.test, call, call.rows, self.program.layout, vector, reduced, None, 0)
                    reduced.append(out)
                total += out
        return total


def run_stages(
    calls: Any, call: Any, rows: int, layout: Any, vector: np.ndarray, reduced, key, iteration: int
) -> np.ndarray:
    """What stage ``len(reduced)`` of a call gives; earlier stages are computed again, for tasks keep nothing."""
    run = calls(call.size)
    args = Arguments(
        params=vector[: layout.P],
        state=np.ascontiguousarray(vector[layout.P : layout.P + layout.S]),
        batch=call.batch,
        valid=call.valid,
        row_id=call.row_id,
        key=key,
        rows=np.float32(rows),
        share=np.float32(call.rows / rows),
        iteration=np.int32(iteration),
    )
    carry, out = run.run(0, args, (), None)
    for k, total in enumerate(reduced, 1):
        carry, out = run.run(k, args, carry, total)
    return np.asarray(out)


def shard_task(plans: Plans, shard: int, records: Iterator[tuple]) -> ShardTask:
    """The kept task of a shard, or a new one from its rows.

    `records` is read to its end in any case: Spark throws away a Python worker that leaves input behind, and with it
    all that is kept and compiled.
    """
    task = _keep((plans.fingerprint, plans.validation, shard), lambda: ShardTask(plans, shard, records))
    collections.deque(records, maxlen=0)
    return task


def joined(number: int, part: Iterator[tuple[int, tuple]]) -> tuple[np.ndarray, Iterator[tuple]]:
    """The whole vector from its `number` slices, which come first, and an iterator over the rows behind them."""
    pieces: dict[int, np.ndarray] = {}
    rest: Iterator[tuple] = iter(())
    for _, value in part:
        if value[0] == WEIGHTS:
            pieces[value[1]] = value[2]
            if len(pieces) == number:
                break
        else:  # rows before weights: keep what was read
            rest = itertools.chain(rest, (value[1],))
    vector = np.concatenate([pieces[j] for j in range(number)])
    return vector, itertools.chain(rest, (v[1] for _, v in part if v[0] == ROWS))


def tree_sum(vectors: dict[int, np.ndarray], shards: int) -> np.ndarray:
    """The sum over shards along the fixed tree of `kerasoft.runtime.collectives.tree`; absent shards are zeros."""
    some = next(iter(vectors.values()))
    zeros = np.zeros_like(some)
    nodes = {(0, s): np.array(vectors.get(s, zeros)) for s in range(shards)}
    return finish(nodes, shards, lambda a, b: np.add(a, b, out=a)) if height(shards) else nodes[0, 0]


def updated(plans: Plans, own: dict[str, Any], total: np.ndarray, rate: float, iteration: int) -> dict[str, Any]:
    """A slice of weights and optimiser state after a step.

    Args:
        own: ``vector`` float32[slice] (weights, then states), ``slots``, ``start`` of the slice in the whole vector.
        total: the same slice of the sum of all shards' float32[V], to be changed in place.
    """
    program = program_of(plans)
    size = len(own["slots"][0]) if own["slots"] else max(min(program.layout.P - own["start"], len(total)), 0)
    if size:
        call = program.update(size)
        segment = program.layout.segments()[own["start"] : own["start"] + size]
        args = Arguments(
            param=np.ascontiguousarray(own["vector"][:size]),
            gradient=np.ascontiguousarray(total[:size]),
            slots=tuple(own["slots"]),
            segment=np.ascontiguousarray(segment),
            learning_rate=np.float32(rate),
            iteration=np.int32(iteration),
        )
        param, *slots = call.whole(args)
        total[:size] = np.asarray(param)
        own = {**own, "slots": [np.asarray(s) for s in slots]}
    return {**own, "vector": total}
