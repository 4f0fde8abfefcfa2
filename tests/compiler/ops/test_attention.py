"""Attention against Keras' and against its own definition."""

import keras
import numpy as np
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import attention
from kerasoft.compiler.ops.registry import input_node

b, t = symbol("b"), symbol("t")
rng = np.random.default_rng(0)
Q, K, V = (rng.normal(size=(2, n, 3, 4)).astype(np.float32) for n in (5, 6, 6))


def test_plain_and_masked_are_keras():
    mask = rng.random((2, 1, 5, 6)) < 0.7
    bias = rng.normal(size=(1, 3, 5, 6)).astype(np.float32)
    for options in ({}, {"mask": mask}, {"bias": bias}, {"scale": 0.3}):
        want = keras.ops.dot_product_attention(Q, K, V, **options)
        np.testing.assert_allclose(attention.scaled_dot_product(Q, K, V, **options), want, atol=1e-5)


def test_causal_of_unknown_length_sees_no_later_position():
    x = input_node("x", (b, t, 3, 4), "float32")
    y = attention.scaled_dot_product(x, x, x, is_causal=True)
    assert str(y.type) == "float32[b, t, 3, 4]"
    run = function(Graph((x,), (y,), ("y",)))
    changed = Q.copy()
    changed[:, 3:] = 9
    np.testing.assert_allclose(run(Q)[0][:, :3], run(changed)[0][:, :3], atol=1e-6)
    np.testing.assert_allclose(run(Q)[0][:, 0], Q[:, 0], atol=1e-6)


def test_a_query_that_sees_nothing_gets_the_mean():
    y = attention.scaled_dot_product(Q, K, V, mask=np.zeros((2, 1, 5, 6), bool))
    np.testing.assert_allclose(y, np.broadcast_to(V.mean(1, keepdims=True), (2, 5, 3, 4)), atol=1e-5)
