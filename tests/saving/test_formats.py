"""Other formats than the zip: legacy `.h5` of Keras 2 and 3, sharded weights, folders; arguments and errors."""

import json
import os
import pathlib
import zipfile

os.environ["KERAS_BACKEND"] = "jax"

import h5py
import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import SerializationError, UnsafeFileError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside Keras
HERE = pathlib.Path(__file__).resolve()
MODELS = next((p / "shared/data/models" for p in HERE.parents if (p / "shared/data/models").is_dir()), None)
needs_models = pytest.mark.skipif(MODELS is None, reason="needs the models of ../shared")


def chain(k):
    return k.Sequential(
        [k.Input((4,)), k.layers.Dense(3, activation="relu"), k.layers.BatchNormalization(), k.layers.Dense(2)]
    )


def network(k):
    x = k.Input((4,), name="x")
    shared = k.layers.Dense(4, name="shared")
    inner_in = k.Input((4,))
    inner = k.Model(inner_in, k.layers.Dense(4, name="deep")(inner_in), name="inner")
    y = k.layers.Add(name="sum")([shared(shared(x)), inner(x) * 2.0])
    return k.Model(x, [k.layers.Dense(2, name="a")(y), k.layers.Dense(1, kernel_regularizer="l2", name="b")(y)])


def data(rows=3):
    return np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")


def same(got, want):
    for a, b in zip(got if isinstance(got, list) else [got], want if isinstance(want, list) else [want], strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


# --- files of Keras 2 and 1, as found in the wild ---


@needs_models
def test_a_keras_2_model_gives_its_reference_outputs():
    with pytest.warns(UserWarning, match="freshly initialized optimizer"):
        model = ks.saving.load_model(MODELS / "keras/fer_mini_xception.h5")
    with np.load(MODELS / "ref/keras_fer_mini_xception.npz") as reference:
        np.testing.assert_allclose(
            model.predict(reference["input"], verbose=0), reference["output"], rtol=1e-4, atol=1e-6
        )
    assert model.count_params() == 58_423
    assert type(model.optimizer) is ks.optimizers.Adam and model.loss == "categorical_crossentropy"
    assert not ks.saving.load_model(MODELS / "keras/fer_mini_xception.h5", compile=False).compiled


@needs_models
def test_weights_of_keras_1_are_found_by_the_layers_names():
    user, item = (ks.Input((1,), dtype="int32") for _ in range(2))
    a = ks.layers.Flatten()(ks.layers.Embedding(6040, 8, name="user_embedding")(user))
    b = ks.layers.Flatten()(ks.layers.Embedding(3706, 8, name="item_embedding")(item))
    out = ks.layers.Dense(1, activation="sigmoid", name="prediction")(ks.layers.Multiply()([a, b]))
    model = ks.Model([user, item], out)
    model.load_weights(MODELS / "keras/ncf_ml1m_gmf.h5", by_name=True)
    with np.load(MODELS / "ref/keras_ncf_gmf.npz") as reference:
        users, items = np.repeat(reference["user"], 100)[:, None], reference["items"].reshape(-1, 1)
        got = model.predict([users, items], batch_size=1000, verbose=0)
        np.testing.assert_allclose(got.reshape(10, 100), reference["score"], rtol=1e-4, atol=1e-6)
    with pytest.raises(SerializationError, match=r"Shape mismatch in layer #0 .*expects shape \(6040, 8\)"):
        model.load_weights(MODELS / "keras/ncf_ml1m_gmf.h5")


def keras_2_file(path, config, weights, **attributes):
    """A file as Keras 2 wrote it; `weights` holds layer -> {name: array}."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.0.5"
        file.attrs["model_config"] = json.dumps(config).encode()
        for name, value in attributes.items():
            file.attrs[name] = json.dumps(value)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, arrays in weights.items():
            place = group.create_group(layer)
            place.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in arrays]
            for name, array in arrays.items():
                place[f"{layer}/{name}:0"] = array


def test_configs_of_keras_2_are_understood(tmp_path):
    rng = np.random.default_rng(1)
    embed, kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    layers = [
        {"class_name": "Embedding", "config": {"name": "e", "trainable": True, "batch_input_shape": [None, 4],
         "input_dim": 5, "output_dim": 3, "input_length": 4, "mask_zero": False, "activity_regularizer": None,
         "embeddings_initializer": {"class_name": "RandomUniform", "config": {"minval": -0.05, "maxval": 0.05, "seed": None}}}},
        {"class_name": "TimeDistributed", "config": {"name": "t", "trainable": True, "layer": {"class_name": "Dense",
         "config": {"name": "d", "trainable": True, "units": 2, "activation": "linear", "use_bias": True,
                    "kernel_initializer": {"class_name": "VarianceScaling", "config": {"scale": 1.0, "mode": "fan_avg",
                                           "distribution": "normal", "seed": None}}}}}},
        {"class_name": "Dropout", "config": {"name": "p", "trainable": True, "rate": 0.25, "dtype": {
         "class_name": "Policy", "config": {"name": "float32"}}}},
    ]  # fmt: skip
    weights = {"e": {"embeddings": embed}, "t": {"kernel": kernel, "bias": bias}, "p": {}}
    keras_2_file(tmp_path / "s.h5", {"class_name": "Sequential", "config": layers}, weights)
    with pytest.warns(UserWarning, match="the model was \\*not\\* compiled"):
        model = ks.saving.load_model(tmp_path / "s.h5")
    ids = np.array([[0, 1, 4, 2]])
    np.testing.assert_allclose(model(ids), embed[ids] @ kernel + bias, rtol=1e-5)
    assert model.input_shape == (None, 4) and model.layers[2].rate == 0.25
    bad = [{"class_name": "Dense", "config": {"name": "d", "trainable": True, "units": 2, "spline": "cubic"}}]
    keras_2_file(tmp_path / "b.h5", {"class_name": "Sequential", "config": bad}, {})
    with pytest.raises(SerializationError, match="Dense of the file has the argument spline='cubic'"):
        ks.saving.load_model(tmp_path / "b.h5")


def test_lambdas_of_legacy_files_are_never_run(tmp_path):
    code = ["4wEAAAAAAAAA", None, None]
    layer = {"name": "f", "trainable": True, "function": code, "function_type": "lambda", "arguments": {}}
    config = {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": layer}]}
    keras_2_file(tmp_path / "l.h5", config, {})
    for safe_mode in (True, False):
        with pytest.raises(UnsafeFileError, match="Lambda layer 'f' of the file holds its function as byte code"):
            ks.saving.load_model(tmp_path / "l.h5", safe_mode=safe_mode)


# --- legacy files of Keras 3, both ways ---


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("make", [chain, network])
def test_legacy_files_go_both_ways(make, tmp_path):
    theirs, ours = make(keras), make(ks)
    x = data()
    for model in (theirs, ours):
        loss = "mse" if make is chain else ["mse", "mae"]
        model.compile("adam", loss=loss)
        y = [np.ones((3, 2)), np.ones((3, 1))] if make is network else np.ones((3, 2))
        model.fit(x, y, verbose=0)
    theirs.save(tmp_path / "t.h5")
    read = ks.saving.load_model(tmp_path / "t.h5")
    same(read(x), theirs(x))
    same([v.numpy() for v in read.optimizer.variables], [np.asarray(v) for v in theirs.optimizer.variables])
    ours.save(tmp_path / "o.h5")
    same(keras.saving.load_model(tmp_path / "o.h5")(x), ours(x))
    again = ks.saving.load_model(tmp_path / "o.h5")
    same(again(x), ours(x))
    assert int(again.optimizer.iterations) == 1
    fresh = make(ks)
    fresh.load_weights(tmp_path / "t.h5")
    same(fresh(x), theirs(x))
    if make is network:
        other = network(ks)
        other.load_weights(tmp_path / "t.h5", by_name=True)
        same(other(x), theirs(x))


# --- sharded weights and folders ---


def test_sharded_weights_go_both_ways(tmp_path):
    theirs, ours = chain(keras), chain(ks)
    ours.save_weights(tmp_path / "o.weights.json", max_shard_size=1e-7)
    files = sorted(p.name for p in tmp_path.glob("o_*.weights.h5"))
    assert len(files) > 1 and max(p.stat().st_size for p in tmp_path.glob("o_*")) < 20_000
    theirs.load_weights(tmp_path / "o.weights.json")
    same(theirs.get_weights(), ours.get_weights())
    theirs.set_weights([w + 1 for w in theirs.get_weights()])
    theirs.save_weights(tmp_path / "t.weights.json", max_shard_size=1e-7)
    ours.load_weights(tmp_path / "t.weights.json")
    same(ours.get_weights(), theirs.get_weights())
    with pytest.raises(SerializationError, match="more than a file may have"):
        ours.save_weights(tmp_path / "o.weights.json", max_shard_size=1e-9)
    listed = json.loads((tmp_path / "t.weights.json").read_text())
    listed["weight_map"]["/layers/dense/vars"] = ["../t_00000.weights.h5"]
    (tmp_path / "evil.weights.json").write_text(json.dumps(listed))
    with pytest.raises(UnsafeFileError, match="which is not a file beside it"):
        ours.load_weights(tmp_path / "evil.weights.json")


def test_folders_go_both_ways(tmp_path):
    theirs, ours = chain(keras), chain(ks)
    theirs.save(tmp_path / "theirs", zipped=False)
    ours.save(tmp_path / "ours", zipped=False)
    same(ks.saving.load_model(tmp_path / "theirs").get_weights(), theirs.get_weights())
    same(keras.saving.load_model(tmp_path / "ours").get_weights(), ours.get_weights())
    same(ks.saving.load_model(tmp_path / "ours").get_weights(), ours.get_weights())
    with pytest.raises(SerializationError, match="holds a model; give overwrite=True"):
        ours.save(tmp_path / "ours", zipped=False, overwrite=False)
    with pytest.raises(SerializationError, match="the filepath should not end in `.keras`"):
        ours.save(tmp_path / "m.keras", zipped=False)


def test_vocabularies_are_assets(tmp_path):
    model = ks.Sequential([ks.layers.IntegerLookup()])
    model.layers[0].adapt(np.array([[7], [5], [7]]))
    x = np.array([[5], [7], [6]])
    want = np.asarray(model(x))
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as file:
        assert "assets/layers/integer_lookup/vocabulary.txt" in file.namelist()
    model.save(tmp_path / "m", zipped=False)
    for name in ("m.keras", "m"):
        np.testing.assert_array_equal(ks.saving.load_model(tmp_path / name)(x), want)


# --- arguments and errors ---


def test_arguments_of_load_weights(tmp_path):
    source, target = chain(ks), chain(ks)
    source.save_weights(tmp_path / "m.weights.h5")
    before = target.layers[0].get_weights()
    target.load_weights(str(tmp_path / "m.weights.h5"), objects_to_skip=[target.layers[0]])
    same(target.layers[0].get_weights(), before)
    same(target.layers[2].get_weights(), source.layers[2].get_weights())
    other = ks.Sequential([ks.Input((4,)), ks.layers.Dense(3), ks.layers.BatchNormalization(), ks.layers.Dense(5)])
    with pytest.raises(ValueError, match="A total of 1 objects could not be loaded"):
        other.load_weights(tmp_path / "m.weights.h5")
    with pytest.warns(UserWarning, match="A total of 1 objects could not be loaded"):
        other.load_weights(tmp_path / "m.weights.h5", skip_mismatch=True)
    same(other.layers[0].get_weights(), source.layers[0].get_weights())
    source.save(tmp_path / "m.h5")
    with pytest.raises(SerializationError, match="Shape mismatch in layer #2"):
        other.load_weights(tmp_path / "m.h5")
    with pytest.warns(UserWarning, match="Shape mismatch in layer #2"):
        other.load_weights(tmp_path / "m.h5", skip_mismatch=True)
    for name, arguments, text in (
        ("m.weights.h5", {"by_name": True}, "`by_name` only supports loading legacy"),
        ("m.h5", {"objects_to_skip": []}, "`objects_to_skip` only supports"),
        ("m.weights.h5", {"wrong": 1}, "Invalid keyword arguments: {'wrong': 1}"),
        ("m.ckpt", {}, "File format not supported: filepath="),
        ("none.weights.h5", {}, "there is no file"),
    ):
        with pytest.raises(SerializationError, match=text):
            target.load_weights(tmp_path / name, **arguments)


def test_arguments_of_save(tmp_path):
    model = chain(ks)
    model.compile("adam", "mse")
    model.save(tmp_path / "m.h5", include_optimizer=False)
    with h5py.File(tmp_path / "m.h5") as file:
        assert "training_config" not in file.attrs
    for call, text in (
        (lambda: model.save(tmp_path / "m"), "Invalid filepath extension for saving"),
        (lambda: model.save(tmp_path / "m.keras", wrong=1), r"argument\(s\) are not supported: \['wrong'\]"),
        (lambda: model.save(tmp_path / "m.tf", save_format="tf"), "The `save_format` argument is deprecated"),
        (lambda: model.save(tmp_path / "m.h5", overwrite=False), "exists; give overwrite=True"),
        (lambda: model.save_weights(tmp_path / "m.h5"), r"The filename must end in `.weights.h5`"),
        (lambda: model.save_weights(tmp_path / "m.txt", max_shard_size=1), r"must end in `.weights.json` when"),
    ):
        with pytest.raises(SerializationError, match=text):
            call()
