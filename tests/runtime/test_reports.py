"""Times that add up."""

import time

import pytest
from kerasoft.runtime.reports import Stopwatch, add, profile

pytestmark = pytest.mark.alone  # seconds are compared


def test_every_moment_is_charged_once():
    watch = Stopwatch()
    time.sleep(0.02)
    watch.lap("wait", 0.005)
    watch.lap("compute")
    watch.lap("update", 100)  # not more than has passed
    seconds = watch.take()
    assert seconds["wait"] == 0.005 and seconds["compute"] >= 0.014 and seconds["update"] < 0.01
    assert sum(seconds.values()) == pytest.approx(time.perf_counter() - watch.started, abs=0.01)
    assert watch.take() == {}


def test_workers_stand_for_the_time_they_trained():
    found = profile(
        10.0, {"scheduling": 2.0, "compile": 1.0}, [{"compute": 4.0, "wait": 2.0}, {"compute": 6.0}], 6.5, 30, 300
    )
    assert found.seconds == {
        "compute": 5.0, "wait": 1.0, "scheduling": 2.0, "compile": 1.0, "other": 1.0
    }  # fmt: skip
    assert sum(found.seconds.values()) == found.wall_s and found.workers == 2
    squeezed = profile(4.0, {"scheduling": 2.0}, [{"compute": 4.0}], 2.0, 1, 1)
    assert squeezed.seconds == {"compute": 2.0, "scheduling": 2.0, "other": 0.0}


def test_add_sums_by_phase():
    total = {"compute": 1.0}
    add(total, {"compute": 2.0, "sync": 1.0})
    assert total == {"compute": 3.0, "sync": 1.0}
