"""What of the exchange is hidden behind real compute: two hosts of one core each, with links of so many Mbit/s. Needs root.

    python tests/benchmarks/overlap.py [--mbit 1000 300] [--model conv mlp] [--rows 256] [--steps 20] [--repeats 3]

Each rank is a process in a network namespace of its own, whose link is limited both ways, pinned to one core. It computes
real gradients with one thread and makes real steps of `AllReduce` over TCP; no Spark. The ways take turns.

"conv" is two convolutions of 32 and 64 channels and a dense layer of 1,024 on 28 x 28 images (3.3 million parameters, nearly
all behind the compute); "mlp" four dense layers of 1,024 (4.0 million, compute and parameters side by side).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np

from tests.benchmarks.distributed_overhead import Processes, Silent
from tests.benchmarks.limited_links import BRIDGE, NEW_NETWORK, hosts

WAYS = {
    "plain": {},
    "double buffering": {"double_buffering": True},
    "2 buckets": {"buckets": 2},
    "4 buckets": {"buckets": 4},
}


def source(model: str):
    """The model's graphs, weights and the arrays of its batches."""
    import kerasoft as ks
    from kerasoft.training.inputs import to_arrays

    keras = ks.layers
    if model == "conv":
        layers = [keras.Reshape((28, 28, 1))]
        for channels in (32, 64):
            layers += [keras.Conv2D(channels, 3, activation="relu", padding="same"), keras.MaxPooling2D()]
        layers += [keras.Flatten(), keras.Dense(1024, activation="relu")]
    else:
        layers = [keras.Dense(1024, activation="relu") for _ in range(4)]
    net = ks.Sequential([ks.Input((784,)), *layers, keras.Dense(10)])
    net.compile("adam", ks.losses.SparseCategoricalCrossentropy(from_logits=True))
    arrays = to_arrays(net, np.zeros((1, 784), np.float32), np.zeros(1, np.int32), None)
    program = net._program(arrays.signature, "train")
    return program.source, *program.store.read(), arrays.signature.leaves


def rank_main(task, rank, data, limited, records):
    if limited:
        with open(f"/run/netns/{BRIDGE}{rank}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
    os.sched_setaffinity(0, {rank % os.cpu_count()})
    from kerasoft.compiler.program import StepProgram
    from kerasoft.runtime.rank import run_rank

    run_rank(task, rank, lambda: StepProgram.from_bytes(data), iter(records))


class Hosts(Processes):
    """A launcher of ranks on hosts of their own, or (`limited` False) of this one."""

    main = staticmethod(rank_main)


def fit(made, address, rows, steps, **options):
    """Milliseconds a step of a fit's second epoch (but for its checkpoint), and its phases."""
    from kerasoft.runtime import AllReduce
    from kerasoft.runtime.checkpoint import Checkpoints, LocalFolder, identity
    from kerasoft.runtime.driver import Driver
    from kerasoft.runtime.loop import TrainJob
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.shards import table_of
    from kerasoft.runtime.wire import new_secret

    src, params, state, leaves = made
    rng = np.random.default_rng(0)
    blocks = []
    for _ in range(2):
        values = (rng.random((rows * steps, *leaf.shape)) * 10 for leaf in leaves)
        blocks.append({leaf.name: v.astype(leaf.dtype) for leaf, v in zip(leaves, values, strict=True)})
    table = table_of([[b] for b in blocks])
    job = TrainJob(source=src, params=params, state=state, batch_size=2 * rows, epochs=2, learning_rate=1e-3)
    strategy = AllReduce(**options)
    settings = strategy.settings(job, table, None, 2)
    prepared = strategy.prepare(job, settings, {})
    settings = dataclasses.replace(settings, checkpoint_every_s=1e9, transports=("tcp",))
    hooks = Silent()
    with tempfile.TemporaryDirectory() as scratch, ControlServer(new_secret(), address or "127.0.0.1") as server:
        checkpoints = Checkpoints(
            LocalFolder(scratch), identity(src, table.rows, table.fingerprints, job), temporary=True
        )
        launcher = Hosts(prepared.programs[0], address is not None, blocks)
        division = prepared.division
        Driver(job, settings, server, launcher, checkpoints, hooks, threads=1, division=division).run()
    phases = {k: v / hooks.epoch.steps * 1e3 for k, v in hooks.epoch.times.items()}
    return hooks.epoch.wall_s / hooks.epoch.steps * 1e3 - phases.get("checkpoint", 0), phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit", type=float, nargs="+", default=[1000, 300])
    parser.add_argument("--model", nargs="+", default=["conv", "mlp"])
    parser.add_argument("--rows", type=int, default=256, help="of a rank in each step")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| model | Mbit/s | compute ms | plain ms/step | way | ms/step | of the exchange hidden |")
    print("|---|---|---|---|---|---|---|")
    for name in options.model:
        made = source(name)
        for mbit in options.mbit:
            taken: dict[str, list] = {way: [] for way in WAYS}
            with hosts(2, mbit) if mbit else contextlib.nullcontext() as address:
                for _ in range(options.repeats):
                    for way, more in WAYS.items():
                        taken[way].append(fit(made, address, options.rows, options.steps, **more))
            ms = {way: statistics.median(t for t, _ in runs) for way, runs in taken.items()}
            compute = statistics.median(phases["compute"] + phases.get("input", 0) for _, phases in taken["plain"])
            for way in list(WAYS)[1:]:
                hidden = (ms["plain"] - ms[way]) / (ms["plain"] - compute)
                print(
                    f"| {name} | {mbit:g} | {compute:.1f} | {ms['plain']:.1f} | {way} | {ms[way]:.1f} | {hidden:.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
