"""RDDs and DataFrames become a `BlockRDD`: blocks on the executors, and on the driver a table of what they hold."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kerasoft.runtime.shards import Block, Fingerprint, Record, ShardTable, table_of

from ..errors import DataError, EmptyDataError
from ..host.sparse import widened
from .kinds import is_dataframe
from .reader import RowReader

ERROR = -1  # the sequence number of a record that holds an error text instead of a block
WASTEFUL = 8  # sparse rows so many times as wide as the mean are worth a warning
MANY_BYTES = 1 << 28  # if their blocks are as large


@dataclasses.dataclass
class BlockRDD:
    """A data set on the executors, ready to train on.

    Attributes:
        rdd: of `(shard, sequence, block)` records, persisted.
        table: rows, fingerprints and bytes of each shard.
    """

    rdd: Any
    table: ShardTable

    def unpersist(self) -> None:
        """Frees the blocks."""
        self.rdd.unpersist()


def first_row(data: Any) -> Any:
    """The first row of an RDD or a DataFrame, by a job over as few partitions as needed.

    Raises:
        EmptyDataError: there is none.
    """
    rows = data.take(1)
    if not rows:
        what = "DataFrame" if is_dataframe(data) else "RDD"
        where = "" if is_dataframe(data) else f" in {data.getNumPartitions()} partitions"
        raise EmptyDataError(
            f"the {what} is empty: expected at least one row, got 0 rows{where}. "
            "Check the path it was read from and the filters on the way."
        )
    return rows[0]


def records_of_rdd(rdd: Any, reader: RowReader) -> Any:
    """A lazy RDD of the rows of `rdd` as records; each partition is a shard. Every row is looked at on the way.

    A row that does not fit ends its partition with a record that holds the error; `persisted` and
    `kerasoft.data.scoring.evaluate_records` raise it on the driver.
    """
    return rdd.mapPartitionsWithIndex(lambda index, rows: _read(index, reader.blocks(rows, f"partition {index}")))


def persisted(records: Any, shards: int | None = None) -> BlockRDD:
    """Converts all rows by one Spark job and keeps the blocks (memory and disk).

    Args:
        records: as `records_of_rdd` makes them.
        shards: cut the rows, in their order, into so many shards of equal size; None = the partitions.

    Raises:
        DataError: a row that does not fit: names the partition, the row, what was expected and what came.
        EmptyDataError: there is no row.
    """
    records = kept(records)
    try:
        table = _table(records)
        if not table.total:
            raise EmptyDataError(
                f"the data set is empty: expected at least one row, got 0 rows in {len(table.rows)} partitions. "
                "Check the path it was read from and the filters on the way."
            )
    except BaseException:
        records.unpersist()
        raise
    if shards is None or shards == len(table.rows):
        return BlockRDD(records, table)
    even = kept(_recut(records, table, shards))
    made = BlockRDD(even, _table(even, shards))
    records.unpersist()
    return made


def kept(records: Any) -> Any:
    """The records, persisted (memory and disk)."""
    from pyspark import StorageLevel

    return records.persist(StorageLevel.MEMORY_AND_DISK)


def widest_rows(records: Any, names: Sequence[str]) -> dict[str, int]:
    """The numbers of the fullest row of each of these packed arrays. One job. Warns of rows that are mostly filling."""

    def measure(part: Iterator[Record]) -> Iterator[tuple[int, dict[str, tuple[int, int]]]]:
        rows, found = 0, dict.fromkeys(names, (1, 0))
        for _, sequence, block in part:
            if sequence != ERROR:
                rows += len(block[names[0]])
                for name, (width, numbers) in found.items():
                    packed = block[name]
                    found[name] = max(width, packed.shape[2]), numbers + int(np.count_nonzero(packed[:, 1]))
        yield rows, found

    every = records.mapPartitions(measure).collect()
    rows, widths = max(sum(count for count, _ in every), 1), {}
    for name in names:
        widths[name] = max((found[name][0] for _, found in every), default=1)
        mean = sum(found[name][1] for _, found in every) / rows
        if widths[name] > WASTEFUL * max(mean, 1) and 8 * widths[name] * rows > MANY_BYTES:
            warnings.warn(
                f"the rows of input '{name.partition('/')[2]}' hold {mean:.1f} numbers on the average, the fullest "
                f"{widths[name]}, and each takes the room of the fullest: {8 * widths[name] * rows / 1e9:.1f} GB on the "
                "executors. Cut rows that are much fuller than the others.",
                stacklevel=4,
            )
    return widths


def evened(records: Any, widths: Mapping[str, int]) -> Any:
    """The records with packed arrays of these widths."""

    def even(record: Record) -> Record:
        shard, sequence, block = record
        if sequence == ERROR:
            return record
        return shard, sequence, {**block, **{name: widened(block[name], width) for name, width in widths.items()}}

    return records.map(even, preservesPartitioning=True)


def _read(index: int, blocks: Iterator[Block]) -> Iterator[Record]:
    try:
        for sequence, block in enumerate(blocks):
            yield index, sequence, block
    except DataError as error:  # carried to the driver as a value: no stack trace of Spark around it
        yield index, ERROR, {"error": np.frombuffer(str(error).encode(), np.uint8)}


def _table(records: Any, shards: int | None = None) -> ShardTable:
    """One job: rows, fingerprint and bytes of every shard."""

    def in_order(index: int, part: Iterator[Record]) -> Iterator[tuple]:
        rows, size, digest = 0, 0, Fingerprint()
        for _, sequence, block in part:
            if sequence == ERROR:
                yield index, None, block["error"].tobytes().decode(), 0
                return
            digest.add(block)
            rows += len(next(iter(block.values())))
            size += sum(a.nbytes for a in block.values())
        yield index, rows, digest.hexdigest(), size

    def shuffled(_: int, part: Iterator[Record]) -> Iterator[tuple]:
        for shard, found in itertools.groupby(sorted(part, key=lambda r: r[:2]), key=lambda r: r[0]):
            table = table_of([[block for _, _, block in found]])
            yield shard, table.rows[0], table.fingerprints[0], table.bytes[0]

    summarise = in_order if shards is None else shuffled
    found = sorted(records.mapPartitionsWithIndex(summarise).collect(), key=lambda entry: entry[0])
    for _, rows, text, _ in found:
        if rows is None:
            raise DataError(text)
    entries = {shard: (rows, digest, size) for shard, rows, digest, size in found}
    number = shards if shards is not None else records.getNumPartitions()
    every = [entries.get(s, (0, Fingerprint().hexdigest(), 0)) for s in range(number)]
    return ShardTable(tuple(e[0] for e in every), tuple(e[1] for e in every), tuple(e[2] for e in every))


def _recut(records: Any, table: ShardTable, shards: int) -> Any:
    """The same rows in the same order as `shards` shards whose sizes differ by at most one row."""
    offsets, total = table.offsets, table.total
    bounds = [total * s // shards for s in range(shards + 1)]

    def cut(part: Iterator[Record]) -> Iterator[Record]:
        seen: dict[int, int] = {}
        for shard, _, block in part:
            rows = len(next(iter(block.values())))
            first = offsets[shard] + seen.get(shard, 0)
            seen[shard] = seen.get(shard, 0) + rows
            target = max(s for s in range(shards) if bounds[s] <= first)
            start = first
            while start < first + rows:
                end = min(bounds[target + 1], first + rows)
                if end > start:
                    piece = {k: np.ascontiguousarray(v[start - first : end - first]) for k, v in block.items()}
                    yield target, start, piece  # the first row's ordinal orders the pieces of a shard
                start, target = end, target + 1

    return records.mapPartitions(cut).map(lambda r: (r[0], r)).partitionBy(shards, _itself).values()


def _itself(shard: int) -> int:
    return shard
