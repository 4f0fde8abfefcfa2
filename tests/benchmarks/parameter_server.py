"""ParameterServer's four stores: milliseconds a step, by default at the 14.3 million parameters of Adatao's molecular net.

    python tests/benchmarks/parameter_server.py [--workers 2] [--servers 1] [--units 2610] [--steps 6] [--store NAME ...]

A dense net on 2,871 columns with few rows a step, so that moving and updating parameters is what costs; SGD. The first epoch
is left out (compiling).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import numpy as np
from driver_reduce import Clock
from kerasoft.runtime import ParameterServer
from kerasoft.runtime.spark_session import session

import kerasoft as ks

COLUMNS = 2871


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--units", type=int, default=2610)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--store", nargs="+", default=["coprocessor", "http", "file", "broadcast"])
    options = parser.parse_args()
    ranks = options.workers + options.servers
    spark = session("parameter server", f"local-cluster[{ranks},1,1536]", {"spark.driver.maxResultSize": "4g"})
    sc = spark.sparkContext
    rng = np.random.default_rng(0)
    batch = 4 * options.workers
    x = rng.normal(size=(batch * options.steps, COLUMNS)).astype("float32")
    y = (x.sum(1, keepdims=True) > 0).astype("float32")
    rows = sc.parallelize(list(zip(x, y)), options.workers).cache()
    print("| store | parameters | ms/step |\n|---|---|---|", flush=True)
    for store in options.store:
        ks.utils.set_random_seed(1)
        dense = [ks.layers.Dense(options.units, activation="tanh") for _ in range(2)]
        model = ks.Sequential([ks.Input((COLUMNS,)), *dense, ks.layers.Dense(1)])
        model.compile(ks.optimizers.SGD(0.01), "mse")
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            more = {"folder": folder} if store == "file" else {}
            strategy = ParameterServer(options.servers, store, workers=options.workers, **more)
            model.fit(rows, batch_size=batch, epochs=3, verbose=0, seed=1, callbacks=[clock], strategy=strategy)
        begun, ended = clock.marks[2::2], clock.marks[3::2]
        ms = min(b - a for a, b in zip(begun, ended, strict=True)) / options.steps * 1e3
        print(f"| {store} | {model.count_params():,} | {ms:.0f} |", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
