"""NeuMF of MovieLens-20M's sizes on several ranks: tables by rows against whole tables, milliseconds and bytes a step.

Ranks are processes of this machine that compute for real; fresh Zipf ids, a global batch of 2,048 rows.

    python tests/benchmarks/distributed_tables.py [--ranks 1 2] [--steps 20] [--transport tcp]
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np

from tests.benchmarks.distributed_overhead import Processes, Silent

BATCH = 2048


def source():
    """NeuMF's `StepSource`, its parameters and states."""
    import kerasoft as ks
    from kerasoft.training.inputs import to_arrays
    from tests.benchmarks.workload_models import neumf

    model = neumf(ks)
    x = [np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32)]
    program = model._program(to_arrays(model, x, np.zeros((1, 1), np.float32)).signature, "train")
    params, state = program.store.read()
    return program.source, params, state


def rank_main(task, rank, data, _, records):
    from kerasoft.compiler.program import StepProgram
    from kerasoft.runtime.rank import run_rank

    run_rank(task, rank, lambda: StepProgram.from_bytes(data), iter(records))


class Ranks(Processes):
    """As `Processes`, computing for real."""

    def launch(self, task):
        context = multiprocessing.get_context("spawn")
        self.running = []
        for rank in range(task.settings.world_size):
            records = [(0, s, 0, block) for s, block in enumerate(self.blocks) if task.settings.owners[s] == rank]
            process = context.Process(target=rank_main, args=(task, rank, self.data, None, records))
            process.start()
            self.running.append(process)
        return self


def fit(made, ranks, steps, by_rows, transport):
    """Milliseconds a step, its phases, and megabytes that each rank sends a step; the epoch that compiles is left out."""
    from kerasoft.runtime import AllReduce
    from kerasoft.runtime.checkpoint import Checkpoints, LocalFolder, identity
    from kerasoft.runtime.driver import Driver
    from kerasoft.runtime.loop import TrainJob
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.shards import table_of
    from kerasoft.runtime.wire import new_secret
    from kerasoft.runtime.worker import Method

    from tests.benchmarks.workload_models import _ratings

    source, params, state = made
    random = np.random.default_rng(0)
    names = [i.name for i in source.inputs]
    blocks = []
    for _ in range(ranks):
        ids, labels = _ratings(BATCH * steps // ranks, random)
        arrays = [ids[0].reshape(-1, 1), ids[1].reshape(-1, 1), labels.reshape(-1, 1)]
        blocks.append({n: a.astype(np.int32 if n.startswith("x/") else np.float32) for n, a in zip(names, arrays)})
    table = table_of([[b] for b in blocks])
    job = TrainJob(source=source, params=params, state=state, batch_size=BATCH, epochs=3)
    settings = AllReduce(timeout_s=120).settings(job, table, None, ranks)
    settings = dataclasses.replace(settings, checkpoint_every_s=1e9, transports=(transport,))
    if not by_rows:
        settings = dataclasses.replace(settings, method=Method())
    assert bool(settings.method.by_rows) == by_rows
    data = source.export(train_rows=settings.train_sizes, tables=settings.method.by_rows).to_bytes()
    hooks = Silent()
    with tempfile.TemporaryDirectory() as scratch, ControlServer(new_secret(), "127.0.0.1", frozen_s=120) as server:
        fit = identity(source, table.rows, table.fingerprints, job, settings.method.identity())
        checkpoints = Checkpoints(LocalFolder(scratch), fit, temporary=True)
        driver = Driver(job, settings, server, Ranks(data, 0, blocks), checkpoints, hooks)
        driver.run()
    end = hooks.epoch
    sent = max(c["bytes_sent"] for c in driver.counters) / 3 / end.steps / 1e6
    return end.wall_s / end.steps * 1e3, {k: v / end.steps * 1e3 for k, v in end.times.items()}, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--transport", default="shm")
    arguments = parser.parse_args()
    made = source()
    print(f"{made[0].layout.P:,} parameters")
    for ranks in arguments.ranks:
        for by_rows in (True, False):
            ms, phases, sent = fit(made, ranks, arguments.steps, by_rows, arguments.transport)
            shown = ", ".join(f"{k} {v:.1f}" for k, v in phases.items() if v >= 0.05)
            print(f"{ranks} ranks, {'rows' if by_rows else 'whole'}: {ms:.1f} ms, {sent:.3f} MB sent a step ({shown})")


if __name__ == "__main__":
    main()
