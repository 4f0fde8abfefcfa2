"""MNIST with each strategy on a local Spark cluster: accuracy, seconds, bytes that a worker sends a step.

    python tests/benchmarks/strategies.py --data FOLDER [--strategy NAME ...] [--workers 2] [--epochs 2] [--model mlp]

Published in 2016 on clusters: SparkNet 94.2 % (21,003 s), CaffeOnSpark 99.6 % (2,229 s), DL4J 84.6 % (8,367 s),
TensorFlow on Spark 95.4 % (828 s).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

import kerasoft.runtime as kr
from kerasoft.runtime.spark_session import session

import kerasoft as ks

STRATEGIES = {
    "AllReduce": (lambda **o: kr.AllReduce(**o), "adam"),
    "AllReduce double buffering": (lambda **o: kr.AllReduce(double_buffering=True, **o), "adam"),
    "AllReduce, SGD(0.3)": (lambda **o: kr.AllReduce(**o), ks.optimizers.SGD(0.3)),
    "AllReduce threshold, SGD(0.3)": (
        lambda **o: kr.AllReduce(compression=kr.Threshold(density=0.005), **o),
        ks.optimizers.SGD(0.3),
    ),
    "LocalSGD tau=10": (lambda **o: kr.LocalSGD(10, **o), "adam"),
    "ParameterAveraging 5": (lambda **o: kr.ParameterAveraging(5, **o), "adam"),
    "ParameterAveraging best": (lambda **o: kr.ParameterAveraging(50, combine="best", **o), "adam"),
    "Downpour 1, 1": (lambda **o: kr.Downpour(1, 1, **o), ks.optimizers.SGD(0.1)),
    "Downpour 5, 5": (lambda **o: kr.Downpour(5, 5, **o), ks.optimizers.SGD(0.1)),
    "StaleSynchronous 3": (lambda **o: kr.StaleSynchronous(3, **o), "adam"),
}


def mlp() -> ks.Model:
    """784-512-10 with dropout, 407,050 parameters."""
    return ks.Sequential(
        [
            ks.Input((28, 28, 1)),
            ks.layers.Flatten(),
            ks.layers.Dense(512, activation="relu"),
            ks.layers.Dropout(0.2),
            ks.layers.Dense(10, activation="softmax"),
        ]
    )


def watched(strategy):
    """The strategy, and the list into which it puts the driver's counters of bytes."""
    import kerasoft.runtime.driver as driver

    found: list = []

    class Watched(driver.Driver):
        def run(self):
            result = super().run()
            found.extend(self.counters)
            return result

    import kerasoft.runtime.spark as carrier

    carrier.Driver = Watched
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with MNIST's four idx files")
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--model", default="mlp", choices=("mlp", "lenet"))
    options = parser.parse_args()

    import mnist

    def read(part):
        return [mnist.read_idx(options.data, f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]

    train, test = read("train"), read("t10k")
    spark = session("strategies", f"local-cluster[{options.workers},1,2048]", {"spark.rpc.message.maxSize": "512"})
    sc = spark.sparkContext
    rows = mnist.rows(sc, *train, options.workers).cache()
    held_out = mnist.rows(sc, *test, options.workers).cache()
    rows.count(), held_out.count()
    print("| strategy | test accuracy | seconds of fit | MB sent by a worker | KB a step |\n|---|---|---|---|---|")
    for name in options.strategy:
        make, optimizer = STRATEGIES[name]
        ks.utils.set_random_seed(1)
        model = mlp() if options.model == "mlp" else mnist.lenet()
        if not isinstance(optimizer, str):
            optimizer = type(optimizer).from_config(optimizer.get_config())
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        strategy = make(workers=options.workers)
        counters = watched(strategy)
        started = time.perf_counter()
        validation = {"validation_data": held_out} if "best" in name else {}
        model.fit(
            rows,
            batch_size=options.batch_size,
            epochs=options.epochs,
            verbose=0,
            seed=1,
            strategy=strategy,
            **validation,
        )
        seconds = time.perf_counter() - started
        accuracy = model.evaluate(held_out, return_dict=True)["accuracy"]
        sent = counters[0]["bytes_sent"] if counters else 0
        steps = max(model.last_fit_profile.steps, 1)
        print(f"| {name} | {accuracy:.4f} | {seconds:.1f} | {sent / 1e6:.2f} | {sent / steps / 1e3:.2f} |", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
