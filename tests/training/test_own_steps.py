"""Models with steps, losses and metrics of their own: what Keras gives on JAX, from the same code."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from twins import BINARY, STEPS_Y, TOKENS, WEIGHTS, X, Y, assert_alike, evaluate, fit, same_weights

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def net(k, cls, **settings):
    i = k.Input((4,))
    return same_weights(cls(i, k.layers.Dense(1)(k.layers.Dense(5, activation="tanh", **settings)(i))))


@case
def a_loss(k):
    class Own(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return k.ops.mean(k.ops.abs(y - y_pred) ** 3) + 0.1 * k.ops.sum(k.ops.square(y_pred))

    model = net(k, Own)
    model.compile("adam", metrics=["mae"])
    result = fit(model, X, Y, epochs=2, validation_data=(X[:6], Y[:6]))
    return result, evaluate(model, X, Y), model.train_on_batch(X, Y), model.test_on_batch(X, Y)


@case
def a_loss_around_the_compiled_one(k):
    class Own(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return super().compute_loss(x, y, y_pred, sample_weight) * 2.0 + k.ops.mean(y_pred)

    model = net(k, Own, activity_regularizer="l2", kernel_regularizer="l1")
    model.compile("adam", "mse", metrics=["mae", k.metrics.AUC(from_logits=True, name="auc")], weighted_metrics=["mse"])
    result = fit(model, X, BINARY, sample_weight=WEIGHTS, epochs=2)
    return result, evaluate(model, X, BINARY, sample_weight=WEIGHTS), model.metrics_names


@case
def a_tracker_of_the_loss(k):
    class Own(k.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.tracker = k.metrics.Mean(name="loss")

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            loss = k.ops.mean((y_pred - y) ** 2) + sum(self.losses)
            self.tracker.update_state(loss)
            return loss

        def reset_metrics(self):
            self.tracker.reset_state()

        @property
        def metrics(self):
            return [self.tracker]

    model = net(k, Own, kernel_regularizer="l2")
    model.compile("sgd", "mse")
    return fit(model, X, Y, epochs=2)


@case
def metrics_beside_the_compiled_ones(k):
    class Own(k.Sequential):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.beside = k.metrics.MeanAbsoluteError(name="beside")

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            super().compute_metrics(x, y, y_pred, sample_weight)
            self.beside.update_state(y, y_pred, sample_weight)
            return {**self.get_metrics_result(), "largest": k.ops.max(y_pred)}

    normal = k.layers.BatchNormalization(momentum=0.8)
    model = same_weights(Own([k.Input((4,)), k.layers.Dense(2), normal, k.layers.Dense(1)]))
    model.compile("sgd", "mse", metrics=["mae"])
    return fit(model, X, Y, epochs=2, sample_weight=WEIGHTS), evaluate(model, X, Y)


@case
def a_whole_training_loop(k):
    class Own(k.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.mean, self.mae = k.metrics.Mean(name="loss"), k.metrics.MeanAbsoluteError(name="mae")
            self.formula = k.losses.MeanSquaredError()

        def loss_and_updates(self, trainable, non_trainable, x, y, training=False):
            y_pred, non_trainable = self.stateless_call(trainable, non_trainable, x, training=training)
            return self.formula(y, y_pred), (y_pred, non_trainable)

        def measured(self, states, loss, y, y_pred):
            mean = self.mean.stateless_update_state(states[: len(self.mean.variables)], loss)
            mae = self.mae.stateless_update_state(states[len(self.mean.variables) :], y, y_pred)
            logs = {"loss": self.mean.stateless_result(mean), "mae": self.mae.stateless_result(mae)}
            return logs, [*mean, *mae]

        def train_step(self, state, data):
            trainable, non_trainable, optimizer, metrics = state
            x, y = data
            gradient = jax.value_and_grad(self.loss_and_updates, has_aux=True)
            (loss, (y_pred, non_trainable)), gradients = gradient(trainable, non_trainable, x, y, training=True)
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
            logs, metrics = self.measured(metrics, loss, y, y_pred)
            return logs, (trainable, non_trainable, optimizer, metrics)

        def test_step(self, state, data):
            trainable, non_trainable, metrics = state
            loss, (y_pred, non_trainable) = self.loss_and_updates(trainable, non_trainable, *data)
            logs, metrics = self.measured(metrics, loss, data[1], y_pred)
            return logs, (trainable, non_trainable, metrics)

        def predict_step(self, state, data):
            y, non_trainable = super().predict_step(state, data)
            return {"twice": y * 2, "once": y}, non_trainable

        @property
        def metrics(self):
            return [self.mean, self.mae]

    model = net(k, Own)
    model.compile(optimizer="adam")
    result = fit(model, X, Y, epochs=2, validation_split=0.3)
    return result, evaluate(model, X, Y), model.predict(X, batch_size=8, verbose=0), model.predict_on_batch(X)


@case
def more_logs_from_the_usual_step(k):
    class Own(k.Model):
        def train_step(self, state, data):
            logs, state = super().train_step(state, data)
            return {**logs, "twice": logs["loss"] * 2}, state

    model = net(k, Own)
    model.compile("adam", "mse", metrics=["mae"])
    return fit(model, X, Y, epochs=2, sample_weight=WEIGHTS), model.train_on_batch(X, Y, return_dict=True)


@case
def several_outputs_and_masks(k):
    class Own(k.Model):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    i = k.Input((5,))
    h = k.layers.Embedding(7, 4, mask_zero=True)(i)
    h = k.layers.SimpleRNN(3, return_sequences=True)(h)
    model = same_weights(Own(i, {"p": k.layers.Dense(1, name="a")(h), "q": k.layers.Dense(3, name="b")(h)}))
    model.compile("sgd", {"p": "mse", "q": "mae"}, metrics={"p": ["mae"]}, loss_weights={"p": 0.3, "q": 2.0})
    y = {"p": STEPS_Y, "q": STEPS_Y[..., [0, 0, 0]]}
    return fit(model, TOKENS, y, epochs=2), evaluate(model, TOKENS, y)


@case
def callbacks_see_and_set_weights(k):
    seen = []

    class Tells(k.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((batch, sorted(logs), float(logs["loss"])))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(({a: float(v) for a, v in logs.items()}, self.model.get_weights()[0]))
            self.model.optimizer.learning_rate = 0.01

    class Own(k.Model):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    model = net(k, Own)
    model.compile("sgd", "mse")
    stop = k.callbacks.EarlyStopping("loss", restore_best_weights=True)
    return fit(model, X, Y, epochs=3, callbacks=[Tells(), stop]), seen


@case
def pure_functions(k):
    model = net(k, k.Model, kernel_regularizer="l2")
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    lists = (model.trainable_variables, model.non_trainable_variables, model.metrics_variables)
    values = [[np.asarray(v) for v in variables] for variables in lists]
    rates = [np.asarray(v) for v in model.optimizer.variables]
    gradient = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)
    (loss, _), gradients = gradient(*values, X, Y, None, training=True, optimizer_variables=rates)
    y_pred = model.predict(X, verbose=0)
    alone, _ = model.stateless_compute_loss(*values, x=X, y=Y, y_pred=y_pred)
    return loss, gradients, alone, model.compute_loss(X, Y, y_pred)


@pytest.mark.parametrize("name", CASES)
def test_as_keras(name):
    assert_alike(CASES[name](keras), CASES[name](ks), name)


def test_the_loss_scale_follows_the_gradients():
    def trained(k):
        i = k.Input((4,), dtype="float32")
        model = same_weights(k.Model(i, k.layers.Dense(1, dtype="mixed_float16")(i)))
        inner = k.optimizers.SGD(0.01)
        model.compile(k.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**18, dynamic_growth_steps=2), "mse")
        return fit(model, X, Y * 100, epochs=3), [np.asarray(v) for v in model.optimizer.variables][:2]

    (history, *_, weights), scale = trained(ks)
    (expected, *_, wanted), wanted_scale = trained(keras)
    assert_alike(wanted_scale, scale)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-3)
    for a, b in zip(wanted, weights, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-3, atol=1e-3)


def test_random_masks_change_from_step_to_step_and_repeat_with_the_seed():
    class Own(ks.Model):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    def losses(seed):
        i = ks.Input((4,))
        model = same_weights(Own(i, ks.layers.Dense(1)(ks.layers.Dropout(0.5)(i))))
        model.compile(ks.optimizers.SGD(0.0), "mse")
        rows = np.ones((8, 4), "float32")
        return model.fit(rows, rows[:, :1], epochs=4, batch_size=8, verbose=0, seed=seed).history["loss"]

    first = losses(1)
    assert len(set(first)) > 1
    assert first == losses(1)
    assert first != losses(2)


def test_state_trees_go_both_ways():
    def state(k):
        k.utils.clear_session(free_memory=False)
        model = same_weights(k.Sequential([k.Input((4,)), k.layers.Dense(2, name="d")], name="s"))
        model.compile("adam", "mse", metrics=["mae"])
        model.fit(X, X[:, :2], verbose=0, shuffle=False)
        found = model.get_state_tree("numpy_array")
        model.set_weights([w * 0 for w in model.get_weights()])
        model.set_state_tree(found)
        return found, model.get_weights()

    assert_alike(_sorted(state(keras)), _sorted(state(ks)))
    with pytest.raises(ValueError, match="Unknown variable name: weights"):
        net(ks, ks.Model).set_state_tree({"weights": {}})


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(v) for v in value] if isinstance(value, (list, tuple)) else value
