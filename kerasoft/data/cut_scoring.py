"""Scoring with a model that is cut among workers: a barrier job in which the ranks of a replica score its rows together.

Records go by one shuffle to all ranks of the replica that scores their partition (``zero=3``: to one rank), in order; each rank reads only the
weights of its own part. The ranks find one another through Spark's barrier, so that a lazy result needs no driver's port.
"""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasoft.runtime.parallel.scoring import Scorer, Scoring, join
from kerasoft.runtime.shards import Block

from .dataframe import ColumnReader, _unpacked
from .predicted import Output, Predicted
from .reader import RowReader
from .scoring import _take_threads

Key = tuple[int, int, int]  # rank, partition, number of the block


class CutScorer:
    """What a scoring task needs; made on the driver.

    Args:
        context: the SparkContext.
        scoring: the cut model, compiled.
        state: float32[S]. sums: M of the layout.
    """

    def __init__(self, context: Any, scoring: Scoring, state: np.ndarray, sums: int):
        self.method, self.rows, self.reads, self.sums = scoring.method, scoring.rows, scoring.reads, sums
        self.secret = os.urandom(32)
        self._state = np.asarray(state)
        self._parts = [
            context.broadcast((program, vector))
            for program, vector in zip(scoring.programs, scoring.vectors, strict=True)
        ]

    @property
    def world_size(self) -> int:
        return int(self.method.grid.world_size)

    def part_of(self, part: int, block: Block) -> Block:
        """The arrays of a block that a part reads."""
        return {name: array for name, array in block.items() if name in self.reads[part]}

    def spread(self, records: Any, share: Callable[[int, Any], Any]) -> Any:
        """Records ``(partition, number, block)`` by rank: ``((rank, partition, number), share(part, block))``, sorted."""
        sharers = self.method.sharers
        groups = self.world_size // sharers

        def to_ranks(record: tuple[int, int, Any]) -> Iterator[tuple[Key, Any]]:
            partition, number, block = record
            first = partition % groups * sharers
            return (((first + i, partition, number), share(i, block)) for i in range(sharers))

        return records.flatMap(to_ranks).repartitionAndSortWithinPartitions(self.world_size, _rank_of)

    def run(self, work: Callable[[Scorer, Iterator[tuple[Key, Any]]], Iterable[Any]]) -> Callable[[Any], Iterator[Any]]:
        """On an executor, in a barrier stage: connects the rank and gives what `work` makes of its records."""

        def task(records: Iterator[tuple[Key, Any]]) -> Iterator[Any]:
            from pyspark import BarrierTaskContext

            from kerasoft.runtime.collectives import Peer, PeerListener

            barrier = BarrierTaskContext.get()
            rank = barrier.partitionId()
            host = barrier.getTaskInfos()[rank].address.rpartition(":")[0]
            _take_threads()
            listener = PeerListener(host)
            said = barrier.allGather(json.dumps([socket.gethostname(), os.getpid(), listener.address]))
            table = [Peer(r, *json.loads(text)) for r, text in enumerate(said)]
            with join(table, rank, self.method, self.secret, 0, listener) as groups:
                program, vector = self._parts[rank % len(self._parts)].value
                loaded = self.method.program(rank, (program,))
                yield from work(Scorer(self.method, groups, loaded, vector, self._state, self.rows), records)

        return task

    def close(self) -> None:
        """On the driver: takes the broadcasts back."""
        for part in self._parts:
            part.unpersist()


def evaluate_cut(records: Any, scorer: CutScorer) -> np.ndarray:
    """float64[M]: the sums of the test step over all rows of checked records. One barrier job."""
    elements = scorer.sums

    def work(part: Scorer, rows: Iterator[tuple[Key, Any]]) -> list[np.ndarray]:
        return [part.sums((block for _, block in rows), elements)]

    found = scorer.spread(records, scorer.part_of).barrier().mapPartitions(scorer.run(work)).collect()
    return np.sum(np.stack(found), axis=0)


def predict_cut(
    records: Any, partitions: int, scorer: CutScorer, finish: Callable[[Sequence[np.ndarray], Any], Iterable[Any]]
) -> Any:
    """A lazy RDD of what `finish` makes of each block and its outputs, in the order and the partitions of the blocks.

    Args:
        records: ``(partition, number of the block, (block, rest))``; the rest travels with the block, to one rank.
        partitions: how many the result has.
        finish: ``finish(outputs, rest)``.
    """
    speaker = scorer.method.speaker

    def share(part: int, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        return scorer.part_of(part, pair[0]), pair[1] if part == speaker else None

    def work(part: Scorer, rows: Iterator[tuple[Key, Any]]) -> Iterator[tuple[tuple[int, int], Any]]:
        waiting: list[tuple[Key, Any]] = []

        def ordered() -> Iterator[Any]:
            for key, (block, rest) in rows:
                waiting.append((key, rest))
                yield block

        for outputs in part.outputs(ordered()):
            (_, partition, number), rest = waiting.pop(0)
            if outputs:
                yield (partition, number), (outputs, rest)

    scored = scorer.spread(records, share).barrier().mapPartitions(scorer.run(work))
    back = scored.repartitionAndSortWithinPartitions(partitions, _partition_of)
    return back.mapPartitions(functools.partial(_each, finish), preservesPartitioning=True)


def predict_rows(rdd: Any, reader: RowReader, scorer: CutScorer, restore: Callable[[Sequence[np.ndarray]], Any]) -> Any:
    """A lazy RDD of one prediction a row, in the order and the partitions of `rdd`; see `scoring.predict_rows`."""

    def blocks(index: int, rows: Iterator[Any]) -> Iterator[tuple[int, int, Any]]:
        for number, block in enumerate(reader.blocks(rows, f"partition {index}")):
            yield index, number, (block, None)

    def rows_of(outputs: Sequence[np.ndarray], _: None) -> Iterator[Any]:
        return (restore([o[row] for o in outputs]) for row in range(len(outputs[0])))

    return predict_cut(rdd.mapPartitionsWithIndex(blocks), rdd.getNumPartitions(), scorer, rows_of)


def predict_frame(df: Any, reader: ColumnReader, scorer: CutScorer, outputs: Sequence[Output], name: str) -> Any:
    """`df` with one more column, as `predicted.with_predictions`; its other columns travel beside the blocks, as Arrow."""
    plan = Predicted(df, reader, outputs, name)
    packed = plan.source.mapInArrow(plan.pack, "sequence int, payload binary, batch binary").rdd

    def unpack(index: int, rows: Iterator[Any]) -> Iterator[tuple[int, int, Any]]:
        for sequence, payload, batch in rows:
            yield index, sequence, (_unpacked(payload), bytes(batch))

    records = packed.mapPartitionsWithIndex(unpack)
    rows = predict_cut(records, packed.getNumPartitions(), scorer, plan.join)
    return df.sparkSession.createDataFrame(rows, "batch binary").mapInArrow(plan.unpack, plan.schema)


def _rank_of(key: Key) -> int:
    return key[0]


def _partition_of(key: tuple[int, int]) -> int:
    return key[0]


def _each(finish: Callable[[Any, Any], Iterable[Any]], pairs: Iterator[Any]) -> Iterator[Any]:
    for _, (outputs, rest) in pairs:
        yield from finish(outputs, rest)
