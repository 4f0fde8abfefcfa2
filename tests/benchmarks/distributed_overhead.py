"""What a distributed step costs beyond its compute: real processes, real collectives, the driver, no Spark in the way.

Each rank's gradient call sleeps for a fixed time instead of computing (so that cores are not the limit) and returns a real
vector of the 670k-parameter MLP's length; everything else is the real loop: batches, reduce-scatter, Adam on the slice,
all-gather, reports. The overhead is the time of a step minus the sleep and minus the same Adam over all parameters in one
process.

    python tests/benchmarks/distributed_overhead.py [--sleep-ms 60] [--steps 60] [--ranks 1 2 4] [--units 512]

`--units 2277` makes a vector as long as Inception-v1's (7.0 million).

`--scheduling 4 16` measures, on a local Spark of so many task slots, the share of a fit's wall time outside the loop
(launch of the barrier job, rendezvous, start and end) for a fit of `--fit-seconds` of sleep-padded steps: BigDL's two jobs
an iteration cost 3.6 % at 4 tasks, Drizzle's groups 1.2 %.

`--overlap` compares steps with and without `double_buffering`, and by `buckets`, on 5.8 million parameters (`--layers 4`: 14.2
million in more even layers), and says how much of the time that a step takes beyond its sleep is hidden, and how much that is of
what a plain step spends in the exchange ("wait" and "sync" of the profile; the rest is the update, input and bookkeeping). With buckets the
sleep is cut as the compute of a dense net would be: a third is the forward pass, the rest goes by parameters.
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

ROWS = 128


class Padded:
    """A StepProgram whose gradient call sleeps instead of computing."""

    def __init__(self, data: bytes, sleep_s: float):
        from kerasoft.compiler.program import StepProgram

        self._real = StepProgram.from_bytes(data)
        self.sleep_s = sleep_s
        rng = np.random.default_rng(0)
        self.vector = (rng.normal(size=self._real.layout.V) * 1e-3).astype(np.float32)

    def __getattr__(self, name):
        return getattr(self._real, name)

    def train(self, rows, *_):
        return Nap(self, [(0, self._real.layout.V)])

    def part(self, kind, rows):
        return Nap(self, self._real.buckets)


class Nap:
    """A gradient call. Its forward pass is a third of the sleep; a bucket of the backward pass takes its share of parameters."""

    def __init__(self, program, ranges):
        self.program, self.ranges, self.stages = program, ranges, len(ranges)
        sizes = np.array([stop - start for start, stop in ranges])
        self.shares = 1 / 3 + 2 / 3 * np.cumsum(sizes) / sizes.sum()

    def run(self, k, args, carry=(), reduced=None):
        began = carry[0] if k else time.perf_counter()
        start, stop = self.ranges[k]
        return (began,), Sleeping(self.program.vector[start:stop], began + self.shares[k] * self.program.sleep_s)


class Sleeping:
    """The result of a call under way: reading it takes the rest of the sleep, as reading an XLA result does."""

    def __init__(self, vector, until):
        self.vector, self.until = vector, until

    shape = property(lambda self: self.vector.shape)

    def __array__(self, dtype=None, copy=None):
        time.sleep(max(self.until - time.perf_counter(), 0))
        return self.vector


def source(units=512, layers=2):
    """Graphs of an MLP (of 669,706 parameters by default) with Adam; only the update and the layout are used for real."""
    import kerasoft as ks
    from kerasoft.training.inputs import to_arrays

    model = ks.Sequential(
        [ks.Input((784,)), *(ks.layers.Dense(n, activation="relu") for n in (units,) * layers), ks.layers.Dense(10)]
    )
    model.compile("adam", ks.losses.SparseCategoricalCrossentropy(from_logits=True))
    arrays = to_arrays(model, np.zeros((1, 784), np.float32), np.zeros(1, np.int32), None)
    program = model._program(arrays.signature, "train")
    params, state = program.store.read()
    return program.source, params, state, arrays.signature.leaves


def rank_main(task, rank, data, sleep_s, records):
    from kerasoft.runtime.rank import run_rank

    run_rank(task, rank, lambda: Padded(data, sleep_s), iter(records))


class Processes:
    """A launcher of ranks as processes of this machine."""

    main = staticmethod(rank_main)

    def __init__(self, data, sleep_s, blocks):
        self.data, self.sleep_s, self.blocks = data, sleep_s, blocks

    def launch(self, task):
        context = multiprocessing.get_context("spawn")
        self.running = []
        for rank in range(task.settings.world_size):
            records = [(0, s, 0, block) for s, block in enumerate(self.blocks) if task.settings.owners[s] == rank]
            process = context.Process(target=self.main, args=(task, rank, self.data, self.sleep_s, records))
            process.start()
            self.running.append(process)
        return self

    def done(self):
        return not any(p.is_alive() for p in self.running)

    def error(self):
        bad = [p.exitcode for p in self.running if p.exitcode]
        return (f"exit code {bad[0]}", False) if bad else None

    def end(self):
        for process in self.running:
            process.join(30)

    def room(self):
        return len(self.running)

    def gather(self, crew, wanted):
        raise RuntimeError("a rank was lost")


class Silent:
    """Hooks that remember when steps were told."""

    def __init__(self):
        self.times = []

    def on_epoch_begin(self, epoch):
        return None

    def on_steps(self, reports):
        self.times += [sum(r.times.values()) for r in reports]

    def on_epoch_end(self, end):
        from kerasoft.runtime.loop import Decision

        self.epoch = end
        return Decision()

    def on_event(self, event):
        pass

    def save_state(self):
        return {}

    def load_state(self, state):
        pass


def fit(made, world_size, sleep_s, steps, **options):
    """Milliseconds a step of a fit of `steps` steps (a first epoch of 10 is left out), and the mean of its phases."""
    import dataclasses
    import tempfile

    from kerasoft.runtime import AllReduce
    from kerasoft.runtime.checkpoint import Checkpoints, LocalFolder, identity
    from kerasoft.runtime.driver import Driver
    from kerasoft.runtime.loop import TrainJob
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.shards import table_of
    from kerasoft.runtime.wire import new_secret

    src, params, state, leaves = made
    rows = ROWS * world_size * steps // max(world_size, 1)
    blocks = [{leaf.name: np.zeros((rows, *leaf.shape), leaf.dtype) for leaf in leaves} for _ in range(world_size)]
    table = table_of([[b] for b in blocks])
    job = TrainJob(
        source=src, params=params, state=state, batch_size=ROWS * world_size, epochs=2, steps_per_epoch=steps
    )
    strategy = AllReduce(**options)
    settings = strategy.settings(job, table, None, world_size)
    prepared = strategy.prepare(job, settings, {})
    data = prepared.programs[0]
    hooks = Silent()
    with tempfile.TemporaryDirectory() as scratch, ControlServer(new_secret(), "127.0.0.1") as server:
        checkpoints = Checkpoints(
            LocalFolder(scratch), identity(src, table.rows, table.fingerprints, job), temporary=True
        )
        driver = Driver(
            job,
            dataclasses.replace(settings, checkpoint_every_s=1e9),
            server,
            Processes(data, sleep_s, blocks),
            checkpoints,
            hooks,
            division=prepared.division,
        )
        driver.run()
    return hooks.epoch.wall_s / hooks.epoch.steps * 1e3, {
        k: v / hooks.epoch.steps * 1e3 for k, v in hooks.epoch.times.items()
    }


def update_alone(made) -> float:
    """Milliseconds of Adam over all parameters in one process."""
    from kerasoft.compiler.program import UpdateArgs

    src, params, _, _ = made
    call = src.export(train_rows=(1,)).update(src.layout.P)
    slots = tuple(np.zeros(src.layout.P, np.float32) for _ in src.slots)
    segment = np.zeros(src.layout.P, np.int32)
    times = []
    for i in range(50):
        begin = time.perf_counter()
        args = UpdateArgs(params, params, slots, segment, np.float32(1e-3), np.int32(i))
        [np.asarray(a) for a in call.whole(args)]
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def overhead(sleep_ms: float, steps: int, ranks: list[int], units: int) -> None:
    made = source(units)
    alone = update_alone(made)
    print(
        f"| ranks | ms/step | overhead over sleep {sleep_ms:g} ms + Adam {alone:.2f} ms | phases, ms/step |\n|---|---|---|---|"
    )
    for world_size in ranks:
        ms, phases = fit(made, world_size, sleep_ms / 1e3, steps)
        listed = ", ".join(f"{k} {v:.2f}" for k, v in phases.items() if v >= 0.005)
        print(f"| {world_size} | {ms:.2f} | {ms - sleep_ms - alone:.2f} | {listed} |", flush=True)


def overlap(sleep_ms: float, steps: int, ranks: list[int], layers: int, buckets: list[int], repeats: int) -> None:
    """Steps with and without double buffering, and by buckets, in turns."""
    made = source(2048, layers)
    ways = {"double buffering": {"double_buffering": True}, **{f"{k} buckets": {"buckets": k} for k in buckets}}
    heads = " | ".join(f"{w}, ms (hidden; of the exchange)" for w in ways)
    print(f"| ranks | ms/step | beyond the sleep | exchange | {heads} |")
    print("|---" * (4 + len(ways)) + "|")
    for world_size in ranks:
        taken: dict[str, list[float]] = {way: [] for way in ("", *ways)}
        exchanges = []
        for _ in range(repeats):
            for way, options in {"": {}, **ways}.items():
                ms, phases = fit(made, world_size, sleep_ms / 1e3, steps, **options)
                taken[way].append(ms - phases.get("checkpoint", 0))  # once an epoch, and these epochs are short
                if not way:
                    exchanges.append(phases.get("wait", 0) + phases.get("sync", 0))
        plain, *others = (statistics.median(of) for of in taken.values())
        beyond, exchange = plain - sleep_ms, statistics.median(exchanges)
        cells = " | ".join(f"{ms:.1f} ({(plain - ms) / beyond:.0%}; {(plain - ms) / exchange:.0%})" for ms in others)
        print(f"| {world_size} | {plain:.1f} | {beyond:.1f} | {exchange:.1f} | {cells} |", flush=True)


def scheduling(tasks: list[int], seconds: float, sleep_ms: float) -> None:
    """The share of a fit outside its loop, with workers that sleep in every step."""
    import kerasoft.runtime.spark as carrier
    from kerasoft.runtime import AllReduce
    from kerasoft.runtime.faults import Fault, Script
    from kerasoft.runtime.loop import TrainJob
    from kerasoft.runtime.shards import table_of
    from kerasoft.runtime.spark_session import session

    src, params, state, leaves = source()
    print("| tasks | steps | wall s | outside the loop s | scheduling share |\n|---|---|---|---|---|")
    for number in tasks:
        spark = session("scheduling", f"local[{number}]")
        rows = {leaf.name: np.zeros((ROWS, *leaf.shape), leaf.dtype) for leaf in leaves}
        blocks = spark.sparkContext.parallelize([(s, 0, rows) for s in range(number)], number).cache()
        made = type("Blocks", (), {"rdd": blocks, "table": table_of([[rows]] * number)})()
        for steps in (1, int(seconds * 1e3 / sleep_ms)):  # the first fit warms the Python workers up
            epochs, each = -(-steps // ROWS), min(steps, ROWS)
            job = TrainJob(
                source=src, params=params, state=state, batch_size=number, epochs=epochs, steps_per_epoch=each
            )
            naps = (
                Fault(r, e, s, "sleep", seconds=sleep_ms / 1e3)
                for r in range(number)
                for e in range(epochs)
                for s in range(each)
            )
            strategy = AllReduce(workers=number, checkpoint_every_s=1e9)
            begin = time.perf_counter()
            result = carrier.train(job, made, None, strategy, Silent(), Script(tuple(naps)))
            wall = time.perf_counter() - begin
        outside = sum(result.profile.seconds.get(k, 0.0) for k in ("scheduling", "rendezvous", "start"))
        print(f"| {number} | {result.profile.steps} | {wall:.1f} | {outside:.2f} | {outside / wall:.2%} |", flush=True)
        spark.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sleep-ms", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--scheduling", type=int, nargs="+", default=[])
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--buckets", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--fit-seconds", type=float, default=180.0)
    options = parser.parse_args()
    if options.scheduling:
        scheduling(options.scheduling, options.fit_seconds, options.sleep_ms)
    elif options.overlap:
        overlap(options.sleep_ms, options.steps, options.ranks, options.layers, options.buckets, options.repeats)
    else:
        overhead(options.sleep_ms, options.steps, options.ranks, options.units)


if __name__ == "__main__":
    main()
