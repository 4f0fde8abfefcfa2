"""A standalone cluster whose nodes come and go within a test, and applications on it that run in processes of their own."""

import contextlib
import dataclasses
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time

from kerasoft.runtime.faults import Script

from tests.conftest import Cluster, _start, _wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.decommission.enabled=true"


@dataclasses.dataclass(frozen=True)
class Gates(Script):
    """Rank 0 takes its time: it sleeps before each step, and waits before some for a file that the test makes.

    Args:
        folder: where the file is, named e.g. "3.0" for epoch 3, step 0.
        gates: (epoch, step), the steps it waits before.
        seconds: of the sleep.
    """

    folder: str = ""
    gates: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.3

    def at(self, rank, epoch, step, phase):
        if rank or phase != "step":
            return
        deadline = time.monotonic() + 100
        while (epoch, step) in self.gates and not os.path.exists(f"{self.folder}/{epoch}.{step}"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody opened the gate before epoch {epoch}, step {step}")
            time.sleep(0.05)
        time.sleep(self.seconds)


class Nodes:
    """A master, and Worker processes of one core each by name.

    Args:
        folder: for logs and work.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder, self.nodes = folder, {}
        arguments = ("master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        self.master, log = _start(folder, "master", *arguments)
        self.url = _wait_for(self.master, log, r"Starting Spark master at (spark://\S+)")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (*self.nodes.values(), self.master):
            process.kill()
            process.wait()

    def add(self, name: str, **environment: str) -> None:
        """Starts a node whose executors inherit `environment`."""
        more = {"SPARK_DAEMON_JAVA_OPTS": OPTIONS, **environment}
        process, log = _start(
            self.folder, name, "worker.Worker", "--host", "127.0.0.1", "--webui-port", "0", "--cores", "1",
            "--memory", "1g", "--work-dir", str(self.folder / name), self.url, more=more,
        )  # fmt: skip
        self.nodes[name] = process
        _wait_for(process, log, r"(Successfully registered with master)")

    def kill(self, name: str) -> None:
        """The node's executors end with it."""
        process = self.nodes.pop(name)
        process.kill()
        process.wait()

    def decommission(self, name: str) -> None:
        """As a cloud does before it takes a machine away: its executors get no further tasks."""
        self.nodes[name].send_signal(signal.SIGPWR)

    def open(self, epoch: int, step: int) -> None:
        """Lets the fit go on past a gate."""
        (self.folder / f"{epoch}.{step}").touch()

    @contextlib.contextmanager
    def application(self, body: str, executors: int, **settings: str):
        """Runs `body`, in which `session` is a SparkSession that has `executors` executors, and `tell(*words)` sends a line.

        Yields a `Lines`.
        """
        script = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.conftest import Cluster
from tests.runtime.test_spark import *
def tell(*words):
    print(*words, flush=True)
folder = {str(self.folder)!r}
settings = {settings!r} | {{"spark.decommission.enabled": "true"}}
from tests.runtime.nodes import Gates, connected, watch
session = connected({self.url!r}, folder, {executors}, settings)
context = session.sparkContext
watch(context, tell)
{body}
session.stop()
"""
        command = [sys.executable, "-W", "ignore", "-c", script]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        try:
            yield Lines(process)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def connected(url: str, folder: str, executors: int, settings: dict[str, str]):
    """A SparkSession on the cluster at `url`, once it has `executors` executors (it may get more)."""
    return Cluster(url, pathlib.Path(folder)).session("nodes", 8, wait_for=executors, **settings)


def watch(context, tell) -> None:
    """Tells, from a thread, how many workers could run whenever that changes."""
    from kerasoft.runtime.spark_room import room

    def look():
        before = -1
        with contextlib.suppress(Exception):  # the session has ended
            while True:
                now = room(context)
                if now != before:
                    tell("room", now)
                before = now
                time.sleep(0.2)

    threading.Thread(target=look, daemon=True).start()


class Lines:
    """What an application tells, as it tells it."""

    def __init__(self, process: subprocess.Popen):
        self._queue: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process):
        with contextlib.suppress(ValueError):
            for line in process.stdout:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, pattern: str, timeout_s: float = 120) -> re.Match:
        """The first line from now on in which `pattern` is found."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"the application ended without {pattern!r}:\n" + "\n".join(self.seen[-40:]))
            self.seen.append(line)
            if found := re.search(pattern, line):
                return found
