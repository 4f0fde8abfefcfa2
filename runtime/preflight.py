"""What must hold before any data is touched: rules over plain facts about the cluster.

`runtime/spark_preflight.py` collects the facts; nothing here knows Spark.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence

from .errors import ClusterError

PACKAGES = ("kerasoft", "jax", "jaxlib", "numpy")

BASE_BYTES = 330 << 20
"""Resident memory of a worker with JAX started and nothing else, measured (jax 0.10.2: 253 MB bare, 320 MB compiled)."""

LEAST_ADDRESS_SPACE = 2 << 30
"""`spark.executor.pyspark.memory` limits address space; JAX reserves 1.5 GB of it and crashes below this."""


@dataclasses.dataclass(frozen=True)
class HostFacts:
    """What one worker said of itself.

    Attributes:
        rank: of the probe task.
        host: its name.
        versions: of python, jax, jaxlib, numpy and kerasoft; "missing" where it cannot be imported.
        cores: the task may use.
        memory_bytes: free on the host, or the container's limit where that is smaller.
        cpu: model name.
        kernels: {native library: what is loaded there, e.g. "native-v4", or a sentence saying why nothing is}.
    """

    rank: int
    host: str
    versions: Mapping[str, str]
    cores: int
    memory_bytes: int
    cpu: str
    kernels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class MemoryNeed:
    """What a worker will hold, in bytes; see `estimate` for the rule.

    Attributes:
        params: P, elements of the parameter vector.
        vector: V, elements of the reduced vector (gradients, states, sums).
        slots: vectors of the optimiser (Adam: 2).
        data_bytes: the whole training and validation data as blocks.
        step_bytes: temporaries of one compiled step, inputs included.
        cap_bytes: above this much data a worker maps files instead of holding arrays; None = no cap.
        more: further vectors of P that the strategy keeps on every worker.
        tables: elements, of P, of tables that are updated by rows. touched: elements of the rows that a step touches.
    """

    params: int
    vector: int
    slots: int
    data_bytes: int
    step_bytes: int
    cap_bytes: int | None = None
    more: int = 0
    tables: int = 0
    touched: int = 0


def estimate(need: MemoryNeed, world_size: int) -> tuple[int, str]:
    """Bytes that one of `world_size` workers will need, and the rule with its numbers.

    330 MB for Python with JAX
    + 2 P × 4 (weights; the copy the next step is computed into)
    + 6 V × 4 (the gradient in parts and whole, two exchange buffers, what others sent, the result)
    + slots × P × 4 / workers (each worker updates the slice it owns)
    + (1 + slots) × T × 4 + 6 U × 4 (tables of T elements updated by rows, which then count in neither P nor V: whole on each
      worker, with their optimiser vectors; of the U elements that a step touches what else is kept of gradients)
    + what the strategy keeps besides, in vectors of P × 4 (replicas, whole optimiser vectors, residuals)
    + temporaries of the compiled step + the worker's share of the data (or the cap, if smaller) × 1.25.
    """
    params, vector = need.params - need.tables, need.vector - need.tables
    weights = 2 * params * 4 + 6 * vector * 4
    slots = -(-need.slots * params * 4 // world_size)
    tables = (1 + need.slots) * need.tables * 4 + 6 * need.touched * 4
    data = int(1.25 * need.data_bytes / world_size)
    if need.cap_bytes is not None:
        data = min(data, need.cap_bytes)
    more = need.more * need.params * 4
    total = BASE_BYTES + weights + slots + tables + more + need.step_bytes + data
    text = (
        f"{_mb(total)} = {_mb(BASE_BYTES)} Python with JAX + {_mb(weights)} weights and gradients "
        f"(2 × {params:,} + 6 × {vector:,} floats) + {_mb(slots)} optimiser "
        f"({need.slots} × {params:,} floats / {world_size} workers) + "
        + (
            f"{_mb(tables)} tables by rows ({1 + need.slots} × {need.tables:,} + 6 × {need.touched:,} floats) + "
            if need.tables
            else ""
        )
        + (f"{_mb(more)} of the strategy ({need.more} × {need.params:,} floats) + " if more else "")
        + f"{_mb(need.step_bytes)} temporaries of a step + {_mb(data)} data"
    )
    return total, text


@dataclasses.dataclass
class Report:
    """What was found: one line each.

    Attributes:
        passed: what holds.
        warnings: what will cost time or may fail.
        failures: what makes this fit impossible; each with the fix.
        conf, hosts: what it was judged by, for `check_memory` when the size of the data is known.
        left_out: kernels (libraries or names) that some host lacks, so that programs must do without them.
    """

    passed: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    conf: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hosts: Sequence[HostFacts] = ()
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"ok       {line}" for line in self.passed]
        lines += [f"warning  {line}" for line in self.warnings]
        lines += [f"FAILED   {line}" for line in self.failures]
        return "\n".join(lines)

    def require(self) -> None:
        """Raises what failed.

        Raises:
            ClusterError: with every failure and its fix.
        """
        if self.failures:
            raise ClusterError("the cluster cannot run this fit:\n" + "\n".join(f"- {line}" for line in self.failures))


def check_configuration(conf: Mapping[str, str], slots: int, fewest: int, report: Report) -> None:
    """Slots against workers, dynamic allocation and memory settings.

    Args:
        conf: Spark's configuration.
        slots: tasks that can run at once (one for each executor when a rank takes the whole executor).
        fewest: workers that there must be.
    """
    on_demand = _true(conf.get("spark.dynamicAllocation.enabled"))
    if on_demand:
        report.passed.append(
            "dynamic allocation is on: workers run without a barrier [SPARK-24942], and more executors are asked for"
        )
        each = int(conf.get("spark.executor.cores", "1")) // int(conf.get("spark.task.cpus", "1"))
        if conf.get("spark.dynamicAllocation.maxExecutors"):
            slots = int(conf["spark.dynamicAllocation.maxExecutors"]) * max(each, 1)
        else:
            slots = max(slots, fewest)
    else:
        report.passed.append("dynamic allocation is off")
    if slots < 1:
        report.failures.append(
            "no executor has registered with the driver. Start workers, or check spark.executor.memory and "
            "spark.executor.cores against what the workers offer."
        )
    elif fewest > slots:
        report.failures.append(
            f"{fewest} workers were asked for and {slots} can run at once. "
            f"Use AllReduce(workers={slots}) or less, or add executors (--num-executors, spark.cores.max)."
        )
    else:
        report.passed.append(f"{slots} slots, at least {fewest} needed")
    limit = conf.get("spark.executor.pyspark.memory")
    if limit and parse_bytes(limit, "m") < LEAST_ADDRESS_SPACE:
        report.failures.append(
            f"spark.executor.pyspark.memory={limit} limits the address space and kills JAX, which reserves 1.5 GB. "
            "Unset it, or give at least 2g; size the executor with spark.executor.memoryOverhead."
        )


@functools.cache
def versions() -> dict[str, str]:
    """Versions on this machine, without importing anything heavy."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    if found["kerasoft"] == "missing":  # a bare checkout, or shipped with --py-files
        from kerasoft import __version__

        found["kerasoft"] = __version__
    return found


def check_versions(driver: Mapping[str, str], hosts: Sequence[HostFacts], report: Report) -> None:
    """The same kerasoft, JAX and Python on every executor as on the driver."""
    bad = False
    for fact in hosts:
        for name, want in driver.items():
            got = fact.versions.get(name, "missing")
            if _comparable(name, got) == _comparable(name, want):
                continue
            bad = True
            if got == "missing":
                report.failures.append(
                    f"{fact.host} (rank {fact.rank}) has no {name}; the driver has {want}. Install it there "
                    f"(pip install {name}=={want}), or ship an environment with --archives env.tar.gz#env and "
                    "PYSPARK_PYTHON=./env/bin/python."
                )
            else:
                report.failures.append(
                    f"{fact.host} (rank {fact.rank}) has {name} {got}; the driver has {want}. "
                    f"Install the same version on both (pip install {name}=={want})."
                )
    if hosts and not bad:
        report.passed.append("the same " + ", ".join(f"{n} {v}" for n, v in driver.items()) + " on every worker")
    models = sorted({fact.cpu for fact in hosts})
    if len(models) > 1:
        report.warnings.append(
            f"workers have different CPUs ({'; '.join(models)}): the slowest sets the pace of every step"
        )


HALF = "onednn-bfloat16"  # by instructions that only some of the processors with AVX-512 have


def check_kernels(driver: Sequence[str], hosts: Sequence[HostFacts], report: Report) -> None:
    """The native libraries that the driver chooses kernels from, on every executor. Executors of another kind take part:
    each computes with its own libraries, and what one of them lacks is left out for all.

    Args:
        driver: what is loaded on the driver, e.g. ("native-v4", "onednn-v4-3.2.0").
    """
    same = True
    left_out: set[str] = set()
    for fact in hosts:
        for want in driver:
            name = want.partition("-")[0]
            got = fact.kernels.get(name, "kerasoft cannot be imported there.")
            if got == want:
                continue
            same = False
            where = f"{fact.host} (rank {fact.rank})"
            if got.startswith(f"{name}-"):
                left_out |= {HALF} if name == "onednn" and got < want else set()
                report.warnings.append(
                    f"{where} computes with {got}, the driver with {want}: results differ in rounding from host to host, and "
                    "from those of hosts that are alike. For the same bits set KERASOFT_ISA=v3 on the driver and all executors."
                )
            elif fact.kernels:
                left_out.add(name)
                report.warnings.append(
                    f"{where} cannot run {name} kernels: {got} No worker uses them in this fit, which is slower; results differ "
                    f"in rounding from those with {want}."
                )
            else:
                report.failures.append(
                    f"{where} cannot run the {name} kernels that the driver chooses from ({want}): {got} Install the same "
                    "kerasoft on all hosts, or set KERASOFT_NATIVE=0 on the driver."
                )
    report.left_out = tuple(sorted(left_out))
    if hosts and same and driver:
        report.passed.append("the same kernels (" + ", ".join(driver) + ") on every worker")


def check_memory(
    conf: Mapping[str, str], hosts: Sequence[HostFacts], need: MemoryNeed, report: Report, workers: int | None = None
) -> None:
    """The estimate against what each of `workers` (None: one for each of `hosts`) may use; the rule and its numbers are in
    the report."""
    world_size = workers or max(len(hosts), 1)
    total, rule = estimate(need, world_size)
    report.passed.append(f"memory per worker, estimated: {rule}")
    overhead = conf.get("spark.executor.memoryOverhead")
    limited = conf.get("spark.master", "").startswith(("yarn", "k8s"))
    on_host: dict[str, int] = {}
    for fact in hosts:
        on_host[fact.host] = on_host.get(fact.host, 0) + 1
    for fact in hosts:
        limit, of = (
            fact.memory_bytes // on_host[fact.host],
            f"free on {fact.host} for each of its {on_host[fact.host]} workers",
        )
        if limited:
            heap = parse_bytes(conf.get("spark.executor.memory", "1g"), "m")
            granted = parse_bytes(overhead, "m") if overhead else max(384 << 20, heap // 10)
            limit, of = min(limit, granted), "spark.executor.memoryOverhead"
        if total > limit:
            line = (
                f"a worker needs {rule}; {_mb(limit)} are {of} (rank {fact.rank}). Raise spark.executor.memoryOverhead, "
                "use more workers, a smaller batch, or AllReduce(memory_cap_bytes=...)."
            )
            (report.failures if limited else report.warnings).append(line)
            return
    if hosts:
        report.passed.append("every worker has that much")


def parse_bytes(text: str, unit: str) -> int:
    """Bytes of a Spark size such as ``512m`` or ``2g``; a bare number counts in `unit`.

    >>> parse_bytes("2g", "m"), parse_bytes("384", "m")
    (2147483648, 402653184)
    """
    text = text.strip().lower().removesuffix("b")
    shifts = {"k": 10, "m": 20, "g": 30, "t": 40}
    if text and text[-1] in shifts:
        return int(float(text[:-1]) * (1 << shifts[text[-1]]))
    return int(text) << shifts.get(unit, 0)


def _comparable(name: str, version: str) -> str:
    return ".".join(version.split(".")[:2]) if name == "python" else version


def _true(value: str | None) -> bool:
    return str(value).lower() == "true"


def _mb(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MB"
