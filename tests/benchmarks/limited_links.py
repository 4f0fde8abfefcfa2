"""Sleep-padded steps of ranks that are hosts of their own: network namespaces whose links carry so many Mbit/s. Needs root.

    python tests/benchmarks/limited_links.py [--mbit 100] [--parameters 700000] [--sleep-ms 300] [--ranks 2 4 8 16] [--wire bfloat16]

A step is a sleep (the gradient), a real reduce-scatter and a real all-gather over TCP by each topology; no Spark, no update.
Beside the measured milliseconds stand those of `kerasoft.runtime.scaling`: alpha is what two ranks measured when they connected, beta
what is left of their step by direct exchange, so that the processor's part of a byte, memory that is cold after a sleep for one,
is in it. The row of two ranks and direct exchange is thus no prediction.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import multiprocessing
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np

BRIDGE, SUBNET = "kslinks", "10.77.13."
NEW_NETWORK = 0x40000000


def run(line: str) -> None:
    subprocess.run(line.split(), check=True)


@contextlib.contextmanager
def hosts(number: int, mbit: float):
    """Namespaces kslinks0.. on one bridge; both directions of each link are limited. Yields the bridge's address.

    A burst is 2 ms long, at least 64 kB: where the kernel's large packets do not fit it cuts them up, at the processors' expense.
    """
    made = []
    limit = f"root tbf rate {mbit:g}mbit burst {max(64, mbit / 4):.0f}kb latency 200ms"
    try:
        run(f"ip link add {BRIDGE} type bridge")
        run(f"ip addr add {SUBNET}254/24 dev {BRIDGE}")
        run(f"ip link set {BRIDGE} up")
        for i in range(number):
            name = f"{BRIDGE}{i}"
            run(f"ip netns add {name}")
            made.append(name)
            run(f"ip link add {name} type veth peer name eth0 netns {name}")
            run(f"ip link set {name} master {BRIDGE} up")
            run(f"tc qdisc add dev {name} {limit}")
            for line in (f"addr add {SUBNET}{i + 1}/24 dev eth0", "link set eth0 up", "link set lo up"):
                run(f"ip -n {name} {line}")
            run(f"tc -n {name} qdisc add dev eth0 {limit}")
        yield f"{SUBNET}254"
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "del", BRIDGE])


def rank_main(address, secret, rank, world_size, options, results) -> None:
    with open(f"/run/netns/{BRIDGE}{rank}") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    from kerasoft.runtime.collectives import PeerListener, connect
    from kerasoft.runtime.control_client import ControlClient

    alone = tuple(range(world_size))
    vector = np.ones(options.parameters, np.float32)
    with ControlClient(address, secret, 1, rank) as client:
        listener = PeerListener(client.local_address)
        table = client.join(listener.address)
        with connect(
            table, rank, secret, 1, listener=listener, transports=("tcp",), groups=alone, elements=options.parameters,
            topology="auto" if world_size == 2 else "ring", wire_dtype=options.wire,
        ) as collective:  # fmt: skip
            alpha_s = collective.alpha_s if world_size == 2 else 0.0
            for name in options.topologies:
                collective.use(name)
                collective.barrier()
                seconds = []
                for _ in range(options.steps):
                    began = time.perf_counter()
                    time.sleep(options.sleep_ms / 1e3)
                    owned = collective.reduce_scatter(vector)
                    collective.all_gather(owned, options.parameters)
                    seconds.append(time.perf_counter() - began)
                if rank == 0:
                    results.put((name, statistics.median(seconds) * 1e3, alpha_s))
            collective.barrier()


def measured(world_size: int, options) -> list:
    """(topology, milliseconds a step, alpha of two ranks) for each topology."""
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.wire import new_secret

    context = multiprocessing.get_context("fork")
    secret = new_secret()
    with hosts(world_size, options.mbit) as host, ControlServer(secret, host) as server:
        server.start_generation(1, world_size)
        results = context.Queue()
        ranks = [
            context.Process(target=rank_main, args=(server.address, secret, r, world_size, options, results))
            for r in range(world_size)
        ]
        for process in ranks:
            process.start()
        try:
            return [results.get(timeout=120) for _ in options.topologies]
        finally:
            for process in ranks:
                process.join(10)
                if process.is_alive():
                    process.kill()


def main() -> None:
    from kerasoft.runtime import AllReduce
    from kerasoft.runtime.scaling import Job, Network, predict

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit", type=float, default=100)
    parser.add_argument("--parameters", type=int, default=700_000)
    parser.add_argument("--sleep-ms", type=float, default=300)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--wire", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--topologies", nargs="+", default=["direct", "ring"])
    options = parser.parse_args()
    two = {name: (ms, alpha_s) for name, ms, alpha_s in measured(2, options)}
    ms, alpha_s = two["direct"]
    size = options.parameters * (2 if options.wire == "bfloat16" else 4)  # of two ranks each sends half of it, twice
    byte_s = (ms / 1e3 - options.sleep_ms / 1e3 - 2 * alpha_s) / size
    network = Network(alpha_s, byte_s, message_s=0, add_s=0)
    print(f"alpha {alpha_s * 1e6:.0f} us, beta {byte_s * 1e9:.2f} ns/byte")
    print("| ranks | topology | ms/step | predicted | off | exchange alone |\n|---|---|---|---|---|---|")
    for world_size in options.ranks:
        found = two if world_size == 2 else {name: (ms, 0.0) for name, ms, _ in measured(world_size, options)}
        for name, (ms, _) in found.items():
            job = Job(options.parameters, options.sleep_ms / 1e3, world_size, network, update_s=0)
            said = predict(AllReduce(topology=name, wire_dtype=options.wire), job)
            exchange = said.sync_s * 1e3 / (ms - options.sleep_ms) - 1
            print(
                f"| {world_size} | {name} | {ms:.1f} | {said.step_s * 1e3:.1f} | {said.step_s * 1e3 / ms - 1:+.1%} "
                f"| {exchange:+.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
