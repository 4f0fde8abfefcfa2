"""AllReduce, StaleSynchronous and Downpour with slow workers: milliseconds a step, real loops and sockets, ranks as threads.

    python tests/benchmarks/stragglers.py [--workers 3] [--steps 60] [--ms 20]

A gradient is a sleep of so many milliseconds and a small one; a slow worker sleeps four times as long. "in turns": in each step
another pair of steps' worker is slow; "by chance": each worker in each step with probability 1/4; "always": worker 0.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from kerasoft.runtime import AllReduce, Downpour, StaleSynchronous
from kerasoft.runtime.faults import Fault

from tests.runtime.cases import fit_in_threads, mlp, shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ms", type=float, default=20)
    options = parser.parse_args()
    N, steps = options.workers, options.steps
    dice = random.Random(0)
    chance = {(r, t): dice.random() < 0.25 for r in range(N) for t in range(steps)}
    cases = {
        "nobody": lambda r, t: False,
        "in turns": lambda r, t: t // 2 % N == r,
        "by chance": lambda r, t: chance[r, t],
        "always": lambda r, t: r == 0,
    }
    strategies = [AllReduce(), *(StaleSynchronous(s) for s in (0, 1, 3, 6)), Downpour(1, 1)]
    print("| slow | " + " | ".join(f"{type(s).__name__}({getattr(s, 'staleness', '')})" for s in strategies) + " |")
    print("|---" * (len(strategies) + 1) + "|")
    data = shards((steps,) * N, block=steps)
    for name, slow in cases.items():
        ms = options.ms / 1e3
        faults = [Fault(r, 0, t, "sleep", seconds=4 * ms if slow(r, t) else ms) for r in range(N) for t in range(steps)]
        row = []
        for strategy in strategies:
            _, hooks, _ = fit_in_threads(mlp(), data, N, strategy, batch_size=N, faults=faults)
            row.append(f"{1e3 * hooks.ends[0].wall_s / hooks.ends[0].steps:.1f}")
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
