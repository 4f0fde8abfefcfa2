"""Whole fits with parameter servers, ranks as threads, real sockets, without Spark."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, Downpour, StaleSynchronous
from kerasoft.runtime.errors import TrainingFailed
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.loop import Decision

from tests.runtime.cases import Recorder, digest, fit_in_threads, mlp, shards, weights

SIZES = (13, 0, 29, 5, 20)


@pytest.mark.parametrize(
    ("world_size", "model"), [(1, {"dropout": True}), (3, {"dropout": True}), (2, {"clip": True})], ids=str
)
def test_no_staleness_is_all_reduce_to_the_bit(world_size, model):
    data, validation = shards(SIZES), shards((9, 4), seed=5)
    more = {"epochs": 2, "validation": validation}
    all_reduce, hooks, _ = fit_in_threads(mlp(**model), data, 2, AllReduce(deterministic=True, timeout_s=5), **more)
    strategy = StaleSynchronous(0, deterministic=True, timeout_s=5)
    result, others, _ = fit_in_threads(mlp(**model), data, world_size, strategy, **more)
    assert digest(result) == digest(all_reduce) and result.iteration == all_reduce.iteration
    for a, b in zip(hooks.ends, others.ends, strict=True):
        np.testing.assert_array_equal(a.sums, b.sums)
        np.testing.assert_array_equal(a.validation_sums, b.validation_sums)
    assert [(r.epoch, r.step, r.rows, r.iteration) for r in others.steps] == [
        (r.epoch, r.step, r.rows, r.iteration) for r in hooks.steps
    ]


def undisturbed(world_size, **more):
    strategy = StaleSynchronous(0, deterministic=True, timeout_s=5)
    return fit_in_threads(mlp(dropout=True), shards(SIZES), world_size, strategy, **({"epochs": 3} | more))


@pytest.mark.parametrize(
    ("fault", "every"),
    [(Fault(1, 1, 3, "leave"), 2), (Fault(0, 1, 2, "leave"), 0), (Fault(1, 0, 0, "leave", "validation"), 0)],
)
def test_a_lost_worker_changes_no_bit(fault, every):
    validation = shards((9, 4))
    calm, told, _ = undisturbed(3, validation=validation)
    lost, hooks, _ = undisturbed(3, validation=validation, faults=[fault], checkpoint_every_steps=every)
    assert digest(lost) == digest(calm)
    kinds = [e.kind for e in hooks.events]
    assert kinds.count("worker_lost") == kinds.count("retrying") == 1
    loss = next(e for e in hooks.events if e.kind == "worker_lost")
    assert loss.details["rank"] == fault.rank
    if every:
        retry = next(e for e in hooks.events if e.kind == "retrying")
        assert (retry.details["epoch"], retry.details["step"]) == (1, 3)  # after 8 of 15 steps
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(3) for s in range(5)]
    for a, b in zip(told.ends, hooks.ends, strict=True):
        np.testing.assert_array_equal(a.sums, b.sums)


def test_rates_stops_and_weights_of_the_hooks_reach_the_servers():
    def go(strategy):
        hooks = Recorder()
        hooks.rate = lambda epoch: 0.05 / (epoch + 1)

        def decide(end):
            if end.epoch == 0:
                params, state = end.weights()
                return Decision(weights=(params * 0.5, state + 1), learning_rate=0.01)
            return Decision(stop=end.epoch == 2)

        hooks.decide = decide
        result, _, _ = fit_in_threads(mlp(), shards(SIZES), 2, strategy, hooks=hooks, epochs=5)
        assert [e.epoch for e in hooks.ends] == [0, 1, 2]
        return digest(result)

    strategy = StaleSynchronous(0, deterministic=True, timeout_s=5)
    assert go(strategy) == go(AllReduce(deterministic=True, timeout_s=5))


@pytest.mark.parametrize("strategy", [StaleSynchronous(2, timeout_s=5), Downpour(2, 3, timeout_s=5)], ids=repr)
def test_a_stop_within_an_epoch_ends_it(strategy):
    hooks = Recorder()
    hooks.on_report = lambda reports: Decision(stop=True) if reports[-1].step >= 3 else None
    _, _, _ = fit_in_threads(mlp(), shards((400, 400)), 2, strategy, hooks=hooks, epochs=4, batch_size=2)
    (end,) = hooks.ends
    assert 4 <= end.steps < 400


def test_a_users_error_in_a_step_is_told_and_not_retried():
    with pytest.raises(
        TrainingFailed, match=r"rank 1 \(host .* raised ValueError in epoch 1, step 3: scripted failure"
    ):
        fit_in_threads(
            mlp(), shards(SIZES), 2, Downpour(timeout_s=5), epochs=3, faults=[Fault(1, 0, 2, "raise", generation=None)]
        )


@pytest.mark.alone  # with another second's delay another rank is stuck
def test_who_is_stuck_is_named_by_those_who_wait():
    strategy = StaleSynchronous(1, timeout_s=1)
    _, hooks, _ = fit_in_threads(
        mlp(), shards(SIZES), 3, strategy, epochs=1, faults=[Fault(1, 0, 2, "sleep", seconds=3)]
    )
    (loss,) = [e for e in hooks.events if e.kind == "worker_lost"]
    assert loss.details["rank"] == 1 and "makes no step for 1 s while rank" in loss.text


# --- bounded staleness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [1, 3])
def test_every_row_comes_once_an_epoch_with_any_staleness(staleness):
    slow = [Fault(1, 0, step, "sleep", seconds=0.02) for step in range(34)]
    _, hooks, driver = fit_in_threads(
        mlp(), shards(SIZES), 3, StaleSynchronous(staleness, timeout_s=5), epochs=2, batch_size=2, faults=slow
    )
    for end in hooks.ends:
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]
    assert [r.step for r in hooks.steps] == list(range(34)) * 2
    leads = [c["most_ahead"] for c in driver.counters]
    assert max(leads) == staleness


@pytest.mark.alone  # seconds are compared
def test_stragglers_cost_less_than_synchronous_steps():
    """In each step one worker, each in its turn, is four times slower than the others."""
    slow = [
        Fault(r, 0, step, "sleep", seconds=0.04 if step // 2 % 2 == r else 0.01) for step in range(24) for r in (0, 1)
    ]
    took = {}
    for strategy in (AllReduce(timeout_s=5), StaleSynchronous(3, timeout_s=5)):
        result, hooks, _ = fit_in_threads(mlp(), shards((24, 24)), 2, strategy, batch_size=2, faults=slow)
        took[type(strategy)] = hooks.ends[0].wall_s
    assert took[StaleSynchronous] < 0.8 * took[AllReduce], took


# --- Downpour ----------------------------------------------------------------------------------------------------------


def test_one_worker_is_sequential():
    for model in ({}, {"clip": True}, {"update_mode": "replicated"}):
        sequential, hooks, _ = fit_in_threads(mlp(**model), shards(SIZES), 1, epochs=3)
        result, others, _ = fit_in_threads(mlp(**model), shards(SIZES), 1, Downpour(timeout_s=5), epochs=3)
        assert np.max(np.abs(weights(result) - weights(sequential))) <= 1e-7
        assert others.ends[-1].counts == {"stale_pushes": 0, "staleness": 0}


@pytest.mark.parametrize("n", [(1, 1), (3, 5)])
def test_every_row_counts_once_and_three_workers_converge_though_one_is_slow(n):
    slow = [Fault(2, e, step, "sleep", seconds=0.004) for step in range(25) for e in range(20)]
    strategy = Downpour(*n, max_staleness=200, timeout_s=5)
    _, hooks, _ = fit_in_threads(
        mlp(), shards((50, 90, 60)), 3, strategy, epochs=8, batch_size=8, faults=slow, learning_rate=0.01,
        checkpoint_every_steps=7,
    )  # fmt: skip
    rows = sum(range(200)), sum(i * i for i in range(200))
    for end in hooks.ends:
        assert end.sums[1] == 200 and tuple(end.sums[2:]) == rows
    losses = [end.sums[0] / end.sums[1] for end in hooks.ends]
    assert losses[-1] < 0.5 * losses[0]
    assert max(end.counts["staleness"] for end in hooks.ends) > 0


def test_a_worker_too_far_behind_is_counted_and_ignored():
    slow = [Fault(1, 0, step, "sleep", seconds=0.03) for step in range(34)]
    strategy = Downpour(5, 5, max_staleness=2, timeout_s=5)
    _, hooks, _ = fit_in_threads(mlp(), shards(SIZES), 2, strategy, epochs=1, batch_size=2, faults=slow)
    assert 0 < hooks.ends[0].counts["stale_pushes"] <= 8
    assert hooks.ends[0].sums[1] == 67  # its rows are in the epoch's sums all the same


def test_a_lost_worker_ends_the_attempt_and_the_next_one_goes_on():
    _, hooks, _ = fit_in_threads(
        mlp(), shards(SIZES), 3, Downpour(2, 2, timeout_s=5), epochs=3, faults=[Fault(1, 1, 2, "leave")]
    )
    kinds = [e.kind for e in hooks.events]
    assert kinds.count("worker_lost") == kinds.count("retrying") == 1
    assert [e.epoch for e in hooks.ends] == [0, 1, 2]
    for end in hooks.ends:
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Downpour(0), "Downpour: n_fetch needs a whole number of steps of at least 1, got 0"),
        (lambda: Downpour(max_staleness=-1), "max_staleness needs at least 0 or None, got -1"),
        (lambda: Downpour(deterministic=True), "workers do not wait for one another"),
        (lambda: StaleSynchronous(-1), "staleness needs a whole number of clocks of at least 0, got -1"),
        (
            lambda: fit_in_threads(mlp(synchronised=True), shards(SIZES), 2, StaleSynchronous(1)),
            "StaleSynchronous: this model's loss needs sums over all workers within a step",
        ),
    ],
)
def test_errors_say_what_to_change(make, text):
    with pytest.raises(ValueError, match=text):
        make()
