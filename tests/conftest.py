"""What holds for all tests, and a real Spark cluster: Master, Worker and executors are processes of their own."""

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from tests import xla_settings

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras, the oracle, on the same arithmetic
os.environ["KERASOFT_COMPILE_CACHE"] = "off"  # tests count compilations
os.environ["KERASOFT_MEASURE"] = "0"  # kernels by the shipped rules, whatever was measured on this machine

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXECUTORS = 4
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # starts sooner
SPARE_CORES = 2  # for a second application, such as a driver that is killed


@dataclasses.dataclass
class Cluster:
    """A standalone cluster on loopback.

    Attributes:
        url: of its master.
        folder: logs and work folders.
    """

    url: str
    folder: pathlib.Path

    def settings(self, executors: int = EXECUTORS) -> dict[str, str]:
        """Spark configuration of an application with so many executors of one core."""
        return {
            "spark.master": self.url,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.cores.max": str(executors),
            "spark.executor.cores": "1",
            "spark.executor.memory": "640m",
            "spark.driver.extraJavaOptions": JAVA,
            "spark.executor.extraJavaOptions": JAVA,
            "spark.executorEnv.PYTHONPATH": str(ROOT),
            "spark.executorEnv.PYTHONWARNINGS": "default",
            "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
            "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "30",
            "spark.sql.shuffle.partitions": "4",
            "spark.local.dir": str(self.folder / "local"),
        }

    def session(self, name: str, executors: int = EXECUTORS, wait_for: int | None = None, **more: str):
        """A SparkSession, with `more` settings, once it has all or `wait_for` of its executors; stop it in the end."""
        from pyspark.sql import SparkSession

        os.environ["PYSPARK_PYTHON"] = sys.executable
        builder = SparkSession.builder.appName(name)
        settings = self.settings(executors) | more
        if wait_for is None:
            wait_for = int(settings["spark.cores.max"]) // int(settings["spark.executor.cores"])
        for key, value in settings.items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        tracker = session.sparkContext._jsc.sc().statusTracker()
        deadline = time.monotonic() + 90
        while len(tracker.getExecutorInfos()) < wait_for + 1:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{wait_for} executors did not come; see the logs in {self.folder}")
            time.sleep(0.1)
        return session


def _start(
    folder: pathlib.Path,
    name: str,
    *arguments: str,
    more: dict[str, str] | None = None,
    before: tuple[str, ...] = (),
) -> tuple[subprocess.Popen, pathlib.Path]:
    """A daemon of the cluster and its log. `more` is in its environment, `before` stands before the command."""
    import pyspark

    home = pathlib.Path(pyspark.__file__).parent
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": JAVA,
        "PYSPARK_PYTHON": sys.executable,
        **(more or {}),
    }
    log = folder / f"{name}.log"
    with open(log, "w") as file:
        command = [
            *before,
            str(home / "bin" / "spark-class"),
            f"org.apache.spark.deploy.{arguments[0]}",
            *arguments[1:],
        ]
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT), log


def _wait_for(process: subprocess.Popen, log: pathlib.Path, pattern: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(pattern, log.read_text())
        if found:
            return found.group(1)
        time.sleep(0.05)
    raise TimeoutError(f"no {pattern!r} in the log:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def loopback_cluster(folder: pathlib.Path):
    """A standalone cluster on this host."""
    processes = []
    try:
        master, log = _start(
            folder, "master", "master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"
        )
        processes.append(master)
        url = _wait_for(master, log, r"Starting Spark master at (spark://\S+)")
        worker, log = _start(
            folder, "worker", "worker.Worker", "--host", "127.0.0.1", "--webui-port", "0",
            "--cores", str(EXECUTORS + SPARE_CORES), "--memory", "8g", "--work-dir", str(folder / "work"), url,
        )  # fmt: skip
        processes.append(worker)
        _wait_for(worker, log, r"(Successfully registered with master)")
        yield Cluster(url, folder)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A standalone cluster, started once for all tests."""
    with loopback_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def spark(cluster):
    """A SparkSession with four executor processes of one core each, whose workers need not import JAX anew."""
    session = cluster.session("kerasoft-tests", **{"spark.python.daemon.module": "tests.faults.daemon"})
    yield session
    session.stop()


@pytest.fixture
def context(spark):
    """The SparkContext of `spark`."""
    return spark.sparkContext


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Modules' and sessions' fixtures compile as the test does that first asks for them."""
    shipped = item.get_closest_marker("shipped") and not item.get_closest_marker("cluster")  # executors have XLA_FLAGS
    xla_settings.use(shipped=bool(shipped))
    done = yield
    if nextitem is None or nextitem.path != item.path:
        xla_settings.forget()  # else two processes hold 10 GB in the end
    return done


def pytest_collection_modifyitems(items):
    """Whatever uses the cluster is marked, to run in one process; the examples start Sparks of their own."""
    for item in items:
        if "examples" in item.path.parts:
            continue
        if {"cluster", "spark", "context"} & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("spark"):
            item.add_marker(pytest.mark.cluster)
