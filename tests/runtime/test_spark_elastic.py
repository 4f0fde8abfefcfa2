"""Executors that come and go while a fit runs: added, killed, decommissioned, allocated on demand. The bits stay."""

import pytest
from kerasoft.runtime.spark_preflight import native_kernels

from tests.runtime.cases import digest, fit_in_threads, mlp, shards
from tests.runtime.nodes import ROOT, Nodes
from tests.runtime.test_spark import SIZES, exact

EPOCHS = 8
pytestmark = [
    pytest.mark.spark,
    pytest.mark.soak,
]  # two minutes each: nodes and executors are processes that start and end

FIT = f"""
class Telling(Recorder):
    def on_event(self, event):
        super().on_event(event)
        if event.kind in ("regrouped", "worker_lost", "warning", "retrying"):
            tell(event.kind, event.text, dict(event.details))

    def on_steps(self, reports):
        now, before = time.monotonic(), getattr(self, "told_s", 0)
        if self.events and self.events[-1].kind == "regrouped" and self.events[-1] is not getattr(self, "last", None):
            self.last = self.events[-1]
            tell(f"{{now - before:.1f}} s between two reports of steps")  # with a step or two of 0.3 s
        self.told_s = now
        tell("steps", reports[-1].epoch, reports[-1].step)
        return super().on_steps(reports)

def run(strategy, *gates):
    hooks = Telling()
    job, data = job_of(mlp(dropout=True), epochs={EPOCHS}), blocks(context, shards(SIZES))
    result = train(job, data, None, strategy, hooks, Gates(folder=folder, gates=gates))
    rows = [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * {EPOCHS}
    once = [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range({EPOCHS}) for s in range(5)]
    tell("digest", digest(result), rows, once)
"""


@pytest.fixture(scope="module")
def expected():
    return digest(fit_in_threads(mlp(dropout=True), shards(SIZES), 1, exact(), epochs=EPOCHS)[0])


def test_a_node_joins_and_others_are_decommissioned_and_killed(tmp_path, expected):
    with Nodes(tmp_path) as nodes:
        for name in "ab":
            nodes.add(name)
        body = FIT + "run(exact(checkpoint_every_s=1, timeout_s=100), (1, 0), (3, 0), (5, 0))"
        with nodes.application(body, 2) as told:
            told.until("steps 0 4")
            nodes.add("c")
            told.until("room 3")
            nodes.open(1, 0)
            told.until("regrouped 2 workers hand over to 3 before epoch [23]")
            told.until("steps 2 4")
            nodes.decommission("a")
            told.until("room 2")
            nodes.open(3, 0)
            told.until("regrouped 3 workers hand over to 2 before epoch [45]")
            told.until("steps 4 4")
            nodes.kill("b")
            nodes.open(5, 0)
            told.until("worker_lost rank . ")
            told.until("regrouped 2 workers hand over to 1 before epoch 6")
            assert told.until(r"digest (.*)").group(1) == f"{expected} True True"


ON_DEMAND = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.initialExecutors": "1",
    "spark.dynamicAllocation.minExecutors": "1",
    "spark.dynamicAllocation.maxExecutors": "3",
}


def test_executors_that_come_on_demand(tmp_path, expected):
    with Nodes(tmp_path) as nodes:
        for name in "abc":
            nodes.add(name)
        body = FIT + "run(exact(checkpoint_every_s=1, timeout_s=100, workers=(1, 3)), (1, 0), (3, 0))"
        with nodes.application(body, 1, **ON_DEMAND) as told:
            told.until("room 3")
            nodes.open(1, 0)
            told.until(r"regrouped \d workers hand over to 3 before")
            told.until("steps 2 4")
            nodes.kill("a")
            nodes.open(3, 0)
            told.until("regrouped 3 workers hand over to 2 before")
            assert told.until(r"digest (.*)").group(1) == f"{expected} True True"


def test_the_shuffle_under_dynamic_allocation_with_nodes_added_and_removed(tmp_path):
    alone = digest(fit_in_threads(mlp(dropout=True), shards(SIZES), 1, exact(), epochs=4)[0])
    body = """
from kerasoft.runtime import ShuffleAllReduce
class Telling(Recorder):
    def on_steps(self, reports):
        tell("step", reports[-1].epoch, reports[-1].step, context._jsc.sc().statusTracker().getExecutorInfos().__len__() - 1)
        return super().on_steps(reports)

hooks = Telling()
strategy = ShuffleAllReduce(workers=2, checkpoint_every_steps=3)
result = strategy.fit(job_of(mlp(dropout=True), epochs=4), blocks(context, shards(SIZES)), None, hooks)
tell("digest", digest(result), [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * 4)
"""
    # Its tasks are too short for Spark to want more executors, so three are the least.
    wanted = ON_DEMAND | {f"spark.dynamicAllocation.{n}Executors": "3" for n in ("min", "initial")}
    with Nodes(tmp_path) as nodes:
        for name in "ab":
            nodes.add(name)
        with nodes.application(body, 1, **wanted) as told:
            told.until("step 0 0")
            nodes.add("c")
            told.until(r"step \d \d 3")
            nodes.kill("a")
            told.until(r"step \d \d 2")
            nodes.decommission("b")
            assert told.until(r"digest (.*)").group(1) == f"{alone} True"


FRONT_END = """
import os
import numpy as np
import kerasoft as ks
from kerasoft.runtime import AllReduce
rng = np.random.default_rng(0)
x = rng.normal(size=(96, 12, 12, 4)).astype("float32")
y = (x.mean((1, 2, 3)) > 0).astype("int32")

def model():
    ks.utils.set_random_seed(0)
    layers = [ks.layers.Conv2D(8, 3, activation="relu"), ks.layers.Flatten(), ks.layers.Dense(64, "relu"), ks.layers.Dense(2)]
    made = ks.Sequential([ks.Input((12, 12, 4)), *layers])
    made.compile(ks.optimizers.SGD(0.1), ks.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made

def touched(row):
    open({mark!r}, "w").close()
    return row

rows = context.parallelize(list(zip(x, y)), 3).map(touched)
there = model()
"""


def test_processors_of_other_kinds_complete_the_job(tmp_path):
    """One executor is held to AVX2, one has no native kernels at all: each computes with what it has."""
    body = FRONT_END.format(mark=str(tmp_path / "touched"))
    body += """
there.fit(rows, batch_size=96, epochs=4, verbose=0, strategy=AllReduce(workers=3))
tell(*[e.text.replace(chr(10), " ") for e in there._trainer.events if e.kind == "preflight"])
here = model()
here.fit(x, y, batch_size=96, epochs=4, verbose=0)
apart = max(float(np.abs(a - b).max()) for a, b in zip(here.get_weights(), there.get_weights()))
tell("apart", apart)
board = ks.callbacks.TensorBoard(folder + "/board")
some = AllReduce(workers=3, drop_percentage=0.5)
history = there.fit(rows, batch_size=48, epochs=2, verbose=0, strategy=some, callbacks=[board]).history
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(folder + "/board/train")
events.Reload()
tags = events.Tags()
tell("history", sorted(history), any("requeued_rows" in tag for tag in tags["scalars"] + tags["tensors"]))
"""
    if "native-v4" not in native_kernels():
        pytest.skip("needs native kernels for AVX-512 here")
    older = {"KERASOFT_ISA": "v3", "ONEDNN_MAX_CPU_ISA": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}
    with Nodes(tmp_path) as nodes:
        nodes.add("a")
        nodes.add("b", **older)
        nodes.add("c", KERASOFT_NATIVE="0")
        with nodes.application(body, 3) as told:
            text = told.until("dynamic allocation is off").string
            assert (
                "computes with native-v3, the driver with native-v4: results differ in rounding from host to host"
                in text
            )
            assert (
                "cannot run native kernels: KERASOFT_NATIVE=0 turns the native kernels off. No worker uses them" in text
            )
            assert float(told.until(r"apart (.*)").group(1)) < 1e-5
            assert told.until(r"history (.*)").group(1) == "['loss', 'requeued_rows'] True"


def test_another_version_is_refused_before_data_is_touched(tmp_path):
    """A later one, on an executor that joins while a fit runs, before its worker has loaded a row."""
    body = FRONT_END.format(mark=str(tmp_path / "touched"))
    body += """
try:
    there.fit(rows, batch_size=96, epochs=1, verbose=0)
except Exception as error:
    tell("refused", type(error).__name__, str(error).replace(chr(10), " "))
"""
    for name in ("old/extra/jaxlib-0.0.1.dist-info", "new"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "old/extra/jaxlib-0.0.1.dist-info/METADATA").write_text("Name: jaxlib\nVersion: 0.0.1\n")
    # An executor's working folder is <node>/<application>/<number>.
    settings = {"spark.executorEnv.PYTHONPATH": f"../../extra:{ROOT}"}
    with Nodes(tmp_path) as nodes:
        nodes.add("new")
        nodes.add("old")
        with nodes.application(body, 2, **settings) as told:
            text = told.until("refused ClusterError").string
        assert "(rank " in text and "has jaxlib 0.0.1; the driver has" in text and "pip install jaxlib==" in text
        assert not (tmp_path / "touched").exists()
        nodes.kill("old")
        body = FIT + "\ntry:\n    run(exact(checkpoint_every_s=1, timeout_s=100), (1, 0))\nexcept Exception as error:\n"
        body += "    tell('refused', type(error).__name__, str(error).replace(chr(10), ' '))\n"
        with nodes.application(body, 1, **settings) as told:
            told.until("steps 0 4")
            nodes.add("old")
            told.until("room 2")
            nodes.open(1, 0)
            text = told.until("refused ClusterError").string
            assert "an executor cannot take part" in text and "has jaxlib 0.0.1" in text
