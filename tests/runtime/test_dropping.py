"""Late workers' rows: who is late, that every row is trained once or counted, and that means are those of the rows trained."""

import time

import numpy as np
import pytest
from kerasoft.runtime import AllReduce
from kerasoft.runtime.dropping import DroppingStep
from kerasoft.runtime.faults import Fault

from tests.runtime.cases import Recorder, fit_in_threads, mlp, shards, weights

pytestmark = pytest.mark.alone  # seconds are compared

SIZES = (40, 0, 41, 39)
TOTAL = sum(SIZES)
IDS = [TOTAL, sum(range(TOTAL)), sum(i * i for i in range(TOTAL))]


def late(monkeypatch, when):
    """Lets ``when(rank, epoch's steps so far, rows done)`` decide who is late, instead of the clock."""

    def is_late(self, began_s, done, own, step):
        return not step.extra and done >= (1 - self.method.share) * own and when(self.rank, step.step)

    monkeypatch.setattr(DroppingStep, "_is_late", is_late)


@pytest.mark.parametrize("requeue", [True, False])
def test_every_row_is_trained_once_or_counted(monkeypatch, requeue):
    late(monkeypatch, lambda rank, step: rank == 1 or (rank == 2 and step % 2))
    strategy = AllReduce(drop_percentage=0.6, requeue=requeue, timeout_s=20)
    _, hooks, driver = fit_in_threads(mlp(), shards(SIZES), 3, strategy, epochs=2, batch_size=24)
    for end in hooks.ends:
        told = [r for r in hooks.steps if r.epoch == end.epoch]
        assert sum(r.rows for r in told) == end.sums[1] == end.rows
        planned = [r for r in told if r.step < 5]
        assert all(r.rows < 24 for r in planned)
        if requeue:
            assert end.sums[1:].tolist() == IDS and end.rows == TOTAL
            assert end.counts == {"requeued_rows": TOTAL - sum(r.rows for r in planned)}
            assert len(told) > 5 and all(r.rows <= 24 for r in told)
        else:
            assert end.counts == {"dropped_rows": TOTAL - end.sums[1]} and end.sums[1] < TOTAL and len(told) == 5


def test_the_mean_is_that_of_the_rows_that_took_part(monkeypatch):
    """One worker of 32 rows stops after two of four pieces: the step of a fit on these 16 rows alone."""
    late(monkeypatch, lambda rank, step: True)
    (blocks,) = shards((32,), block=16)
    strategy = AllReduce(drop_percentage=0.5, requeue=False, timeout_s=20)
    part, hooks, _ = fit_in_threads(mlp(), [blocks], 1, strategy, epochs=1, batch_size=32, shuffle=False)
    whole, others, _ = fit_in_threads(mlp(), [blocks[:1]], 1, AllReduce(), epochs=1, batch_size=16, shuffle=False)
    np.testing.assert_allclose(weights(part), weights(whole), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(hooks.ends[0].sums, others.ends[0].sums, rtol=1e-6)


def test_nobody_late_gives_the_numbers_of_all_reduce(monkeypatch):
    late(monkeypatch, lambda rank, step: False)
    some, hooks, _ = fit_in_threads(mlp(), shards(SIZES), 3, AllReduce(drop_percentage=0.5, timeout_s=20), epochs=2)
    plain, others, _ = fit_in_threads(mlp(), shards(SIZES), 3, AllReduce(timeout_s=20), epochs=2)
    np.testing.assert_allclose(weights(some), weights(plain), rtol=1e-5, atol=1e-6)
    assert [r.rows for r in hooks.steps] == [r.rows for r in others.steps]
    assert hooks.ends[0].counts == {"requeued_rows": 0}


def test_rows_left_survive_a_lost_worker(monkeypatch):
    late(monkeypatch, lambda rank, step: rank == 0)
    strategy = AllReduce(drop_percentage=0.6, timeout_s=5)
    _, hooks, _ = fit_in_threads(
        mlp(), shards(SIZES), 3, strategy, epochs=2, batch_size=24, checkpoint_every_steps=2,
        faults=[Fault(2, 1, 3, "leave")],
    )  # fmt: skip
    retried = next(e for e in hooks.events if e.kind == "retrying")
    assert retried.details["epoch"] == 1 and retried.details["step"] > 0
    assert [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * 2
    assert hooks.ends[1].counts["requeued_rows"] == hooks.ends[0].counts["requeued_rows"] > 0


def test_the_clock_finds_who_is_late():
    """A worker sleeps before a step, once the usual time is known: it drops at most its share, the next steps are whole."""
    hooks = Recorder()
    faults = [Fault(1, 0, 8, "sleep", seconds=1.0)]
    strategy = AllReduce(drop_percentage=0.5, requeue=False, timeout_s=20)
    began = time.monotonic()
    fit_in_threads(mlp(), shards((200, 200, 200)), 3, strategy, hooks=hooks, epochs=1, batch_size=48, faults=faults)
    assert time.monotonic() - began > 1
    rows = [r.rows for r in hooks.steps]
    assert rows[8] == 40 and rows[:5] == [48] * 5  # 16 rows of each: half of the sleeper's are left out
    assert hooks.ends[0].counts["dropped_rows"] == 600 - sum(rows)


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"drop_percentage": 1.0}, "drop_percentage needs a share of rows from 0 to below 1, got 1.0"),
        ({"drop_percentage": 0.5, "deterministic": True}, "drop_percentage and deterministic cannot be had together"),
        ({"drop_percentage": 0.5, "compression": "2bit"}, "drop_percentage and compression cannot be had together"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        AllReduce(**wrong)
    with pytest.raises(ValueError, match="drop_percentage needs a loss without sums over all workers"):
        fit_in_threads(mlp(synchronised=True), shards(SIZES), 2, AllReduce(drop_percentage=0.5))
