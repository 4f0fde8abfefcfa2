"""Fits on real executor processes: agreement, exactly-once, death of every kind, resumption, and what they cost."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from kerasoft.runtime import AllReduce
from kerasoft.runtime.errors import ClusterError, DataChanged, TrainingFailed
from kerasoft.runtime.faults import Fault, Script
from kerasoft.runtime.shards import table_of
from kerasoft.runtime.spark import train

from tests.runtime.cases import Recorder, digest, fit_in_threads, job_of, mlp, shards, weights

pytestmark = pytest.mark.spark
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIZES = (13, 0, 29, 5, 20)
IDS = [67, sum(range(67)), sum(i * i for i in range(67))]


@dataclasses.dataclass
class Blocks:
    rdd: object
    table: object


def blocks(context, data, partitions=3):
    """A data set on the executors, as `kerasoft.data` makes it."""
    records = [(s, q, b) for s, parts in enumerate(data) for q, b in enumerate(parts)]
    return Blocks(context.parallelize(records, partitions), table_of(data))


def fit(context, source, data, strategy, validation=None, hooks=None, faults=(), **job):
    hooks = hooks or Recorder()
    valid = None if validation is None else blocks(context, validation)
    made = data if isinstance(data, Blocks) else blocks(context, data)
    result = train(job_of(source, **job), made, valid, strategy, hooks, Script(tuple(faults)))
    return result, hooks


def exact(**more):
    return AllReduce(**{"deterministic": True, "timeout_s": 20} | more)


@pytest.fixture(scope="module")
def calm():
    """The undisturbed deterministic fit, by threads of this process: its bits are those of any executors."""
    return fit_in_threads(mlp(dropout=True), shards(SIZES), 1, exact(), epochs=3)


def jobs_of(context, run):
    """Spark jobs that `run` starts."""
    first = context.parallelize([0]).map(lambda x: x)
    number = lambda: context._jsc.sc().dagScheduler().nextJobId()
    first.count()
    before = number()
    run()
    return number() - before


def test_the_same_bits_as_one_process_and_every_row_once(context, calm):
    result, hooks = fit(context, mlp(dropout=True), shards(SIZES), exact(workers=3), epochs=3)
    assert digest(result) == digest(calm[0])
    assert [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * 3
    assert sum(result.profile.seconds.values()) == pytest.approx(result.profile.wall_s, rel=0.02)
    assert {"scheduling", "ingest", "compile", "input", "compute", "sync", "wait", "update"} <= set(
        result.profile.seconds
    )


def test_workers_agree_with_one_process_without_determinism(context):
    data, validation = shards(SIZES), shards((9, 4), seed=5)
    here, hooks, _ = fit_in_threads(mlp(synchronised=True), data, 1, epochs=2, validation=validation)
    there, others = fit(context, mlp(synchronised=True), data, AllReduce(), validation=validation, epochs=2)
    np.testing.assert_allclose(weights(there), weights(here), rtol=1e-5, atol=1e-6)
    for a, b in zip(hooks.ends, others.ends, strict=True):
        np.testing.assert_allclose(a.validation_sums, b.validation_sums, rtol=1e-5)


def test_a_killed_worker_changes_no_bit(context, calm):
    result, hooks = fit(
        context, mlp(dropout=True), shards(SIZES), exact(workers=2), epochs=3, faults=[Fault(1, 1, 2, "kill")]
    )
    check_death(result, hooks, calm, "was lost (its connection closed: the process or its host died)")


def check_death(result, hooks, calm, what):
    assert digest(result) == digest(calm[0])
    loss = next(e for e in hooks.events if e.kind == "worker_lost")
    assert what in loss.text and "rank 1 (host " in loss.text and "in epoch 2, step " in loss.text
    assert loss.details["pid"] not in (0, os.getpid())
    assert [e.sums.tolist() for e in hooks.ends] == [e.sums.tolist() for e in calm[1].ends]
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(3) for s in range(5)]


@pytest.mark.soak
@pytest.mark.parametrize(
    "what, says",
    [
        ("kill", "was lost (its connection closed: the process or its host died)"),
        ("kill_jvm", "was lost (its connection closed: the process or its host died)"),
        ("stop", "gave no sign of life for "),
    ],
)
@pytest.mark.parametrize("workers", [2, 4])
def test_every_death_changes_no_bit(context, calm, what, says, workers):
    result, hooks = fit(
        context, mlp(dropout=True), shards(SIZES), exact(workers=workers), epochs=3, faults=[Fault(1, 1, 2, what)]
    )
    check_death(result, hooks, calm, says)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 16, 500])
def test_every_row_once_for_any_workers_and_batch(context, workers, batch_size):
    result, hooks = fit(
        context, mlp(dropout=True), shards(SIZES), exact(workers=workers), epochs=2, batch_size=batch_size
    )
    alone, _, _ = fit_in_threads(mlp(dropout=True), shards(SIZES), 1, exact(), epochs=2, batch_size=batch_size)
    assert [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * 2
    assert digest(result) == digest(alone)


@pytest.mark.soak
def test_a_frozen_worker_is_named_within_its_timeout(context):
    hooks = Recorder()
    fit(
        context, mlp(), shards(SIZES), AllReduce(workers=2, timeout_s=6), epochs=2, hooks=hooks,
        faults=[Fault(0, 1, 1, "stop")],
    )  # fmt: skip
    before = max(e.at_s for e in hooks.events if e.kind == "checkpoint" and e.details["epoch"] == 1)
    loss = next(e for e in hooks.events if e.kind == "worker_lost")
    assert loss.details["rank"] == 0 and loss.details["step"] in (0, 1)
    assert loss.at_s - before < 6 + 5  # the timeout, a second of grace, and what a busy machine takes


def test_shards_move_between_executors(context):
    data, naps = shards((12,) * 6), [Fault(0, 0, s, "sleep", seconds=0.5) for s in range(5)]
    result, hooks = fit(context, mlp(dropout=True), data, exact(workers=2, balance=True), epochs=40, faults=naps)
    assert next(e for e in hooks.events if e.kind == "rebalanced").details["rows"][0] < 36
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(40) for s in range(5)]
    assert digest(result) == digest(fit_in_threads(mlp(dropout=True), data, 1, exact(), epochs=40)[0])


def test_jobs_do_not_grow_with_steps(context):
    data, hooks = blocks(context, shards((40, 40))), Recorder()

    def run(epochs):
        fit(context, mlp(), data, AllReduce(workers=2), epochs=epochs, hooks=hooks, batch_size=8)

    assert jobs_of(context, lambda: run(1)) == jobs_of(context, lambda: run(8)) <= 2
    assert len(hooks.steps) == 90


def another_application(cluster, settings):
    """The beginning of a script whose `session` has the cluster's two spare cores."""
    return f"""
import importlib.util, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
found = importlib.util.spec_from_file_location("cluster", {str(ROOT / "tests" / "conftest.py")!r})
module = importlib.util.module_from_spec(found)
sys.modules["cluster"] = module
found.loader.exec_module(module)
from kerasoft.runtime.faults import Fault
from tests.runtime.cases import Recorder
from tests.runtime.test_spark import *
cluster = module.Cluster({cluster.url!r}, pathlib.Path({str(cluster.folder)!r}))
session = cluster.session("another", executors=2, **{settings!r})
"""


def run_application(script):
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.soak
def test_a_rank_takes_its_executors_cores_and_the_bits_stay(cluster, calm):
    script = another_application(cluster, {"spark.executor.cores": "2", "spark.cores.max": "2"})
    script += """
from kerasoft.runtime.spark import Layout
for workers in (1, 2):
    layout = Layout(session.sparkContext, (workers, workers), 4)
    result, hooks = fit(session.sparkContext, mlp(dropout=True), shards(SIZES), exact(workers=workers), epochs=3)
    print(layout.cpus, layout.slots, digest(result), [e.kind for e in hooks.events if e.kind == "worker_lost"])
session.stop()
"""
    out, _ = run_application(script).communicate(timeout=180)
    want = digest(calm[0])
    assert out.splitlines()[-2:] == [f"2 1 {want} []", f"1 2 {want} []"]


def test_a_driver_that_dies_is_resumed_within_the_epoch(cluster, spark, calm, tmp_path):
    folder = (tmp_path / "fit").as_uri()
    script = f"""{another_application(cluster, {})}
hooks = Recorder()
hooks.on_event = lambda event: print(event.kind, event.text, flush=True)
fit(session.sparkContext, mlp(dropout=True), shards(SIZES), exact(workers=2, checkpoint={folder!r}, checkpoint_every_s=1e-9),
    epochs=3, hooks=hooks, faults=[Fault(0, 1, 3, "sleep", seconds=600)])
"""
    process = run_application(script)
    try:
        for line in process.stdout:
            if "epoch 2, step 3" in line:
                break
        else:
            raise AssertionError("the driver ended before it was killed")
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    hooks = Recorder()
    result, hooks = fit(
        spark.sparkContext, mlp(dropout=True), shards(SIZES), exact(workers=3, checkpoint=folder), epochs=3, hooks=hooks
    )
    resumed = next(e for e in hooks.events if e.kind == "resumed")
    assert resumed.details == {"epoch": 1, "step": 3} and folder in resumed.text
    assert digest(result) == digest(calm[0])
    assert hooks.ends[0].sums.tolist() == calm[1].ends[1].sums.tolist()


def test_rows_that_spark_computes_differently_are_named(context):
    data = blocks(context, shards(SIZES))
    data.rdd = data.rdd.map(lambda r: (r[0], r[1], {k: v + (r[0] == 2) for k, v in r[2].items()}))
    with pytest.raises(DataChanged, match=r"training data on rank \d: shard 2 is not what it was when the data was"):
        fit(context, mlp(), data, AllReduce(workers=2), epochs=1)


def test_an_error_in_the_users_rdd_is_not_retried(context):
    data = blocks(context, shards(SIZES))

    def broken(record):
        raise ValueError("no such column")

    data.rdd = data.rdd.map(broken)
    with pytest.raises(TrainingFailed, match="ValueError: no such column"):
        fit(context, mlp(), data, AllReduce(workers=2), epochs=1)


def test_too_many_workers_are_refused_at_once(context):
    began = time.monotonic()
    with pytest.raises(ClusterError, match="9 workers were asked for and 4 can run at once"):
        fit(context, mlp(), shards(SIZES), AllReduce(workers=9), epochs=1)
    assert time.monotonic() - began < 5


def test_larger_than_memory_gives_the_same_bits(context, calm):
    result, _ = fit(context, mlp(dropout=True), shards(SIZES), exact(workers=2, memory_cap_bytes=300), epochs=3)
    assert digest(result) == digest(calm[0])


def test_no_thread_is_left_behind(context):
    fit(context, mlp(), shards(SIZES), AllReduce(workers=2), epochs=1)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("kerasoft")]
