"""Small models, data and launchers for tests of the runtime; no front-end."""

import threading

import numpy as np
from kerasoft.compiler import program as kp
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import shape as s
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.random import uniform_rows
from kerasoft.compiler.ops.registry import constant, input_node, param_node

B, N = symbol("b"), symbol("n")


def adam(clip=False):
    """Adam without bias correction; with `clip`, of a gradient divided by its norm.

    Its epsilon is large: where a gradient is near zero, a small one makes of a sum's last bit a change of the weight that is
    over the tests' 1e-6 on some processors.
    """
    p, g, m, v = (input_node(n, (N,), "float32") for n in ("param", "gradient", "slot/m", "slot/v"))
    rate = input_node("learning_rate", (), "float32")
    if clip:
        norm = a.sqrt(all_reduce(s.sum(g * g)) + 1e-12)
        scaled = a.divide(g, norm)
    else:
        scaled = g
    m2 = m * 0.9 + scaled * 0.1
    v2 = v * 0.99 + scaled * scaled * 0.01
    moved = a.subtract(p, a.divide(m2 * rate, a.sqrt(v2) + 3e-2))
    return Graph((p, g, m, v, rate), (moved, m2, v2), ("param", "slot/m", "slot/v"))


def mlp(features=5, units=8, clip=False, synchronised=False, update_mode="sliced", dropout=False):
    """tanh(x k) u, with half of the units dropped if asked for, squared error, a running mean of x; sums: loss, rows, row ids (to see every row once)."""
    x, y = input_node("x/0", (B, features), "float32"), input_node("y/0", (B, 1), "float32")
    valid, row_id = input_node("valid", (B,), "float32"), input_node("row_id", (B,), "uint32")
    rows, share = input_node("rows", (), "float32"), input_node("share", (), "float32")
    k, u = param_node("k", (features, units)), param_node("u", (units, 1))
    moving = param_node("moving", (features,), trainable=False)
    v = s.reshape(valid, shape=(B, 1))
    mean = a.divide(s.sum(x * v, axis=0), rows)
    if synchronised:
        mean = all_reduce(mean)
        centred = a.subtract(x, mean)
        state = share * (moving * 0.5 + mean * 0.5)
    else:
        centred = x
        state = share * (moving * 0.5) + mean * 0.5
    hidden = a.tanh(centred @ k)
    keys = ()
    if dropout:
        keys = (input_node("key", (2,), "uint32"),)
        hidden = (
            hidden
            * a.cast(a.greater(uniform_rows(keys[0], row_id, salt=1, shape=(units,)), 0.5), dtype="float32")
            * 2.0
        )
    error = (hidden @ u - y) * v
    loss = a.divide(s.sum(error * error), rows)
    dk, du = gradient({loss: constant(1.0)}, [k, u])
    ids = a.cast(row_id, dtype="float32")
    sums = (loss * rows, s.sum(valid), s.sum(ids * valid), s.sum(ids * ids * valid))
    names = ("sum/loss/total", "sum/loss/count", "sum/ids", "sum/ids_squared")
    train = Graph(
        (x, y, valid, row_id, rows, share, *keys), (dk, du, state, *sums), ("grad/k", "grad/u", "state/moving", *names)
    )
    shown = a.subtract(x, moving) if synchronised else x
    test_error = (a.tanh(shown @ k) @ u - y) * v
    test = Graph((x, y, valid), (s.sum(test_error * test_error), s.sum(valid)), names[:2])
    return kp.StepSource(
        layout=kp.Layout.of(
            params={"k": (features, units), "u": (units, 1)},
            states={"moving": (features,)},
            sums={n.removeprefix("sum/"): () for n in names},
        ),
        inputs=(kp.InputSpec("x/0", (features,), "float32"), kp.InputSpec("y/0", (1,), "float32")),
        train=train,
        test=test,
        update=adam(clip),
        slots=(kp.SlotSpec("m"), kp.SlotSpec("v")),
        flags=kp.Flags(update_mode=update_mode),
    )


def shards(sizes, features=5, block=7, seed=0):
    """A list of blocks for each shard."""
    rng = np.random.default_rng(seed)
    out = []
    for n in sizes:
        x = rng.normal(size=(n, features)).astype("float32")
        y = np.sin(x.sum(1, keepdims=True)).astype("float32")
        out.append([{"x/0": x[i : i + block], "y/0": y[i : i + block]} for i in range(0, n, block)])
    return out


def start(source, seed=0):
    """params, state."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=source.layout.P).astype("float32") * 0.3, np.zeros(source.layout.S, "float32")


class Recorder:
    """Hooks that keep everything they are told."""

    def __init__(self):
        self.begun, self.steps, self.ends, self.events, self.weights = [], [], [], [], {}
        self.loaded = None
        self.decide = lambda end: None
        self.rate = lambda epoch: None
        self.on_report = lambda reports: None

    def on_epoch_begin(self, epoch):
        self.begun.append(epoch)
        return self.rate(epoch)

    def on_steps(self, reports):
        self.steps.extend(reports)
        return self.on_report(reports)

    def on_epoch_end(self, end):
        from kerasoft.runtime.loop import Decision

        self.ends.append(end)
        return self.decide(end) or Decision()

    def on_event(self, event):
        self.events.append(event)

    def save_state(self):
        return {"ends": len(self.ends), "steps": len(self.steps)}

    def load_state(self, state):
        self.loaded = state


class ThreadLauncher:
    """Ranks as threads of this process.


    Args:
        programs: by the settings that a group has. rooms: how many ranks could run, asked whenever the driver looks.
    """

    def __init__(self, programs, data, validation=None, rooms=lambda: 99):
        self.programs, self.data, self.validation, self.room = programs, data, validation, rooms
        self.recovered = 0
        self.groups = []  # workers of each

    def launch(self, task):
        self.groups.append(task.settings.world_size)
        return Threads(self, task)

    def gather(self, crew, wanted):
        self.recovered += 1
        return crew.size(min(wanted, self.room()))


class Threads:
    def __init__(self, launcher, task):
        self.launcher, self.task, self.errors = launcher, task, []
        self.programs = launcher.programs(task.settings)
        self.threads = [
            threading.Thread(target=self.rank, args=(r,), daemon=True) for r in range(task.settings.world_size)
        ]
        for thread in self.threads:
            thread.start()

    def rank(self, rank):
        from kerasoft.runtime.rank import run_rank

        settings = self.task.settings
        records = []
        for which, data, owners in (
            (0, self.launcher.data, settings.owners),
            (1, self.launcher.validation, settings.validation_owners),
        ):
            for shard, blocks in enumerate(data or ()):
                if owners[shard] == rank // settings.method.sharers:
                    records += [(which, shard, q, b) for q, b in enumerate(blocks)]
        try:
            run_rank(self.task, rank, lambda: settings.method.program(rank, self.programs), iter(records))
        except BaseException as error:
            self.errors.append(error)

    def done(self):
        return not any(t.is_alive() for t in self.threads)

    def error(self):
        return (str(self.errors[0]), False) if self.errors else None

    def end(self):
        for thread in self.threads:
            thread.join(30)


def job_of(source, **job):
    """A `TrainJob` with small defaults."""
    from kerasoft.runtime.loop import TrainJob

    params, state = start(source)
    return TrainJob(
        **{"source": source, "params": params, "state": state, "batch_size": 16, "learning_rate": 0.05} | job
    )


def weights(result):
    """Everything that training changes, as one vector."""
    return np.concatenate([result.params, result.state, *result.slots])


def digest(result):
    """SHA-256 of `weights`."""
    import hashlib

    return hashlib.sha256(weights(result).tobytes()).hexdigest()


def fit_in_threads(source, data, world_size, strategy=None, validation=None, hooks=None, faults=(), folder=None, **job):
    """A whole fit with ranks as threads; returns (TrainResult, hooks, Driver). `rooms`: see `ThreadLauncher`."""
    import dataclasses
    import tempfile

    from kerasoft.runtime import AllReduce
    from kerasoft.runtime.checkpoint import Checkpoints, LocalFolder, identity
    from kerasoft.runtime.driver import Driver
    from kerasoft.runtime.elastic import Crew
    from kerasoft.runtime.faults import Script
    from kerasoft.runtime.rendezvous import ControlServer
    from kerasoft.runtime.shards import table_of
    from kerasoft.runtime.wire import new_secret

    every = job.pop("checkpoint_every_steps", 0)
    settings_more = {"checkpoint_every_steps": every, "report_every_s": 0.0}
    settings_more |= {"transports": job.pop("transports")} if "transports" in job else {}
    table = job.pop("table", None) or table_of(data)
    strategy = strategy or AllReduce(timeout_s=5)
    tested = table_of(validation) if validation else None
    rooms = job.pop("rooms", None)
    job = job_of(source, **job)

    def plan(workers, **more):
        made = strategy.settings(job, table, tested, workers, Script(tuple(faults)), **more)
        return dataclasses.replace(made, **settings_more)

    made = {}

    def prepared(settings):
        key = (settings.train_sizes, settings.test_sizes)
        return made[key] if key in made else made.setdefault(key, strategy.prepare(job, settings, {}))

    settings = plan(world_size)
    hooks = hooks or Recorder()
    with tempfile.TemporaryDirectory() as scratch, ControlServer(new_secret(), "127.0.0.1", frozen_s=5) as server:
        fit = identity(source, table.rows, table.fingerprints, job, settings.method.identity())
        checkpoints = Checkpoints(LocalFolder(folder or scratch), fit, temporary=folder is None)
        launcher = ThreadLauncher(lambda s: prepared(s).programs, data, validation, rooms or (lambda: world_size))
        fewest, most = strategy.limits
        crew = Crew(fewest, most or len(data)) if rooms else None
        driver = Driver(
            job, settings, server, launcher, checkpoints, hooks, retries=2, crew=crew, plan=plan,
            division=lambda s: prepared(s).division(s),
        )  # fmt: skip
        result = driver.run()
    return result, hooks, driver
