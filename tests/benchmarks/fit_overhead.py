"""What a step of `fit` on NumPy arrays costs beyond its arithmetic: a tiny model here and in Keras 3 on JAX, interleaved.

    KERAS_BACKEND=jax python tests/benchmarks/fit_overhead.py
    KERAS_BACKEND=jax python tests/benchmarks/fit_overhead.py --rounds 20 --steps 500

Prints a Markdown table: median (minimum) microseconds a step, and the ratios to Keras.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import keras
import numpy as np

import kerasoft

EPOCHS, BATCH = 2, 32


def tiny(library: Any) -> Any:
    """A compiled model of 25 parameters."""
    layers = library.layers
    model = library.Sequential([library.Input((4,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile(library.optimizers.SGD(0.01), "mse", metrics=["mae"])
    return model


def measure(rounds: int, steps: int) -> dict[str, list[float]]:
    """Microseconds a step of each round, by library; the first fit, which compiles, is left out."""
    x = np.random.default_rng(0).random((BATCH * steps, 4)).astype(np.float32)
    y = x.sum(axis=1, keepdims=True)
    models = {"kerasoft": tiny(kerasoft), "keras": tiny(keras)}
    for model in models.values():
        model.fit(x, y, batch_size=BATCH, verbose=0)
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            begin = time.perf_counter()
            model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
            found[name].append((time.perf_counter() - begin) / (EPOCHS * steps) * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=500, help="steps of an epoch")
    options = parser.parse_args()
    found = measure(options.rounds, options.steps)
    median = {name: statistics.median(v) for name, v in found.items()}
    least = {name: min(v) for name, v in found.items()}
    print("| | us a step: median (minimum) | ratio to Keras: medians (minima) |\n|---|---|---|")
    for name in found:
        ratio = f"{median[name] / median['keras']:.2f} ({least[name] / least['keras']:.2f})"
        print(f"| {name} | {median[name]:.1f} ({least[name]:.1f}) | {ratio} |")


if __name__ == "__main__":
    main()
