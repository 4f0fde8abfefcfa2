"""Local steps and averages, ranks as threads: against AllReduce, a NumPy loop, and themselves on other workers."""

import dataclasses

import numpy as np
import pytest
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.registry import input_node
from kerasoft.runtime import AllReduce, LocalSGD, ParameterAveraging
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.shards import Plan

from tests.runtime.cases import N, digest, fit_in_threads, job_of, mlp, shards, weights

SIZES = (13, 0, 29, 5, 20)


def with_sgd(source):
    """The same model with plain gradient descent, which has no slots."""
    p, g = (input_node(n, (N,), "float32") for n in ("param", "gradient"))
    rate = input_node("learning_rate", (), "float32")
    return dataclasses.replace(source, update=Graph((p, g, rate), (a.subtract(p, g * rate),), ("param",)), slots=())


@pytest.mark.parametrize(
    "strategy",
    [
        LocalSGD(1, timeout_s=5),
        ParameterAveraging(1, timeout_s=5),
        ParameterAveraging(1, combine="gradients", timeout_s=5),
    ],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'combine', '')}",
)
@pytest.mark.parametrize("world_size", [1, 3])
def test_one_step_a_round_is_synchronous_descent(strategy, world_size):
    source, data = with_sgd(mlp()), shards(SIZES)
    wanted, told, _ = fit_in_threads(source, data, 2, epochs=3)
    found, hooks, _ = fit_in_threads(source, data, world_size, strategy, epochs=3)
    np.testing.assert_allclose(weights(found), weights(wanted), rtol=0, atol=1e-6)
    for x, y in zip(hooks.ends, told.ends, strict=True):
        np.testing.assert_allclose(x.sums, y.sums, rtol=1e-5)
    assert found.iteration == wanted.iteration == 15


def test_mean_gradients_are_all_reduce_with_adam_and_large_batches():
    data = shards(SIZES)
    wanted, _, _ = fit_in_threads(mlp(clip=True), data, 1, AllReduce(timeout_s=5), epochs=2, batch_size=48)
    gradients = ParameterAveraging(3, combine="gradients", timeout_s=5)
    found, hooks, _ = fit_in_threads(mlp(clip=True), data, 3, gradients, epochs=2, batch_size=16)
    np.testing.assert_allclose(found.params, wanted.params, rtol=1e-4, atol=1e-5)
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(2) for s in range(5)]


def numpy_local_sgd(data, params, batch_size, epochs, tau, rate, features=5, units=8):
    """The algorithm in float64, with gradients by hand."""
    x = [np.concatenate([b["x/0"] for b in s]).astype(float) if s else np.zeros((0, features)) for s in data]
    y = [np.concatenate([b["y/0"] for b in s]).astype(float) if s else np.zeros((0, 1)) for s in data]
    common = params.astype(float)
    for _ in range(epochs):
        plan = list(Plan([len(s) for s in x], batch_size))
        for first in range(0, len(plan), tau):
            replicas, seen = [], []
            for s in range(len(x)):
                p = common.copy()
                steps = plan[first : first + tau]
                for low, high in steps:
                    rows, wanted = x[s][low[s] : high[s]], y[s][low[s] : high[s]]
                    if len(rows):
                        k, u = p[: features * units].reshape(features, units), p[features * units :, None]
                        hidden = np.tanh(rows @ k)
                        error = 2 * (hidden @ u - wanted) / len(rows)
                        du, dk = hidden.T @ error, rows.T @ ((error @ u.T) * (1 - hidden**2))
                        p = p - rate * np.concatenate([dk.ravel(), du.ravel()])
                replicas.append(p)
                seen.append(steps[-1][1][s] - steps[0][0][s])
            common = np.average(replicas, axis=0, weights=seen)
    return common


@pytest.mark.parametrize("tau", [3, 10])
def test_local_steps_are_those_of_a_numpy_loop(tau):
    source, data = with_sgd(mlp()), shards(SIZES)
    found, _, _ = fit_in_threads(source, data, 2, LocalSGD(tau, timeout_s=5), epochs=2, shuffle=False)
    wanted = numpy_local_sgd(data, job_of(source).params, 16, 2, tau, 0.05)
    np.testing.assert_allclose(found.params, wanted, atol=2e-6)


STRATEGIES = [
    lambda: LocalSGD(2, deterministic=True, timeout_s=5),
    lambda: ParameterAveraging(3, deterministic=True, timeout_s=5),
    lambda: ParameterAveraging(3, average_optimizer_state=False, deterministic=True, timeout_s=5),
    lambda: ParameterAveraging(2, combine="best", deterministic=True, timeout_s=5),
]


@pytest.mark.parametrize("make", STRATEGIES)
def test_bits_do_not_depend_on_workers_or_deaths(make, tmp_path):
    def fit(world_size, **more):
        model = mlp(dropout=True)
        return fit_in_threads(model, shards(SIZES), world_size, make(), epochs=3, validation=shards((9, 4)), **more)

    calm, told, _ = fit(2)
    for end in told.ends:
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]
    assert [(r.epoch, r.step) for r in told.steps] == [(e, s) for e in range(3) for s in range(5)]
    assert [r.iteration for r in told.steps] == list(range(1, 16))
    for world_size in (1, 4):
        other, hooks, _ = fit(world_size)
        assert digest(other) == digest(calm)
        np.testing.assert_array_equal(hooks.ends[-1].validation_sums, told.ends[-1].validation_sums)
    for fault in (Fault(1, 1, 4, "leave"), Fault(0, 0, 1, "leave")):
        lost, hooks, _ = fit(3, faults=[fault], checkpoint_every_steps=1)
        assert digest(lost) == digest(calm)
        assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(3) for s in range(5)]
        np.testing.assert_array_equal(hooks.ends[-1].sums, told.ends[-1].sums)


def test_rounds_of_ten_send_a_tenth_of_the_bytes():
    source, data = with_sgd(mlp(features=400, units=40)), shards((80, 80), features=400)

    def sent(strategy):
        counts = []
        for epochs in (1, 3):
            _, _, driver = fit_in_threads(
                source, data, 2, strategy, epochs=epochs, batch_size=8, transports=("tcp",), shuffle=False
            )
            counts.append(sum(c["bytes_sent"] for c in driver.counters))
        return counts[1] - counts[0]

    assert sent(LocalSGD(10, timeout_s=5)) / sent(AllReduce(timeout_s=5)) == pytest.approx(0.1, rel=0.01)


def test_bfloat16_rounds_changes_only():
    source, data = mlp(features=300), shards(SIZES, features=300)
    options = dict(epochs=2, transports=("tcp",))
    full, _, _ = fit_in_threads(source, data, 2, LocalSGD(2, timeout_s=5), **options)
    half, hooks, _ = fit_in_threads(source, data, 2, LocalSGD(2, wire_dtype="bfloat16", timeout_s=5), **options)
    assert 0 < np.abs(half.params - full.params).max() < 2e-3
    assert hooks.ends[0].sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]


def test_the_best_replica_has_the_lowest_validation_loss():
    data, validation = shards((24, 24, 24), seed=3), shards((50,), seed=5)
    options = dict(epochs=1, shuffle=False)
    best = ParameterAveraging(100, combine="best", timeout_s=5)
    found, _, _ = fit_in_threads(mlp(), data, 2, best, batch_size=24, validation=validation, **options)
    alone = [fit_in_threads(mlp(), [shard], 1, batch_size=8, **options)[0] for shard in data]
    x, y = (np.concatenate([b[n] for b in validation[0]]) for n in ("x/0", "y/0"))
    losses = [np.mean((np.tanh(x @ r.params[:40].reshape(5, 8)) @ r.params[40:, None] - y) ** 2) for r in alone]
    distances = [np.abs(weights(found) - weights(r)).max() for r in alone]
    assert np.argmin(distances) == np.argmin(losses) and min(distances) < 1e-6
    with pytest.raises(
        ValueError, match=r"combine='best'\) compares validation losses: give fit\(..., validation_data"
    ):
        fit_in_threads(mlp(), data, 2, best, **options)


def test_settings_are_checked():
    for make, text in (
        (lambda: LocalSGD(0), "LocalSGD: tau needs a whole number of at least 1 step, got 0"),
        (
            lambda: LocalSGD(workers=0),
            r"LocalSGD: workers needs a whole number of at least 1, two of them \(fewest, most\), or None, got 0",
        ),
        (
            lambda: ParameterAveraging(1.5),
            "ParameterAveraging: frequency needs a whole number of at least 1 batch, got",
        ),
        (
            lambda: ParameterAveraging(combine="mean"),
            r"combine needs one of \('parameters', 'gradients', 'best'\), got",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            make()
