"""Activations with Keras' arguments, against Keras."""

import keras
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import activations
from kerasoft.compiler.ops.registry import input_node

X = np.linspace(-8, 8, 34, dtype=np.float32).reshape(2, 17)
EVEN = X[:, :16]


@pytest.mark.parametrize(
    "config",
    [
        {"negative_slope": 0.1},
        {"max_value": 3.0},
        {"max_value": 6.0},
        {"threshold": 1.5},
        {"negative_slope": 0.2, "max_value": 4.0, "threshold": 1.0},
        {"negative_slope": 0.2, "threshold": -1.0},
    ],
)
def test_relu_is_keras(config):
    want = keras.activations.relu(X, **config)
    np.testing.assert_allclose(activations.relu(X, **config), want, atol=1e-6)
    x = input_node("x", (symbol("b"), 17), "float32")
    node = activations.relu(x, **config)
    np.testing.assert_allclose(function(Graph((x,), (node,), ("y",)))(X)[0], want, atol=1e-6)


@pytest.mark.parametrize(
    "name, config",
    [
        ("threshold", {"threshold": 1.0, "default_value": -7.0}),
        ("soft_shrink", {"threshold": 0.7}),
        ("hard_shrink", {"threshold": 0.7}),
        ("tanh_shrink", {}),
        ("squareplus", {"b": 3}),
        ("sparse_plus", {}),
        ("sparse_sigmoid", {}),
        ("celu", {"alpha": 1.5}),
        ("glu", {"axis": -1}),
        ("sparsemax", {"axis": 0}),
        ("hard_sigmoid", {}),
        ("hard_silu", {}),
        ("hard_tanh", {}),
    ],
)
def test_others_are_keras(name, config):
    want = getattr(keras.activations, name)(EVEN, **config)
    np.testing.assert_allclose(getattr(activations, name)(EVEN, **config), want, atol=1e-5)


def test_large_inputs_stay_finite():
    far = np.array([-1e4, 1e4], np.float32)
    for name in ("sigmoid", "softplus", "log_sigmoid", "silu", "mish", "softmax", "log_softmax", "elu", "gelu", "selu"):
        assert np.isfinite(getattr(activations, name)(far)).all(), name
