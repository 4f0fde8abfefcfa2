"""Lambda: shapes, masks, arguments, and what is read back from a config."""

import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft import layers

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")


@ks.saving.register_keras_serializable("lambda tests")
def doubled(x, mask=None, training=None):
    return x * (3.0 if training else 2.0) + (0.0 if mask is None else 1.0)


def test_the_function_gets_mask_training_and_arguments():
    layer = layers.Lambda(doubled)
    np.testing.assert_allclose(layer(X), X * 2)
    layer.supports_masking = True
    np.testing.assert_allclose(layer(X, training=True, mask=np.ones((2, 3), bool)), X * 3 + 1)
    np.testing.assert_allclose(layers.Lambda(lambda x, by: x + by, arguments={"by": 2.0})(X), X + 2)


def test_shapes():
    assert layers.Lambda(lambda x: x[:, 0])(ks.Input((3, 4))).shape == (None, 4)
    assert layers.Lambda(lambda x: x, output_shape=(7,))(ks.Input((3, 4))).shape == (None, 7)
    assert layers.Lambda(lambda x: x, output_shape=lambda s: (s[0], 5))(ks.Input((3, 4))).shape == (None, 5)


def test_a_named_function_is_read_back_by_name():
    layer = layers.Lambda(doubled, name="twice")
    again = layers.deserialize(layers.serialize(layer))
    assert again.function is doubled
    assert layers.Lambda.from_config(layer.get_config()).name == "twice"


def test_a_lambda_of_a_config_is_refused_in_safe_mode_and_run_outside():
    layer = layers.Lambda(lambda x, by=(1.0,): x * 2 + by[0], name="free")
    config = layer.get_config()
    assert config["function"]["class_name"] == "__lambda__"
    text = "Requested the deserialization of a `Lambda` layer whose `function` is a Python lambda."
    with pytest.raises(ValueError, match=text):
        layers.Lambda.from_config(config)
    with pytest.raises(ValueError, match=text):
        layers.deserialize(layers.serialize(layer))
    np.testing.assert_allclose(layers.Lambda.from_config(config, safe_mode=False)(X), X * 2 + 1)
    np.testing.assert_allclose(keras.layers.Lambda.from_config(config, safe_mode=False)(X), X * 2 + 1)


def test_a_mask_is_passed_on():
    masked = layers.Masking()(ks.Input((3, 4)))
    assert layers.Lambda(lambda x: x, mask=lambda x, mask: mask)(masked)._keras_mask is not None
