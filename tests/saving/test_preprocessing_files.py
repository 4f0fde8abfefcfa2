"""Vocabularies, bins and statistics in `.keras` files: where Keras keeps them, and back again."""

import json
import zipfile

import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import UnsafeFileError

L = ks.layers
TEXTS = np.array(["good film", "bad film", "good, good!", "awful bad"])
COLUMNS = [TEXTS, np.array(["x", "y", "z", "x"]), np.arange(8.0).reshape(4, 2), np.array([3, 5, 2**33, 3])]


@ks.saving.register_keras_serializable("tests")
def shout(texts):
    return np.char.upper(texts)


def model_of_raw_columns():
    words = L.TextVectorization(output_sequence_length=3, standardize=shout)
    words.adapt(TEXTS)
    names = L.StringLookup(output_mode="tf_idf")
    names.adapt(np.array([["x"], ["y"], ["x"]]))
    scale, bins = L.Normalization(), L.Discretization(num_bins=3, output_mode="multi_hot")
    scale.adapt(COLUMNS[2])
    bins.adapt(COLUMNS[2])
    text, name = ks.Input((), dtype="string"), ks.Input((1,), dtype="string")
    numbers, key = ks.Input((2,)), ks.Input((1,), dtype="int64")
    ids = L.IntegerLookup(vocabulary=[3, 5], output_mode="one_hot")(key)
    parts = [L.Flatten()(words(text)), names(name), scale(numbers), bins(numbers), ids]
    return ks.Model([text, name, numbers, key], L.Dense(2)(L.Concatenate()([L.Rescaling(1.0)(p) for p in parts])))


def test_a_model_of_raw_columns_is_read_back(tmp_path):
    model = model_of_raw_columns()
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        kept = {n: archive.read(n).decode() for n in archive.namelist() if n.startswith("assets/")}
        config = json.loads(archive.read("config.json"))
    words = "\n[UNK]\nGOOD\nFILM\nBAD\nGOOD,\nGOOD!\nAWFUL"
    assert sorted(kept) == [
        "assets/layers/string_lookup/vocabulary.txt",
        "assets/layers/text_vectorization/_lookup_layer/vocabulary.txt",
        "assets/layers/text_vectorization/vocabulary.txt",
    ]
    assert kept["assets/layers/text_vectorization/vocabulary.txt"].split("\n")[:2] == ["", "[UNK]"]
    assert sorted(kept["assets/layers/text_vectorization/vocabulary.txt"].split("\n")) == sorted(words.split("\n"))
    assert kept["assets/layers/string_lookup/vocabulary.txt"] == "[UNK]\nx\ny"
    settings = {layer["class_name"]: layer["config"] for layer in config["config"]["layers"]}
    assert settings["TextVectorization"]["vocabulary"] is None and settings["IntegerLookup"]["vocabulary"] == [3, 5]
    again = ks.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(COLUMNS, verbose=0), model.predict(COLUMNS, verbose=0))
    # and what it learns anew replaces what was read
    layer = next(layer for layer in again.layers if isinstance(layer, L.TextVectorization))
    layer.adapt(["one"])
    assert layer.get_vocabulary() == ["", "[UNK]", "ONE"]


def test_a_feature_space_is_read_back(tmp_path):
    space = ks.utils.FeatureSpace({"a": "float_normalized", "b": "string_categorical"}, crosses=[("b", "b")])
    data = {"a": [1.0, 2.0, 6.0], "b": ["x", "y", "x"]}
    space.adapt(data)
    space.save(tmp_path / "space.keras")
    again = ks.saving.load_model(tmp_path / "space.keras")
    np.testing.assert_array_equal(again(data), space(data))
    with zipfile.ZipFile(tmp_path / "space.keras") as archive:
        assert "assets/preprocessors/string_lookup/vocabulary.txt" in archive.namelist()
        assert json.loads(archive.read("config.json"))["module"] == "keras.utils"
    inputs, encoded = again.get_inputs(), again.get_encoded_features()
    np.testing.assert_allclose(ks.Model(inputs, encoded).predict(data, verbose=0), space(data))


def test_vocabulary_files(tmp_path):
    (tmp_path / "words.txt").write_text("b\na\n")
    layer = L.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    assert layer(["a", "b", "c"]).tolist() == [2, 1, 0] and layer.get_config()["vocabulary"] is None
    assert L.TextVectorization(vocabulary=str(tmp_path / "words.txt")).get_vocabulary() == ["", "[UNK]", "b", "a"]
    with pytest.raises(ValueError, match="Vocabulary file /nowhere/x.txt does not exist"):
        L.StringLookup(vocabulary="/nowhere/x.txt")
    config = {**layer.get_config(), "vocabulary": str(tmp_path / "words.txt")}
    with pytest.raises(UnsafeFileError, match="vocabulary file outside of the model archive"):
        ks.saving.deserialize_keras_object({"module": "keras.layers", "class_name": "StringLookup", "config": config})
