"""Recurrent ops against Keras layers, values and gradients, with masks and in both directions."""

import itertools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from kerasoft.compiler.errors import ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import arithmetic, recurrent, shape
from kerasoft.compiler.ops.registry import constant, input_node

BATCH, STEPS, FEATURES, UNITS = 3, 5, 2, 4
b, t = symbol("b"), symbol("t")
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)


def _layer(kind, back, **config):
    layer = getattr(keras.layers, kind)(
        UNITS, return_sequences=True, return_state=True, go_backwards=back, bias_initializer="glorot_uniform", **config
    )
    layer.build((BATCH, STEPS, FEATURES))
    return layer


@pytest.mark.parametrize(
    "kind, masked, back, config",
    [
        *(
            (kind, m, g, {})
            for kind, m, g in itertools.product(("LSTM", "GRU", "SimpleRNN"), (False, True), (False, True))
        ),
        ("GRU", True, False, {"reset_after": False}),
        ("LSTM", True, False, {"use_bias": False}),
        ("LSTM", True, False, {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
    ],
)
def test_layer_is_keras(kind, masked, back, config):
    keras.utils.set_random_seed(1)
    layer = _layer(kind, back, **config)
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)).astype(np.float32)
    mask = MASK if masked else None
    call = getattr(recurrent, {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn"}[kind])
    states = 2 if kind == "LSTM" else 1
    zeros = [np.zeros((BATCH, UNITS), np.float32)] * states
    attrs = {k: v for k, v in config.items() if k != "use_bias"}
    weights = [np.asarray(w.value) for w in layer.weights]

    ours = call(x, *zeros, *weights, mask=mask, go_backwards=back, **attrs)
    theirs = layer(x, mask=mask)
    for mine, keras_ in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, keras_, atol=1e-5)

    def loss(x, *values):
        out = layer.stateless_call(values, [v.value for v in layer.non_trainable_variables], x, mask=mask)[0]
        return sum(jnp.sum(jnp.sin(o + k)) for k, o in enumerate(out))

    x_node = input_node("x", (b, t, FEATURES), "float32")
    nodes = [input_node(f"w{k}", w.shape, "float32") for k, w in enumerate(weights)]
    start = [shape.zeros_like(shape.broadcast_to(x_node[:, 0, :1], shape=(b, UNITS)))] * states
    given = None if mask is None else constant(mask)
    if mask is not None:  # a known mask has a known batch
        x_node = input_node("x", (BATCH, STEPS, FEATURES), "float32")
        start = [constant(zeros[0])] * states
    made = call(x_node, *start, *nodes, mask=given, go_backwards=back, **attrs)
    total = sum((shape.sum(arithmetic.sin(o + float(k))) for k, o in enumerate(made)), constant(0.0))
    grads = gradient({total: shape.ones_like(total)}, [x_node, *nodes])
    graph = Graph((x_node, *nodes), tuple(grads), tuple(map(str, range(len(grads)))))
    want = jax.grad(loss, argnums=tuple(range(1 + len(weights))))(jnp.asarray(x), *weights)
    for mine, keras_ in zip(function(graph)(x, *weights), want, strict=True):
        np.testing.assert_allclose(mine, keras_, atol=3e-5)


def test_a_masked_step_repeats_state_and_output():
    rng = np.random.default_rng(0)
    h0, c0 = rng.normal(size=(2, BATCH, UNITS)).astype(np.float32)
    x = rng.normal(size=(BATCH, STEPS, FEATURES)).astype(np.float32)
    kernel, inner = (rng.normal(size=(n, 4 * UNITS)).astype(np.float32) for n in (FEATURES, UNITS))
    y, h, c = recurrent.lstm(x, h0, c0, kernel, inner, mask=MASK)
    np.testing.assert_array_equal(y[0, 2], y[0, 4])
    np.testing.assert_array_equal(y[1, 0], h0[1])
    np.testing.assert_array_equal(h[2], h0[2])
    np.testing.assert_array_equal(c[2], c0[2])
    np.testing.assert_array_equal(h, y[:, -1])


def test_padding_in_front_does_not_change_a_row():
    rng = np.random.default_rng(0)
    kernel, inner = (rng.normal(size=(n, 3 * UNITS)).astype(np.float32) for n in (FEATURES, UNITS))
    x = rng.normal(size=(1, 3, FEATURES)).astype(np.float32)
    h0 = np.zeros((1, UNITS), np.float32)
    wide = np.concatenate([np.full((1, 2, FEATURES), 9, np.float32), x], axis=1)
    short = recurrent.gru(x, h0, kernel, inner)[1]
    np.testing.assert_allclose(recurrent.gru(wide, h0, kernel, inner, mask=np.array([[0, 0, 1, 1, 1]], bool))[1], short)


def test_recurrent_dropout_masks_each_gate():
    """With the masks of all gates but one zero, only that gate's recurrent columns matter."""
    rng = np.random.default_rng(0)
    x = np.zeros((1, 2, FEATURES), np.float32)
    h0 = rng.normal(size=(1, UNITS)).astype(np.float32)
    kernel, inner = (rng.normal(size=(n, 3 * UNITS)).astype(np.float32) for n in (FEATURES, UNITS))
    only_z = np.zeros((3, 1, UNITS), np.float32)
    only_z[0] = 1
    columns = inner.copy()
    columns[:, UNITS:] = 0
    dropped = recurrent.gru(x, h0, kernel, inner, recurrent_dropout=only_z)[1]
    np.testing.assert_allclose(dropped, recurrent.gru(x, h0, kernel, columns)[1], atol=1e-6)


def test_errors_say_what_fits():
    x, h = input_node("x", (b, t, FEATURES), "float32"), input_node("h", (b, UNITS), "float32")
    wrong, inner = np.ones((3, 16), np.float32), np.ones((4, 16), np.float32)
    with pytest.raises(ShapeError, match=r"lstm of float32\[b, t, 2\]: a kernel \(2, 16\).*got float32\[3, 16\]"):
        recurrent.lstm(x, h, h, wrong, inner)
    with pytest.raises(ShapeError, match=r"lstm needs an input \(batch, steps, features\)"):
        recurrent.lstm(h, h, h, wrong, inner)
    with pytest.raises(ShapeError, match=r"unknown activation 'mine' of a recurrent op; use scan"):
        recurrent.simple_rnn(x, h, np.ones((2, 4), np.float32), np.ones((4, 4), np.float32), activation="mine")
