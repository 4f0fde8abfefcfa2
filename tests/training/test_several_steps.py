"""Several steps in one call: the rows, reports and numbers of single steps."""

import numpy as np
import pytest
from kerasoft.compiler import several

import kerasoft as ks

pytestmark = pytest.mark.shipped


@pytest.fixture
def calls(monkeypatch):
    """How many steps each call made."""
    from kerasoft.compiler.local import LocalStep

    seen = []
    one, many = LocalStep.train, LocalStep.train_several

    def train(self, *given):
        seen.append(1)
        return one(self, *given)

    def train_several(self, *given):
        seen.append(given[8])
        return many(self, *given)

    monkeypatch.setattr(LocalStep, "train", train)
    monkeypatch.setattr(LocalStep, "train_several", train_several)
    return seen


def fitted(rows=1000, layers=(), **settings):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(rows, 4)).astype("f"), random.normal(size=(rows, 1)).astype("f")
    ks.utils.set_random_seed(3)
    dense = ks.layers.Dense
    model = ks.Sequential([ks.Input((4,)), dense(6, "tanh"), *layers, ks.layers.Dropout(0.3, seed=1), dense(1)])
    schedule = ks.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    model.compile(ks.optimizers.Adam(schedule), "mse", metrics=["mae"])
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, **settings).history
    return model, history


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rows", [1000, 30, 5])
def test_numbers_are_those_of_single_steps(rows, shuffle, calls, monkeypatch):
    """Keys of dropout, the schedule's iteration, the smaller last batch, the order of the rows: all as one by one."""
    np.random.seed(0)
    model, history = fitted(rows, shuffle=shuffle)
    steps = -(-rows // 8)
    assert sum(calls) == 2 * steps == model.optimizer.iterations.numpy() and len(calls) == 2 * -(-steps // 32)
    monkeypatch.setattr(several, "MOST_STEPS", 1)
    calls.clear()
    np.random.seed(0)
    alone, by_one = fitted(rows, shuffle=shuffle)
    assert calls == [1] * 2 * steps
    for name, values in by_one.items():
        np.testing.assert_allclose(history[name], values, rtol=2e-5, err_msg=name)
    for a, b in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_rows_that_couple_are_not_padded(calls):
    """Batch normalisation: the smaller last batch is a step by itself."""
    model, _ = fitted(37, [ks.layers.BatchNormalization()])
    assert sum(calls) == 2 * 5 == model.optimizer.iterations.numpy()
    assert np.isfinite(model.get_weights()[0]).all()


def test_a_callback_that_wants_every_step_gets_single_steps(calls):
    seen = []

    class Tell(ks.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    fitted(80, callbacks=[Tell()])
    assert seen == [*range(10), *range(10)] and set(calls) == {1}


def test_steps_per_epoch_go_on_where_they_stopped(calls):
    fitted(1000, steps_per_epoch=40)
    assert calls == [32, 8, 32, 8]
