"""Training in 16 bits with weights in 32: dtypes, loss scaling and numbers as in Keras."""

from __future__ import annotations

import numpy as np
import pytest
from twins import CLASSES, X, assert_alike, fit, same_weights

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def trained(k, policy, optimizer="adam", **compiled):
    k.config.set_dtype_policy(policy)
    try:
        layers = [k.layers.Dense(5, activation="tanh"), k.layers.BatchNormalization(), k.layers.Dense(3)]
        model = k.Sequential([k.Input((4,)), *layers, k.layers.Softmax(dtype="float32")])
    finally:
        k.config.set_dtype_policy("float32")
    model.dtype_policy = policy
    loss = "sparse_categorical_crossentropy"
    same_weights(model).compile(optimizer(k) if callable(optimizer) else optimizer, loss, **compiled)
    history, *_, weights = fit(model, X, CLASSES, epochs=2)
    variables = model.optimizer.variables
    kinds = [
        [str(w.dtype) for w in model.weights],
        [layer.compute_dtype for layer in model.layers],
        [str(v.dtype) for v in variables],
        type(model.optimizer).__name__,
        model.get_compile_config()["optimizer"]["class_name"],
        str(model.predict(X, verbose=0).dtype),
    ]
    return kinds, history["loss"], weights, [np.asarray(v) for v in variables[:4]]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_as_keras(policy):
    (kinds, losses, weights, _), (wanted, *expected, _) = trained(ks, policy), trained(keras, policy)
    assert kinds == wanted
    np.testing.assert_allclose(losses, expected[0], rtol=5e-3)
    for a, b in zip(weights, expected[1], strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)


def test_the_scale_grows_and_can_be_left_out():
    def scaled(k):
        return k.optimizers.LossScaleOptimizer(k.optimizers.SGD(0.01), initial_scale=8.0, dynamic_growth_steps=2)

    ours, theirs = trained(ks, "mixed_float16", scaled), trained(keras, "mixed_float16", scaled)
    assert ours[0] == theirs[0]
    assert_alike([v for v in theirs[3] if v.ndim == 0], [v for v in ours[3] if v.ndim == 0])
    plain = trained(ks, "mixed_float16", auto_scale_loss=False)
    assert plain[0][3] == "Adam"
