"""Files that Keras wrote are read, files that we write are read by Keras: configs, weights, optimizer state."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import h5py
import numpy as np
import pytest

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside Keras


def sequential(k):
    return k.Sequential(
        [
            k.Input((6,)),
            k.layers.Dense(5, activation="relu"),
            k.layers.BatchNormalization(),
            k.layers.Dropout(0.3),
            k.layers.Dense(2, activation="softmax"),
        ],
        name="chain",
    )


def deferred(k):
    model = k.Sequential([k.layers.Dense(4, activation="tanh"), k.layers.Dense(3)], name="late")
    model.build((None, 6))
    return model


def branches(k):
    a, b = k.Input((6,), name="a"), k.Input((6,), name="b")
    shared = k.layers.Dense(4, name="shared")
    x, y = shared(a), shared(b)
    z = k.layers.Concatenate()([x, y])
    z = k.layers.Add()([k.layers.Dense(4)(z), x * 2.0 + y])
    return k.Model([a, b], {"sum": z, "head": k.layers.Dense(1, name="head")(z)}, name="two")


def nested(k):
    inner_in = k.Input((6,), name="inner_in")
    inner = k.Model(inner_in, k.layers.Dense(3, activation="tanh")(inner_in), name="inner")
    chain = k.Sequential([k.Input((3,)), k.layers.Dense(4), k.layers.LayerNormalization()], name="chain2")
    x = k.Input((6,), name="x")
    return k.Model(x, k.layers.Dense(2)(chain(inner(x))), name="outer")


def images(k):
    return k.Sequential(
        [
            k.Input((8, 8, 2)),
            k.layers.Conv2D(3, 3, strides=2, padding="same", activation="relu"),
            k.layers.MaxPooling2D(2),
            k.layers.Flatten(),
            k.layers.Dense(2),
        ]
    )


def text(k):
    x = k.Input((7,), dtype="int32", name="words")
    y = k.layers.Embedding(11, 4, mask_zero=True)(x)
    y = k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=True))(y)
    y = k.layers.GRU(2)(y)
    return k.Model(x, k.layers.Dense(1, activation="sigmoid")(y))


def functions(k):
    x = k.Input((4, 6), name="x")
    y = k.ops.reshape(x, (-1, 24))
    y = k.ops.concatenate([y, k.ops.mean(x, axis=1)], axis=-1)
    y = k.ops.softmax(k.layers.Dense(5)(y), axis=-1)
    y = k.ops.expand_dims(y[:, 1:4], -1) - 0.5
    return k.Model(x, k.ops.squeeze(k.ops.relu(y), axis=-1))


MODELS = {f.__name__: f for f in (sequential, deferred, branches, nested, images, text, functions)}


def randomised(model, seed=1):
    rng = np.random.default_rng(seed)
    model.set_weights([np.abs(rng.normal(size=w.shape)).astype("float32") * 0.5 + 0.1 for w in model.get_weights()])
    return model


def data(model, rows=3):
    rng = np.random.default_rng(0)
    values = [
        rng.integers(0, 9, (rows, *x.shape[1:])).astype("int32")
        if "int" in x.dtype
        else rng.normal(size=(rows, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
    return values[0] if len(values) == 1 else values


def same(got, want):
    if isinstance(want, dict):
        assert set(got) == set(want)
        for key in want:
            same(got[key], want[key])
    elif isinstance(want, (list, tuple)):
        for g, w in zip(got, want, strict=True):
            same(g, w)
    else:
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-4, atol=1e-5)


def tree_of(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda n, o: found.update({n: (getattr(o, "shape", None), str(getattr(o, "dtype", "")), dict(o.attrs))})
        )
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_keras_is_read(name, tmp_path):
    keras.utils.clear_session(free_memory=False)
    theirs = randomised(MODELS[name](keras))
    theirs.save(tmp_path / "m.keras")
    ours = ks.saving.load_model(tmp_path / "m.keras")
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    x = data(theirs)
    same(ours(x), theirs(x))


@pytest.mark.parametrize("name", MODELS)
def test_our_file_is_read_by_keras(name, tmp_path):
    ks.utils.clear_session(free_memory=False)
    ours = randomised(MODELS[name](ks))
    ours.save(tmp_path / "m.keras")
    theirs = keras.saving.load_model(tmp_path / "m.keras")
    x = data(ours)
    same(theirs(x), ours(x))
    again = ks.saving.load_model(tmp_path / "m.keras")
    assert again.to_json() == ours.to_json()
    same(again(x), ours(x))


@pytest.mark.parametrize("name", MODELS)
def test_weights_files_are_the_same_and_interchangeable(name, tmp_path):
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)
    theirs, ours = randomised(MODELS[name](keras)), randomised(MODELS[name](ks), seed=2)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.save_weights(tmp_path / "ours.weights.h5")
    mine, keras_tree = tree_of(tmp_path / "ours.weights.h5"), tree_of(tmp_path / "theirs.weights.h5")
    seeds = {n for n in keras_tree if "seed_generator" in n}
    assert mine == {n: v for n, v in keras_tree.items() if n not in seeds}
    ours.load_weights(tmp_path / "theirs.weights.h5")
    same(ours.get_weights(), theirs.get_weights())
    ours.set_weights([w + 1 for w in ours.get_weights()])
    ours.save_weights(tmp_path / "ours.weights.h5")
    if not seeds:
        theirs.load_weights(tmp_path / "ours.weights.h5")
        same(theirs.get_weights(), ours.get_weights())


def test_configs_are_those_of_keras():
    for name in ("sequential", "branches", "nested"):
        keras.utils.clear_session(free_memory=False)
        ks.utils.clear_session(free_memory=False)
        theirs, ours = keras.saving.serialize_keras_object(MODELS[name](keras)), MODELS[name](ks)
        compare_configs(ks.saving.serialize_keras_object(ours), theirs, name)


def compare_configs(ours, theirs, where):
    """Everything that Keras writes, but for what is only a matter of default (None against a name)."""
    if isinstance(theirs, dict):
        for key, value in theirs.items():
            if key in ("shared_object_id", "compile_config", "quantization_config", "input_axes", "output_axes"):
                continue
            if key in ("axis", "mask") and not isinstance(value, int):  # [1] for 1, and None for nothing
                continue
            assert key in ours, f"{where}: {key} is missing in {list(ours)}"
            compare_configs(ours[key], value, f"{where}/{key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            compare_configs(a, b, f"{where}/{i}")
    else:
        assert ours == theirs, where


def test_optimizer_state_goes_both_ways(tmp_path):
    keras.utils.clear_session(free_memory=False)
    theirs = sequential(keras)
    theirs.compile("adam", "mse")
    x, y = np.ones((4, 6), "float32"), np.ones((4, 2), "float32")
    theirs.fit(x, y, epochs=2, verbose=0)
    theirs.save(tmp_path / "t.keras")
    ours = ks.saving.load_model(tmp_path / "t.keras")
    assert len(ours.optimizer.variables) == len(theirs.optimizer.variables)
    same([v.numpy() for v in ours.optimizer.variables], [np.asarray(v) for v in theirs.optimizer.variables])
    ours.save(tmp_path / "o.keras")
    again = keras.saving.load_model(tmp_path / "o.keras")
    same([np.asarray(v) for v in again.optimizer.variables], [np.asarray(v) for v in theirs.optimizer.variables])
    assert int(again.optimizer.iterations) == 2
    uncompiled = ks.saving.load_model(tmp_path / "t.keras", compile=False)
    assert not uncompiled.compiled
