"""Files of every layer of the contract table, both ways: what Keras wrote is read here, what we wrote is read by Keras."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
import pytest

import kerasoft as ks
from tests.rows import Combined, group_id, groups, outputs, table

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
    pytest.mark.filterwarnings("ignore:No training configuration found"),
]


def plain(model):
    return one_axis(table().plain(model.get_config()))


def one_axis(config):
    """``axis=[1]`` is ``axis=1`` in a legacy file, as in Keras."""
    if isinstance(config, dict):
        single = (
            {"axis": config["axis"][0]} if isinstance(config.get("axis"), list) and len(config["axis"]) == 1 else {}
        )
        return {k: one_axis(v) for k, v in {**config, **single}.items()}
    return [one_axis(v) for v in config] if isinstance(config, list) else config


def same_weights(a, b):
    for one, other in zip(a.layers, b.layers, strict=True):
        if any("lora" in w.name for w in one.weights):
            continue  # files hold the product added to the kernel; the outputs are compared
        for got, want in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("rows", groups(), ids=group_id)
def test_files_of_every_layer_go_both_ways(rows, tmp_path):
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)
    theirs, ours = Combined(keras, rows).randomise(), Combined(ks, rows).randomise(seed=4)
    want = outputs(theirs.model, theirs.xs)

    theirs.model.save(tmp_path / "theirs.keras")
    read = ks.saving.load_model(tmp_path / "theirs.keras")
    theirs.compare(outputs(read, theirs.xs), want)

    ours.model.save(tmp_path / "ours.keras")
    there = keras.saving.load_model(tmp_path / "ours.keras")
    ours.compare(outputs(there, ours.xs), outputs(ours.model, ours.xs))
    same_weights(ks.saving.load_model(tmp_path / "ours.keras"), ours.model)

    theirs.model.save(tmp_path / "theirs.h5")
    legacy = ks.saving.load_model(tmp_path / "theirs.h5")
    same_weights(legacy, theirs.model)
    assert plain(legacy) == plain(read)
    ours.model.save(tmp_path / "ours.h5")
    same_weights(keras.saving.load_model(tmp_path / "ours.h5"), ours.model)

    theirs.model.save_weights(tmp_path / "theirs.weights.h5")
    ours.model.load_weights(tmp_path / "theirs.weights.h5")
    same_weights(ours.model, theirs.model)
    ours.randomise(seed=5).model.save_weights(tmp_path / "ours.weights.h5")
    theirs.model.load_weights(tmp_path / "ours.weights.h5")
    same_weights(theirs.model, ours.model)
