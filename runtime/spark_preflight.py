"""Collects the facts that `runtime/preflight.py` judges: from Spark's configuration, and by one short job."""

from __future__ import annotations

import time
from typing import Any

from .errors import ClusterError
from .preflight import (
    HostFacts,
    MemoryNeed,
    Report,
    check_configuration,
    check_kernels,
    check_memory,
    check_versions,
    versions,
)
from .spark_room import allocates, room


def preflight(
    context: Any, limits: tuple[int, int | None] = (1, None), need: MemoryNeed | None = None, barrier: bool = True
) -> Report:
    """Everything that can be known before data is touched.

    Args:
        context: the SparkContext.
        limits: fewest and most ranks; most None = one for each executor.
        need: what a worker will hold; None leaves memory out.
        barrier: whether the strategy needs barrier stages (`ShuffleAllReduce` does not).

    Returns:
        A `Report`; `report.require()` raises its failures.
    """
    report = Report()
    conf = configuration(context)
    slots = slots_of(context)
    check_configuration(conf, slots, limits[0], report)
    if report.failures:
        return report
    try:
        hosts = probe(context, max(room(context), 1), barrier and not allocates(context))
    except ClusterError as error:
        report.failures.append(str(error))
        return report
    report.conf, report.hosts = conf, hosts
    check_versions(versions(), hosts, report)
    check_kernels(native_kernels(), hosts, report)
    if need is not None:
        fewest, most = limits
        check_memory(conf, hosts, need, report, fewest if fewest == most else None)
    return report


def configuration(context: Any) -> dict[str, str]:
    """Spark's configuration as a plain dict."""
    return dict(context.getConf().getAll())


def executor_cores(context: Any) -> int:
    """Cores of one executor."""
    conf = configuration(context)
    if conf.get("spark.executor.cores"):
        return int(conf["spark.executor.cores"])
    executors = executor_count(context)
    return max(1, int(context.defaultParallelism) // max(executors, 1))


def executor_count(context: Any, wait_s: float = 30.0) -> int:
    """Executors registered now; waits for the first one. `local[n]` counts as one executor."""
    if str(context.master).startswith("local") and not str(context.master).startswith("local-cluster"):
        return 1
    tracker = context._jsc.sc().statusTracker()
    wait_s = 0.0 if allocates(context) else wait_s
    deadline = time.monotonic() + wait_s
    while True:
        count = len(tracker.getExecutorInfos()) - 1  # the driver is listed too
        if count > 0 or time.monotonic() > deadline:
            return max(count, 0)
        time.sleep(0.1)


def slots_of(context: Any) -> int:
    """Ranks that can run at once: one for each executor; in `local[n]`, n."""
    master = str(context.master)
    if master.startswith("local") and not master.startswith("local-cluster"):
        return int(context.defaultParallelism)
    return executor_count(context)


def native_kernels() -> tuple[str, ...]:
    """The native libraries loaded on this machine, which the driver chooses kernels from."""
    from kerasoft.compiler.program import native_libraries

    return tuple(said for name, said in native_libraries().items() if said.startswith(f"{name}-"))


def probe(context: Any, tasks: int, barrier: bool = True) -> list[HostFacts]:
    """Asks `tasks` tasks for the facts of their hosts, by one job that needs nothing of ours; one answer an executor.

    With as many tasks as slots every executor is asked; without a barrier they wait a little for one another.

    Raises:
        ClusterError: the tasks could not run; says why.
    """

    local = str(context.master).startswith("local") and not str(context.master).startswith("local-cluster")

    def look(index: int, _: Any) -> Any:
        # Nested, so that it is shipped by value: a worker without kerasoft must be able to say so.
        import importlib
        import importlib.metadata as metadata
        import os
        import platform as machine
        import socket
        import time

        found = {"python": machine.python_version()}
        for name in ("kerasoft", "jax", "jaxlib", "numpy"):
            try:
                found[name] = metadata.version(name)
            except Exception:
                found[name] = "missing"
        try:
            found["kerasoft"] = importlib.import_module("kerasoft").__version__
        except Exception:
            found["kerasoft"] = "missing"
        cpu, free = machine.processor() or machine.machine(), 0
        try:
            with open("/proc/cpuinfo") as file:
                cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), cpu)
            with open("/proc/meminfo") as file:
                free = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
            with open("/sys/fs/cgroup/memory.max") as file:
                free = min(free, int(file.read()))
        except (OSError, StopIteration, ValueError):
            pass
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        try:
            kernels = importlib.import_module("kerasoft.compiler.program").native_libraries()
        except Exception:
            kernels = {}
        if not barrier:
            time.sleep(0.5)
        # The parent is the daemon that starts an executor's Python processes: one for each executor.
        yield (index, socket.gethostname(), found, cores, free, cpu, kernels), index if local else os.getppid()

    numbers = context.parallelize(range(tasks), tasks)
    try:
        if barrier:
            answers = numbers.barrier().mapPartitionsWithIndex(look).collect()
        else:
            answers = numbers.mapPartitionsWithIndex(look).collect()
    except Exception as error:
        raise ClusterError(_reason(str(error))) from error
    executors: dict[tuple[str, int], HostFacts] = {}
    for row, parent in sorted(answers, key=lambda answer: answer[0][0]):
        executors.setdefault((row[1], parent), HostFacts(*row))
    return list(executors.values())


def _reason(text: str) -> str:
    if "PYTHON_VERSION_MISMATCH" in text or "Python in worker has different version" in text:
        line = next((x.strip() for x in text.splitlines() if "VERSION_MISMATCH" in x or "different version" in x), "")
        return (
            f"the executors run another Python than the driver: {line} Set PYSPARK_PYTHON (executors) and "
            "PYSPARK_DRIVER_PYTHON to the same version."
        )
    if "SPARK-24819" in text or "BarrierJobSlotsNumberCheckFailed" in text:
        return "there are fewer free slots than workers [SPARK-24819]. Stop other jobs, add executors or ask for fewer workers."
    last = [x for x in text.splitlines() if x.strip()]
    return f"the probe job failed: {last[0] if last else text}"
