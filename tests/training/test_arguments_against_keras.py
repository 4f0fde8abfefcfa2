"""Every argument of fit, evaluate and predict: from the same weights and rows, what Keras gives, by name and number."""

from __future__ import annotations

import numpy as np
import pytest
from twins import (
    BINARY,
    CLASSES,
    ONE_HOT,
    STEPS,
    STEPS_WEIGHTS,
    STEPS_Y,
    TOKENS,
    WEIGHTS,
    X,
    Y,
    assert_alike,
    evaluate,
    fit,
    same_weights,
)  # fmt: skip

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
    pytest.mark.filterwarnings("ignore:Limiting"),
]

SPARSE = "sparse_categorical_crossentropy"


def net(k, units=1, activation=None, optimizer="sgd", loss="mse", **compiled):
    layers = [k.Input((4,)), k.layers.Dense(5, activation="tanh"), k.layers.Dense(units, activation=activation)]
    model = same_weights(k.Sequential(layers))
    model.compile(optimizer(k) if callable(optimizer) else optimizer, loss, **compiled)
    return model


def two(k, outputs=lambda a, b: [a, b], **compiled):
    """Outputs "a" (1 unit) and "b" (3 classes)."""
    i = k.Input((4,), name="i")
    h = k.layers.Dense(5, activation="tanh")(i)
    a, b = k.layers.Dense(1, name="a")(h), k.layers.Dense(3, activation="softmax", name="b")(h)
    model = same_weights(k.Model(i, outputs(a, b)))
    model.compile("sgd", **compiled)
    return model


def timed(k, **compiled):
    model = same_weights(k.Sequential([k.Input((5, 4)), k.layers.Dense(3, activation="tanh"), k.layers.Dense(1)]))
    model.compile("sgd", "mse", **compiled)
    return model


def masked(k, **compiled):
    layers = [k.layers.Embedding(7, 4, mask_zero=True), k.layers.SimpleRNN(3, return_sequences=True), k.layers.Dense(1)]
    model = same_weights(k.Sequential([k.Input((5,)), *layers]))
    model.compile("sgd", "mse", **compiled)
    return model


def batches(*arrays, size=4):
    return (tuple(a[i : i + size] for a in arrays) for i in range(0, 20, size))


def endless(*arrays):
    while True:
        yield from batches(*arrays)


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
def names_and_states_of_metrics(k):
    model = net(k, metrics=["mae", k.metrics.MeanSquaredError(name="q"), "mse"], weighted_metrics=["mae"])
    result = fit(model, X, Y, sample_weight=WEIGHTS, epochs=2)
    found = {name: float(value) for name, value in model.get_metrics_result().items()}
    return result, found, model.metrics_names, [type(m).__name__ for m in model.metrics], evaluate(model, X, Y)


@case
def class_weight_of_numbers(k):
    model = net(k, 3, "softmax", loss=SPARSE, metrics=["accuracy"], weighted_metrics=["acc", "accuracy"])
    return fit(model, X, CLASSES, class_weight={0: 0.5, 2: 3.0}), evaluate(model, X, CLASSES[:, None])


@case
def class_weight_of_one_hot_rows(k):
    return fit(net(k, 3, "softmax", loss="categorical_crossentropy"), X, ONE_HOT, class_weight={0: 0.5, 1: 2, 2: 3.0})


@case
def class_weight_of_floats(k):
    model = net(k, 1, "sigmoid", loss="binary_crossentropy")
    first = fit(model, X, BINARY, class_weight={0: 0.5, 1: 2.0})
    return first, model.train_on_batch(X, BINARY[:, 0], class_weight={0: 0.5, 1: 2.0})


@case
def sample_weight_forms(k):
    by_row = fit(net(k, weighted_metrics=["mae"]), X, Y, sample_weight=(WEIGHTS[:, None] * 3).astype("int64"))
    return by_row, fit(timed(k, weighted_metrics=["mae"]), STEPS, STEPS_Y, sample_weight=STEPS_WEIGHTS)


@case
def lists_of_everything(k):
    losses = dict(loss=["mse", SPARSE], loss_weights=[0.3, 2.0], metrics=[["mae"], ["accuracy"]])
    model = two(k, weighted_metrics=[["mae"], None], **losses)
    result = fit(model, X, [Y, CLASSES], sample_weight=[WEIGHTS, WEIGHTS[::-1].copy()], epochs=2, validation_split=0.2)
    return result, evaluate(model, X, [Y, CLASSES]), model.metrics_names, model.predict(X, verbose=0)


@case
def dicts_by_output_name(k):
    losses = dict(loss={"a": "mse", "b": SPARSE}, loss_weights={"a": 0.3, "b": 2.0}, metrics={"b": ["accuracy", "acc"]})
    model = two(k, **losses)
    return fit(model, X, {"a": Y, "b": CLASSES}), evaluate(model, X, [Y, CLASSES])


@case
def dict_outputs(k):
    model = two(k, lambda a, b: {"p": a, "q": b}, loss={"p": "mse", "q": SPARSE}, metrics={"q": ["accuracy"]})
    feed = ((x, {"p": y, "q": c}) for x, y, c in batches(X, Y, CLASSES))
    result = fit(model, feed, batch_size=None)
    return result, evaluate(model, X, {"p": Y, "q": CLASSES}), model.predict(X, verbose=0)


@case
def one_loss_for_all_and_none_for_one(k):
    same = fit(two(k, loss="mse", metrics=["mae", ["mse", "mae"]]), X, [Y, ONE_HOT])
    return same, fit(two(k, loss=["mse", None]), X, [Y, CLASSES])


@case
def nested_outputs(k):
    i = k.Input((4,))
    a, b, c = (k.layers.Dense(1, name=name)(i) for name in "abc")
    model = same_weights(k.Model(i, {"x": [a, b], "y": c}))
    model.compile("sgd", {"x": ["mse", "mae"], "y": "mse"})
    return fit(model, X, {"x": [Y, Y * 2], "y": Y * 3}), model.predict(X, verbose=0)


@case
def list_outputs_of_a_subclass(k):
    class Two(k.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = k.layers.Dense(3, activation="tanh"), k.layers.Dense(1)

        def call(self, x):
            h = self.first(x)
            return [self.second(h), h]

    model = Two()
    model(X)
    same_weights(model).compile("adam", ["mse", "mae"], metrics=[["mae"], ["mse"]])
    return fit(model, X, [Y, X[:, :3]], epochs=2), evaluate(model, X, [Y, X[:, :3]])


@case
def validation_in_all_forms(k):
    split = fit(net(k, metrics=["mae"]), X, Y, validation_split=0.33, validation_batch_size=3, sample_weight=WEIGHTS)
    held_out = (X[:7], Y[:7], WEIGHTS[:7])
    few = fit(net(k), X, Y, validation_data=held_out, validation_steps=2, validation_batch_size=3)
    some = fit(net(k), X, Y, validation_data=[X[:7], Y[:7]], epochs=4, validation_freq=[1, 4])
    every = fit(net(k), X, Y, validation_data=endless(X, Y), validation_steps=3, epochs=2, validation_freq=2)
    return split, few, some, every


@case
def epochs_and_steps(k):
    late = fit(net(k), X, Y, initial_epoch=2, epochs=4)
    none = fit(net(k), X, Y, initial_epoch=4, epochs=4)
    on = fit(net(k), X, Y, steps_per_epoch=2, epochs=3)
    few = fit(net(k), X, Y, steps_per_epoch=5, epochs=2)
    return late, none, on, few, fit(net(k), endless(X, Y, WEIGHTS), steps_per_epoch=3, epochs=2, batch_size=None)


@case
def batches_by_index(k):
    class Data(k.utils.PyDataset):
        ended = 0

        def __len__(self):
            return 5

        def __getitem__(self, i):
            return X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4], WEIGHTS[4 * i : 4 * i + 4]

        def on_epoch_end(self):
            self.ended += 1

    model, data = net(k, weighted_metrics=["mae"]), Data()
    result = fit(model, data, epochs=2, batch_size=None, class_weight=None)
    return result, model.evaluate(data, verbose=0), model.predict(data, verbose=0), data.ended


@case
def models_that_fit_builds(k):
    class Sum(k.Model):
        def __init__(self):
            super().__init__()
            self.dense = k.layers.Dense(1, kernel_initializer="ones")

        def call(self, x, training=None):
            return self.dense(x["a"] + x["b"])

    layers = [
        k.layers.Dense(3, kernel_initializer="ones", activation="tanh"),
        k.layers.Dense(1, kernel_initializer="ones"),
    ]
    sequential, own = k.Sequential(layers), Sum()
    sequential.compile("sgd", "mse")
    own.compile("sgd", "mse", metrics=["mae"])
    return fit(sequential, X, Y), fit(own, {"a": X, "b": X * 2}, Y), own.predict({"a": X, "b": X}, verbose=0)


@case
def a_list_of_one_output(k):
    i = k.Input((4,))
    model = same_weights(k.Model(i, [k.layers.Dense(1)(i)]))
    model.compile("sgd", ["mse"], metrics=[["mae"]])
    result = fit(model, X, [Y]), evaluate(model, X, [Y])
    return result, model.predict(X, verbose=0), model(X), model.input_shape, model.output_shape


@case
def kinds_of_arrays(k):
    import jax.numpy as jnp
    import pandas as pd

    frames = fit(net(k, metrics=["mae"]), pd.DataFrame(X), pd.Series(Y[:, 0]), sample_weight=pd.Series(WEIGHTS))
    wide = fit(net(k), X.astype("float64"), Y.astype("float64"))
    whole = fit(net(k), (X * 3).astype("int64"), (Y * 3).astype("int32"))
    return frames, wide, whole, fit(net(k), jnp.asarray(X), jnp.asarray(Y)), net(k).predict(pd.DataFrame(X), verbose=0)


@case
def inputs_by_name(k):
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    model = same_weights(k.Model({"a": a, "b": b}, k.layers.Dense(1)(k.layers.concatenate([a, b]))))
    model.compile("sgd", "mse")
    return fit(model, {"b": X * 2, "a": X}, Y), model.predict({"a": X, "b": X}, verbose=0)


@case
def single_batches(k):
    model = net(k, optimizer="adam", metrics=["mae"])
    first = model.train_on_batch(X[:8], Y[:8]), model.train_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=True)
    tested = model.test_on_batch(X, Y), model.test_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=True)
    return first, tested, model.predict_on_batch(X[:3]), int(model.optimizer.iterations), model.get_weights()


@case
def masks_are_seen_by_losses_and_in_evaluation_by_metrics(k):
    model = masked(k, metrics=["mae"], weighted_metrics=["mse"])
    result = fit(model, TOKENS, STEPS_Y, sample_weight=STEPS_WEIGHTS, validation_data=(TOKENS[:5], STEPS_Y[:5]))
    return result, evaluate(model, TOKENS, STEPS_Y), model.train_on_batch(TOKENS, STEPS_Y)


@case
def added_losses(k):
    class Adds(k.layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * k.ops.mean(k.ops.square(x)))
            return x

    dense = k.layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1")
    model = same_weights(k.Sequential([k.Input((4,)), Adds(), dense, Adds(), k.layers.Dense(1)]))
    model.compile("sgd", "mse")
    return fit(model, X, Y, epochs=2), evaluate(model, X, Y)


@case
def frozen_layers(k):
    normal = k.layers.BatchNormalization(momentum=0.8)
    model = same_weights(k.Sequential([k.Input((4,)), k.layers.Dense(3), normal, k.layers.Dense(1)]))
    normal.trainable = False
    model.compile("adam", "mse")
    return fit(model, X, Y, epochs=2), len(model.optimizer.variables)


@case
def one_optimizer_over_fits(k):
    model = net(k, optimizer=lambda k: k.optimizers.Adam(0.01))
    first = fit(model, X, Y)
    model.optimizer.learning_rate = 0.1
    second = fit(model, X, Y), int(model.optimizer.iterations)
    model.compile("adam", "mae")
    return first, second, fit(model, X, Y), int(model.optimizer.iterations)


@case
def averages_and_accumulation(k):
    average = net(k, optimizer=lambda k: k.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7))
    every = lambda k: k.optimizers.Adam(0.01, gradient_accumulation_steps=2)  # noqa: E731
    return fit(average, X, Y, epochs=2), fit(net(k, optimizer=every), X, Y, epochs=3)


@case
def compile_configs(k):
    model = net(k, optimizer=lambda k: k.optimizers.SGD(0.3), metrics=["mae"], loss_weights=[0.5])
    config = model.get_compile_config()
    again = net(k, optimizer="adam", loss="mae")
    again.compile_from_config(config)
    plain = {key: value for key, value in config.items() if key != "optimizer"}
    eager = net(k, run_eagerly=True)
    return plain, fit(again, X, Y), again.jit_compile, eager.jit_compile, eager.run_eagerly, evaluate(eager, X, Y)


@case
def without_a_loss(k):
    return evaluate(net(k, loss=None, metrics=["mae"]), X, Y)


@case
def limits(k):
    k.config.set_max_epochs(2)
    k.config.set_max_steps_per_epoch(2)
    try:
        model = net(k)
        return fit(model, X, Y, epochs=5), evaluate(model, X, Y, batch_size=8)
    finally:
        k.config.set_max_epochs(None)
        k.config.set_max_steps_per_epoch(None)


@pytest.mark.parametrize("name", CASES)
def test_as_keras(name):
    assert_alike(CASES[name](keras), CASES[name](ks), name)


def test_losses_of_several_outputs_and_several_losses_of_one():
    """Several losses of one output share a name, of which the last is seen; one of all outputs has all their names."""
    x, y = np.ones((8, 3), "float32"), np.zeros((8, 1), "float32")
    weights = np.linspace(0, 1, 8).astype("float32")

    def both(true, pred):
        return abs(true[0] - pred[0]) + 2 * abs(true[1] - pred[1])

    found = []
    for k in (keras, ks):
        i = k.Input((3,))
        p, q = (k.layers.Dense(1, name=name, kernel_initializer="ones")(i) for name in "pq")
        listed, paired = k.Model(i, [p, q]), k.Model(i, (p, q))
        listed.compile("sgd", ["mse", ["mse", "mae"]], loss_weights=[1.0, [2.0, 3.0]])
        one = listed.fit(x, [y, y], sample_weight=weights, verbose=0).history
        paired.compile("sgd", [both, ("mse", "mae")])
        two = paired.fit(x, (y, y), verbose=0).history
        found.append((one, two, paired.train_on_batch(x, (y, y))))
        named = k.Model(i, {"p": p, "q": q})
        named.compile("sgd", {"p": "mse", "r": "mse"})
        with pytest.raises(KeyError, match="in the `loss` argument, can't be found in either the model's output"):
            named.fit(x, {"p": y, "q": y}, verbose=0)
    for mine, theirs in zip(found[1], found[0], strict=True):
        assert sorted(mine) == sorted(theirs) if isinstance(mine, dict) else len(mine) == len(theirs)
        flat = [np.ravel([a[key] for key in sorted(a)] if isinstance(a, dict) else a) for a in (mine, theirs)]
        np.testing.assert_allclose(*flat, rtol=1e-5)
