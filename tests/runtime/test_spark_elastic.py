"""Executors that come and go while a fit runs: added, killed, decommissioned, allocated on demand. The bits stay."""

import pytest

from tests.runtime.cases import digest, fit_in_threads, mlp, shards
from tests.runtime.nodes import Nodes
from tests.runtime.test_spark import SIZES, exact

EPOCHS = 8

FIT = f"""
class Telling(Recorder):
    def on_event(self, event):
        super().on_event(event)
        if event.kind in ("regrouped", "worker_lost", "warning", "retrying"):
            tell(event.kind, event.text, dict(event.details))

    def on_steps(self, reports):
        tell("steps", reports[-1].epoch, reports[-1].step)
        return super().on_steps(reports)

def run(strategy, seconds=0.3):
    hooks = Telling()
    slow = [Fault(0, e, s, "sleep", generation=None, seconds=seconds) for e in range({EPOCHS}) for s in range(5)]
    result, _ = fit(context, mlp(dropout=True), shards(SIZES), strategy, epochs={EPOCHS}, hooks=hooks, faults=slow)
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
        with nodes.application(FIT + "run(exact(checkpoint_every_s=1))", 2) as told:
            told.until("steps 0 1")
            nodes.add("c")
            told.until("regrouped 2 workers hand over to 3 before")
            told.until("steps")
            nodes.decommission("a")
            told.until("regrouped 3 workers hand over to 2 before")
            told.until("steps")
            nodes.kill("b")
            told.until("worker_lost rank . ")
            told.until("regrouped 2 workers hand over to 1 before")
            assert told.until(r"digest (.*)").group(1) == f"{expected} True True"


def test_executors_that_come_on_demand(tmp_path, expected):
    settings = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.initialExecutors": "1",
        "spark.dynamicAllocation.minExecutors": "1",
        "spark.dynamicAllocation.maxExecutors": "3",
    }
    with Nodes(tmp_path) as nodes:
        for name in "abc":
            nodes.add(name)
        with nodes.application(FIT + "run(exact(checkpoint_every_s=1, workers=(1, 3)))", 1, **settings) as told:
            told.until(r"regrouped \d workers hand over to 3 before")
            told.until("steps")
            nodes.kill("a")
            told.until("regrouped 3 workers hand over to 2 before")
            assert told.until(r"digest (.*)").group(1) == f"{expected} True True"
