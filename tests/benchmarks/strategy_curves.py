"""MNIST with every strategy on one local Spark cluster: accuracy of the held-out digits against wall time, as a plot.

    python tests/benchmarks/strategy_curves.py --data FOLDER [--only NAME ...] [--out docs/strategies]

Each fit runs in pieces of an epoch ("epochs" of `steps_per_epoch`); at the end of each the weights are kept with the time since
`fit` was called, Spark's job, rendezvous and compilation included. The accuracies of the kept weights are computed after the
fit. Points go to `curves.json` in the folder as they come, the plot beside it; `--plot` draws again what is there.

The strategies share a cluster of three executors (a parameter server needs one more than the two workers), data, seed and the
784-512-10 net with dropout of `strategies.py` (LeNet where it says so), batch 128.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

import kerasoft.runtime as kr
import matplotlib
import mnist
import numpy as np
from kerasoft.runtime.spark_session import session

import kerasoft as ks
from tests.benchmarks.strategies import mlp

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WORKERS = 2
PIECES = {"batch_size": 128, "steps_per_epoch": 94, "epochs": 15}  # three passes in fifths
SLOW = {"batch_size": 512, "steps_per_epoch": 8, "epochs": 5}  # a Spark job or two in each step
PUBLISHED = {  # accuracy after seconds; Spark Summit 2016, on clusters
    "SparkNet": [(0.942, 21_003)],
    "CaffeOnSpark": [(0.97, 224), (0.994, 445), (0.997, 1113), (0.996, 2229)],
    "DL4J": [(0.70, 2098), (0.79, 4205), (0.827, 6303), (0.846, 8367)],
    "TensorFlow on Spark": [(0.93, 223), (0.94, 415), (0.942, 615), (0.954, 828)],
}


@dataclasses.dataclass
class Way:
    """A strategy, the optimizer with which it is usual, and how long it trains."""

    make: object
    optimizer: str = "adam"
    rate: float = 0.0
    pieces: dict = dataclasses.field(default_factory=lambda: dict(PIECES))
    model: object = mlp
    sockets: bool = False  # no shared memory, which never rounds

    def compiled(self):
        model = self.model()
        optimizer = ks.optimizers.SGD(self.rate) if self.optimizer == "sgd" else "adam"
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


def over_sockets(strategy):
    """The strategy with ranks of one host that exchange by sockets, as hosts would."""
    made = type(strategy)

    class Sockets(made):
        def settings(self, *args, **named):
            return dataclasses.replace(super().settings(*args, **named), transports=("unix", "tcp"))

    return Sockets(**{f.name: getattr(strategy, f.name) for f in dataclasses.fields(strategy)})


FOLDER = tempfile.mkdtemp(prefix="kerasoft-store-")
WAYS = {
    "AllReduce": Way(lambda: kr.AllReduce(WORKERS)),
    "AllReduce bfloat16": Way(lambda: kr.AllReduce(WORKERS, wire_dtype="bfloat16"), sockets=True),
    "AllReduce double buffering": Way(lambda: kr.AllReduce(WORKERS, double_buffering=True)),
    "AllReduce 2 buckets": Way(lambda: kr.AllReduce(WORKERS, buckets=2)),
    "AllReduce threshold": Way(lambda: kr.AllReduce(WORKERS, compression=kr.Threshold(density=0.005)), "sgd", 0.3),
    "AllReduce top-k": Way(lambda: kr.AllReduce(WORKERS, compression=kr.TopK(0.003)), "sgd", 0.3),
    "AllReduce 2 bits": Way(lambda: kr.AllReduce(WORKERS, compression=kr.TwoBit())),
    "AllReduce, LeNet": Way(lambda: kr.AllReduce(WORKERS), model=mnist.lenet, pieces={**PIECES, "epochs": 10}),
    "LocalSGD(10)": Way(lambda: kr.LocalSGD(10, workers=WORKERS)),
    "ParameterAveraging(5)": Way(lambda: kr.ParameterAveraging(5, workers=WORKERS)),
    "Downpour(1, 1)": Way(lambda: kr.Downpour(1, 1, workers=WORKERS), "sgd", 0.1),
    "Downpour(5, 5)": Way(lambda: kr.Downpour(5, 5, workers=WORKERS), "sgd", 0.1),
    "StaleSynchronous(3)": Way(lambda: kr.StaleSynchronous(3, workers=WORKERS)),
    "ParameterServer": Way(lambda: kr.ParameterServer(1, workers=WORKERS)),
    "ParameterServer http": Way(lambda: kr.ParameterServer(1, "http", workers=WORKERS)),
    "ParameterServer file": Way(lambda: kr.ParameterServer(1, "file", folder=FOLDER, workers=WORKERS)),
    "ParameterServer broadcast": Way(lambda: kr.ParameterServer(1, "broadcast", workers=WORKERS), pieces=SLOW),
    "DriverReduce": Way(lambda: kr.DriverReduce(), pieces=SLOW),
    "ShuffleAllReduce": Way(lambda: kr.ShuffleAllReduce(), pieces=SLOW),
    "LBFGS": Way(lambda: kr.LBFGS(workers=WORKERS), pieces={"batch_size": 4096, "epochs": 30}),
}


class Keep(ks.callbacks.Callback):
    """The weights at the end of each epoch, and when."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_begin(self, logs=None):
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append((time.perf_counter(), self.model.get_weights()))


def curve(way: Way, rows, x, y) -> dict:
    """Seconds and accuracies of one fit."""
    ks.utils.set_random_seed(1)
    model = way.compiled()
    strategy = way.make()
    keep = Keep()
    began = time.perf_counter()
    model.fit(
        rows,
        verbose=0,
        seed=1,
        callbacks=[keep],
        strategy=over_sockets(strategy) if way.sockets else strategy,
        **way.pieces,
    )
    ended = time.perf_counter() - began
    points = []
    for when, weights in keep.kept:
        model.set_weights(weights)
        wrong = np.argmax(model.predict(x, batch_size=1000, verbose=0), axis=1) != y
        points.append([round(when - began, 3), round(1 - float(wrong.mean()), 4)])
    return {"points": points, "seconds": round(ended, 2), "batch": way.pieces["batch_size"]}


def draw(found: dict, out: pathlib.Path) -> None:
    figure, axes = plt.subplots(figsize=(11, 7))
    for i, (name, way) in enumerate((n, found[n]) for n in WAYS if n in found):
        seconds, accuracy = zip(*way["points"], strict=True)
        style = ("-", "--", ":")[i // 10]
        axes.plot(seconds, accuracy, style, marker=".", markersize=4, linewidth=1, color=f"C{i % 10}", label=name)
    for marker, (name, points) in zip("svDP", PUBLISHED.items(), strict=True):
        accuracy, seconds = zip(*points, strict=True)
        axes.plot(seconds, accuracy, color="black", marker=marker, linewidth=0.6, label=f"{name}, published 2016")
    axes.set_xscale("log")
    axes.set_ylim(0.68, 1.0)
    axes.set_xlabel("seconds since fit was called")
    axes.set_ylabel("accuracy on 10,000 held-out digits")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=8, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(out / "accuracy.png", dpi=90)


def table(found: dict) -> None:
    print(
        "| strategy | best accuracy | after s | 94.2 % after s | 95.4 % after s | seconds of fit |\n|---|---|---|---|---|---|"
    )
    for name in (n for n in WAYS if n in found):
        points = found[name]["points"]
        best = max(points, key=lambda p: (p[1], -p[0]))
        reached = [next((f"{s:.1f}" for s, a in points if a >= wanted), "–") for wanted in (0.942, 0.954)]
        print(
            f"| {name} | {best[1]:.4f} | {best[0]:.1f} | {reached[0]} | {reached[1]} | {found[name]['seconds']:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder with MNIST's four idx files")
    parser.add_argument("--only", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "docs" / "strategies")
    parser.add_argument("--plot", action="store_true", help="only draw what is there")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    file = options.out / "curves.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    if not options.plot:
        images, labels = (mnist.read_idx(options.data, f"t10k-{k}") for k in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        x, y = (images[..., None] / 255).astype(np.float32), labels.astype(np.int64)
        train = [mnist.read_idx(options.data, f"train-{k}") for k in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        spark = session("curves", f"local-cluster[{WORKERS + 1},1,1280]", {"spark.rpc.message.maxSize": "512"})
        rows = mnist.rows(spark.sparkContext, *train, WORKERS).cache()
        rows.count()
        for name in options.only:
            found[name] = curve(WAYS[name], rows, x, y)
            lines = ",\n".join(f"{json.dumps(n)}: {json.dumps(found[n])}" for n in found)
            file.write_text(f"{{\n{lines}\n}}\n")
            print(f"{name}: {found[name]['points'][-1]}, {found[name]['seconds']} s", flush=True)
        spark.stop()
    draw(found, options.out)
    table(found)


if __name__ == "__main__":
    main()
