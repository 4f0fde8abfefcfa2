"""Shows LeNet on MNIST's idx files as an RDD: `python examples/mnist.py --data FOLDER` (the four .gz or plain files)."""

from __future__ import annotations

import argparse
import gzip
import pathlib
import time

import numpy as np
from kerasoft.runtime.spark_session import session

import kerasoft as ks


def read_idx(folder: pathlib.Path, name: str) -> np.ndarray:
    """An idx file, plain or gzipped, as uint8 array. Source: http://yann.lecun.com/exdb/mnist/ (file format)."""
    for file, opener in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if file.exists():
            with opener(file, "rb") as stream:
                data = stream.read()
            break
    else:
        raise SystemExit(
            f"{folder} holds neither {name} nor {name}.gz; give the folder of MNIST's idx files with --data."
        )
    if data[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{file} is no idx file of unsigned bytes.")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def lenet() -> ks.Model:
    """Convolutions of 32 and 64 channels, two poolings, a dense layer of 128: about 420,000 parameters."""
    return ks.Sequential(
        [
            ks.Input((28, 28, 1)),
            ks.layers.Conv2D(32, 5, activation="relu"),
            ks.layers.MaxPooling2D(),
            ks.layers.Conv2D(64, 5, activation="relu"),
            ks.layers.MaxPooling2D(),
            ks.layers.Flatten(),
            ks.layers.Dense(128, activation="relu"),
            ks.layers.Dropout(0.4),
            ks.layers.Dense(10, activation="softmax"),
        ]
    )


def rows(sc, images: np.ndarray, labels: np.ndarray, partitions: int):
    """An RDD of (float32[28, 28, 1] in 0..1, label)."""
    pairs = sc.parallelize(list(zip(images, labels.tolist())), partitions)
    return pairs.map(lambda pair: ((pair[0][..., None] / 255).astype("float32"), pair[1]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=pathlib.Path, required=True, help="folder with MNIST's four idx files")
    options.add_argument("--master", default="local-cluster[2,1,2048]")
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--limit", type=int, default=None, help="use only so many training rows")
    args = options.parse_args()

    train = [read_idx(args.data, f"train-{kind}")[: args.limit] for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    test = [read_idx(args.data, f"t10k-{kind}")[: args.limit] for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    ks.utils.set_random_seed(1)
    spark = session("kerasoft mnist", args.master, {"spark.rpc.message.maxSize": "512"})
    try:
        sc = spark.sparkContext
        model = lenet()
        schedule = ks.optimizers.schedules.CosineDecay(1e-3, args.epochs * -(-len(train[0]) // args.batch_size))
        model.compile(
            optimizer=ks.optimizers.Adam(schedule), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        started = time.perf_counter()
        model.fit(rows(sc, *train, 8), batch_size=args.batch_size, epochs=args.epochs)
        seconds = time.perf_counter() - started
        accuracy = model.evaluate(rows(sc, *test, 4), return_dict=True)["accuracy"]
        print(model.last_fit_profile)
        print(
            f"{args.epochs * len(train[0]) / seconds:,.0f} images/s, fit took {seconds:.1f} s, test accuracy {accuracy:.4f}"
        )
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
