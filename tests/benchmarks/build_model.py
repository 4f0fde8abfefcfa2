"""How long building ResNet50 takes here and in Keras, in one run, taking turns.

    python tests/benchmarks/build_model.py [rounds]

Prints the seconds of each round and the ratio of the medians. The first round of each is not counted: Keras compiles its
initializers then, which would be unfair to it.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import keras

import kerasoft as ks


def seconds(library) -> float:
    """One build, until all initial weights are there."""
    library.utils.clear_session()
    begin = time.perf_counter()
    model = library.applications.ResNet50(weights=None)
    if library is keras:
        jax.block_until_ready([v.value for v in model.weights])
    return time.perf_counter() - begin


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    times: dict[str, list[float]] = {"keras": [], "kerasoft": []}
    for turn in range(rounds + 1):
        for library in (keras, ks):
            took = seconds(library)
            if turn:
                times[library.__name__].append(took)
    for name, values in times.items():
        print(f"{name:9s} median {statistics.median(values):.3f} s   {' '.join(f'{v:.3f}' for v in values)}")
    print(f"ratio     {statistics.median(times['keras']) / statistics.median(times['kerasoft']):.2f}")


if __name__ == "__main__":
    main()
