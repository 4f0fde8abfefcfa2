"""All-reduce over TCP by each topology against its cost model: milliseconds measured and predicted.

    python tests/benchmarks/topologies.py [--ranks 2 4] [--sizes 1000 100000 1000000 10000000]

Ranks are processes of this machine. Alpha and beta are measured as when a fit's workers connect, then each topology is timed
in interleaved rounds. "two_level" takes pairs of ranks for hosts, which share memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np


def rank_main(address, secret, rank, world_size, sizes, rounds, results) -> None:
    from kerasoft.runtime.collectives import PeerListener, connect
    from kerasoft.runtime.collectives.topology import NAMES, schedule
    from kerasoft.runtime.control_client import ControlClient

    groups = [r // 2 * 2 for r in range(world_size)]
    with ControlClient(address, secret, 1, rank) as client:
        listener = PeerListener(client.local_address)
        table = client.join(listener.address)
        with connect(
            table, rank, secret, 1, listener=listener, transports=("tcp",), topology="auto", groups=groups
        ) as collective:
            plans = {name: schedule(name, groups) for name in NAMES}
            for size in sizes:
                vector = np.ones(size, np.float32)
                seconds: dict[str, list[float]] = {name: [] for name in NAMES}
                costs = collective.costs = collective.measure(size)
                for _ in range(rounds):
                    for name in NAMES:
                        collective.topology, collective.schedule = name, plans[name]
                        collective._plans.clear()
                        collective.barrier()
                        began = time.perf_counter()
                        owned = collective.reduce_scatter(vector)
                        collective.all_gather(owned, size)
                        seconds[name].append(time.perf_counter() - began)
                if rank == 0:
                    found = {n: (statistics.median(s), collective.cost_s(n, size)) for n, s in seconds.items()}
                    results.put((size, *costs[:2], found))
            collective.barrier()


def main() -> None:
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.wire import new_secret

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(
        "| ranks | floats | alpha us | beta ns/byte | direct | ring | tree | two-level | (ms measured / predicted)\n|---|---|---|---|---|---|---|---|---|"
    )
    context = multiprocessing.get_context("spawn")
    for world_size in options.ranks:
        with ControlServer(new_secret(), "127.0.0.1") as server:
            server.start_generation(1, world_size)
            results = context.Queue()
            processes = [
                context.Process(
                    target=rank_main,
                    args=(server.address, server.secret, rank, world_size, options.sizes, options.rounds, results),
                )
                for rank in range(world_size)
            ]
            for process in processes:
                process.start()
            for _ in options.sizes:
                size, alpha_s, beta_s, found = results.get(timeout=100)
                cells = " | ".join(f"{1e3 * a:.3g} / {1e3 * b:.3g}" for a, b in found.values())
                print(f"| {world_size} | {size:,} | {1e6 * alpha_s:.0f} | {1e9 * beta_s:.3f} | {cells} | |", flush=True)
            for process in processes:
                process.join(30)


if __name__ == "__main__":
    main()
