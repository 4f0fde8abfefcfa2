"""ConvLSTM layers as one op against Keras, in both directions, with masks, strides and channels first."""

import keras
import numpy as np
import pytest

import kerasoft as ks


@pytest.mark.parametrize(
    "rank, config",
    [
        (2, {"padding": "same", "return_sequences": True}),
        (2, {"strides": 2, "go_backwards": True, "return_state": True}),
        (1, {"dilation_rate": 2, "return_sequences": True, "use_bias": False}),
        (3, {"padding": "same", "recurrent_activation": "hard_sigmoid"}),
    ],
)
def test_layer_is_keras(rank, config):
    x = np.random.default_rng(0).normal(size=(3, 4, *(6, 7, 5)[:rank], 2)).astype("float32")
    theirs = getattr(keras.layers, f"ConvLSTM{rank}D")(3, 3, bias_initializer="glorot_uniform", **config)
    want = theirs(x)
    ours = getattr(ks.layers, f"ConvLSTM{rank}D")(3, 3, **config)
    inputs = ks.Input(x.shape[1:])
    model = ks.Model(inputs, ours(inputs))
    ours.set_weights([np.asarray(w.value) for w in theirs.weights])
    found = model.predict(x, verbose=0)
    for mine, other in zip(*((v if isinstance(v, (list, tuple)) else [v]) for v in (found, want)), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_a_masked_step_is_as_if_it_were_not_there():
    """Keras with JAX refuses masks of ConvLSTM layers."""
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 6, 2)).astype("float32")
    for back in (False, True):
        layer = ks.layers.ConvLSTM2D(3, 3, return_sequences=True, go_backwards=back)
        found = np.asarray(layer(x, mask=np.array([[True, False, True, True]])))
        want = np.asarray(layer(x[:, [0, 2, 3]]))
        np.testing.assert_allclose(found[:, [0, 1, 3] if back else [0, 2, 3]], want, atol=1e-6)
        repeated = (2, 1) if back else (1, 0)
        np.testing.assert_array_equal(found[:, repeated[0]], found[:, repeated[1]])


def test_channels_first_is_channels_last_moved():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6, 2)).astype("float32")
    last = ks.layers.ConvLSTM2D(3, 3, return_sequences=True)
    first = ks.layers.ConvLSTM2D(3, 3, return_sequences=True, data_format="channels_first")
    want = np.asarray(last(x))
    moved = np.moveaxis(x, -1, 2)
    first.build(moved.shape)
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(np.moveaxis(np.asarray(first(moved)), 2, -1), want, atol=1e-6)


def test_training_is_keras():
    x = np.random.default_rng(0).normal(size=(6, 3, 5, 5, 1)).astype("float32")
    y = np.random.default_rng(1).normal(size=(6, 5, 5, 2)).astype("float32")
    theirs = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.ConvLSTM2D(2, 3, padding="same")])
    ours = ks.Sequential([ks.Input(x.shape[1:]), ks.layers.ConvLSTM2D(2, 3, padding="same")])
    ours.set_weights([np.asarray(w.value) for w in theirs.weights])
    for model, lib in ((theirs, keras), (ours, ks)):
        model.compile(lib.optimizers.SGD(0.5), "mse")
        model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
    for mine, other in zip(ours.get_weights(), (np.asarray(w.value) for w in theirs.weights), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)
