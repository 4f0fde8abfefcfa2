"""Callbacks fed with scripted logs do what Keras's do: same stops, rates, restored weights, files and warnings."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import kerasoft as ks

keras = pytest.importorskip("keras")


class Optimizer:
    def __init__(self):
        self.learning_rate = 1.0


class Scripted:
    """As much of a model as callbacks touch; its weights are the number of the epoch."""

    def __init__(self):
        self.optimizer = Optimizer()
        self.stop_training = False
        self.metrics = []
        self.weights = 0
        self.saved = []

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path, overwrite=True):
        self.saved.append(path)

    def save_weights(self, path, overwrite=True):
        self.saved.append(path)


def play(callback, losses, batches=0, key="val_loss"):
    """What a training with these values of `key` leaves behind: everything that can be seen from outside."""
    model, seen = Scripted(), []
    callback.set_model(model)
    callback.set_params({"epochs": len(losses), "steps": batches, "verbose": 0})
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        callback.on_train_begin()
        for epoch, loss in enumerate(losses):
            callback.on_epoch_begin(epoch)
            for batch in range(batches):
                callback.on_train_batch_begin(batch)
                callback.on_train_batch_end(batch, {"loss": 1.0})
            model.weights = epoch
            logs = {"loss": 1.0} if loss is None else {"loss": 1.0, key: loss}
            callback.on_epoch_end(epoch, logs)
            seen.append(
                (epoch, dict(logs), model.stop_training, round(model.optimizer.learning_rate, 12), list(model.saved))
            )
            if model.stop_training:
                break
        callback.on_train_end()
    return seen, model.weights, [str(w.message) for w in warned if w.category is UserWarning]


SCRIPTS = [
    [1.0, 0.9, 0.95, 0.94, 0.8, 0.81, 0.82, 0.83],
    [1.0, 1.1, 1.2, 1.3],
    [0.5, 0.5, 0.5, 0.4999, 0.4999],
    [0.3, 0.2, None, 0.1, 0.4, 0.5],
]
STOPS = [
    {},
    {"patience": 2},
    {"patience": 2, "min_delta": 0.06, "restore_best_weights": True},
    {"patience": 1, "baseline": 0.85, "restore_best_weights": True},
    {"patience": 0, "start_from_epoch": 3},
    {"patience": 3, "mode": "max", "restore_best_weights": True},
]


@pytest.mark.parametrize("script, options", list(itertools.product(SCRIPTS, STOPS)))
def test_early_stopping(script, options):
    assert play(ks.callbacks.EarlyStopping(**options), script) == play(keras.callbacks.EarlyStopping(**options), script)


PLATEAUS = [
    {"patience": 1},
    {"patience": 2, "factor": 0.5, "cooldown": 1},
    {"patience": 1, "factor": 0.1, "min_lr": 0.05, "min_delta": 0.1},
    {"patience": 1, "cooldown": 3, "mode": "max"},
]


@pytest.mark.parametrize("script, options", list(itertools.product(SCRIPTS, PLATEAUS)))
def test_reduce_learning_rate_on_plateau(script, options):
    ours, theirs = ks.callbacks.ReduceLROnPlateau(**options), keras.callbacks.ReduceLROnPlateau(**options)
    assert play(ours, script) == play(theirs, script)


@pytest.mark.parametrize("schedule", [lambda epoch, rate: rate * 0.5, lambda epoch: 1.0 / (epoch + 1)])
def test_learning_rate_scheduler(schedule):
    kinds = (ks.callbacks.LearningRateScheduler, keras.callbacks.LearningRateScheduler)
    ours, theirs = (play(kind(schedule), SCRIPTS[0]) for kind in kinds)
    assert ours == theirs


CHECKPOINTS = [
    {"filepath": "{epoch:02d}.keras"},
    {"filepath": "{epoch}-{loss:.2f}.weights.h5", "save_weights_only": True},
    {"filepath": "best.keras", "save_best_only": True},
    {"filepath": "best.keras", "save_best_only": True, "mode": "max", "initial_value_threshold": 0.9},
    {"filepath": "{epoch}.keras", "save_freq": 3},
    {"filepath": "{epoch}-{batch}.keras", "save_freq": 4},
]


@pytest.mark.parametrize("script, options", list(itertools.product(SCRIPTS[::3], CHECKPOINTS)))
def test_model_checkpoint(script, options, tmp_path):
    options = options | {"filepath": str(tmp_path / options["filepath"])}
    ours, theirs = ks.callbacks.ModelCheckpoint(**options), keras.callbacks.ModelCheckpoint(**options)
    assert play(ours, script, batches=5) == play(theirs, script, batches=5)


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("key", ["val_loss", "accuracy"])
def test_csv_logger(append, key, tmp_path):
    texts = []
    for name, kind in (("ours", ks.callbacks.CSVLogger), ("theirs", keras.callbacks.CSVLogger)):
        path = tmp_path / name
        for script in ([0.5, None, 0.25], [0.1]):
            play(kind(str(path), separator=";", append=append), script, key=key)
        texts.append(path.read_bytes().replace(b"\r\n", b"\n"))
    assert texts[0] == texts[1]
    assert texts[0].startswith(b"epoch;")


def test_terminate_on_nan():
    for loss, stops in ((1.0, False), (np.inf, True), (np.nan, True)):
        outcomes = []
        for kind in (ks.callbacks.TerminateOnNaN, keras.callbacks.TerminateOnNaN):
            callback = kind()
            callback.set_model(Scripted())
            callback.on_batch_end(0, {"loss": loss})
            outcomes.append(callback._model.stop_training)
        assert outcomes == [stops, stops]
    with pytest.raises(RuntimeError, match="NaN or Inf loss encountered at batch 7. Loss value: nan."):
        ks.callbacks.TerminateOnNaN(raise_error=True).on_batch_end(7, {"loss": np.nan})


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda c: c.ReduceLROnPlateau(factor=1.0), "does not support a factor >= 1.0. Received factor=1.0"),
        (
            lambda c: c.ModelCheckpoint("a.tar"),
            r"must end in `.keras` \(Keras model format\). Received: filepath=a.tar",
        ),
        (lambda c: c.ModelCheckpoint("a.keras", save_weights_only=True), "must end in `.weights.h5`"),
        (lambda c: c.ModelCheckpoint("a.keras", save_freq="day"), "Unrecognized save_freq: day"),
        (lambda c: c.BackupAndRestore("a", save_freq="batch"), "Invalid value for argument `save_freq`"),
        (lambda c: c.BackupAndRestore(""), "Empty `backup_dir` argument passed"),
        (lambda c: play(c.EarlyStopping(monitor="val_f1"), [1.0], key="val_f1"), "Pass `mode='max'` in order"),
        (lambda c: play(c.LearningRateScheduler(lambda e, r: "x"), [1.0]), "should be a float. Got: x"),
    ],
)
def test_errors_read_as_in_keras(make, text):
    for library in (ks, keras):
        with pytest.raises(ValueError, match=text):
            make(library.callbacks)


def test_unknown_mode_falls_back_to_auto():
    with pytest.warns(UserWarning, match="EarlyStopping mode 'up' is unknown, fallback to auto mode."):
        assert ks.callbacks.EarlyStopping(mode="up").mode == "auto"


def test_lambda_callback_takes_any_hook():
    heard = []
    callback = ks.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: heard.append((epoch, logs)), on_test_end=lambda logs: heard.append("test")
    )
    callback.on_epoch_end(3, {"loss": 1})
    callback.on_test_end({})
    callback.on_train_batch_end(0)
    assert heard == [(3, {"loss": 1}), "test"]


def test_callback_list_passes_one_dict_on():
    class Adds(ks.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["added"] = 2.0

    callbacks = ks.callbacks.CallbackList([Adds()], add_history=True, model=Scripted(), epochs=1)
    callbacks.on_epoch_end(0, {"b": np.float32(1.0), "a": np.int32(3)})
    history = callbacks.callbacks[-1].history
    assert history == {"a": [3.0], "b": [1.0], "added": [2.0]} and list(history) == ["a", "b", "added"]
    assert type(history["b"][0]) is float


def test_rows_that_are_no_numbers_end_a_fit_that_waits_for_them():
    class Named(ks.callbacks.Callback):
        def on_epoch_end(self, number, values):  # hooks are called by position, as by Keras
            self.seen = number, values

    model, named = ks.Sequential([ks.Input((2,)), ks.layers.Dense(1)]), Named()
    model.compile("sgd", "mse")
    callbacks = [ks.callbacks.TerminateOnNaN(), named]
    history = model.fit(np.ones((8, 2)), np.full((8, 1), np.inf), epochs=5, callbacks=callbacks, verbose=0).history
    assert len(history["loss"]) == 1 and not np.isfinite(history["loss"][0])
    assert named.seen[0] == 0 and named.seen[1].keys() == {"loss"}
