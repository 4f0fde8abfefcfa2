"""Scoring on the executors: evaluation and lazy prediction over RDDs and DataFrames with a shipped `StepProgram`.

The program and the weights travel once as Spark broadcasts; a Python worker compiles the program once and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, EmptyDataError
from ..host.sparse import joined, widened
from .blocks import ERROR
from .reader import RowReader

_programs: dict[str, Any] = {}  # by fingerprint, in one Python worker: best effort, rebuilt when it is not there


def program_of(data: bytes, fingerprint: str) -> Any:
    """The `StepProgram` behind `data`, decoded and compiled once in this process."""
    found = _programs.get(fingerprint)
    if found is None:
        _take_threads()
        from kerasoft.compiler.program import StepProgram

        if len(_programs) > 16:
            _programs.clear()
        found = _programs[fingerprint] = StepProgram.from_bytes(data)
    return found


def _take_threads() -> None:
    """Lets XLA compute with the task's cores: tasks beside it have their own, and so has a fit in this process."""
    from pyspark import TaskContext

    from kerasoft.compiler.program import ProgramError, pin_threads

    context = TaskContext.get()
    if context is not None:
        try:
            pin_threads(max(context.cpus(), 1))
        except ProgramError:  # JAX runs here already
            pass


class Scorer:
    """What a scoring task needs; made on the driver, cheap to ship.

    Args:
        context: the SparkContext.
        programs: a `StepProgram` with a test or a predict step for each width of packed sparse rows, ascending; one, for
            any key, if there are none.
        params, state: float32[P] and float32[S].
        rows: rows of one call; shorter batches are padded.
        sparse: names of the arrays that are packed sparse rows.
    """

    def __init__(
        self,
        context: Any,
        programs: Mapping[int, Any],
        params: np.ndarray,
        state: np.ndarray,
        rows: int,
        sparse: Sequence[str] = (),
    ):
        bytes_of = {width: program.to_bytes() for width, program in programs.items()}
        self.shipped = context.broadcast((bytes_of, np.asarray(params), np.asarray(state)))
        self.fingerprints = {width: program.fingerprint for width, program in programs.items()}
        self.rows, self.sparse = rows, tuple(sparse)

    def fitting(self, block: dict[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
        """On an executor: the program for a block, and the block with its sparse rows in the program's width.

        Raises:
            DataError: a row holds more numbers than any program takes.
        """
        programs = self.shipped.value[0]
        need = max((block[name].shape[2] for name in self.sparse), default=0)
        width = next((w for w in programs if w >= need), None)
        if width is None:
            raise DataError(f"a sparse row holds {need} numbers; at most {max(programs)} can be scored")
        wide = {name: widened(block[name], width) for name in self.sparse}
        return program_of(programs[width], self.fingerprints[width]), {**block, **wide}

    def predict(self) -> Callable[[dict[str, np.ndarray]], tuple[np.ndarray, ...]]:
        """On an executor: the function from a block of any number of rows to its outputs."""
        _, params, state = self.shipped.value

        def run(block: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
            total = len(next(iter(block.values())))
            program, block = self.fitting(block)
            call, parts = program.predict(self.rows), []
            for start in range(0, total, self.rows):
                piece, valid = padded(block, start, self.rows)
                outputs = finished(call, params, state, piece, valid)
                parts.append([np.asarray(o)[: min(self.rows, total - start)] for o in outputs])
            return tuple(np.concatenate(p) for p in zip(*parts, strict=True))

        return run

    def sums(self, blocks: Iterator[dict[str, np.ndarray]]) -> np.ndarray | None:
        """On an executor: float64[M], the sums of the test step over all rows of `blocks`; None when there are none."""
        total: np.ndarray | None = None
        for batch in rebatched(blocks, self.rows):
            _, params, state = self.shipped.value
            program, batch = self.fitting(batch)
            real = len(next(iter(batch.values())))
            rows = real if real in program.test_rows else self.rows  # programs that must not be padded have every size
            piece, valid = padded(batch, 0, rows)
            part = np.asarray(finished(program.test(rows), params, state, piece, valid), np.float64)
            total = part if total is None else total + part
        return total

    def close(self) -> None:
        """On the driver: takes the broadcast back."""
        self.shipped.unpersist()


def padded(block: dict[str, np.ndarray], start: int, rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows ``[start, start + rows)`` of a block, zeros after its end, and float32[rows] that is 1 on real rows."""
    piece = {k: v[start : start + rows] for k, v in block.items()}
    real = len(next(iter(piece.values())))
    if real < rows:
        piece = {k: np.concatenate([v, np.zeros((rows - real, *v.shape[1:]), v.dtype)]) for k, v in piece.items()}
    valid = np.zeros(rows, np.float32)
    valid[:real] = 1
    return piece, valid


def rebatched(blocks: Iterator[dict[str, np.ndarray]], rows: int) -> Iterator[dict[str, np.ndarray]]:
    """The rows of all blocks, in order, `rows` at a time."""
    left: dict[str, np.ndarray] | None = None
    for block in blocks:
        if left is not None:
            block = {k: joined([left[k], v]) for k, v in block.items()}
        size = len(next(iter(block.values())))
        whole = size - size % rows
        for start in range(0, whole, rows):
            yield {k: v[start : start + rows] for k, v in block.items()}
        left = {k: v[whole:] for k, v in block.items()} if whole < size else None
    if left is not None:
        yield left


def finished(call: Any, params: np.ndarray, state: np.ndarray, batch: dict[str, np.ndarray], valid: np.ndarray) -> Any:
    """The result of all stages of `call` on one replica."""
    from kerasoft.compiler.program import StepArgs

    args = StepArgs(
        params=params,
        state=state,
        batch=batch,
        valid=valid,
        row_id=np.zeros(len(valid), np.uint32),
        key=np.zeros(2, np.uint32),
        rows=np.float32(valid.sum()),
        share=np.float32(1),
        iteration=np.int32(0),
    )
    return call.whole(args)


def evaluate_records(records: Any, scorer: Scorer) -> np.ndarray:
    """float64[M]: the sums of the test step over all rows, merged in the order of the partitions. One job.

    Raises:
        DataError: a row that does not fit, named. EmptyDataError: there is no row.
    """

    def score(part: Iterator[Any]) -> Iterator[tuple[str | None, Any]]:
        error: list[str] = []

        def blocks() -> Iterator[dict[str, np.ndarray]]:
            for _, sequence, block in part:
                if sequence == ERROR:
                    error.append(block["error"].tobytes().decode())
                    return
                yield block

        sums = scorer.sums(blocks())
        yield (error[0] if error else None), sums

    found = records.mapPartitions(score).collect()
    for error, _ in found:
        if error is not None:
            raise DataError(error)
    parts = [sums for _, sums in found if sums is not None]
    if not parts:
        raise EmptyDataError("the data set is empty: expected at least one row to evaluate, got 0 rows.")
    return np.sum(np.stack(parts), axis=0)


def predict_rows(rdd: Any, reader: RowReader, scorer: Scorer, restore: Callable[[Sequence[np.ndarray]], Any]) -> Any:
    """A lazy RDD of one prediction a row, in the order and the partitions of `rdd`.

    Args:
        rdd: of x, or of (x, y[, weight]).
        reader: of the ``x/`` columns.
        restore: from one row's outputs to what the user gets (an array, a list, a dict).
    """

    def score(index: int, rows: Iterator[Any]) -> Iterator[Any]:
        predict = None
        for block in reader.blocks(rows, f"partition {index}"):
            predict = predict or scorer.predict()
            outputs = predict(block)
            for row in range(len(outputs[0])):
                yield restore([o[row] for o in outputs])

    return rdd.mapPartitionsWithIndex(score, preservesPartitioning=True)
