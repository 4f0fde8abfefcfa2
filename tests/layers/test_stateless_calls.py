"""stateless_call against Keras: under jax.jit and jax.grad, with states, losses and errors."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft import layers

X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


def model(module):
    return [
        module.BatchNormalization(momentum=0.5),
        module.LSTM(3, return_sequences=True, kernel_regularizer="l2"),
        module.MultiHeadAttention(2, 2),
    ]


@pytest.mark.parametrize("index", range(3))
def test_values_states_losses_and_gradients_are_keras(index):
    found = []
    for module in (keras.layers, layers):
        layer = model(module)[index]
        args = (X, X) if index == 2 else (X,)
        layer(*args)
        if found:
            layer.set_weights(found[0][-1])
        trainable = [jnp.asarray(v.value) for v in layer.trainable_variables]
        fixed = [jnp.asarray(v.value) for v in layer.non_trainable_variables]

        def loss(trainable, x, layer=layer, fixed=fixed, args=args):
            given = {"training": True} if index != 2 else {}
            outputs, state, losses = layer.stateless_call(
                trainable, fixed, *[x] * len(args), return_losses=True, **given
            )
            return jnp.sum(outputs**2) + sum(losses), [s for s in state if s.dtype == "float32"]

        (value, state), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(trainable, X)
        before = [np.array(v.value) for v in layer.weights]
        found.append((value, state, *grads, before))
    theirs, ours = found
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_whole_model_is_a_pure_function():
    net = ks.Sequential([ks.Input((4,)), layers.Dense(3, activation="tanh"), layers.BatchNormalization(momentum=0.5)])
    trainable = [v.numpy() for v in net.trainable_variables]
    fixed = [v.numpy() for v in net.non_trainable_variables]
    outputs, state = jax.jit(lambda t, f, x: net.stateless_call(t, f, x, training=True))(trainable, fixed, X[:, 0])
    assert outputs.shape == (3, 3)
    assert (net.non_trainable_variables[0].numpy() == 0).all() and (np.asarray(state[0]) != 0).any()


def test_errors():
    layer = layers.Dense(2)
    with pytest.raises(ValueError, match="To call stateless_call, Dense must be built"):
        layer.stateless_call([], [], X)
    layer.build((None, 4))
    with pytest.raises(ValueError, match="Received list with length 1, but expected 2 variables"):
        layer.stateless_call([1.0], [], X)


def test_the_rarer_members():
    class Counted(layers.Layer):
        def build(self, input_shape):
            self.gain = self.add_variable((), "ones", trainable=False, name="gain")

        def call(self, x, factor=1.0):
            return x * self.gain * factor

    layer = Counted()
    assert layer.symbolic_call(ks.Input((3,))).shape == (None, 3)
    assert [w.path for w in layer.weights] == ["counted/gain"] and layer.trainable_weights == []
    assert layer.call_signature_parameters == ["x", "factor"]
    assert layer.rematerialized_call(layer.call) == layer.call
    assert layer.metrics == layer.metrics_variables == []
    with pytest.raises(NotImplementedError, match="`add_metric\\(\\)` method is deprecated"):
        layer.add_metric(1.0)
