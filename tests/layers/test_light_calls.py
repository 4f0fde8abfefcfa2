"""Calling stays light: Python calls counted against Keras's, in one process. And quick shapes are traced shapes."""

import sys

import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft import layers
from kerasoft.layers.layer import Layer
from kerasoft.tensors import infer

X = np.ones((2, 4), "float32")


def calls(run):
    """How many Python functions are called."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture(scope="module")
def counted():
    found = {}
    for name, module in (("theirs", keras), ("ours", ks)):
        inputs = module.Input((4,))
        module.layers.Dense(3)(inputs)  # what happens once in a process
        layer = module.layers.Dense(3)
        first = calls(lambda layer=layer, inputs=inputs: layer(inputs))
        again = calls(lambda layer=layer, inputs=inputs: layer(inputs))
        layer(X)
        found[name] = {"first": first, "again": again, "eager": calls(lambda layer=layer: layer(X))}
    return found


@pytest.mark.parametrize("kind, times", [("again", 5), ("first", 5), ("eager", 1.3)])
def test_a_dense_call_needs_few_python_calls(counted, kind, times):
    assert counted["ours"][kind] * times <= counted["theirs"][kind], counted


QUICK = [
    (lambda: layers.Dense(3, activation="relu"), (None, 5, 4)),
    (lambda: layers.Dense(4, activation="glu"), (None, 4)),
    (lambda: layers.Dense(4, activation=lambda x: x[:, :2]), (None, 4)),
    (lambda: layers.Conv1D(3, 3, padding="causal", strides=2), (None, None, 4)),
    (lambda: layers.Conv2D(3, (3, 2), strides=2, data_format="channels_first"), (None, 4, 7, 6)),
    (lambda: layers.Conv3D(3, 2, dilation_rate=2, padding="same"), (None, 3, 4, 5, 2)),
    (lambda: layers.MaxPooling2D((3, 2), strides=2, padding="same"), (None, 7, None, 3)),
    (lambda: layers.AveragePooling1D(3, data_format="channels_first"), (None, 3, 8)),
    (lambda: layers.BatchNormalization(), (None, 3, 4)),
    (lambda: layers.LayerNormalization(), (None, 3, 4)),
    (lambda: layers.Dropout(0.5), (None, 3, 4)),
    (lambda: layers.AlphaDropout(0.5), (None, 3)),
    (lambda: layers.GaussianNoise(0.5), (None, 3)),
    (lambda: layers.PReLU(), (None, 3, 4)),
    (lambda: layers.Activation("gelu"), (None, 3)),
    (lambda: layers.Dense(3, dtype="mixed_bfloat16"), (None, 4)),
]


@pytest.mark.parametrize("number", range(len(QUICK)))
def test_a_quick_shape_is_the_traced_shape(number):
    make, shape = QUICK[number]
    layer, x = make(), ks.Input(batch_shape=shape)
    assert type(layer).quick_shape is not Layer.quick_shape
    quick, traced = layer(x), infer(layer._run, (x,), {})
    assert (quick.shape, quick.dtype) == (traced.shape, traced.dtype)


def test_a_window_that_does_not_fit_is_refused_at_once():
    with pytest.raises(ValueError, match="at least 9"):
        layers.Conv1D(2, 9)(ks.Input((4, 3)))


def test_a_users_own_call_is_traced():
    class Half(layers.Dense):
        def call(self, inputs):
            return super().call(inputs)[:, :2]

    assert Half(4)(ks.Input((3,))).shape == (None, 2)
