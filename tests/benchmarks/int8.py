"""Inference in 8-bit integers against float32: rows a second of `predict`, both ways of one model, taking turns.

    python tests/benchmarks/int8.py [model ...]      of mlp, lenet, inception, resnet, mobilenet

Weights are random (speed does not depend on them). Prints the best of the rounds, the ratio, and the sizes of the files.
"""

import os
import sys
import tempfile
import time

import numpy as np

import kerasoft as ks

ROUNDS, SECONDS = 5, 0.8


def mlp():
    layers = [ks.layers.Dense(512, activation="relu"), ks.layers.Dense(512, activation="relu"), ks.layers.Dense(10)]
    return ks.Sequential([ks.Input((784,)), *layers, ks.layers.Softmax()]), (784,), 128


def lenet():
    conv, pool = ks.layers.Conv2D, ks.layers.MaxPooling2D
    layers = [
        conv(32, 5, activation="relu", padding="same"),
        pool(),
        conv(64, 5, activation="relu", padding="same"),
        pool(),
    ]
    top = [ks.layers.Flatten(), ks.layers.Dense(512, activation="relu"), ks.layers.Dense(10, activation="softmax")]
    return ks.Sequential([ks.Input((28, 28, 1)), *layers, *top]), (28, 28, 1), 128


MODELS = {
    "mlp": mlp,
    "lenet": lenet,
    "inception": lambda: (ks.applications.InceptionV1(weights=None), (224, 224, 3), 8),
    "resnet": lambda: (ks.applications.ResNet50(weights=None), (224, 224, 3), 8),
    "mobilenet": lambda: (
        ks.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3)),
        (224, 224, 3),
        8,
    ),
}


def rate(model, x, batch) -> float:
    """Rows a second."""
    begin, rows = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        model.predict(x, batch_size=batch, verbose=0)
        rows += len(x)
    return rows / (time.perf_counter() - begin)


def size(model) -> int:
    path = os.path.join(tempfile.mkdtemp(), "m.keras")
    model.save(path)
    return os.path.getsize(path)


def main() -> None:
    for name in sys.argv[1:] or MODELS:
        model, shape, batch = MODELS[name]()
        x = np.random.default_rng(0).uniform(0, 1, (batch * (16 if batch > 8 else 2), *shape)).astype("float32")
        small, report = ks.quantizers.post_training(model, x[:16], accuracy_guard=None, batch_size=8)
        pair = {"float32": model, "int8": small}
        best = dict.fromkeys(pair, 0.0)
        for turn in range(ROUNDS + 1):
            for kind, one in pair.items():
                found = rate(one, x, batch)
                best[kind] = max(best[kind], found if turn else 0.0)
        sizes = {kind: size(one) for kind, one in pair.items()}
        print(
            f"{name:9s} batch {batch:3d}  float32 {best['float32']:10,.1f} rows/s  int8 {best['int8']:10,.1f} rows/s  "
            f"{best['int8'] / best['float32']:.2f} times   file {sizes['int8'] / sizes['float32']:.3f} of {sizes['float32']:,} bytes"
        )


if __name__ == "__main__":
    main()
