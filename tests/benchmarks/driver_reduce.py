"""AllReduce against DriverReduce (MLlib's treeAggregate and broadcast): milliseconds a step at ten million parameters.

    python tests/benchmarks/driver_reduce.py [--workers 4] [--units 2900] [--steps 6]

A dense net with few rows a step, so that moving parameters is what costs; SGD. The first epoch is left out (compiling).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np
from kerasoft.runtime import AllReduce, DriverReduce
from kerasoft.runtime.spark_session import session

import kerasoft as ks


class Clock(ks.callbacks.Callback):
    """When each epoch began and ended."""

    def __init__(self):
        super().__init__()
        self.marks = []

    def on_epoch_begin(self, epoch, logs=None):
        self.marks.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None):
        self.marks.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--units", type=int, default=2900)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    spark = session("driver reduce", f"local-cluster[{options.workers},1,1024]", {"spark.driver.maxResultSize": "4g"})
    sc = spark.sparkContext
    rng = np.random.default_rng(0)
    batch = 4 * options.workers
    x = rng.normal(size=(batch * options.steps, 500)).astype("float32")
    rows = sc.parallelize(list(zip(x, (x.sum(1) > 0).astype(int).tolist())), options.workers).cache()
    print("| strategy | parameters | ms/step |\n|---|---|---|")
    for strategy in (AllReduce(workers=options.workers), DriverReduce()):
        model = ks.Sequential(
            [
                ks.Input((500,)),
                *(ks.layers.Dense(options.units, activation="relu") for _ in range(2)),
                ks.layers.Dense(2),
            ]
        )
        model.compile(ks.optimizers.SGD(0.01), ks.losses.SparseCategoricalCrossentropy(from_logits=True))
        clock = Clock()
        model.fit(rows, batch_size=batch, epochs=3, verbose=0, seed=1, callbacks=[clock], strategy=strategy)
        begun, ended = clock.marks[2::2], clock.marks[3::2]
        ms = min(b - a for a, b in zip(begun, ended, strict=True)) / options.steps * 1e3
        print(f"| {type(strategy).__name__} | {model.count_params():,} | {ms:.0f} |", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
