"""Exported StableHLO files: the same outputs as the model, in a process that has neither Spark nor kerasoft."""

import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import SerializationError
from kerasoft.export.reader import ExportError

READER = textwrap.dedent(
    """
    import io, json, sys, zipfile
    import numpy as np
    from jax import export

    with zipfile.ZipFile(sys.argv[1]) as z:
        metadata = json.loads(z.read("metadata.json"))
        serve = metadata["endpoints"]["serve"]
        program = export.deserialize(bytearray(z.read("serve.stablehlo")))
        weights = [np.load(io.BytesIO(z.read(f"weights/{i}.npy"))) for i in serve["weights"]]
    data = np.load(sys.argv[2])
    outputs = program.call(weights, *[data[entry["name"]] for entry in serve["inputs"]])
    np.savez(sys.argv[3], *map(np.asarray, outputs))
    assert not [m for m in sys.modules if m.split(".")[0] in ("kerasoft", "pyspark", "keras")]
    """
)


def mixed():
    """Two inputs, words and numbers: embedding, masks, recurrence, convolution, normalisation, attention, two outputs."""
    words = ks.Input((6,), dtype="int32", name="words")
    image = ks.Input((8, 8, 2), name="image")
    x = ks.layers.Embedding(11, 4, mask_zero=True)(words)
    x = ks.layers.LSTM(4, return_sequences=True)(x)
    x = ks.layers.MultiHeadAttention(2, 3)(x, x)
    x = ks.layers.GlobalAveragePooling1D()(x)
    y = ks.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(image)
    y = ks.layers.BatchNormalization()(y)
    y = ks.layers.Flatten()(ks.layers.MaxPooling2D()(y))
    z = ks.layers.Concatenate()([x, ks.layers.Dropout(0.5)(y)])
    return ks.Model([words, image], {"a": ks.layers.Dense(3, activation="softmax")(z), "b": ks.ops.mean(z, axis=-1)})


def data(rows):
    rng = np.random.default_rng(rows)
    return {
        "words": rng.integers(0, 11, (rows, 6)).astype("int32"),
        "image": rng.normal(size=(rows, 8, 8, 2)).astype("float32"),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    ks.utils.set_random_seed(3)
    model = mixed()
    model.export(folder / "m.stablehlo", verbose=False)
    return model, folder / "m.stablehlo"


def test_any_number_of_rows_gives_the_models_outputs(exported):
    model, path = exported
    loaded = ks.export.load(path)
    for rows in (1, 5):
        x = data(rows)
        want = model.predict(x, verbose=0)
        got = loaded.predict([x["words"], x["image"]])
        assert list(got) == ["a", "b"]
        for key in want:
            np.testing.assert_allclose(got[key], want[key], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.predict(x, batch_size=2)["a"], got["a"], rtol=1e-6)
    assert loaded.inputs[0] == {"name": "words", "shape": [None, 6], "dtype": "int32"}
    assert [e["shape"] for e in loaded.outputs] == [[None, 3], [None]]


def test_a_process_with_only_jax_and_numpy_scores_it(exported, tmp_path):
    model, path = exported
    x = data(4)
    np.savez(tmp_path / "x.npz", **x)
    (tmp_path / "read.py").write_text(READER)
    command = [sys.executable, "read.py", str(path), "x.npz", "y.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    want = model.predict(x, verbose=0)
    with np.load(tmp_path / "y.npz") as got:
        np.testing.assert_allclose(got["arr_0"], want["a"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got["arr_1"], want["b"], rtol=1e-5, atol=1e-6)


def test_the_reader_needs_no_front_end():
    code = "import kerasoft.export.reader, sys; assert not {'jax', 'kerasoft.layers', 'pyspark'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_signature_fixes_sizes_and_functions_are_endpoints(tmp_path):
    model = ks.Sequential([ks.Input((4, 3)), ks.layers.Dense(2)])
    model.export(tmp_path / "m", verbose=False, input_signature=[ks.layers.InputSpec(shape=(2, 4, 3), dtype="float32")])
    loaded = ks.export.load(tmp_path / "m")
    x = np.ones((2, 4, 3), "float32")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)
    with pytest.raises(ExportError, match=r"is \(2, 4, 3\), got an array of shape \(3, 4, 3\)"):
        loaded(np.ones((3, 4, 3)))
    with pytest.raises(ExportError, match=r"no endpoint 'train'; the file has \['serve'\]"):
        loaded(x, endpoint="train")
    archive = ks.export.ExportArchive()
    spec = ks.layers.InputSpec(shape=(None, 2), dtype="float32")
    archive.add_endpoint("add", lambda a, b: [a + b, a - b], [spec, spec])
    with pytest.raises(SerializationError, match="'add' is already taken"):
        archive.add_endpoint("add", lambda a: a, [spec])
    archive.write_out(tmp_path / "f", verbose=False)
    total, difference = ks.export.load(tmp_path / "f")(np.ones((3, 2)), np.ones((3, 2)), endpoint="add")
    assert total.tolist() == [[2.0, 2.0]] * 3 and not difference.any()


def test_a_subclassed_and_a_bfloat16_model(tmp_path):
    class Twice(ks.Model):
        def __init__(self):
            super().__init__()
            self.dense = ks.layers.Dense(3, dtype="mixed_bfloat16", activation="tanh")
            self.last = ks.layers.Dense(2, dtype="bfloat16")

        def call(self, x):
            return self.last(self.dense(x))

    model = Twice()
    with pytest.raises(ValueError, match="not yet been built"):
        model.export(tmp_path / "t")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    want = np.asarray(model(x), "float32")
    model.export(tmp_path / "t", verbose=False)
    np.testing.assert_allclose(np.asarray(ks.export.load(tmp_path / "t").predict(x), "float32"), want, rtol=1e-2)


def test_errors_say_what_to_do(tmp_path, exported):
    model, path = exported
    with pytest.raises(SerializationError, match="format='tf_saved_model'.*format='stablehlo'.*format='onnx'"):
        model.export(tmp_path / "m", format="tf_saved_model")
    with pytest.raises(
        SerializationError, match=r"Unrecognized format=pb. Supported formats are: \['stablehlo', 'onnx'\]"
    ):
        model.export(tmp_path / "m", format="pb")
    with pytest.raises(SerializationError, match="No endpoints have been set"):
        ks.export.ExportArchive().write_out(tmp_path / "m")
    with pytest.raises(ExportError, match="there is no file"):
        ks.export.load(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"x")
    with pytest.raises(ExportError, match="is no exported model"):
        ks.export.load(tmp_path / "bad")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "new", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(ExportError, match="of version 9; this kerasoft reads up to 1"):
        ks.export.load(tmp_path / "new")
    with pytest.raises(ExportError, match="input 'image' is missing"):
        ks.export.load(path)({"words": data(1)["words"]})
