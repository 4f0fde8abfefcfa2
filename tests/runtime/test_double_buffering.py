"""AllReduce with double buffering, ranks as threads: against a NumPy loop with stale gradients, deaths, a new driver."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.shards import Plan

from tests.runtime.cases import Recorder, digest, fit_in_threads, job_of, mlp, shards
from tests.runtime.test_averaging import with_sgd
from tests.runtime.test_driver import Dies

SIZES = (13, 0, 29, 5, 20)


def numpy_stale_sgd(data, params, batch_size, epochs, rate, features=5, units=8):
    """Step t's gradient is taken where the updates up to step t - 2 have led; nothing waits at an epoch's end."""
    x = [np.concatenate([b["x/0"] for b in s]).astype(float) if s else np.zeros((0, features)) for s in data]
    y = [np.concatenate([b["y/0"] for b in s]).astype(float) if s else np.zeros((0, 1)) for s in data]
    p = params.astype(float)
    for _ in range(epochs):
        waiting = None
        for low, high in Plan([len(s) for s in x], batch_size):
            rows = np.concatenate([a[i:j] for a, i, j in zip(x, low, high)])
            wanted = np.concatenate([a[i:j] for a, i, j in zip(y, low, high)])
            k, u = p[: features * units].reshape(features, units), p[features * units :, None]
            hidden = np.tanh(rows @ k)
            error = 2 * (hidden @ u - wanted) / len(rows)
            gradient = np.concatenate(
                [(rows.T @ ((error @ u.T) * (1 - hidden**2))).ravel(), (hidden.T @ error).ravel()]
            )
            if waiting is not None:
                p = p - rate * waiting
            waiting = gradient
        p = p - rate * waiting
    return p


@pytest.mark.parametrize("world_size", [1, 3])
def test_it_is_descent_with_gradients_one_step_old(world_size):
    source, data = with_sgd(mlp()), shards(SIZES)
    strategy = AllReduce(double_buffering=True, timeout_s=5)
    found, hooks, _ = fit_in_threads(source, data, world_size, strategy, epochs=3, shuffle=False)
    wanted = numpy_stale_sgd(data, job_of(source).params, 16, 3, 0.05)
    np.testing.assert_allclose(found.params, wanted, atol=2e-6)
    assert [(r.epoch, r.step, r.iteration) for r in hooks.steps] == [
        (e, s, 5 * e + s + 1) for e in range(3) for s in range(5)
    ]
    for end in hooks.ends:
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]


@pytest.mark.parametrize(
    "model", [{"dropout": True}, {"clip": True, "synchronised": True}, {"update_mode": "replicated"}], ids=str
)
def test_bits_do_not_depend_on_workers_deaths_or_a_new_driver(model, tmp_path):
    def fit(world_size, **more):
        strategy = AllReduce(deterministic=True, double_buffering=True, timeout_s=5)
        return fit_in_threads(mlp(**model), shards(SIZES), world_size, strategy, epochs=3, **more)

    calm, told, _ = fit(2)
    assert digest(fit(4)[0]) == digest(calm)
    lost, hooks, _ = fit(3, faults=[Fault(1, 1, 3, "leave")], checkpoint_every_steps=2)
    assert digest(lost) == digest(calm)
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(3) for s in range(5)]
    assert next(e for e in hooks.events if e.kind == "retrying").details["step"] == 3
    for a, b in zip(told.ends, hooks.ends, strict=True):
        np.testing.assert_array_equal(a.sums, b.sums)
    dying = Recorder()

    def die(event):
        if event.kind == "checkpoint" and event.details["epoch"] == 1 and event.details["step"] == 3:
            raise Dies

    dying.on_event = die
    with pytest.raises(Dies):
        fit(2, hooks=dying, folder=tmp_path, checkpoint_every_steps=2)
    again, others, _ = fit(1, folder=tmp_path, seed=5)
    assert digest(again) == digest(calm)
    assert [(r.epoch, r.step) for r in dying.steps + others.steps] == [(r.epoch, r.step) for r in told.steps]
    np.testing.assert_array_equal(others.ends[0].sums, told.ends[1].sums)


def test_not_with_compression():
    with pytest.raises(ValueError, match="compression and double_buffering cannot be had together"):
        AllReduce(compression="2bit", double_buffering=True)
