"""How long a step would take on so many nodes: each strategy's milliseconds, efficiency and share of exchange.

    python -m kerasoft.runtime.scaling --parameters 25.6e6 --compute-ms 500 --nodes 16 64 --network 10

What the figures rest on: docs/scaling.md.
"""

from __future__ import annotations

import argparse
import math

from ..strategies import (
    AllReduce,
    Downpour,
    DriverReduce,
    LocalSGD,
    ParameterAveraging,
    ParameterServer,
    ShuffleAllReduce,
    StaleSynchronous,
)
from . import Failures, Job, Network, Stragglers, predict

STRATEGIES = {
    "AllReduce()": lambda n: AllReduce(),
    'AllReduce(topology="ring")': lambda n: AllReduce(topology="ring"),
    'AllReduce(topology="tree")': lambda n: AllReduce(topology="tree"),
    'AllReduce(wire_dtype="bfloat16")': lambda n: AllReduce(wire_dtype="bfloat16"),
    'AllReduce(topology="ring", wire_dtype="bfloat16")': lambda n: AllReduce(topology="ring", wire_dtype="bfloat16"),
    'AllReduce(buckets=4, topology="ring")': lambda n: AllReduce(buckets=4, topology="ring"),
    'AllReduce(compression="threshold")': lambda n: AllReduce(compression="threshold"),
    'AllReduce(double_buffering=True, topology="ring")': lambda n: AllReduce(double_buffering=True, topology="ring"),
    'LocalSGD(10, topology="ring")': lambda n: LocalSGD(10, topology="ring"),
    'ParameterAveraging(5, topology="ring")': lambda n: ParameterAveraging(5, topology="ring"),
    "StaleSynchronous(3)": lambda n: StaleSynchronous(3),
    "Downpour(1, 1)": lambda n: Downpour(1, 1),
    "Downpour(5, 5)": lambda n: Downpour(5, 5),
    "ParameterServer(N / 4)": lambda n: ParameterServer(max(1, n // 4)),
    "DriverReduce()": lambda n: DriverReduce(),
    "ShuffleAllReduce()": lambda n: ShuffleAllReduce(),
}
"""Each strategy as it is compared, for N workers."""


def table(job_for, nodes, only: str = "") -> str:
    """A Markdown table: milliseconds, efficiency and exchange / compute for each strategy (whose name has `only` in it)."""
    lines = ["| strategy | nodes | ms/step | efficiency | sync / compute | waiting ms | MB sent |", "|---" * 7 + "|"]
    for name, make in STRATEGIES.items():
        for n in nodes if only.lower() in name.lower() else ():
            p = predict(make(n), job_for(n))
            lines.append(
                f"| `{name}` | {n} | {1e3 * p.step_s:.0f} | {p.efficiency:.1%} | {p.sync_share:.1%} "
                f"| {1e3 * p.wait_s:.1f} | {p.sent_bytes / 1e6:.3g} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kerasoft.runtime.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parameters", type=float, required=True)
    parser.add_argument("--compute-ms", type=float, required=True, help="of a gradient of a worker's part of the batch")
    parser.add_argument("--nodes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--network", type=float, default=10, help="Gbit/s")
    parser.add_argument("--alpha-us", type=float, default=120, help="of a round of messages")
    parser.add_argument(
        "--spread", type=float, default=0.05, help="standard deviation of compute, as a share of its mean"
    )
    parser.add_argument("--slow", type=float, default=0, help="probability that a gradient takes four times as long")
    parser.add_argument("--mtbf-hours", type=float, default=math.inf, help="mean time between deaths of a node")
    parser.add_argument("--strategy", default="", help="only those with this in their name")
    options = parser.parse_args()
    network = Network.ethernet(options.network, alpha_s=options.alpha_us / 1e6)

    stragglers = Stragglers(options.spread, options.slow)
    # a checkpoint goes through the driver's link: parameters and two vectors of the optimizer's state
    failures = Failures(options.mtbf_hours * 3600, checkpoint_s=12 * options.parameters * network.byte_s)

    def job_for(n: int) -> Job:
        return Job(options.parameters, options.compute_ms / 1e3, n, network, stragglers, failures)

    print(table(job_for, options.nodes, options.strategy))


if __name__ == "__main__":
    main()
