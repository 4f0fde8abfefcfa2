"""RDD of (ndarray, label) to training batches: our blocks against per-row queue feeds, in one Spark run, interleaved.

The peers feed row by row through a queue to a consumer process, as TensorFlowOnSpark does (a manager's queue), and
through a plain multiprocessing queue, which is the best such a design could do.

    python tests/benchmarks/rdd_feed.py [--rows 8000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

BATCH = 128
SHAPE = (28, 28, 1)


def rows(index, count):
    rng = np.random.default_rng(index)
    for i in range(count):
        yield rng.random(SHAPE, np.float32), i % 10


def by_blocks(partition):
    """Ours, all of it: rows -> checked blocks -> table with fingerprints -> a worker's store -> batches."""
    from kerasoft.runtime.feed import Feed
    from kerasoft.runtime.shards import Plan, table_of
    from kerasoft.runtime.store import ShardStore

    from kerasoft.data.columns import Column
    from kerasoft.data.reader import RowReader

    part = list(partition)
    started = time.perf_counter()
    reader = RowReader((Column("x/a", SHAPE, "float32"), Column("y/b", (), "int32", 10)))
    blocks = list(reader.blocks(part, "partition"))
    table = table_of([blocks])
    store = ShardStore(table, [0])
    for sequence, block in enumerate(blocks):
        store.add(0, sequence, block)
    store.finish()
    specs = [("x/a", SHAPE, "float32"), ("y/b", (), "int32")]
    feed = Feed(store, Plan(table.rows, BATCH), (BATCH,), False, specs, seed=0, shuffle=True)
    count = sum(call.rows for step in feed.epoch(0) for call in step.calls)
    assert count == len(part)
    yield len(part), time.perf_counter() - started


def consume(queue, result):
    """The peer's training process: takes rows from the queue and stacks batches."""
    total, xs, ys = 0, [], []
    while True:
        row = queue.get()
        queue.task_done()
        if row is None:
            break
        xs.append(row[0])
        ys.append(row[1])
        if len(xs) == BATCH:
            total += len(np.stack(xs)) + 0 * len(np.array(ys))
            xs, ys = [], []
    total += len(xs)
    result.put(total)


def by_queue(partition, managed):
    import multiprocessing

    part = list(partition)
    context = multiprocessing.get_context("fork")
    manager = context.Manager() if managed else None
    maker = manager or context
    queue, result = maker.JoinableQueue(1024), maker.Queue()
    process = context.Process(target=consume, args=(queue, result))
    process.start()
    queue.put(part[0])  # the consumer is up
    started = time.perf_counter()
    for row in part[1:]:
        queue.put(row)
    queue.put(None)
    assert result.get() == len(part)
    seconds = time.perf_counter() - started
    process.join()
    if manager:
        manager.shutdown()
    yield len(part), seconds


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rows", type=int, default=8000)
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    from kerasoft.runtime.spark_session import session

    spark = session("rdd feed", "local[1]")
    try:
        sc = spark.sparkContext
        data = sc.parallelize([0], 1).flatMap(lambda i: rows(i, args.rows)).cache()
        data.count()
        subjects = {
            "kerasoft blocks": by_blocks,
            "per-row queue (multiprocessing)": lambda p: by_queue(p, False),
            "per-row queue (manager, as TFoS)": lambda p: by_queue(p, True),
        }
        rates = {name: [] for name in subjects}
        for _ in range(args.rounds + 1):  # the first round warms up
            for name, task in subjects.items():
                ((count, seconds),) = data.mapPartitions(task).collect()
                rates[name].append(count / seconds)
        print("| feed | rows/s (median) | ours / it |\n|---|---|---|")
        ours = statistics.median(rates["kerasoft blocks"][1:])
        for name, measured in rates.items():
            rate = statistics.median(measured[1:])
            print(f"| {name} | {rate:,.0f} | {ours / rate:.1f} |")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
