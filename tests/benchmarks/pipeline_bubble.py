"""How long the stages of a pipeline wait: steps whose phases are padded to fixed times by sleeping, against theory.

    python -m tests.benchmarks.pipeline_bubble [--forward-ms 20] [--steps 4]

A forward phase takes --forward-ms, a backward one twice as long, whatever is computed in it; ranks are threads with real
sockets between them. So the schedule, the messages and the loop are measured on any machine, not the arithmetic.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import numpy as np
from kerasoft.compiler import parallel
from kerasoft.runtime import Parallel
from kerasoft.runtime.parallel.schedule import SCHEDULES, bubble

import kerasoft as ks
from tests.compiler.parallel.together import source_of
from tests.runtime.cases import Recorder, fit_in_threads

WIDTH = 64


@contextlib.contextmanager
def padded(forward_s: float):
    """Every phase takes its time, between what it receives and what it sends."""
    run = parallel.run

    def slow(phase, environment, links):
        backward = any("vector" in getattr(i, "writes", ()) for i in phase)
        for instruction in phase:
            begun = time.perf_counter()
            run((instruction,), environment, links)
            if isinstance(instruction, parallel.Compute):
                for name in instruction.writes:
                    environment[name].block_until_ready()
                time.sleep(max(forward_s * (1 + backward) - (time.perf_counter() - begun), 0.0))

    parallel.run = slow
    try:
        yield
    finally:
        parallel.run = run


def measured(stages: int, microbatches: int, schedule: str, forward_s: float, steps: int) -> float:
    """The share of a step in which a stage waits: the median over steps, the first left out."""
    model = ks.Sequential([ks.Input((WIDTH,)), *(ks.layers.Dense(WIDTH, "tanh") for _ in range(stages))])
    for i, layer in enumerate(model.layers[-stages:]):
        layer.placement = i
    model.compile("sgd", "mse")
    rows = 4 * microbatches * (steps + 1)
    x = np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(np.float32)
    source, params, state = source_of(model, x[:4], x[:4], 4)
    block = dict(zip((i.name for i in source.inputs), (x, x), strict=True))
    told: list[float] = []
    hooks = Recorder()
    hooks.on_report = lambda reports: told.append(time.perf_counter())
    placement = {layer.name: layer.placement for layer in model.layers[-stages:]}
    strategy = Parallel(pipeline=stages, microbatches=microbatches, schedule=schedule, timeout_s=60)
    with padded(forward_s):
        fit_in_threads(
            source, [[block]], stages, strategy, hooks=hooks, params=params, state=state, epochs=1,
            batch_size=4 * microbatches, placement=placement, learning_rate=0.01,
        )  # fmt: skip
    assert len(told) == steps + 1, "every step is told of by itself"
    return 1 - 3 * forward_s * microbatches / statistics.median(np.diff(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forward-ms", type=float, default=20)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    print("| stages | microbatches | (p - 1) / (k + p - 1) | " + " | ".join(SCHEDULES) + " |")
    print("|---|---|---|" + "---|" * len(SCHEDULES))
    for stages in (2, 4):
        for microbatches in (stages, 2 * stages, 4 * stages):
            found = [
                measured(stages, microbatches, schedule, options.forward_ms / 1e3, options.steps)
                for schedule in SCHEDULES
            ]
            theory = bubble(stages, microbatches)
            print(
                f"| {stages} | {microbatches} | {theory:.1%} | " + " | ".join(f"{f:.1%}" for f in found) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
