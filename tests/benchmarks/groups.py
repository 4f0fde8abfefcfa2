"""Drizzle's micro-benchmark on Spark as it is: milliseconds a step when a Spark job carries 1, 25, 50 or 100 iterations.

    python tests/benchmarks/groups.py [--workers 4] [--steps 100] [--groups 1 25 50 100]

An almost empty gradient (48 parameters). A group is a fit of so many steps, which goes on from the weights and the optimizer's state
of the one before; `AllReduce` by itself has one group, the whole fit. Published for Drizzle on four machines: 15.5 ms at 1, then
3.1, 2.6, 2.2. A group of 1 stops after 10 steps. Weights are compared to the bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import kerasoft.runtime.spark as carrier
from kerasoft.runtime import AllReduce
from kerasoft.runtime.shards import table_of
from kerasoft.runtime.spark_session import session

from tests.runtime.cases import Recorder, digest, job_of, mlp, shards


def in_groups(job, group: int, steps: int, fit):
    """The result of `steps` steps of the first epoch, `group` of them in each call of ``fit(job)``."""
    result = None
    for first in range(0, steps, group):
        more = {"initial_step": first, "steps_per_epoch": first + group, "epochs": 1, "iteration": first}
        if result is not None:
            more |= {"params": result.params, "state": result.state, "slots": result.slots}
        result = fit(dataclasses.replace(job, **more))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 25, 50, 100])
    options = parser.parse_args()
    spark = session("groups", f"local[{options.workers}]")
    data = shards((4 * options.steps,) * options.workers)
    records = [(s, q, block) for s, blocks in enumerate(data) for q, block in enumerate(blocks)]
    rows = spark.sparkContext.parallelize(records, options.workers).cache()
    made = type("Blocks", (), {"rdd": rows, "table": table_of(data)})()
    job = job_of(mlp(), batch_size=4 * options.workers)
    strategy = AllReduce(workers=options.workers, deterministic=True, checkpoint_every_s=1e9)

    def fit(part):
        return carrier.train(part, made, None, strategy, Recorder())

    in_groups(job, 5, 5, fit)  # starts the Python workers
    print("| iterations a job | jobs | ms/step | against 1 | weights |\n|---|---|---|---|---|")
    base = 0.0
    for group in options.groups:
        steps = min(options.steps, 10) if group == 1 else options.steps
        began = time.perf_counter()
        result = in_groups(job, group, steps, fit)
        ms = (time.perf_counter() - began) * 1e3 / steps
        base = base or ms
        after = f"{digest(result)[:12]} after {steps}"
        print(f"| {group} | {steps // group} | {ms:.1f} | {base / ms:.1f} times | {after} |", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
