"""Groups of workers that grow and shrink within a fit: the same bits, every step told once."""

import numpy as np
import pytest
from kerasoft.runtime import LBFGS, AllReduce, LocalSGD, ParameterAveraging, ParameterServer, StaleSynchronous, elastic
from kerasoft.runtime.elastic import Crew, Lookout
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.strategies.strategy import limits_of

from tests.runtime.cases import Recorder, digest, fit_in_threads, mlp, shards, weights

SIZES = (13, 0, 29, 5, 20)
EPOCHS = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(elastic, "LOOK_S", 0.0)


def scripted(strategy, rooms, start, every_s=1e9, model=None, **more):
    """A fit in which there is room for ``rooms[(epoch, step)]`` workers once that step has been told."""
    hooks = Recorder()
    plan = dict(rooms)
    now = [start]

    def told(reports):
        for report in reports:
            now[0] = plan.get((report.epoch, report.step), now[0])

    hooks.on_report = told
    strategy.checkpoint_every_s = every_s
    model = model or mlp(dropout=True)
    result, hooks, driver = fit_in_threads(
        model, shards(SIZES), start, strategy, hooks=hooks, epochs=EPOCHS, rooms=lambda: now[0], **more
    )
    return result, hooks, driver


def calm(strategy, workers=1, **more):
    return fit_in_threads(mlp(dropout=True), shards(SIZES), workers, strategy, epochs=EPOCHS, **more)


def check_told_once(hooks, alone):
    assert [(r.epoch, r.step) for r in hooks.steps] == [(r.epoch, r.step) for r in alone.steps]
    assert [e.sums.tolist() for e in hooks.ends] == [e.sums.tolist() for e in alone.ends]
    assert hooks.begun == alone.begun == list(range(EPOCHS))


def exact(**more):
    return AllReduce(workers=(1, 4), deterministic=True, timeout_s=20, **more)


def test_two_three_one_workers_give_the_bits_of_one():
    alone, others, _ = calm(exact(), validation=shards((9, 4), seed=5))
    result, hooks, driver = scripted(
        exact(), {(0, 3): 3, (2, 1): 1}, 2, validation=shards((9, 4), seed=5)
    )  # one epoch has to pass: nothing is due within it
    assert driver.launcher.groups == [2, 3, 1]
    assert digest(result) == digest(alone)
    check_told_once(hooks, others)
    events = [e for e in hooks.events if e.kind == "regrouped"]
    assert [(e.details["before"], e.details["workers"]) for e in events] == [(2, 3), (3, 1)]
    assert events[0].details["step"] == 0 and "2 workers hand over to 3 before epoch 2, step 1" in events[0].text
    for a, b in zip(hooks.ends, others.ends, strict=True):
        np.testing.assert_array_equal(a.validation_sums, b.validation_sums)


def test_a_shrinking_cluster_is_left_within_the_epoch_and_a_growing_one_when_a_checkpoint_is_due():
    alone, others, _ = calm(exact())
    slow = [Fault(0, e, s, "sleep", generation=None, seconds=0.15) for e in range(EPOCHS) for s in range(5)]
    result, hooks, driver = scripted(exact(), {(1, 0): 1, (2, 0): 4}, 2, every_s=1e-3, faults=slow)
    events = {e.details["workers"]: e.details for e in hooks.events if e.kind == "regrouped"}
    assert driver.launcher.groups == [2, 1, 4] and digest(result) == digest(alone)
    assert (events[1]["epoch"], events[4]["epoch"]) == (1, 2) and min(events[1]["step"], events[4]["step"]) > 0
    check_told_once(hooks, others)


def test_a_lost_worker_after_a_hand_over_goes_on_from_there():
    alone, others, _ = calm(exact())
    result, hooks, driver = scripted(exact(), {(0, 1): 3}, 2, faults=[Fault(2, 1, 2, "leave", generation=1)])
    retried = next(e for e in hooks.events if e.kind == "retrying")
    assert driver.launcher.groups == [2, 3, 3] and digest(result) == digest(alone)
    assert (retried.details["epoch"], retried.details["step"]) == (1, 0)
    check_told_once(hooks, others)


def test_without_determinism_the_numbers_of_one():
    alone, _, _ = calm(AllReduce())
    result, _, driver = scripted(AllReduce(), {(0, 1): 3, (1, 1): 1}, 2)
    assert driver.launcher.groups == [2, 3, 1]
    np.testing.assert_allclose(weights(result), weights(alone), rtol=1e-5, atol=1e-6)


soak = pytest.mark.soak


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(lambda **k: AllReduce(double_buffering=True, **k), id="double_buffering"),
        pytest.param(lambda **k: AllReduce(compression="top_k", **k), id="compressed", marks=soak),
        pytest.param(lambda **k: AllReduce(buckets=2, **k), id="buckets", marks=soak),
        pytest.param(lambda **k: LocalSGD(2, **k), id="local_sgd", marks=soak),
        pytest.param(lambda **k: ParameterAveraging(2, **k), id="averaging", marks=soak),
        pytest.param(lambda **k: StaleSynchronous(0, **k), id="stale_synchronous", marks=soak),
        pytest.param(lambda **k: ParameterServer(1, **k), id="servers"),
        pytest.param(lambda **k: LBFGS(4, **k), id="lbfgs", marks=soak),
    ],
)
def test_every_strategy_hands_over(strategy):
    make = lambda: strategy(workers=(1, 4), deterministic=True, timeout_s=20)
    server = isinstance(make(), ParameterServer)
    alone, others, _ = calm(make(), 2)
    slow = [Fault(server, e, s, "sleep", generation=None, seconds=0.1) for e in range(EPOCHS) for s in range(5)]
    result, hooks, driver = scripted(make(), {(0, 1): 3, (2, 0): 2}, 2, every_s=1e-3, faults=slow)
    assert driver.launcher.groups == [2, 3, 2] and digest(result) == digest(alone)
    check_told_once(hooks, others)


def test_what_two_looks_say_is_believed():
    rooms = iter([3, 2, 2, 5, 5, 0, 0])
    lookout, seen = Lookout(Crew(1, 4), 3, lambda: next(rooms)), []
    for _ in range(7):
        lookout.look()
        seen.append((lookout.wanted, lookout.too_few))
    assert seen == [(3, False), (3, False), (2, False), (2, False), (4, False), (4, False), (1, True)]


@pytest.mark.parametrize("wrong", [0, (0, 2), (3, 2), (1, 2, 3), "2", (1, 2.0), True])
def test_limits_are_checked(wrong):
    with pytest.raises(
        ValueError, match=r"AllReduce: workers needs a whole number .* two of them \(fewest, most\), or None"
    ):
        AllReduce(workers=wrong)
    assert limits_of((2, None)) == (2, None) and ParameterServer(2, workers=(1, 3)).limits == (3, 5)
