"""The same model from the same weights, trained here and by Keras: losses, metrics and weights agree."""

from __future__ import annotations

import numpy as np
import pytest

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = [
    pytest.mark.shipped,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def classes(count, n, seed=1):
    return np.random.default_rng(seed).integers(0, n, size=count)


def mlp(k):
    return k.Sequential([k.Input((6,)), k.layers.Dense(8, activation="tanh"), k.layers.Dense(3, activation="softmax")])


def regularised(k):
    layers = [
        k.Input((6,)),
        k.layers.Dense(8, activation="relu", kernel_regularizer="l2", activity_regularizer="l1"),
        k.layers.Dense(1, bias_regularizer="l1"),
    ]
    return k.Sequential(layers)


def cnn(k):
    layers = [
        k.Input((8, 8, 2)),
        k.layers.Conv2D(4, 3, padding="same", use_bias=False),
        k.layers.BatchNormalization(momentum=0.9),
        k.layers.Activation("relu"),
        k.layers.MaxPooling2D(2),
        k.layers.Flatten(),
        k.layers.Dense(3),
    ]
    return k.Sequential(layers)


def lstm(k):
    layers = [
        k.Input((5,), dtype="int32"),
        k.layers.Embedding(11, 4, mask_zero=True),
        k.layers.LSTM(6),
        k.layers.Dense(1, activation="sigmoid"),
    ]
    return k.Sequential(layers)


def tagger(k):
    layers = [
        k.Input((None,), dtype="int32"),
        k.layers.Embedding(11, 4, mask_zero=True),
        k.layers.GRU(5, return_sequences=True),
        k.layers.Dense(4, activation="softmax"),
    ]
    return k.Sequential(layers)


def two_by_two(k):
    a, b = k.Input((4,), name="a"), k.Input((3,), name="b")
    shared = k.layers.Dense(5, activation="relu", name="shared")(k.layers.Concatenate()([a, b]))
    first = k.layers.Dense(1, name="first")(shared)
    second = k.layers.Dense(3, activation="softmax", name="second")(shared)
    return k.Model([a, b], [first, second])


def pair(build):
    """The model in Keras and here, with the same weights; none is 0, where |w| has no one gradient."""
    keras.utils.set_random_seed(0)
    theirs, ours = build(keras), build(ks)
    theirs.set_weights([w + 0.05 for w in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def agree(theirs, ours, history, ours_history, tolerance=1e-5):
    assert list(ours_history.history) == list(history.history)
    for key, values in history.history.items():
        np.testing.assert_allclose(ours_history.history[key], values, rtol=tolerance, atol=tolerance, err_msg=key)
    for v, mine, wanted in zip(ours.weights, ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=tolerance, atol=tolerance, err_msg=v.path)
    assert ours_history.epoch == history.epoch


CASES = {
    "mlp, sgd with momentum, last batch partial": (
        mlp,
        lambda k: k.optimizers.SGD(0.1, momentum=0.9),
        dict(loss="sparse_categorical_crossentropy", metrics=["accuracy", "acc"]),
        (rows(50, 6), classes(50, 3)),
        dict(batch_size=16),
    ),
    "mlp, adam, class weights, weighted metrics": (
        mlp,
        lambda k: k.optimizers.Adam(0.01),
        dict(loss="categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"]),
        (rows(40, 6), np.eye(3, dtype="float32")[classes(40, 3)]),
        dict(batch_size=16, class_weight={0: 1.0, 1: 3.0}),
    ),
    "regularisers, nesterov, labels without last axis": (
        regularised,
        lambda k: k.optimizers.SGD(0.05, momentum=0.8, nesterov=True),
        dict(loss="mse", metrics=["mae"]),
        (rows(30, 6), rows(30, seed=2)),
        dict(batch_size=7),
    ),
    "a loss of the whole batch, sample weights": (
        mlp,
        lambda k: k.optimizers.SGD(0.1),
        lambda k: dict(loss=k.losses.Dice(), weighted_metrics=["mse"]),
        (rows(25, 6), np.eye(3, dtype="float32")[classes(25, 3)]),
        dict(batch_size=10, sample_weight=np.linspace(0, 2, 25, dtype="float32")),
    ),
    "cnn with batch normalisation": (
        cnn,
        lambda k: k.optimizers.SGD(0.05, momentum=0.9),
        lambda k: dict(loss=k.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]),
        (rows(20, 8, 8, 2), classes(20, 3)),
        dict(batch_size=8, validation_data=(rows(9, 8, 8, 2, seed=5), classes(9, 3, seed=6))),
    ),
    "lstm over masked tokens, validation split": (
        lstm,
        lambda k: k.optimizers.Adam(0.01),
        dict(loss="binary_crossentropy", metrics=["accuracy"]),
        (np.random.default_rng(3).integers(0, 11, size=(40, 5)), classes(40, 2)),
        dict(batch_size=8, validation_split=0.25),
    ),
    "masked sequences, sample weights per step": (  # in `fit`, Keras on JAX loses the mask before the metrics
        tagger,
        lambda k: k.optimizers.Adam(0.01),
        dict(loss="sparse_categorical_crossentropy"),
        (np.random.default_rng(3).integers(0, 11, size=(24, 6)), np.random.default_rng(4).integers(0, 4, size=(24, 6))),
        dict(batch_size=8, sample_weight=np.random.default_rng(5).random((24, 6)).astype("float32")),
    ),
    "two inputs, two outputs, loss weights, sample weights": (
        two_by_two,
        lambda k: k.optimizers.Adam(0.01),
        dict(
            loss={"first": "mse", "second": "sparse_categorical_crossentropy"},
            loss_weights={"first": 0.3, "second": 2.0},
            metrics={"first": ["mae"], "second": ["accuracy"]},
        ),
        ({"a": rows(22, 4), "b": rows(22, 3, seed=1)}, {"first": rows(22, 1, seed=2), "second": classes(22, 3)}),
        dict(batch_size=8, sample_weight=np.linspace(0, 2, 22, dtype="float32")),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fit(name):
    build, optimizer, compiled, (x, y), options = CASES[name]
    theirs, ours = pair(build)
    arguments = compiled if callable(compiled) else lambda k: dict(compiled)
    theirs.compile(optimizer(keras), **arguments(keras))
    ours.compile(optimizer(ks), **arguments(ks))
    options = dict(epochs=3, shuffle=False, verbose=0) | options
    y_keras = [y[name] for name in ("first", "second")] if isinstance(y, dict) else y
    agree(theirs, ours, theirs.fit(x, y_keras, **options), ours.fit(x, y, **options))
    wanted = theirs.evaluate(x, y_keras, verbose=0, return_dict=True)
    assert ours.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(wanted, rel=2e-5, abs=1e-5)
    for mine, wanted in zip(_list(ours.predict(x, verbose=0)), _list(theirs.predict(x, verbose=0)), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)


def _list(value):
    return value if isinstance(value, list) else [value]
