"""Where kerasoft's time goes in one workload: the phases of `fit`, and the operations of XLA's threads.

python tests/benchmarks/workloads.py --profile --workloads mlp --modes fit
"""

from __future__ import annotations

import collections
import gzip
import json
import pathlib
import tempfile
import time

from workload_subject import Run


def profile(workload: str, mode: str, seconds: float, top: int = 30) -> None:
    """Prints the phases, and the operations that take longest."""
    import jax

    run = Run("kerasoft", workload, mode)
    run.round(seconds)
    free = run.round(seconds)
    rate = free["examples"] / free["seconds"]
    print(f"{workload} {mode}: {rate:,.1f} examples/s, first step {run.first['first_s']:.2f} s")
    if mode == "fit":
        found = run.subject.model.last_fit_profile
        print(
            "phases of the last fit, seconds:",
            {k: round(v, 4) for k, v in found.seconds.items()},
            f"{found.steps} steps",
        )
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        with jax.profiler.trace(folder, create_perfetto_trace=False):
            examples = run.round(min(seconds, 1.0))["examples"]
        wall = time.perf_counter() - begin
        (path,) = pathlib.Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    batches = examples / run.subject.batch
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    spent: dict[str, float] = collections.Counter()
    calls: dict[str, int] = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            spent[event["name"]] += event["dur"]
            calls[event["name"]] += 1
    print(
        f"{wall:.2f} s traced, {len(threads)} threads, {batches:.0f} batches; microseconds of each operation a batch:"
    )
    total = sum(spent.values())
    for name, duration in sorted(spent.items(), key=lambda item: -item[1])[:top]:
        print(f"  {duration / batches:12.1f}  {100 * duration / total:5.1f} %  {calls[name] / batches:6.2f} x  {name}")
    print(f"  {total / batches:12.1f}  all operations (nested ones count twice, threads add up)")
