"""Files that lie, damage or attack are refused with a clear text; nothing in them is run."""

import json
import zipfile

import h5py
import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import SerializationError, UnknownNameError, UnsafeFileError


def model():
    return ks.Sequential([ks.Input((3,)), ks.layers.Dense(2, name="head")], name="m")


@pytest.fixture
def saved(tmp_path):
    m = model()
    m.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as z:
        return tmp_path / "m.keras", {n: z.read(n) for n in z.namelist()}


def rewrite(path, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, content in parts.items():
            z.writestr(name, content)


def test_the_zip_is_uncompressed_and_has_three_members(saved):
    path, _ = saved
    with zipfile.ZipFile(path) as z:
        assert z.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert {i.compress_type for i in z.infolist()} == {zipfile.ZIP_STORED}
        assert set(json.loads(z.read("metadata.json"))) == {"keras_version", "date_saved"}


def test_a_marshalled_lambda_is_refused_even_without_safe_mode(saved):
    path, parts = saved
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1]["config"]["activation"] = {"class_name": "__lambda__", "config": {"value": "4wEA"}}
    rewrite(path, {**parts, "config.json": json.dumps(config)})
    for safe_mode in (True, False):
        with pytest.raises(UnsafeFileError, match="Python lambda as byte code"):
            ks.saving.load_model(path, safe_mode=safe_mode)


@pytest.mark.parametrize("module", ["os", "subprocess", "builtins", None, "kerasoft.saving.files", "keras.src.utils"])
def test_classes_of_other_modules_are_not_imported(saved, module):
    path, parts = saved
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1] |= {"module": module, "class_name": "system", "registered_name": None}
    rewrite(path, {**parts, "config.json": json.dumps(config)})
    with pytest.raises(UnknownNameError, match="Could not locate class 'system'.*register_keras_serializable"):
        ks.saving.load_model(path)


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "assets/../../evil", "..\\evil", "C:/evil"])
def test_members_that_leave_the_archive_are_refused(saved, name):
    path, parts = saved
    rewrite(path, {**parts, name: b"x"})
    with pytest.raises(UnsafeFileError, match="leads out of the archive"):
        ks.saving.load_model(path)


def test_a_zip_bomb_is_refused(saved):
    path, parts = saved
    rewrite(path, {**parts, "config.json": b" " * (8 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeFileError, match="would grow from"):
        ks.saving.load_model(path)


def test_damaged_files_are_named(tmp_path, saved):
    path, parts = saved
    with pytest.raises(SerializationError, match="File format not supported"):
        ks.saving.load_model(tmp_path / "m.ckpt")
    with pytest.raises(SerializationError, match="File not found"):
        ks.saving.load_model(tmp_path / "none.keras")
    (tmp_path / "bad.keras").write_bytes(b"no zip")
    with pytest.raises(SerializationError, match="is no `.keras` file"):
        ks.saving.load_model(tmp_path / "bad.keras")
    rewrite(tmp_path / "half.keras", {"config.json": parts["config.json"]})
    with pytest.raises(SerializationError, match="it has no model.weights.h5"):
        ks.saving.load_model(tmp_path / "half.keras")
    rewrite(path, {**parts, "config.json": b"{"})
    with pytest.raises(SerializationError, match="config.json cannot be read"):
        ks.saving.load_model(path)
    rewrite(path, {**parts, "config.json": b"[" * 200_000})
    with pytest.raises(SerializationError, match="cannot be read"):
        ks.saving.load_model(path)
    rewrite(path, {**parts, "model.weights.h5": b"junk"})
    with pytest.raises(SerializationError, match="model.weights.h5 is no HDF5 file"):
        ks.saving.load_model(path)


def test_weights_in_other_files_are_not_followed(tmp_path):
    m = model()
    with h5py.File(tmp_path / "secret.h5", "w") as f:
        f["v/0"], f["v/1"] = np.zeros((3, 2), "float32"), np.zeros(2, "float32")
    for kind in (h5py.ExternalLink("secret.h5", "/v"), h5py.SoftLink("/elsewhere")):
        with h5py.File(tmp_path / "w.weights.h5", "w") as f:
            f.create_group("layers/dense")
            f["layers/dense/vars"] = kind
        with pytest.raises(UnsafeFileError, match="links 'layers/dense/vars' to another place"):
            m.load_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "w") as f:
        f.create_dataset("layers/dense/vars/0", (3, 2), "float32", external=str(tmp_path / "raw.bin"))
        f["layers/dense/vars/1"] = np.zeros(2, "float32")
    with pytest.raises(UnsafeFileError, match="is kept in another file"):
        m.load_weights(tmp_path / "w.weights.h5")


def test_a_dataset_far_larger_than_what_is_stored_is_refused(tmp_path):
    m = model()
    with h5py.File(tmp_path / "w.weights.h5", "w") as f:
        f.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 14), "float32", chunks=(1024, 1024))
        f["layers/dense/vars/1"] = np.zeros(2, "float32")
    with pytest.raises(UnsafeFileError, match="claims 68,719,476,736 bytes but only 0 are stored"):
        m.load_weights(tmp_path / "w.weights.h5")


def test_mismatches_are_listed_or_skipped(tmp_path):
    m = model()
    m.save_weights(tmp_path / "w.weights.h5")
    other = ks.Sequential([ks.Input((3,)), ks.layers.Dense(4)])
    before = other.get_weights()
    with pytest.raises(ValueError, match="A total of 1 objects could not be loaded.*Dense name=dense"):
        other.load_weights(tmp_path / "w.weights.h5")
    with pytest.warns(UserWarning, match="A total of 1 objects could not be loaded"):
        other.load_weights(tmp_path / "w.weights.h5", skip_mismatch=True)
    np.testing.assert_array_equal(other.get_weights()[1], before[1])
    deeper = ks.Sequential([ks.Input((3,)), ks.layers.Dense(2), ks.layers.Dense(2)])
    with pytest.raises(ValueError, match="expected 2 variables, but received 0 variables during loading"):
        deeper.load_weights(tmp_path / "w.weights.h5")
    m.save(tmp_path / "m.keras")
    fresh = model()
    fresh.load_weights(tmp_path / "m.keras")
    np.testing.assert_array_equal(fresh.get_weights()[0], m.get_weights()[0])


def test_paths_are_checked_and_files_replaced_whole(tmp_path):
    m = model()
    with pytest.raises(SerializationError, match="Please add either a `.keras` extension"):
        m.save(tmp_path / "m.ckpt")
    with pytest.raises(SerializationError, match="must end in `.weights.h5`"):
        m.save_weights(tmp_path / "m.ckpt")
    with pytest.raises(SerializationError, match="there is no folder"):
        m.save(tmp_path / "none" / "m.keras")
    m.save(tmp_path / "m.keras")
    with pytest.raises(SerializationError, match="exists; give overwrite=True"):
        m.save(tmp_path / "m.keras", overwrite=False)
    content = (tmp_path / "m.keras").read_bytes()

    class Broken(ks.Layer):
        def call(self, x):
            return x

        def get_config(self):
            return {"f": lambda: 0}

    with pytest.raises(SerializationError, match="cannot save a lambda"):
        ks.Sequential([ks.Input((3,)), Broken()]).save(tmp_path / "m.keras")
    assert (tmp_path / "m.keras").read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]
    with pytest.raises(ValueError, match="You are saving a model that has not yet been built"):
        ks.Sequential([ks.layers.Dense(2)]).save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(SerializationError, match="File format not supported"):
        m.load_weights(tmp_path / "m.ckpt")


def test_bfloat16_weights_survive(tmp_path):
    m = ks.Sequential([ks.Input((3,)), ks.layers.Dense(2, dtype="bfloat16")])
    m.save_weights(tmp_path / "w.weights.h5")
    want = m.get_weights()[0]
    assert want.dtype.name == "bfloat16"
    m.set_weights([w * 0 for w in m.get_weights()])
    m.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(m.get_weights()[0].astype("float32"), want.astype("float32"))
