"""Rows, and what is done with a model and its twin in Keras: same weights, training, comparison."""

from __future__ import annotations

import numpy as np

_random = np.random.RandomState(1)
X, Y = _random.randn(20, 4).astype("float32"), _random.randn(20, 1).astype("float32")
CLASSES = _random.randint(0, 3, 20)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
BINARY = _random.randint(0, 2, (20, 1)).astype("float32")
WEIGHTS = _random.rand(20).astype("float32")
STEPS, STEPS_Y = _random.randn(20, 5, 4).astype("float32"), _random.randn(20, 5, 1).astype("float32")
STEPS_WEIGHTS = _random.rand(20, 5).astype("float32")
TOKENS = _random.randint(0, 7, (20, 5))
TOKENS[:, 3:] = 0


def same_weights(model):
    draw = np.random.RandomState(0)
    model.set_weights([(np.abs(draw.randn(*w.shape)) * 0.3).astype(w.dtype) for w in model.get_weights()])
    return model


def fit(model, *args, **kwargs):
    kwargs = {"shuffle": False, "verbose": 0, "batch_size": 8, **kwargs}
    if kwargs["batch_size"] is None:
        del kwargs["batch_size"]
    history = model.fit(*args, **kwargs)
    return history.history, history.epoch, history.params, model.get_weights()


def evaluate(model, *args, **kwargs):
    return model.evaluate(*args, verbose=0, **kwargs), model.evaluate(*args, verbose=0, return_dict=True, **kwargs)


def assert_alike(a, b, where=""):
    if isinstance(a, dict):
        assert isinstance(b, dict) and list(a) == list(b), f"{where}: {list(a)} | {list(b)}"
        for key in a:
            assert_alike(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert isinstance(b, (list, tuple)) and len(a) == len(b), f"{where}: {a} | {b}"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_alike(x, y, f"{where}[{i}]")
    elif isinstance(a, (str, bool)) or a is None:
        assert a == b, where
    else:
        assert np.shape(a) == np.shape(b), where
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), 1e-5, 1e-6, err_msg=where)
