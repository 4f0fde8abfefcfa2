"""All-reduce over TCP by each topology against its cost model: milliseconds measured and predicted, and the error.

    python tests/benchmarks/topologies.py [--ranks 2 4] [--sizes 1000 10000 100000 1000000 10000000] [--repeats 5]

Ranks are processes of this machine. What the model rests on is measured as when a fit's workers connect with
``AllReduce(topology="auto")`` and a vector of `--elements`, once; then each topology is timed in interleaved rounds at all sizes, the
slowest rank's median. All of that is repeated with new processes: a machine that is shared is faster in one minute than in the
next, which no model of a network can know. An error is the median of the repeats' errors; how much the times themselves change
from repeat to repeat stands below the table. "two_level" takes pairs of ranks for hosts, which share memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np


def rank_main(address, secret, rank, world_size, options, results) -> None:
    from kerasoft.runtime.collectives import PeerListener, connect
    from kerasoft.runtime.collectives.topology import NAMES
    from kerasoft.runtime.control_client import ControlClient

    groups = [r // 2 * 2 for r in range(world_size)]
    with ControlClient(address, secret, 1, rank) as client:
        listener = PeerListener(client.local_address)
        table = client.join(listener.address)
        settings = dict(listener=listener, transports=("tcp",), topology="auto", groups=groups)
        settings |= dict(wire_dtype=options.wire, elements=options.elements)
        with connect(table, rank, secret, 1, **settings) as collective:
            for size in options.sizes:
                vector = np.ones(size, np.float32)
                seconds: dict[str, list[float]] = {name: [] for name in NAMES}
                for _ in range(options.rounds * (4 if size <= 100_000 else 1) + 2):
                    for name in NAMES:
                        collective.use(name)
                        collective.barrier()
                        began = time.perf_counter()
                        owned = collective.reduce_scatter(vector)
                        collective.all_gather(owned, size)
                        seconds[name].append(time.perf_counter() - began)
                medians = np.zeros((world_size, len(NAMES)))
                medians[rank] = [statistics.median(s[2:]) for s in seconds.values()]
                slowest = collective.all_reduce_small(medians.reshape(-1)).reshape(medians.shape).max(0)
                if rank == 0:
                    found = [(s, collective.cost_s(n, size)) for n, s in zip(NAMES, slowest.tolist(), strict=True)]
                    results.put((size, collective.alpha_s, collective.byte_s, found))
            collective.barrier()


def once(world_size: int, options) -> Iterator[tuple]:
    """New ranks; for each size (size, alpha, beta, ((measured, predicted) for each topology))."""
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.wire import new_secret

    context = multiprocessing.get_context("spawn")
    with ControlServer(new_secret(), "127.0.0.1") as server:
        server.start_generation(1, world_size)
        results = context.Queue()
        processes = [
            context.Process(target=rank_main, args=(server.address, server.secret, rank, world_size, options, results))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for _ in options.sizes:
            yield results.get(timeout=100)
        for process in processes:
            process.join(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--wire", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=15, help="four times as many up to 100,000 numbers")
    parser.add_argument("--repeats", type=int, default=5, help="of measuring the model and the times")
    options = parser.parse_args()
    print("| ranks | floats | alpha us | beta ns/byte | direct | ring | tree | two-level |\n" + "|---" * 8 + "|")
    errors, changes = [], []
    for world_size in options.ranks:
        repeats = [list(once(world_size, options)) for _ in range(options.repeats)]
        for rows in zip(*repeats, strict=True):
            size = rows[0][0]
            alpha_s, beta_s = (statistics.median(row[i] for row in rows) for i in (1, 2))
            cells = []
            for pairs in zip(*(row[3] for row in rows), strict=True):
                measured, predicted = zip(*pairs, strict=True)
                error = statistics.median(b / a - 1 for a, b in pairs)
                errors.append(abs(error))
                changes.append(max(measured) / min(measured) - 1)
                a, b = statistics.median(measured), statistics.median(predicted)
                cells.append(f"{1e3 * a:.3g} / {1e3 * b:.3g} ({error:+.0%})")
            print(
                f"| {world_size} | {size:,} | {1e6 * alpha_s:.0f} | {1e9 * beta_s:.3f} | {' | '.join(cells)} |",
                flush=True,
            )
    within = sum(e <= 0.3 for e in errors)
    print(
        f"within 30 %: {within} of {len(errors)}; median error {statistics.median(errors):.0%}, largest {max(errors):.0%}; "
        f"from repeat to repeat a time changed by {statistics.median(changes):.0%} (median), {max(changes):.0%} at most"
    )


if __name__ == "__main__":
    main()
