"""Runs cases of the table on a standalone cluster, one after another, and says of each what came of it and how long it took."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.faults.cases import BITS, CONVERGES, NUMBERS, SAME, TIMEOUT_S, WAYS, Case, Way
from tests.faults.strikes import Strike, Strikes, fill
from tests.runtime.cases import Recorder, fit_in_threads, job_of, mlp, shards, weights
from tests.runtime.test_spark import blocks

SIZES, VALIDATION = (13, 0, 29, 5, 20), (9, 4)
EPOCHS, STEPS = 3, 5
IDS = [67.0, float(sum(range(67))), float(sum(i * i for i in range(67)))]
WITHIN = 1.15  # of the undisturbed loss, where results depend on who comes first
LIMIT_S = 120.0  # a case that takes longer hangs
ROWS = range(40)  # of ParameterContext


@dataclasses.dataclass
class Outcome:
    """What came of a case.

    Attributes:
        what: "same", or the error's name; "hang" when there was no end.
        right: whether it is what the case expects. why: if not.
        said: the text of the error, or of the loss.
    """

    case: Case
    what: str
    right: bool
    why: str
    said: str
    seconds: float


class Hang(Exception):
    """A case did not end."""


def data_of(way: Way) -> tuple[Any, list, list | None, dict[str, Any]]:
    """Source, training and validation data by shards, and what else the job has."""
    if way.model == "tables":
        from tests.faults.tables import source, tables_data

        return source(), *tables_data(SIZES, VALIDATION), {"learning_rate": 0.01}
    if way.result == CONVERGES:
        return mlp(), shards(SIZES), shards(VALIDATION, seed=5), {"learning_rate": 0.01, "epochs": 8}
    return mlp(dropout=True), shards(SIZES), shards(VALIDATION, seed=5), {}


class Runner:
    """
    Args:
        session: of Spark. cluster: its `tests.conftest.Cluster`, perhaps `tests.faults.hosts.Hosts`.
        folder: for checkpoints and logs.
    """

    def __init__(self, session: Any, cluster: Any, folder: pathlib.Path):
        self.context, self.cluster, self.folder = session.sparkContext, cluster, folder
        self.on_hosts = hasattr(cluster, "mend")
        self._calm: dict[str, Any] = {}
        self._sources: dict[str, Any] = {}
        self._number = 0

    # --- one case ------------------------------------------------------------------------------------------------------

    def run(self, case: Case) -> Outcome:
        """Runs a case to its end, or to `LIMIT_S`, when all threads' stacks are written down."""
        way = WAYS[case.way]
        calm = self.calm(case.way)
        self._number += 1
        began = time.monotonic()
        hooks = Recorder()
        try:
            result = self._watched(lambda: self._disturbed(case, way, hooks))
            error = None
        except Exception as caught:  # the table says which one is right
            result, error = None, caught
        seconds = time.monotonic() - began
        texts = [e.text for e in hooks.events] + ([str(error)] if error is not None else [])
        said = next((t for t in texts if case.says and re.search(case.says, t)), texts[-1] if error is not None else "")
        if not said:
            said = next((e.text for e in hooks.events if e.kind == "worker_lost"), "")
        outcome = Outcome(case, SAME if error is None else type(error).__name__, True, "", said, seconds)
        try:
            if outcome.what != case.expected:
                raise AssertionError(f"expected {case.expected}, got {outcome.what}")
            if error is None:
                self._same(way, calm, result, hooks, case)
            if case.says and not any(re.search(case.says, t) for t in texts):
                raise AssertionError(f"nobody said {case.says!r}, but {texts}")
        except AssertionError as wrong:
            outcome.right, outcome.why = False, str(wrong)
            if error is not None and outcome.what != case.expected:
                outcome.why += f"; {error}"
        self.tidy()
        return outcome

    def _disturbed(self, case: Case, way: Way, hooks: Any) -> Any:
        options = dict(case.options)
        with contextlib.ExitStack() as undo:
            if case.who == "driver" and case.how != "full disk":
                return self._another_driver(case, way, hooks)
            if case.how == "full disk" and case.who == "driver":
                options |= self._small_disk(case, hooks, undo)
            if case.how == "slow link":
                for host in range(self.cluster.number):
                    self.cluster.slow(host, 0.25)
                strikes: tuple[Strike, ...] = ()
            elif case.who == "driver":
                strikes = ()
            elif way.stateless:
                if case.way == "ParameterContext":
                    return self._context_fit(case)
                self._from_outside(case, hooks)
                strikes = ()
            else:
                when = case.when
                generation = None if case.again else 0
                strikes = (Strike(case.rank, when, case.how, case.epoch, case.step, generation, case.seconds),)
            if case.how == "full disk" and not case.again and case.who == "worker":
                hooks.on_event = self._then(hooks.on_event, "worker_lost", lambda event: self.cluster.mend())
            return self.fit(way, hooks, strikes, **options)

    def fit(self, way: Way, hooks: Any, strikes: tuple[Strike, ...] = (), **options: Any) -> Any:
        """A fit on the cluster."""
        from kerasoft.runtime.spark import train

        source, data, validation, more = self._source(way)
        strategy = self.strategy(way, **options)
        job = job_of(source, **{"epochs": EPOCHS} | more)
        made, valid = blocks(self.context, data), blocks(self.context, validation)
        if way.stateless:
            return strategy.fit(job, made, valid, hooks)
        return train(job, made, valid, strategy, hooks, Strikes(strikes=strikes, root=os.getpid()))

    def strategy(self, way: Way, **options: Any) -> Any:
        """The strategy of a way, with short times and a checkpoint after every step."""
        if way.stateless:
            every = (
                {"retries": 2} if way is _broadcast() else {"checkpoint_every_steps": 3, "retries": 2, "timeout_s": 12}
            )
            return way.make(**every | options)
        if "folder" not in options and way is WAYS["ParameterServer file"]:
            options["folder"] = str(self._fresh("letters"))
        every = {"checkpoint_every_s": 1e-9, "timeout_s": TIMEOUT_S, "retries": 2, "workers": way.workers}
        return way.make(**every | options)

    def _source(self, way: Way) -> Any:
        key = way.model + (" calm" if way.result == CONVERGES else "")
        if key not in self._sources:
            self._sources[key] = data_of(way)
        return self._sources[key]

    def _fresh(self, name: str) -> pathlib.Path:
        folder = self.folder / f"{name}-{self._number}-{time.monotonic_ns()}"
        folder.mkdir()
        return folder

    # --- what it is compared with --------------------------------------------------------------------------------------

    def calm(self, name: str) -> Any:
        """(result, hooks) of the undisturbed run."""
        if name not in self._calm:
            way = WAYS[name]
            if name == "ParameterContext":
                self._calm[name] = None
            elif way.alone is not None:
                source, data, validation, more = self._source(way)
                result, hooks, _ = fit_in_threads(
                    source, data, 1, way.alone, validation=validation, epochs=EPOCHS, checkpoint_every_steps=1, **more
                )
                self._calm[name] = (result, hooks)
            else:
                hooks = Recorder()
                self._calm[name] = (self._watched(lambda: self.fit(way, hooks)), hooks)
        return self._calm[name]

    def _same(self, way: Way, calm: Any, result: Any, hooks: Any, case: Case) -> None:
        """
        Raises:
            AssertionError: it is not the undisturbed run's result.
        """
        if way.stateless and case.who != "driver" and not self._hit:
            raise AssertionError("nothing was struck")
        if case.way == "ParameterContext":
            return _check_context(result)
        for end in hooks.ends:
            if way.model == "mlp" and end.sums[1:].tolist() != IDS:
                raise AssertionError(f"rows of epoch {end.epoch}: {end.sums[1:].tolist()} instead of {IDS}")
        wanted, told = calm
        if way.result == BITS:
            if not np.array_equal(weights(result), weights(wanted)):
                off = np.max(np.abs(weights(result) - weights(wanted)))
                raise AssertionError(f"other bits than the undisturbed run: off by {off}")
        elif way.result == NUMBERS:
            np.testing.assert_allclose(weights(result), weights(wanted), rtol=1e-5, atol=1e-6)
        else:
            assert way.result == CONVERGES
            first, wanted, found = (
                h.ends[i].sums[0] / h.ends[i].sums[1] for h, i in ((told, 0), (told, -1), (hooks, -1))
            )
            if not found < min(WITHIN * wanted, 0.5 * first):
                raise AssertionError(f"loss {found:.4f}, undisturbed {wanted:.4f} after {first:.4f} in the first epoch")
        if case.who != "driver":
            steps = [(r.epoch, r.step) for r in hooks.steps]
            if steps != [(r.epoch, r.step) for r in told.steps]:
                raise AssertionError(f"steps told of: {steps}")

    # --- faults that come from outside -----------------------------------------------------------------------------------

    def _then(self, before: Callable, kind: str, do: Callable) -> Callable:
        """Hooks' `on_event` that also does something at the first event of a kind."""
        done: list[bool] = []

        def on_event(event: Any) -> None:
            before(event)
            if event.kind == kind and not done:
                done.append(True)
                do(event)

        return on_event

    def _later(self, seconds: float, how: str) -> None:
        """Strikes an executor of ours after a while, and keeps the pids that were hit."""

        def go() -> None:
            self._hit = strike(self.context.applicationId, how)

        self._hit: list[int] = []
        threading.Timer(seconds, go).start()

    def _from_outside(self, case: Case, hooks: Any) -> None:
        """Strikes the processes of one executor soon after the sixth step was told of."""

        def report(reports: Any) -> None:
            if (reports[-1].epoch, reports[-1].step) >= (1, 0) and not struck:
                struck.append(True)
                self._later(0.05, case.how)

        struck: list[bool] = []
        hooks.on_report = report

    def _context_fit(self, case: Case) -> Any:
        """`ParameterContext` on numbers whose sums say how often each was seen."""
        from kerasoft.runtime import ParameterContext

        rdd = self.context.parallelize(ROWS, 2).cache()
        self._later(1.0, case.how)
        with ParameterContext({"seen": (0, 0.0, 0.0)}) as parameters:
            return parameters.train(rdd, slow_gradient, add_up, epochs=5, batch_size=4, timeout_s=8), parameters.counts

    def _small_disk(self, case: Case, hooks: Any, undo: contextlib.ExitStack) -> dict[str, Any]:
        """A small file system for checkpoints that is full as soon as one is there; options of the strategy."""
        folder = self._fresh("small")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=True)
        undo.callback(lambda: subprocess.run(["umount", "-l", str(folder)]))
        hooks.on_event = self._then(hooks.on_event, "checkpoint", lambda event: fill(str(folder)))
        if case.when == "checkpoint":
            return {"checkpoint": folder.as_uri()}
        old, tempfile.tempdir = tempfile.tempdir, str(folder)
        undo.callback(lambda: setattr(tempfile, "tempdir", old))
        return {}

    def _another_driver(self, case: Case, way: Way, hooks: Any) -> Any:
        """A driver in another process is struck; this one goes on in its checkpoint folder, if it was killed."""
        folder = self._fresh("fit")
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.another_driver", self.cluster.url, str(self.cluster.folder),
             *map(str, _hosts(self.cluster)), case.way, case.when, case.how, str(case.seconds), str(folder)],
            stdout=subprocess.PIPE, text=True, cwd=pathlib.Path(__file__).parents[2],
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=LIMIT_S - 20)
        finally:
            process.kill()
            process.wait()
        if case.how == "freeze":
            if process.returncode != 0:
                raise AssertionError(f"the frozen driver ended with {process.returncode}: {out[-2000:]}")
            return _Saved(np.load(folder / "weights.npy"))
        if process.returncode != -signal.SIGKILL:
            raise AssertionError(f"the driver should be killed, got {process.returncode}: {out[-2000:]}")
        return self.fit(way, hooks, checkpoint=(folder / "checkpoints").as_uri())

    # --- watching --------------------------------------------------------------------------------------------------------

    def _watched(self, run: Callable[[], Any]) -> Any:
        """`run()` in a thread.

        Raises:
            Hang: it did not end in time; holds all threads' stacks.
        """
        from pyspark import InheritableThread

        found: list[Any] = []

        def go() -> None:
            try:
                found.append((run(), None))
            except BaseException as error:
                found.append((None, error))

        thread = InheritableThread(target=go, name="case", daemon=True)
        thread.start()
        thread.join(LIMIT_S)
        if not found:
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                stacks = file.read()
            stacks += self._stacks_of_workers()
            (self.folder / f"hang-{self._number}.txt").write_text(stacks)
            self.context.cancelAllJobs()
            raise Hang(f"no end after {LIMIT_S:g} s; stacks in {self.folder}/hang-{self._number}.txt")
        result, error = found[0]
        if error is not None:
            raise error
        return result

    def _stacks_of_workers(self) -> str:
        """What the executors' standard error says when their Python workers are asked for stacks (`daemon.py`)."""
        began = time.time()
        for pid in workers_of(self.context.applicationId):
            os.kill(pid, signal.SIGUSR1)
        time.sleep(1)
        found = []
        for path in sorted(self.cluster.folder.glob("**/stderr")):
            if path.stat().st_mtime >= began and self.context.applicationId in str(path):
                found.append(f"--- {path}\n{path.read_text()[-20000:]}")
        return "\n".join(found)

    def tidy(self) -> None:
        """All processes run, all links and disks are as they were, all executors are there."""
        if self.on_hosts:
            self.cluster.mend()
            for pid in workers_of(self.context.applicationId):
                subprocess.run(["nsenter", "-t", str(pid), "-m", "rm", "-f", "/dev/shm/filler"])
        for pid in executors_of(self.context.applicationId):
            os.kill(pid, signal.SIGCONT)
        for pid in workers_of(self.context.applicationId):
            if state_of(pid) == "T":
                os.kill(pid, signal.SIGKILL)
        for data in self.context._jsc.getPersistentRDDs().values():
            data.unpersist()
        scala = self.context._jsc.sc()
        profile = scala.resourceProfileManager().defaultResourceProfile()
        deadline = time.monotonic() + 60
        while scala.maxNumConcurrentTasks(profile) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)


class _Saved:
    """Weights that another process left."""

    def __init__(self, vector: np.ndarray):
        self.params, self.state, self.slots = vector, vector[:0], ()


def _broadcast() -> Way:
    return WAYS["ParameterServer broadcast"]


def _hosts(cluster: Any) -> tuple[int, int]:
    """Pid in the names, and number of hosts; 0 where there are none."""
    return (os.getpid(), cluster.number) if hasattr(cluster, "mend") else (0, 0)


def slow_gradient(model: Any, rows: list) -> dict[str, Any]:
    time.sleep(0.1)
    x = np.array(rows, np.float64)
    return {"seen": [len(rows), x.sum(), (x * x).sum()]}


def add_up(model: Any, update: Any) -> None:
    model["seen"] = tuple(a + b for a, b in zip(model["seen"], update["seen"], strict=True))


def _check_context(found: Any) -> None:
    model, counts = found
    wanted = (5 * len(ROWS), 5.0 * sum(ROWS), 5.0 * sum(i * i for i in ROWS))
    if model["seen"] != wanted:
        raise AssertionError(f"rows seen: {model['seen']} instead of {wanted}; {counts}")


# --- processes ---------------------------------------------------------------------------------------------------------


def _commands() -> dict[int, tuple[int, str]]:
    """pid -> (parent, command line)."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                found[int(entry.name)] = (parent, line)
    return found


def executors_of(application: str) -> list[int]:
    """Pids of an application's executors."""
    return sorted(
        p for p, (_, line) in _commands().items() if "CoarseGrainedExecutorBackend" in line and application in line
    )


def workers_of(application: str, executors: list[int] | None = None) -> list[int]:
    """Pids of the Python workers of executors (children of their daemons)."""
    commands = _commands()
    jvms = set(executors_of(application) if executors is None else executors)
    daemons = {p for p, (parent, line) in commands.items() if parent in jvms and "pyspark" in line}
    return sorted(p for p, (parent, _) in commands.items() if parent in daemons)


def state_of(pid: int) -> str:
    """ "R", "S", "T" (stopped), ...; "" if it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def strike(application: str, how: str) -> list[int]:
    """Kills or stops the Python workers of an application's first executor that has some, or that executor; their pids."""
    for executor in executors_of(application):
        workers = workers_of(application, [executor])
        if workers:
            break
    else:
        return []
    number = signal.SIGSTOP if how == "freeze" else signal.SIGKILL
    pids = [executor] if how == "kill executor" else workers
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids
