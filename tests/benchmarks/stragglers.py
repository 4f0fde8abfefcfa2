"""What `AllReduce(drop_percentage=...)` gains: real processes and collectives, compute replaced by sleeps in proportion to rows.

Three ranks, 16 rows each a step, 2 ms a row. Either one rank is four times slower all the time, or each of them is, by turns,
in one step of ten. Printed: seconds of the second epoch against waiting for everybody, and rows trained in it.

    python tests/benchmarks/stragglers.py [--steps 40] [--row-ms 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import numpy as np
from distributed_overhead import Padded, Processes, Silent, Sleeping, source

RANKS, ROWS, SLOWER = 3, 16, 4


class Slowed(Padded):
    """A program whose calls take time by their rows, and more of it while the rank is slow."""

    def __init__(self, data, row_s, rank, always):
        super().__init__(data, row_s)
        self.row_s, self.rank, self.always = row_s, rank, always

    def train(self, rows, *_):
        return Rows(self, rows)


@dataclasses.dataclass
class Rows:
    program: Slowed
    rows: int
    stages: int = 1

    def run(self, k, args, carry=(), reduced=None):
        program, step = self.program, int(args.iteration)
        slow = program.rank == 2 if program.always else (step * 7 + program.rank * 3) % 10 == 0
        until = time.perf_counter() + program.row_s * self.rows * (SLOWER if slow else 1)
        return (), Sleeping(program.vector, until)


def rank_main(task, rank, data, row_s, always, records):
    from kerasoft.runtime.rank import run_rank

    run_rank(task, rank, lambda: Slowed(data, row_s, rank, always), iter(records))


class Ranks(Processes):
    always = False

    def launch(self, task):
        import multiprocessing

        context, self.running = multiprocessing.get_context("spawn"), []
        for rank in range(RANKS):
            records = [(0, s, 0, block) for s, block in enumerate(self.blocks) if task.settings.owners[s] == rank]
            arguments = (task, rank, self.data, self.sleep_s, self.always, records)
            self.running.append(context.Process(target=rank_main, args=arguments))
            self.running[-1].start()
        return self


def fit(made, row_s, steps, always, **options):
    from kerasoft.runtime import AllReduce
    from kerasoft.runtime.checkpoint import Checkpoints, LocalFolder, identity
    from kerasoft.runtime.driver import Driver
    from kerasoft.runtime.loop import TrainJob
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.shards import table_of
    from kerasoft.runtime.wire import new_secret

    src, params, state, leaves = made
    blocks = [{leaf.name: np.zeros((ROWS * steps, *leaf.shape), leaf.dtype) for leaf in leaves} for _ in range(RANKS)]
    table = table_of([[b] for b in blocks])
    job = TrainJob(source=src, params=params, state=state, batch_size=ROWS * RANKS, epochs=2)
    settings = AllReduce(**options).settings(job, table, None, RANKS)
    data, hooks = src.export(train_rows=settings.train_sizes).to_bytes(), Silent()
    with tempfile.TemporaryDirectory() as scratch, ControlServer(new_secret(), "127.0.0.1") as server:
        fit = identity(src, table.rows, table.fingerprints, job)
        checkpoints = Checkpoints(LocalFolder(scratch), fit, temporary=True)
        launcher = Ranks(data, row_s, blocks)
        launcher.always = always
        Driver(job, dataclasses.replace(settings, checkpoint_every_s=1e9), server, launcher, checkpoints, hooks).run()
    return hooks.epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--row-ms", type=float, default=2)
    options = parser.parse_args()
    made = source(64)
    ways = {
        "waits": {},
        "0.75, left out": {"drop_percentage": 0.75, "requeue": False},
        "0.75, at the epoch's end": {"drop_percentage": 0.75},
    }
    print(
        "| slow | late rows | s an epoch | against waiting | steps | rows trained | late |\n|---|---|---|---|---|---|---|"
    )
    for always in (True, False):
        base = 0.0
        for name, way in ways.items():
            end = fit(made, options.row_ms / 1e3, options.steps, always, **way)
            base = base or end.wall_s
            late = int(sum(end.counts.values()))
            who = "one rank, always" if always else "each rank, one step of ten"
            print(
                f"| {who} | {name} | {end.wall_s:.2f} | {end.wall_s / base:.2f} | {end.steps} | {end.rows} | {late} |"
            )


if __name__ == "__main__":
    main()
