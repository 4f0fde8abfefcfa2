"""AllReduce, StaleSynchronous and Downpour with slow workers: milliseconds a step, real loops and sockets, ranks as threads.

    python tests/benchmarks/staleness.py [--workers 3] [--steps 60] [--ms 20]

A gradient is a sleep of so many milliseconds and a small one; a slow worker sleeps four times as long. "in turns": in each step
another pair of steps' worker is slow; "by chance": each worker in each step with probability 1/4; "always": worker 0.

    python tests/benchmarks/staleness.py --balance [--ms 60]

Worker 0 of four takes four times as long for each row, always: milliseconds a step with and without `balance`, over whole fits of
eight epochs (with the moving) and in the last epoch. 16 shards of 160 rows, 32 rows of each worker a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np
from kerasoft.runtime import AllReduce, Downpour, StaleSynchronous
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.servers.clients import downpour, stale_synchronous
from kerasoft.runtime.servers.machine import SliceServer
from kerasoft.runtime.servers.simulator import Simulation, run

from tests.runtime.cases import fit_in_threads, mlp, shards


def simulated(strategy, workers: int, steps: int, seconds) -> float:
    """What the event-driven simulator says: seconds of an epoch, messages for nothing."""
    by_clock = not isinstance(strategy, Downpour)
    staleness = getattr(strategy, "staleness", 0)
    clients = [stale_synchronous(0, steps, staleness) if by_clock else downpour(0, steps, 1, 1) for _ in range(workers)]
    one = np.zeros(1, np.float32)
    server = SliceServer(
        range(workers), one, (), lambda p, s, g, i, r: (p, s), by_clock=by_clock, state=np.zeros(0, np.float32), sums=1
    )
    return run(Simulation(clients, [server], lambda w, t, p: one), compute_s=seconds)


def balance(ms: float) -> None:
    """Fits with and without moving shards."""
    from tests.runtime.test_balance import with_a_slow_rank

    data, epochs, batch = shards((160,) * 16, block=160), 8, 128
    print(
        "| strategy | balance | ms/step, whole fit | ms/step, last epoch | rows of the slow one |\n|---|---|---|---|---|"
    )
    for strategy in (AllReduce(timeout_s=20), StaleSynchronous(0, timeout_s=20), StaleSynchronous(3, timeout_s=20)):
        for moves in (False, True):
            one = with_a_slow_rank(dataclasses.replace(strategy, balance=moves), row_s=ms / 1e3 / 32)
            began = time.perf_counter()
            result, hooks, _ = fit_in_threads(mlp(), data, 4, one, epochs=epochs, batch_size=batch)
            wall_s, last = time.perf_counter() - began, hooks.ends[-1]
            moved = [e.details["rows"][0] for e in hooks.events if e.kind == "rebalanced"]
            name = f"{type(strategy).__name__}({getattr(strategy, 'staleness', '')})"
            print(
                f"| {name} | {moves} | {wall_s * 1e3 / epochs / last.steps:.1f} | {last.wall_s * 1e3 / last.steps:.1f} "
                f"| {moved[-1] if moved else 640} of 2,560 |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ms", type=float, default=20)
    parser.add_argument("--balance", action="store_true")
    options = parser.parse_args()
    if options.balance:
        return balance(options.ms)
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
        row, guess = [], []
        for strategy in strategies:
            took = simulated(strategy, N, steps, lambda r, t, slow=slow: 4 * ms if slow(r, t) else ms)
            guess.append(f"{1e3 * took / steps:.1f}")
            _, hooks, _ = fit_in_threads(mlp(), data, N, strategy, batch_size=N, faults=faults)
            row.append(f"{1e3 * hooks.ends[0].wall_s / hooks.ends[0].steps:.1f}")
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)
        print("| simulated | " + " | ".join(guess) + " |", flush=True)


if __name__ == "__main__":
    main()
