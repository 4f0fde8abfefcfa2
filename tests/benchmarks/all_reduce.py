"""All-reduce of float32 between local ranks: ours over TCP, AF_UNIX and shared memory against torch.distributed's gloo.

    python tests/benchmarks/all_reduce.py                       # 2 and 4 ranks, 1k 100k 1M 10M elements
    python tests/benchmarks/all_reduce.py --ranks 2 --sizes 1000 10000000 --rounds 10

All of them run in the same processes, in interleaved rounds. Prints a Markdown table: median (minimum) milliseconds of rank
0, and how many times faster than gloo by medians (by minima). "in place": the vector already lies in the collective's
buffer, as a gradient written there does. All of ours leave the result in the collective's buffer, gloo in the tensor.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np
from kerasoft.runtime import wire
from kerasoft.runtime.collectives import PeerListener, connect
from kerasoft.runtime.control_client import ControlClient
from kerasoft.runtime.rendezvous import ControlServer

WAYS = {"tcp": ("tcp",), "unix": ("unix",), "shm": ("shm",)}
GLOO = "gloo"
IN_PLACE = "shm, in place"


def has_torch() -> bool:
    """Whether gloo can be measured."""
    try:
        import torch.distributed

        return torch.distributed.is_gloo_available()
    except ImportError:
        return False


def methods(collectives, elements, rank):
    """`{name: function that makes one all-reduce}`; each is tried once for the right sum."""
    found = {}
    for name, collective in collectives.items():
        vector = np.full(elements, rank + 1, np.float32)
        found[name] = lambda collective=collective, vector=vector: collective.all_reduce(vector)
    shared = collectives["shm"]
    inside = shared.buffer(elements)
    inside[...] = rank + 1
    found[IN_PLACE] = lambda: shared.all_reduce(inside)
    total = shared.world_size * (shared.world_size + 1) / 2
    for name, reduce in found.items():
        assert (reduce() == total).all(), name
    if has_torch():
        import torch

        tensor = torch.full((elements,), float(rank + 1))
        torch.distributed.all_reduce(tensor)
        assert (tensor == total).all()
        tensor.zero_()
        found[GLOO] = lambda: torch.distributed.all_reduce(tensor)
    return found


def worker(job):
    """One rank: measures everything and sends its times to the driver."""
    rank, world_size = job["rank"], job["ranks"]
    if job["pin"]:
        os.sched_setaffinity(0, {rank % os.cpu_count()})
    if has_torch():
        import torch

        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")
        url = f"tcp://127.0.0.1:{job['gloo_port']}"
        torch.distributed.init_process_group(GLOO, init_method=url, rank=rank, world_size=world_size)
    secret = bytes.fromhex(job["secret"])
    with ControlClient(tuple(job["address"]), secret, 1, rank) as client:
        listeners = {way: PeerListener(client.local_address) for way in WAYS}
        table = client.join({way: listener.address for way, listener in listeners.items()})
        collectives = {
            way: connect(
                [peer._replace(address=peer.address[way]) for peer in table],
                rank,
                secret,
                1,
                listener=listeners[way],
                transports=WAYS[way],
            )
            for way in WAYS
        }
        for way, collective in collectives.items():
            assert collective.transport == way, f"{collective.transport} instead of {way}"
        for elements in job["sizes"]:
            client.send("times", {"elements": elements, "times": measure(collectives, elements, rank, job["rounds"])})
        for collective in collectives.values():
            collective.close()
    if has_torch():
        torch.distributed.destroy_process_group()


def measure(collectives, elements, rank, rounds):
    """Seconds of every call, by method."""
    repeats = max(3, min(300, 3_000_000 // elements))
    found = methods(collectives, elements, rank)
    times = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, reduce in found.items():
            collectives["shm"].barrier()
            reduce()
            for _ in range(repeats):
                began = time.perf_counter()
                reduce()
                if number:  # the first round warms up
                    times[name].append(time.perf_counter() - began)
    return times


def run(ranks, sizes, rounds, pin):
    """`{elements: {method: seconds}}` as rank 0 saw it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        gloo_port = sock.getsockname()[1]
    results = {}
    with ControlServer(wire.new_secret(), "127.0.0.1") as server:
        server.start_generation(1, ranks)
        processes = []
        for rank in range(ranks):
            job = {
                "rank": rank,
                "ranks": ranks,
                "address": server.address,
                "secret": server.secret.hex(),
                "gloo_port": gloo_port,
                "sizes": sizes,
                "rounds": rounds,
                "pin": pin,
            }
            processes.append(subprocess.Popen([sys.executable, __file__, "--worker", json.dumps(job)]))
        try:
            for event in server.events(timeout_s=120):
                if event.kind == "lost":
                    raise SystemExit(f"a rank was lost: {event.fields}")
                if event.kind == "times" and event.rank == 0:
                    results[event.fields["elements"]] = event.fields["times"]
                if len(results) == len(sizes):
                    break
            for process in processes:
                process.wait(30)
        finally:
            for process in processes:
                process.kill()
    return results


def table(ranks, results):
    """Markdown lines."""
    names = list(next(iter(results.values())))
    yield f"| {ranks} ranks | " + " | ".join(f"{elements:,}" for elements in results) + " |"
    yield "|---|" + "---|" * len(results)
    for name in names:
        cells = []
        for times in results.values():
            median, least = 1e3 * statistics.median(times[name]), 1e3 * min(times[name])
            cell = f"{median:.3g} ({least:.3g})"
            if GLOO in times and name != GLOO:
                gloo = times[GLOO]
                cell += f" {1e3 * statistics.median(gloo) / median:.1f}x ({1e3 * min(gloo) / least:.1f}x)"
            cells.append(cell)
        yield f"| {name} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pin", action="store_true", help="one core a rank: on a box that has other work, too")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker)
    if not has_torch():
        print("torch is not installed: gloo is left out.")
    for ranks in options.ranks:
        results = run(ranks, options.sizes, options.rounds, options.pin)
        print(f"\nLoad average {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores; milliseconds: median (minimum)\n")
        print("\n".join(table(ranks, results)))


if __name__ == "__main__":
    main()
