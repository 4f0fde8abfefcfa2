"""LoRA: what is trained, what is saved, and errors."""

import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft import layers

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")


def with_lora(module):
    layer = module.Conv1D(3, 2)
    layer.build(X.shape)
    layer.enable_lora(2, lora_alpha=3)
    return layer


def test_a_convolution_with_lora_is_keras_convolution():
    theirs, ours = with_lora(keras.layers), with_lora(layers)
    assert [(w.name, w.shape, w.trainable) for w in ours.weights] == [
        (w.name, w.shape, w.trainable) for w in theirs.weights
    ]
    rng = np.random.default_rng(1)
    values = [rng.normal(size=w.shape) for w in ours.weights]
    theirs.set_weights(values)
    ours.set_weights(values)
    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-5, atol=1e-5)


def test_the_sum_is_saved_and_loading_starts_the_product_at_zero():
    layer = layers.Dense(3, lora_rank=2)
    layer.build((None, 4))
    layer.lora_kernel_b.assign(np.ones((2, 3), "float32"))
    expected = np.asarray(layer(X))
    store = {}
    layer.save_own_variables(store)
    assert list(store) == ["0", "1"]
    plain = layers.Dense(3)
    plain.build((None, 4))
    plain.load_own_variables(store)
    np.testing.assert_allclose(plain(X), expected, atol=1e-6)
    layer.load_own_variables(store)
    assert not layer.lora_kernel_a.numpy().any()
    np.testing.assert_allclose(layer(X), expected, atol=1e-6)


def test_fit_trains_the_product_and_leaves_the_kernel():
    model = ks.Sequential([ks.Input((4,)), layers.Dense(2, lora_rank=2)])
    model.compile("adam", "mse")
    kernel, thin = model.layers[0]._kernel.numpy().copy(), model.layers[0].lora_kernel_b.numpy().copy()
    model.fit(X[:, 0], np.ones((2, 2)), verbose=0)
    assert (model.layers[0]._kernel.numpy() == kernel).all()
    assert (model.layers[0].lora_kernel_b.numpy() != thin).any()


def built(**options):
    layer = layers.Dense(3, **options)
    layer.build((None, 4))
    return layer


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: layers.Dense(2).enable_lora(3), "Cannot enable lora on a layer that isn't yet built."),
        (lambda: built(lora_rank=2).enable_lora(3), "lora is already enabled. This can only be done once per layer."),
        (
            lambda: built(kernel_constraint="max_norm").enable_lora(3),
            "Lora is incompatible with kernel constraints. .* remove the `kernel_constraint` argument.",
        ),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()
