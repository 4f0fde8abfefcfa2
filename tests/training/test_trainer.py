"""fit, evaluate, predict and their kin in one process: what they do beyond the numbers of one step."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from kerasoft.compiler.program import compilations

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = [
    pytest.mark.shipped,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

X = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def small(k=ks, optimizer=None, metrics=("mae",), dropout=0.0, **options):
    layers = [
        k.Input((3,), name="x"),
        k.layers.Dense(4, activation="tanh"),
        k.layers.Dropout(dropout),
        k.layers.Dense(1),
    ]
    model = k.Sequential(layers)
    model.compile(optimizer or k.optimizers.Adam(0.01), "mse", metrics=list(metrics), **options)
    return model


@pytest.fixture(scope="module")
def shared():
    """A compiled model, trained once, for tests that do not look at its weights."""
    model = small(dropout=0.3)
    model.fit(X, Y, batch_size=16, verbose=0)
    return model


def recorder(k):
    """A callback that writes down every hook with its index and the keys of its logs."""

    class Recorder(k.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.heard = []

    def hook(name):
        def heard(self, *args, logs=None):
            if args and isinstance(args[-1], dict):
                *args, logs = args
            self.heard.append((name, *args, sorted(logs or {}) if "predict" not in name else []))

        return heard

    for phase in ("train", "test", "predict"):
        for edge in ("begin", "end"):
            setattr(Recorder, f"on_{phase}_{edge}", hook(f"{phase}_{edge}"))
            setattr(Recorder, f"on_{phase}_batch_{edge}", hook(f"{phase}_batch_{edge}"))
            setattr(Recorder, f"on_epoch_{edge}", hook(f"epoch_{edge}"))
    return Recorder()


def test_hooks_come_in_keras_order():
    heard = []
    for k in (ks, keras):
        model, told = small(k), recorder(k)
        options = dict(batch_size=16, verbose=0, callbacks=[told])
        history = model.fit(X[:40], Y[:40], epochs=2, validation_data=(X[40:], Y[40:]), validation_freq=2, **options)
        model.evaluate(X, Y, **options)
        model.predict(X, **options)
        heard.append(told.heard)
        assert history.params == {"verbose": 0, "epochs": 2, "steps": 3} and model.history is history
    assert heard[0] == heard[1]
    assert ("train_batch_end", 2, ["loss", "mae"]) in heard[0]


def kept_logs(k):
    """A callback that keeps the loss and mae of every batch hook."""

    class Keeps(k.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append([logs["loss"], logs["mae"]])

    return Keeps()


def test_batch_logs_are_running_means():
    seen = []
    for k in (ks, keras):
        model, keeps = small(k), kept_logs(k)
        model.set_weights([np.full(w.shape, 0.3, "float32") for w in model.get_weights()])
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[keeps])
        seen.append(keeps.seen)
    np.testing.assert_allclose(*seen, rtol=1e-5)


def test_single_batches_as_in_keras():
    results = []
    for k in (ks, keras):
        model = small(k, optimizer=k.optimizers.SGD(0.1, momentum=0.9))
        model.set_weights([np.full(w.shape, 0.3, "float32") for w in model.get_weights()])
        got = [model.train_on_batch(X[:10], Y[:10]) for _ in range(3)]
        got += [model.test_on_batch(X[:7], Y[:7]), model.train_on_batch(X[:4], Y[:4], sample_weight=np.arange(4.0))]
        results.append(np.array([[float(v) for v in pair] for pair in got]))
        assert set(model.train_on_batch(X[:10], Y[:10], return_dict=True)) == {"loss", "mae"}
        results.append(np.asarray(model.predict_on_batch(X[:5])))
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5)
    np.testing.assert_allclose(results[1], results[3], rtol=1e-5, atol=1e-6)
    assert int(model.optimizer.iterations) == 5


def test_only_the_first_step_compiles(shared):
    before = compilations()
    shared.fit(X, Y, batch_size=16, epochs=2, verbose=0)  # the last batch has 2 rows
    shared.fit(X[:33], Y[:33], batch_size=16, verbose=0)  # now 1 row
    assert compilations() == before
    shared.evaluate(X, Y, batch_size=16, verbose=0)
    before = compilations()
    assert shared.evaluate(X[:21], Y[:21], batch_size=16, verbose=0) != shared.evaluate(X, Y, batch_size=16, verbose=0)
    assert compilations() == before


def test_fit_goes_on_where_it_was_and_compile_starts_anew():
    once, twice = small(), small()
    twice.set_weights(once.get_weights())
    once.fit(X, Y, epochs=4, shuffle=False, verbose=0)
    twice.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    twice.fit(X, Y, epochs=4, initial_epoch=2, shuffle=False, verbose=0)
    for a, b in zip(once.get_weights(), twice.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(twice.optimizer.iterations) == 8
    twice.compile("adam", "mse")
    assert int(twice.optimizer.iterations) == 0 and twice.optimizer.built is False


def test_weights_set_between_fits_are_used(shared):
    weights = [np.zeros_like(w) for w in shared.get_weights()]
    shared.set_weights(weights)
    logs = shared.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(float((Y**2).mean()), rel=1e-5)
    history = shared.fit(X, Y, batch_size=64, verbose=0)
    assert history.history["loss"][0] == pytest.approx(float((Y**2).mean()), rel=1e-5)


def test_seeds_repeat_shuffling_and_dropout():
    model = small(dropout=0.5)
    start = model.get_weights()

    def run(**options):
        model.set_weights(start)
        model.compile("sgd", "mse")
        return model.fit(X, Y, epochs=2, verbose=0, **options).history["loss"]

    assert run(seed=3) == run(seed=3) != run(seed=4)
    ks.utils.set_random_seed(7)
    first = run()
    ks.utils.set_random_seed(7)
    assert run() == first


def test_validation_split_takes_the_last_rows_unshuffled():
    model = small(metrics=())
    history = model.fit(X, Y, validation_split=0.2, epochs=1, verbose=0)
    value = float(((model.predict(X[40:], verbose=0) - Y[40:]) ** 2).mean())
    assert history.history["val_loss"][0] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("frequency, validated", [(2, [1, 3]), ([1, 4], [0, 3]), (9, [])])
def test_validation_frequency(shared, frequency, validated):
    told = recorder(ks)
    shared.fit(
        X[:20],
        Y[:20],
        batch_size=16,
        epochs=4,
        verbose=0,
        validation_data=(X, Y),
        validation_freq=frequency,
        callbacks=[told],
    )
    assert [e[1] for e in told.heard if e[0] == "epoch_end" and "val_loss" in e[2]] == validated


def test_steps(shared):
    told = recorder(ks)
    shared.fit(X, Y, batch_size=16, steps_per_epoch=2, epochs=2, verbose=0, callbacks=[told])
    assert sum(e[0] == "train_batch_end" for e in told.heard) == 4
    assert shared.predict(X, batch_size=16, steps=2, verbose=0).shape == (32, 1)
    part = shared.evaluate(X, Y, batch_size=16, steps=1, verbose=0)
    assert part == pytest.approx(shared.evaluate(X[:16], Y[:16], verbose=0))


def test_generators_and_models_whose_sizes_come_from_the_data():
    model = ks.Sequential([ks.layers.Flatten(), ks.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    history = model.fit(((np.ones((3, 2, 2)), np.ones((3, 1))) for _ in range(4)), steps_per_epoch=3, verbose=0)
    assert history.history["loss"][0] < 1.0 and int(model.optimizer.iterations) == 3
    pooled = ks.Sequential([ks.layers.GlobalAveragePooling1D()])
    assert [pooled.predict(np.ones((2, n, 3)), verbose=0).shape for n in (4, 5)] == [(2, 3), (2, 3)]


def test_generators():
    def batches():
        for start in range(0, 48, 16):
            yield X[start : start + 16], Y[start : start + 16]
        yield X[48:], Y[48:]

    def endless():
        while True:
            yield from batches()

    model, same = small(optimizer="sgd"), small(optimizer="sgd")
    same.set_weights(model.get_weights())
    expected = same.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    got = model.fit(endless(), steps_per_epoch=4, epochs=2, verbose=0)
    for key, values in expected.history.items():
        assert got.history[key] == pytest.approx(values)
    assert model.evaluate(batches(), verbose=0) == pytest.approx(same.evaluate(X, Y, verbose=0), rel=1e-5)
    np.testing.assert_allclose(
        model.predict(([x] for x, _ in batches()), verbose=0), same.predict(X, verbose=0), rtol=1e-5
    )
    listed = list(batches())
    assert len(model.fit(_Iterable(listed), epochs=2, verbose=0).history["loss"]) == 2
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        history = model.fit(batches(), epochs=2, steps_per_epoch=4, verbose=0)
    assert history.epoch == [0]
    with pytest.warns(UserWarning, match="ran out of data"), pytest.raises(ValueError, match="no data to evaluate"):
        model.fit(X, Y, epochs=2, validation_data=batches(), verbose=0)


class _Iterable:
    """Starts again each epoch."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_callbacks_stop_within_an_epoch():
    class Stops(ks.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    model, told = small(), recorder(ks)
    model.fit(X, Y, batch_size=8, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[Stops(), told])
    assert [e[:2] for e in told.heard if e[0] in ("train_batch_end", "epoch_end")] == [
        ("train_batch_end", 0), ("train_batch_end", 1), ("epoch_end", 0),
    ]  # fmt: skip
    assert int(model.optimizer.iterations) == 2


def test_callbacks_see_and_set_weights_and_rates():
    seen = []

    class Meddles(ks.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = self.model.layers[0].kernel
            seen.append(kernel.numpy().copy())
            if batch == 1:
                kernel.assign(np.zeros(kernel.shape))
                self.model.optimizer.learning_rate = 0.0

    model = small(optimizer=ks.optimizers.SGD(0.1))
    model.fit(X, Y, batch_size=16, verbose=0, callbacks=[Meddles()])
    assert np.abs(seen[1] - seen[0]).max() > 0
    assert not np.any(seen[2]) and not np.any(seen[3]) and not np.any(model.layers[0].kernel.numpy())


def test_early_stopping_restores_the_best_weights():
    kept = {}

    class Keeps(ks.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept[epoch] = (logs["loss"], self.model.get_weights())
            self.model.optimizer.learning_rate = 0.05 if epoch < 1 else 3.0

    model = small(optimizer=ks.optimizers.SGD(0.05))
    stop = ks.callbacks.EarlyStopping(monitor="loss", patience=2, restore_best_weights=True)
    model.fit(X, Y, epochs=9, verbose=0, callbacks=[Keeps(), stop])
    best = min(kept, key=lambda e: kept[e][0])
    for mine, wanted in zip(model.get_weights(), kept[best][1], strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert len(kept) < 9


def test_an_exception_leaves_the_weights_of_the_last_step():
    class Breaks(ks.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    broken, whole = small(), small()
    whole.set_weights(broken.get_weights())
    whole.fit(X, Y, batch_size=8, steps_per_epoch=3, shuffle=False, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[Breaks()])
    for a, b in zip(broken.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(broken.optimizer.iterations) == 3


def test_data_that_breaks_leaves_the_weights_of_the_last_step():
    def breaks():
        yield X[:8], Y[:8]
        yield X[8:16], Y[8:16]
        raise OSError("disk")

    broken, whole = small(), small()
    whole.set_weights(broken.get_weights())
    whole.fit(X[:16], Y[:16], batch_size=8, shuffle=False, verbose=0)
    with pytest.raises(OSError, match="disk"):
        broken.fit(breaks(), verbose=0)
    np.testing.assert_array_equal(broken.get_weights()[0], whole.get_weights()[0])


def test_a_frozen_layer_stays_and_says_so():
    model = small()
    model.layers[0].trainable = False
    with pytest.warns(UserWarning, match=r"recompile your model .* Changed layers: \['dense"):
        model.fit(X, Y, verbose=0)
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[2] - after[2]).max() > 0


def test_profile_adds_up_to_the_wall(shared):
    shared.fit(X, Y, batch_size=16, epochs=3, verbose=0, validation_data=(X, Y))
    profile = shared.last_fit_profile
    assert sum(profile.seconds.values()) == pytest.approx(profile.wall_s, rel=0.02)
    assert (profile.steps, profile.rows) == (12, 150)
    assert {"input", "compute", "validation", "callbacks"} <= set(profile.seconds)
    assert str(profile).splitlines()[1].split() == ["phase", "seconds", "share", "ms/step"]


class Centred(ks.Layer):
    """Rows that influence one another, without a word about padding."""

    def call(self, x):
        return x - ks.ops.mean(x, axis=0, keepdims=True)


def test_rows_that_influence_one_another_are_never_padded():
    inputs = ks.Input((3,))
    model = ks.Model(inputs, Centred()(inputs))
    model.compile("sgd", "mse")
    got = model.predict(X[:20], batch_size=16, verbose=0)
    wanted = np.concatenate([X[:16] - X[:16].mean(0), X[16:20] - X[16:20].mean(0)])
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    loss = model.evaluate(X[:20], X[:20], batch_size=16, verbose=0)
    assert loss == pytest.approx(float(((wanted - X[:20]) ** 2).mean()), rel=1e-5)


def test_structures_of_outputs():
    inputs = {"a": ks.Input((3,), name="a"), "b": ks.Input((3,), name="b")}
    total = ks.layers.Add()([inputs["a"], inputs["b"]])
    model = ks.Model(inputs, {"sum": total, "first": ks.layers.Dense(1)(inputs["a"])})
    model.compile("sgd", {"sum": "mse", "first": "mae"})
    out = model.predict({"a": X, "b": X}, verbose=0)
    assert sorted(out) == ["first", "sum"]
    np.testing.assert_allclose(out["sum"], 2 * X, rtol=1e-6)
    history = model.fit({"b": X, "a": X}, {"sum": X, "first": Y}, verbose=0)
    assert list(history.history) == ["first_loss", "loss", "sum_loss"]


def variable_lengths(k):
    layers = [
        k.Input((None,), dtype="int32"),
        k.layers.Embedding(9, 3),
        k.layers.GlobalAveragePooling1D(),
        k.layers.Dense(1),
    ]
    model = k.Sequential(layers)
    model.compile("sgd", "mse")
    return model


def test_sequences_of_several_lengths_are_traced_once():
    model = variable_lengths(ks)
    for length in (5, 7):
        tokens = np.arange(8 * length).reshape(8, length) % 9
        model.fit(tokens, Y[:8], verbose=0)
        assert model.predict(tokens, verbose=0).shape == (8, 1)
    assert len(model._trainer.programs) == 2


def adding_loss(k):
    class Adds(k.layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * k.ops.mean(k.ops.square(x)))
            return x

    class Own(k.Model):
        def __init__(self):
            super().__init__()
            self.first, self.adds = k.layers.Dense(4), Adds()
            self.heads = {"a": k.layers.Dense(1), "b": k.layers.Dense(2)}

        def call(self, x):
            x = self.adds(self.first(x))
            return {"a": self.heads["a"](x), "b": self.heads["b"](x)}

    return Own()


def test_a_subclassed_model_with_add_loss_and_dict_outputs():
    histories, weights = [], []
    labels = {"a": Y, "b": X[:, :2]}
    for k in (ks, keras):
        model = adding_loss(k)
        model.compile(k.optimizers.SGD(0.05), {"a": "mse", "b": "mae"}, metrics={"b": ["mse"]})
        model.predict(X[:2], verbose=0)
        values = [
            np.random.default_rng(i).normal(size=w.shape).astype("float32") for i, w in enumerate(model.get_weights())
        ]
        model.set_weights(values)
        options = dict(batch_size=16, epochs=2, shuffle=False, verbose=0)
        histories.append(
            model.fit(X, labels, validation_data=(X[:9], {n: y[:9] for n, y in labels.items()}), **options)
        )
        weights.append(model.get_weights())
    assert list(histories[0].history) == list(histories[1].history)
    for key, wanted in histories[1].history.items():
        np.testing.assert_allclose(histories[0].history[key], wanted, rtol=1e-5, err_msg=key)
    for mine, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_ema_replaces_the_weights_at_the_end():
    weights = []
    for k in (ks, keras):
        model = small(k, optimizer=k.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
        model.set_weights([np.full(w.shape, 0.3, "float32") for w in model.get_weights()])
        model.fit(X, Y, shuffle=False, epochs=2, verbose=0)
        weights.append(model.get_weights())
    for mine, wanted in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-6)


def test_nothing_is_said_with_verbose_0(shared, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared.fit(X, Y, batch_size=16, verbose=0)
        shared.predict(X, verbose=0)
    assert capsys.readouterr().out == ""
    shared.fit(X, Y, batch_size=16, epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 1/2" and lines[2] == "Epoch 2/2" and len(lines) == 4
    assert lines[1].startswith("4/4 ") and " rows/s - loss: " in lines[1] and " - mae: " in lines[1]


def test_a_model_without_trainable_weights_is_fitted():
    model = ks.Sequential([ks.Input((2,)), ks.layers.Dense(1, kernel_initializer="ones")])
    model.trainable = False
    model.compile("rmsprop", "mse")
    assert model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0).history["loss"] == [1.0]
    np.testing.assert_array_equal(model.get_weights()[0], np.ones((2, 1), "float32"))
