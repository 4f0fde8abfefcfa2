"""Masks on their way through layers, against Keras functional models."""

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

from kerasoft import layers
from kerasoft.scope import Scope, get_mask

IDS = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [0, 5, 0, 6, 0], [1, 2, 3, 4, 5]], "int32")
pytestmark = pytest.mark.usefixtures("quick_initial_weights")
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def chain(L, *makers):
    """Embedding(mask_zero) and then one layer after another, as a function of x."""
    made = [L.Embedding(7, 4, mask_zero=True), *(make(L) for make in makers)]

    def run(x):
        for layer in made:
            x = layer(x)
        return x

    return run, made


CASES = {
    "lstm": [lambda L: L.LSTM(3)],
    "lstm backwards": [lambda L: L.LSTM(3, go_backwards=True, return_sequences=True)],
    "lstm of a lambda activation": [lambda L: L.LSTM(3, activation=L.ELU(0.5), return_state=True)],
    "gru of two": [lambda L: L.GRU(3, return_sequences=True), lambda L: L.GRU(2)],
    "simple rnn with zeros": [lambda L: L.RNN(L.SimpleRNNCell(3), return_sequences=True, zero_output_for_mask=True)],
    "simple rnn, last output": [lambda L: L.SimpleRNN(3, zero_output_for_mask=True)],
    "stacked cells": [lambda L: L.RNN([L.LSTMCell(3), L.LSTMCell(2)], return_sequences=True)],
    "bidirectional": [lambda L: L.Bidirectional(L.LSTM(3))],
    "bidirectional sequences": [lambda L: L.Bidirectional(L.LSTM(3, return_sequences=True), merge_mode="sum")],
    "time distributed": [lambda L: L.TimeDistributed(L.Dense(3)), lambda L: L.LSTM(2)],
    "dense, dropout, norms": [
        lambda L: L.Dense(3), lambda L: L.Dropout(0.5), lambda L: L.LayerNormalization(), lambda L: L.ReLU(), lambda L: L.GRU(2),
    ],
    "masking": [lambda L: L.Masking(0.5), lambda L: L.SimpleRNN(2)],
    "mean over valid steps": [lambda L: L.GlobalAveragePooling1D()],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_masked_chain_is_keras_chain(name):
    ours, made = chain(layers, *CASES[name])
    theirs, keras_made = chain(keras.layers, *CASES[name])
    x = keras.Input((5,), dtype="int32")
    model = keras.Model(x, theirs(x))
    node = input_node("x", (symbol("b"), 5), "int32")
    with Scope(training=False) as scope:
        ours(node)  # builds
        rng = np.random.default_rng(5)
        for layer, other in zip(made, keras_made, strict=True):
            weights = [rng.uniform(-1, 1, w.shape) for w in other.weights]
            layer.set_weights(weights)
            other.set_weights(weights)
        outputs = ours(node)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    graph = Graph((node,), outputs, tuple(map(str, range(len(outputs)))))
    values = [scope.params[n.attrs["name"]].numpy() for n in graph.params]
    got = jax.jit(function(graph)).lower(IDS, *values).compile(compiler_options=FAST)(IDS, *values)
    want = model(IDS)
    for a, b in zip(got, want if isinstance(want, (list, tuple)) else [want], strict=True):
        np.testing.assert_allclose(a, np.asarray(b), atol=1e-5)


@pytest.mark.parametrize(
    "make, masked",
    [
        (lambda L: L.Add(), 2), (lambda L: L.Add(), 1), (lambda L: L.Multiply(), 2), (lambda L: L.Maximum(), 2),
        (lambda L: L.Concatenate(), 2), (lambda L: L.Concatenate(axis=1), 2), (lambda L: L.Concatenate(axis=1), 1),
        (lambda L: L.Average(), 2), (lambda L: L.Dot(axes=1), 2),
    ],
)  # fmt: skip
def test_masks_of_merged_inputs(make, masked):
    rng = np.random.default_rng(1)
    xs = [(rng.integers(1, 9, (3, 4, 2)) * (rng.random((3, 4, 1)) < 0.6)).astype("float32") for _ in range(2)]
    symbolic = [keras.Input((4, 2)) for _ in xs]
    parts = [keras.layers.Masking()(x) if i < masked else x for i, x in enumerate(symbolic)]
    result = make(keras.layers)(parts)
    mask = getattr(result, "_keras_mask", None)
    want = keras.Model(symbolic, [result] if mask is None else [result, keras.ops.cast(mask, "float32")])(xs)
    nodes = [input_node(f"x{i}", x.shape, "float32") for i, x in enumerate(xs)]
    with Scope():
        parts = [layers.Masking()(x) if i < masked else x for i, x in enumerate(nodes)]
        result = make(layers)(parts)
        our_mask = get_mask(result)
    assert (our_mask is None) == (mask is None)
    outputs = (result,) if our_mask is None else (result, our_mask)
    got = (
        jax.jit(function(Graph(tuple(nodes), outputs, ("y", "m")[: len(outputs)])))
        .lower(*xs)
        .compile(compiler_options=FAST)(*xs)
    )
    for a, b in zip(got, want if isinstance(want, list) else [want], strict=True):
        np.testing.assert_allclose(np.asarray(a, "float32"), np.asarray(b), atol=1e-6)


def test_a_layer_that_cannot_take_a_mask_says_so_and_drops_it():
    node = input_node("x", (2, 5), "int32")
    with Scope(), pytest.warns(UserWarning, match="does not support masking and will therefore destroy the mask"):
        x = layers.Embedding(7, 4, mask_zero=True)(node)
        assert get_mask(x) is not None
        assert get_mask(layers.Flatten()(x)) is None


def test_masks_stay_on_arrays_between_eager_calls():
    found = []
    for L in (keras.layers, layers):
        x = L.Embedding(7, 4, mask_zero=True, embeddings_initializer="ones")(IDS)
        masks = [x._keras_mask]
        for layer in (
            L.Dropout(0.5),
            L.Dense(3, kernel_initializer="ones"),
            L.LayerNormalization(),
            L.Activation("relu"),
        ):
            x = layer(x)
            masks.append(x._keras_mask)
        found.append([np.asarray(m) for m in masks] + [np.asarray(L.GlobalAveragePooling1D()(x))])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
