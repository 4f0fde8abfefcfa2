"""Errors before the first step: each names what is wrong, where, and what to do."""

from __future__ import annotations

import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import DataError, NotCompiledError, UnknownNameError

X = np.random.default_rng(0).random((10, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def regression():
    model = ks.Sequential([ks.Input((3,), name="features"), ks.layers.Dense(1, name="score")])
    model.compile("sgd", "mse")
    return model


@pytest.fixture(scope="module")
def classifier():
    model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(4, activation="softmax", name="kind")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def raises(call, kind, *parts):
    with pytest.raises(kind) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_uncompiled():
    model = ks.Sequential([ks.layers.Dense(1)])
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        raises(lambda call=call: call(X, Y), NotCompiledError, "You must call `compile()` before using the model.")


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ({"optimizer": "adamm"}, ["optimizer identifier: 'adamm'", "'adam'"]),
        ({"loss": "msee"}, ["loss identifier: 'msee'", "'mse'"]),
        ({"loss": ["binary_crossentropi"]}, ["'binary_crossentropi'", "'binary_crossentropy'"]),
        ({"loss": "mse", "metrics": ["acuracy"]}, ["metric identifier: 'acuracy'", "'accuracy'"]),
        ({"loss": "mse", "weighted_metrics": ["qqqq"]}, ["metric identifier: 'qqqq'", "See kerasoft.metrics"]),
    ],
)
def test_unknown_names(arguments, parts):
    raises(lambda: ks.Sequential([ks.layers.Dense(1)]).compile(**arguments), UnknownNameError, *parts)


def test_wrong_input_shape(regression):
    raises(lambda: regression.fit(X[:, :2], Y), DataError, "input 'features'", "needs shape (None, 3), got (None, 2)")
    raises(lambda: regression.predict(np.zeros((4, 3, 1, 1))), DataError, "(None, 3)", "an array of shape (4, 3, 1, 1)")
    raises(lambda: regression.fit(X.reshape(5, 6), Y[:5]), DataError, "Give the model's Input this shape")
    image = ks.Sequential([ks.Input((2, 2)), ks.layers.Flatten()])
    raises(lambda: image.predict(np.zeros((5, 4))), DataError, "x.reshape((-1, 2, 2)) would do")


def test_a_last_axis_of_one_may_be_missing():
    model = ks.Sequential([ks.Input((1,)), ks.layers.Dense(1)])
    assert model.predict(np.arange(4.0), verbose=0).shape == (4, 1)


def test_input_structure(regression):
    raises(lambda: regression.fit({"other": X}, Y), DataError, "['features']", "no 'features'", "holds ['other']")
    two = ks.Model([a := ks.Input((3,), name="a"), b := ks.Input((3,), name="b")], ks.layers.Add()([a, b]))
    raises(lambda: two.predict([X]), DataError, "2 input(s) ['a', 'b']", "1 array(s)")


def test_sizes_that_differ(regression):
    raises(lambda: regression.fit(X, Y[:4]), DataError, "Data cardinality is ambiguous", "'x' sizes: 10, 'y' sizes: 4")
    raises(lambda: regression.fit(X, Y, sample_weight=np.ones(9)), DataError, "'sample_weight' sizes: 9")


def test_no_data(regression):
    raises(lambda: regression.fit(X[:0], Y[:0]), DataError, "there is no data: the arrays have 0 rows")
    raises(lambda: regression.fit(), DataError, "fit() was called without x")
    raises(lambda: regression.fit(iter(())), DataError, "must yield at least one batch")


def test_not_finite(regression):
    bad = X.copy()
    bad[7, 1] = np.nan
    raises(lambda: regression.fit(bad, Y), DataError, "input 'features' holds nan in row 7")
    bad[3, 2] = np.inf
    raises(lambda: regression.evaluate(bad, Y), DataError, "holds inf in row 3")
    raises(lambda: regression.fit(X, np.where(Y == Y[5], np.nan, Y)), DataError, "labels 'score' holds nan in row 5")
    assert np.isnan(regression.predict(bad, verbose=0)[7, 0])
    huge = np.full((10, 3), 3e38, "float32")  # finite, though their sum is not
    regression.evaluate(huge, Y, verbose=0)


def test_label_range(classifier):
    labels = np.arange(10) % 4
    classifier.evaluate(X, labels, verbose=0)
    labels[6] = 4
    raises(
        lambda: classifier.fit(X, labels), DataError, "label of output 'kind' is 4 in row 6", "from 0 to 3", "4 units"
    )
    labels[2] = -1
    raises(lambda: classifier.fit(X, labels), DataError, "is -1 in row 2")
    raises(lambda: classifier.fit(X, np.full(10, 0.5)), DataError, "is 0.5 in row 0")
    ignoring = ks.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    classifier.compile("sgd", ignoring)
    labels[6] = 3
    assert np.isfinite(classifier.fit(X, labels, verbose=0).history["loss"][0])
    classifier.compile("sgd", "sparse_categorical_crossentropy")


def test_label_shape(regression, classifier):
    raises(
        lambda: regression.fit(X, X),
        DataError,
        "loss 'mean_squared_error' of output 'score'",
        "(None, 1)",
        "got (None, 3)",
    )
    raises(lambda: classifier.fit(X, np.zeros((10, 4), int)), ValueError, "sparse_categorical_crossentropy", "one-hot")
    wide = ks.Sequential([ks.Input((3,)), ks.layers.Dense(4)])
    wide.compile("sgd", "mse")
    raises(lambda: wide.fit(X, Y), DataError, "needs labels of shape (None, 4), got (None, 1)")


def test_missing_labels(regression):
    raises(lambda: regression.fit(X), ValueError, "output 'score' has the loss 'mse' but no labels")


def test_no_loss():
    model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(1)])
    model.compile("sgd")
    raises(lambda: model.fit(X, Y), ValueError, "No loss to compute. Provide a `loss` argument in `compile()`.")


def test_ragged_rows(regression):
    rows = [[1.0, 2.0, 3.0]] * 4 + [[1.0, 2.0]]
    raises(lambda: regression.fit(rows, np.zeros(5)), DataError, "row 4 has shape (2,), row 0 has (3,)", "pad or cut")
    objects = np.empty(5, object)
    objects[:] = [np.ones(3)] * 2 + [np.ones(4)] + [np.ones(3)] * 2
    raises(lambda: regression.predict(objects), DataError, "row 2 has shape (4,)")


def test_values_that_are_no_numbers(regression):
    raises(lambda: regression.fit(np.array([["a", "b", "c"]]), [1]), DataError, "expected numbers. Encode text")
    raises(lambda: regression.fit(np.array([[1, 2, 2**40]]), [1]), DataError, "1099511627776", "2147483647")


def test_weights(regression):
    weights = np.ones(10)
    weights[4] = -2
    raises(lambda: regression.fit(X, Y, sample_weight=weights), DataError, "-2.0 in row 4")
    both = {"class_weight": {0: 1.0}, "sample_weight": np.ones(10)}
    raises(lambda: regression.fit(X, Y, **both), ValueError, "cannot be specified at the same time")


def test_arguments(regression):
    raises(lambda: regression.fit(X, Y, batch_size=0), ValueError, "batch_size must be a whole number of at least 1")
    raises(
        lambda: regression.fit(X[:1], Y[:1], validation_split=0.5), ValueError, "contains 1 samples", "not sufficient"
    )
    raises(lambda: regression.fit(X, Y, validation_split=1.5), ValueError, "must be a fraction between 0 and 1")
    raises(lambda: regression.fit(X, Y, validation_freq=0), ValueError, "`validation_freq` to be a list or int")
    raises(lambda: regression.fit(X, Y, strategy="x"), ValueError, "needs an RDD or a Spark DataFrame", "ndarray")
    raises(lambda: regression.fit(iter([(X, Y)]), Y), ValueError, "`y` should not be passed")
    raises(lambda: regression.fit(iter([(X, Y, Y, Y)])), ValueError, "`(x, y, sample_weight)`")
    raises(lambda: regression.fit(X, Y, callbacks=["stop"]), ValueError, "must be `Callback` instances, got 'stop'")


def test_compile_arguments_against_outputs():
    a = ks.Input((3,))
    model = ks.Model(a, [ks.layers.Dense(1, name="left")(a), ks.layers.Dense(1, name="right")(a)])
    model.compile("sgd", {"left": "mse", "rigth": "mse"})
    raises(lambda: model.fit(X, [Y, Y]), ValueError, "Expected keys ['left', 'right']", "Did you mean 'right'?")
    model.compile("sgd", "mse", metrics={"rigth": "mae"})
    raises(lambda: model.fit(X, [Y, Y]), ValueError, "Invalid `metrics`", "Did you mean 'right'?")
    model.compile("sgd", ["mse"])
    raises(lambda: model.fit(X, [Y, Y]), ValueError, "`loss` is a list of 1 for 2 output(s) ['left', 'right']")
    model.compile("sgd", "mse")
    raises(lambda: model.fit(X, [Y, Y, Y]), ValueError, "y_true and y_pred have different structures")
    model.compile("sgd", "mse", metrics="mae")
    raises(lambda: model.fit(X, [Y, Y]), ValueError, "Expected `metrics` argument to be a list, tuple, or dict")


def test_steps_of_other_backends_are_refused_with_the_fix():
    class Own(ks.Model):
        def call(self, x):
            return x

        def train_step(self, data):
            return {}

    model = Own()
    model.compile("sgd", "mse")
    raises(lambda: model.fit(X, X), NotImplementedError, "write `train_step(self, state, data)`")
