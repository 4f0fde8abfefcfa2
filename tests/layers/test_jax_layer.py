"""JaxLayer: against Keras's, trained, with state, and errors."""

import jax.numpy as jnp
import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft import layers

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
PARAMS = {"w": np.ones((4, 2), "float32"), "b": [np.zeros(2, "float32")]}


def affine(params, inputs):
    return jnp.tanh(inputs @ params["w"] + params["b"][0])


def counted(params, state, inputs, training):
    new = {"calls": state["calls"] + (1.0 if training else 0.0)}
    return inputs * params["gain"], new


def test_it_is_keras_jax_layer():
    theirs, ours = (module.JaxLayer(affine, params=PARAMS) for module in (keras.layers, layers))
    np.testing.assert_allclose(ours(X), theirs(X), atol=1e-6)
    assert [(w.shape, w.trainable) for w in ours.weights] == [(w.shape, w.trainable) for w in theirs.weights]
    assert ours(ks.Input((4,))).shape == theirs(keras.Input((4,))).shape == (None, 2)


def test_it_is_trained():
    model = ks.Sequential([ks.Input((4,)), layers.JaxLayer(affine, params=PARAMS), layers.Dense(1)])
    model.compile(ks.optimizers.SGD(0.1), "mse")
    losses = model.fit(X, X[:, :1], epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert (model.layers[0].params["w"].numpy() != 1).any()


def test_init_fn_makes_the_parameters():
    def init(rng, inputs):
        return {"w": jnp.full((inputs.shape[-1], 3), 2.0)}

    layer = layers.JaxLayer(lambda params, inputs: inputs @ params["w"], init_fn=init)
    np.testing.assert_allclose(layer(X), X @ np.full((4, 3), 2.0), rtol=1e-5)


def test_state_moves_in_training():
    layer = layers.JaxLayer(counted, params={"gain": np.float32(2.0)}, state={"calls": np.float32(0.0)})
    np.testing.assert_allclose(layer(X, training=True), X * 2)
    layer(X)
    assert float(layer.state["calls"].numpy()) == 1.0
    assert [w.trainable for w in layer.weights] == [True, False]


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: layers.JaxLayer(affine), "`init_fn`, `params` and `state` cannot all be `None`."),
        (lambda: layers.JaxLayer(lambda params, x: x, params={}), "Missing required argument in `call_fn`: `inputs`"),
        (
            lambda: layers.JaxLayer(lambda params, inputs, y: y, params={}),
            r"Unsupported argument in `call_fn`: \['y'\]",
        ),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()
