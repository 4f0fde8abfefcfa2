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


def seconds(library) -> tuple[float, float]:
    """One build, and one build until all initial weights are there (kerasoft draws a weight when it is first read)."""
    library.utils.clear_session(free_memory=False)
    begin = time.perf_counter()
    model = library.applications.ResNet50(weights=None)
    built = time.perf_counter() - begin
    if library is keras:
        jax.block_until_ready([v.value for v in model.weights])
    else:
        for v in model.weights:
            v.numpy()
    return built, time.perf_counter() - begin


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    times: dict[str, list[tuple[float, float]]] = {"keras": [], "kerasoft": []}
    for turn in range(rounds + 1):
        for library in (keras, ks):
            took = seconds(library)
            if turn:
                times[library.__name__].append(took)
    for index, what in enumerate(("built", "built, weights drawn")):
        median = {name: statistics.median(pair[index] for pair in pairs) for name, pairs in times.items()}
        for name, pairs in times.items():
            print(f"{what:21s} {name:9s} median {median[name]:.3f} s   {' '.join(f'{p[index]:.3f}' for p in pairs)}")
        print(f"{what:21s} ratio     {median['keras'] / median['kerasoft']:.2f}")


if __name__ == "__main__":
    main()
