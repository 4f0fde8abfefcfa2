"""Batches put together: same rows, same order, same numbers; alone where a callback or the model can tell."""

import numpy as np
import pytest

import kerasoft as ks
from kerasoft.training import together

pytestmark = pytest.mark.shipped


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the calls of `LocalStep.predict` and `test`."""
    from kerasoft.compiler.local import LocalStep

    seen = []
    for name in ("predict", "test"):
        original = getattr(LocalStep, name)

        def call(self, params, state, batch, *rest, original=original):
            seen.append(len(next(iter(batch.values()))))
            return original(self, params, state, batch, *rest)

        monkeypatch.setattr(LocalStep, name, call)
    return seen


def regression():
    ks.utils.set_random_seed(0)
    model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(4, "relu"), ks.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize("rows", [1000, 1024, 5])
def test_rows_and_numbers_are_those_of_single_batches(rows, calls, monkeypatch):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(rows, 3)).astype("f"), random.normal(size=(rows, 1)).astype("f")
    model = regression()
    kernel, bias, last, last_bias = model.get_weights()
    want = np.maximum(x @ kernel + bias, 0) @ last + last_bias
    np.testing.assert_allclose(model.predict(x, batch_size=8, verbose=0), want, rtol=1e-5, atol=1e-6)
    loss, mae = model.evaluate(x, y, batch_size=8, verbose=0)
    np.testing.assert_allclose([loss, mae], [np.mean((want - y) ** 2), np.mean(abs(want - y))], rtol=1e-5)
    largest = max(calls)
    assert (largest > 8) == (rows > 5) and sum(size == largest for size in calls) >= (2 * 4 if rows > 5 else 1)
    monkeypatch.setattr(together, "CACHE_BYTES", 0)
    calls.clear()
    model.predict(x, batch_size=8, verbose=0)
    assert max(calls) == min(8, rows)


def test_a_callback_for_batches_gets_every_batch(calls):
    class Count(ks.callbacks.Callback):
        outputs = []

        def on_predict_batch_end(self, batch, logs=None):
            self.outputs.append(len(logs["outputs"]))

    regression().predict(np.zeros((100, 3), "f"), batch_size=8, verbose=0, callbacks=[Count()])
    assert Count.outputs == [8] * 12 + [4] and set(calls) == {8}


def test_steps_are_counted_in_batches(calls):
    model = regression()
    assert model.predict(np.zeros((1000, 3), "f"), batch_size=8, steps=3, verbose=0).shape == (24, 1)
